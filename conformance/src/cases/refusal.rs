//! The table of refusals: each row, in order, in both forms (rules H5, H8, H10, A9).

use super::{Needs, cases};
use crate::http::Request;
use crate::room::{Room, key, sign, target};
use crate::stage::Stage;

cases! {
    "refusal::order" ["H5"] Needs::Nothing, order;
    "refusal::order_when_full" ["H5" "H8" "R4"] Needs::Settings(FULL), order_when_full;
    "refusal::missing_parameter" ["H5"] Needs::Nothing, missing_parameter;
    "refusal::early_guest" ["H5" "H8"] Needs::Nothing, early_guest;
    "refusal::json" ["H10"] Needs::Nothing, json;
    "refusal::json_when_full" ["H10" "H8"] Needs::Settings(FULL), json_when_full;
    "refusal::form_of_choice" ["H10"] Needs::Nothing, form_of_choice;
    "refusal::no_token_in_answers" ["A9"] Needs::Nothing, no_token_in_answers;
}

const FULL: &[(&str, &str)] = &[("RELAY_MAX_ROOMS", "1"), ("RELAY_MAX_CLIENTS_PER_ROOM", "2")];

/// Each request is wrong in one way and in every later way that can be combined with it, the handshake
/// included: all but the last are plain.
fn order(stage: &Stage<'_>) {
    let room = stage.room("order");
    let mut host = stage.host(&room, "host");
    let nobody = stage.room("nobody's");
    let stranger = Room { key: key("stranger"), ..room.clone() };
    let elsewhere = sign(&stranger.key, crate::room::HEADER, &nobody.claims("x", "guest").to_string());

    let parameters = |room: &str, token: &str, pubkey: &str| {
        Request::get(&target(&[("room", room), ("token", token), ("pubkey", pubkey)]))
    };
    for (what, request, status, text) in [
        ("nothing given", Request::get("/ws"), 400, "missing room or token"),
        ("no token", parameters("\n", "", "!"), 400, "missing room or token"),
        ("a control character", parameters("\n", "x", "!"), 400, "invalid room"),
        ("no key", parameters(&nobody.id, "x", "!"), 400, "invalid pubkey"),
        ("no room", parameters(&nobody.id, "x", ""), 404, "room not found"),
        ("no JWT", parameters(&room.id, "x", &stranger.pubkey()), 401, "invalid token: malformed JWT"),
        ("for another room", parameters(&room.id, &elsewhere, &stranger.pubkey()), 403, "room mismatch"),
        (
            "a guest with a key",
            Request::get(&stranger.host_target_with(&stranger.token("x", "guest"))),
            403,
            "role mismatch",
        ),
        ("another key", Request::get(&stranger.host_target("x")), 403, "room key mismatch"),
        ("no handshake", Request::get(&room.host_target("x")), 426, "upgrade required"),
    ] {
        stage.refused_request(what, &request, status, text);
    }
    // None of it was noticed in the room.
    let mut guest = stage.guest(&room, "guest");
    stage.fence(&mut guest, &mut [&mut host]);
}

fn order_when_full(stage: &Stage<'_>) {
    let room = stage.room("full");
    let _host = stage.host(&room, "host");
    let _guest = stage.guest(&room, "guest");
    let stranger = Room { key: key("stranger"), ..room.clone() };
    stage.refused("another key", &stranger.host_target("x"), 403, "room key mismatch");

    let one_too_many = room.guest_target("x");
    for request in [Request::upgrade(&one_too_many), Request::get(&one_too_many)] {
        let answer = stage.refused_request("a third member", &request, 503, "room full");
        assert_whole_seconds(answer.field("Retry-After"));
    }
    let second_room = stage.room("second").host_target("x");
    for request in [Request::upgrade(&second_room), Request::get(&second_room)] {
        let answer = stage.refused_request("a second room", &request, 503, "max rooms reached");
        assert_whole_seconds(answer.field("Retry-After"));
    }
}

fn missing_parameter(stage: &Stage<'_>) {
    for target in [
        "/ws",
        "/ws?",
        "/ws?room=r",
        "/ws?token=t",
        "/ws?room=&token=t",
        "/ws?room=r&token=",
        "/ws?room&token=t",
        "/ws?ROOM=r&TOKEN=t",
        "/ws?room=&room=r&token=t",
        "/ws;room=r&token=t?room=r",
    ] {
        if target.starts_with("/ws;") {
            stage.refused(target, target, 404, "404 page not found");
        } else {
            stage.refused(target, target, 400, "missing room or token");
        }
    }
}

fn early_guest(stage: &Stage<'_>) {
    let room = stage.room("early");
    let answer = stage.refused("before the host", &room.guest_target("guest"), 404, "room not found");
    assert_whole_seconds(answer.field("Retry-After"));
    stage.record("the answer", &answer);
    // A path that is not there will not be there later.
    assert_eq!(stage.ask(&Request::get("/nothing")).field("Retry-After"), None);
    let _host = stage.host(&room, "host");
    let _guest = stage.guest(&room, "guest");
}

fn json(stage: &Stage<'_>) {
    let room = stage.room("json");
    let _host = stage.host(&room, "host");
    let nobody = stage.room("nobody's");
    let stranger = Room { key: key("stranger"), ..room.clone() };
    let bad_key = |request: Request| request.set("Sec-WebSocket-Key", "short");
    for (request, code, text) in [
        (Request::upgrade("/ws"), "missing_parameter", "missing room or token"),
        (Request::upgrade("/ws?room=%00&token=t"), "invalid_room", "invalid room"),
        (Request::upgrade("/ws?room=r&token=t&pubkey=k"), "invalid_pubkey", "invalid pubkey"),
        (Request::upgrade(&nobody.guest_target("x")), "room_not_found", "room not found"),
        (Request::upgrade(&room.guest_target_with("x")), "invalid_token", "invalid token: malformed JWT"),
        (
            Request::upgrade(&room.guest_target_with(&nobody_at(&room, &nobody))),
            "room_mismatch",
            "room mismatch",
        ),
        (
            Request::upgrade(&room.host_target_with(&room.token("x", "guest"))),
            "role_mismatch",
            "role mismatch",
        ),
        (Request::upgrade(&stranger.host_target("x")), "room_key_mismatch", "room key mismatch"),
        (Request::get(&room.guest_target("x")), "upgrade_required", "upgrade required"),
        (bad_key(Request::upgrade(&room.guest_target("x"))), "bad_handshake", "bad websocket handshake"),
        (Request::upgrade("/ws?room=%ff&token=t"), "bad_request", "bad request"),
        (Request::get("/health").with("Content-Length", "1"), "bad_request", "bad request"),
        (Request::get("/nothing"), "not_found", "404 page not found"),
        (Request::new("PATCH", "/health"), "method_not_allowed", "method not allowed"),
    ] {
        refused_in_json(stage, &request, code, text);
    }
}

/// A token that is good for one room and signed by the host of another.
fn nobody_at(signer: &Room, room: &Room) -> String {
    signer.sign(&room.claims("x", "guest"))
}

fn json_when_full(stage: &Stage<'_>) {
    let room = stage.room("full json");
    let _host = stage.host(&room, "host");
    let _guest = stage.guest(&room, "guest");
    refused_in_json(stage, &Request::upgrade(&room.guest_target("x")), "room_full", "room full");
    let second = stage.room("second json").host_target("x");
    refused_in_json(stage, &Request::upgrade(&second), "max_rooms", "max rooms reached");
}

fn form_of_choice(stage: &Stage<'_>) {
    for (accept, media_type) in [
        ("application/json", "application/json"),
        ("text/html, application/json;q=0.9, */*;q=0.1", "application/json"),
        ("Application/JSON", "application/json"),
        ("*/*", "text/plain; charset=utf-8"),
        ("text/html", "text/plain; charset=utf-8"),
        ("application/jsonx", "text/plain; charset=utf-8"),
    ] {
        let answer = stage.ask(&Request::upgrade("/ws").with("Accept", accept));
        assert_eq!(answer.field("Content-Type"), Some(media_type), "{accept}");
        stage.transcript.note(format!("Accept: {accept}: {media_type}"));
    }
    // What is no refusal keeps its form.
    let page = stage.ask(&Request::get("/").with("Accept", "application/json"));
    assert_eq!((page.status, page.field("Content-Type")), (200, Some("text/html; charset=utf-8")));
}

fn no_token_in_answers(stage: &Stage<'_>) {
    let room = stage.room("secret");
    let _host = stage.host(&room, "host");
    let stranger = Room { key: key("stranger"), ..room.clone() };
    let mut late = room.claims("secret-peer", "guest");
    late["exp"] = 1.into();
    for (token, status) in
        [(room.sign(&late), 401), (stranger.token("secret-peer", "guest"), 401), ("secret-token".into(), 401)]
    {
        for accept in ["*/*", "application/json"] {
            let request = Request::upgrade(&room.guest_target_with(&token)).with("Accept", accept);
            let answer = stage.ask(&request);
            assert_eq!(answer.status, status);
            stage.transcript.note(answer.body.trim_end());
            let said = format!("{:?}{}", answer.fields, answer.body);
            for part in token.split('.').chain(["secret-peer"]) {
                assert!(!said.contains(part), "the answer repeats the token: {said}");
            }
        }
    }
}

#[track_caller]
fn refused_in_json(stage: &Stage<'_>, request: &Request, code: &str, text: &str) {
    let answer = stage.ask(&request.clone().with("Accept", "application/json"));
    assert_eq!(answer.body, format!(r#"{{"error":"{code}","message":"{text}"}}"#));
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    if answer.status == 503 || code == "room_not_found" {
        assert_whole_seconds(answer.field("Retry-After"));
    }
    stage.transcript.note(format!("{} {}", answer.status, answer.body));
}

/// Rule H8.
#[track_caller]
pub(super) fn assert_whole_seconds(retry_after: Option<&str>) {
    let seconds: Option<u64> = retry_after.and_then(|value| value.parse().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "Retry-After: {retry_after:?}");
}
