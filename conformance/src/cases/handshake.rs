//! The way into a room: query, handshake, and what it must not do before it is through (rules H4, H6, H11).

use super::{Needs, cases};
use crate::frame::{ClientFrame, opcode};
use crate::http::{OTHER_KEY, Request};
use crate::room::{Room, key};
use crate::stage::Stage;

cases! {
    "handshake::query" ["H4"] Needs::Nothing, query;
    "handshake::plain_get_changes_nothing" ["H6" "A6"] Needs::Nothing, plain_get_changes_nothing;
    "handshake::plain_get_opens_nothing" ["H6"] Needs::Nothing, plain_get_opens_nothing;
    "handshake::not_an_upgrade" ["H6"] Needs::Nothing, not_an_upgrade;
    "handshake::wrong_version" ["H6"] Needs::Nothing, wrong_version;
    "handshake::bad_key" ["H6"] Needs::Nothing, bad_key;
    "handshake::accepted_forms" ["H4" "H11"] Needs::Nothing, accepted_forms;
    "handshake::offers_are_declined" ["H11"] Needs::Nothing, offers_are_declined;
    "handshake::bytes_ahead_of_the_101" ["H4" "M1"] Needs::Nothing, bytes_ahead_of_the_101;
}

fn query(stage: &Stage<'_>) {
    let room = stage.room("Zimmer + Küche & Bad = 100 %");
    let (token, pubkey) = (room.token("host", "host"), room.pubkey());
    // Spaces as `+`, other names ignored, the first of several values, an encoded name.
    let id: String = room.id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let plus = id.replace("%20", "+");
    let mut host = stage.join(
        "host",
        &format!("/ws?x=%ff&room={plus}&room=other&toke%6E={token}&&token=x&pubkey={pubkey}&y"),
    );
    let mut guest = stage.guest(&room, "guest");
    let empty_pubkey = format!("{}&pubkey=", room.guest_target("guest 2"));
    let mut guest_2 = stage.join("guest 2", &empty_pubkey);
    let absolute = format!("http://relay.example:1{}", room.guest_target("guest 3"));
    let mut guest_3 = stage.join("guest 3", &absolute);
    stage.fence(&mut host, &mut [&mut guest, &mut guest_2, &mut guest_3]);

    for target in ["/ws?room=%ff&token=t", "/ws?room=r&token=%C3%28", "/ws?room=r&token=t&pubkey=%80"] {
        stage.refused(target, target, 400, "bad request");
    }
}

/// The first server let such a request take over a room.
fn plain_get_changes_nothing(stage: &Stage<'_>) {
    let room = stage.room("plain get");
    let mut host = stage.host(&room, "host");
    let stranger = Room { key: key("stranger"), ..room.clone() };
    let plain = |target: &str| Request::get(target);
    stage.refused_request("a stranger", &plain(&stranger.host_target("x")), 403, "room key mismatch");
    stage.refused_request("a host", &plain(&room.host_target("host")), 426, "upgrade required");
    stage.refused_request("a guest", &plain(&room.guest_target("guest")), 426, "upgrade required");

    // The room's key is the one that it was, and nobody has come or gone.
    let token = stranger.token("x", "guest");
    stage.refused(
        "a guest of the stranger",
        &room.guest_target_with(&token),
        401,
        "invalid token: invalid signature",
    );
    let mut guest = stage.guest(&room, "guest");
    stage.fence(&mut guest, &mut [&mut host]);
    stage.fence(&mut host, &mut [&mut guest]);
}

fn plain_get_opens_nothing(stage: &Stage<'_>) {
    let room = stage.room("not opened");
    stage.refused_request("a host", &Request::get(&room.host_target("host")), 426, "upgrade required");
    stage.refused("a guest", &room.guest_target("guest"), 404, "room not found");
    // Nor was it bound to the key of that request.
    let other = Room { key: key("other"), ..room };
    let _host = stage.host(&other, "host");
}

fn not_an_upgrade(stage: &Stage<'_>) {
    let room = stage.room("no upgrade");
    let _host = stage.host(&room, "host");
    let upgrade = || Request::upgrade(&room.guest_target("guest"));
    for (what, request) in [
        ("no Upgrade", upgrade().without("Upgrade")),
        ("Upgrade: h2c", upgrade().set("Upgrade", "h2c")),
        ("no Connection", upgrade().without("Connection")),
        ("Connection: close", upgrade().set("Connection", "close")),
    ] {
        let answer = stage.refused_request(what, &request, 426, "upgrade required");
        assert_eq!(answer.field("Upgrade"), Some("websocket"));
    }
    // RFC 9110 section 7.8: HTTP/1.0 has no upgrade.
    let text = String::from_utf8(upgrade().encode()).expect("it is ASCII").replace("HTTP/1.1", "HTTP/1.0");
    let answer = stage.dial("old client").ask_raw(&text);
    assert_eq!((answer.status, answer.field("Upgrade")), (426, Some("websocket")));
}

fn wrong_version(stage: &Stage<'_>) {
    let room = stage.room("version");
    let _host = stage.host(&room, "host");
    let upgrade = || Request::upgrade(&room.guest_target("guest"));
    for (what, request) in [
        ("version 8", upgrade().set("Sec-WebSocket-Version", "8")),
        ("version 14", upgrade().set("Sec-WebSocket-Version", "14")),
        ("no version", upgrade().without("Sec-WebSocket-Version")),
        // What is wrong later does not matter yet.
        ("version 8, no key", upgrade().set("Sec-WebSocket-Version", "8").without("Sec-WebSocket-Key")),
    ] {
        let answer = stage.refused_request(what, &request, 426, "upgrade required");
        assert_eq!(answer.field("Sec-WebSocket-Version"), Some("13"), "{what}");
    }
}

fn bad_key(stage: &Stage<'_>) {
    let room = stage.room("handshake key");
    let mut host = stage.host(&room, "host");
    let upgrade = || Request::upgrade(&room.guest_target("guest"));
    for (what, request) in [
        ("none", upgrade().without("Sec-WebSocket-Key")),
        ("empty", upgrade().set("Sec-WebSocket-Key", "")),
        ("two", upgrade().with("Sec-WebSocket-Key", OTHER_KEY.0)),
        ("15 bytes", upgrade().set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j")),
        ("17 bytes", upgrade().set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWU=")),
        ("no base64", upgrade().set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ!==")),
    ] {
        stage.refused_request(what, &request, 400, "bad websocket handshake");
    }
    let mut guest = stage.guest(&room, "guest");
    stage.fence(&mut guest, &mut [&mut host]);
}

fn accepted_forms(stage: &Stage<'_>) {
    let room = stage.room("forms");
    let mut host = stage.host(&room, "host");
    let request = Request::get(&room.guest_target("guest"))
        .with("connection", "keep-alive, x")
        .with("CONNECTION", "uPGRADE")
        .with("upgrade", "h2c, WEBSOCKET")
        .with("Sec-WebSocket-Key", OTHER_KEY.0)
        .with("sec-websocket-version", "13")
        .with("Origin", "https://anywhere.example");
    let mut guest = stage.dial("guest");
    guest.bytes(&request.encode());
    guest.upgraded(&request);
    stage.fence(&mut guest, &mut [&mut host]);
}

fn offers_are_declined(stage: &Stage<'_>) {
    let room = stage.room("offers");
    let request = Request::upgrade(&room.host_target("host"))
        .with("Sec-WebSocket-Protocol", "chat, superchat")
        .with("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits");
    let mut host = stage.dial("host");
    host.bytes(&request.encode());
    host.upgraded(&request);
}

/// A client need not wait for the 101 before it speaks.
fn bytes_ahead_of_the_101(stage: &Stage<'_>) {
    let room = stage.room("ahead");
    let mut host = stage.host(&room, "host");
    let request = Request::upgrade(&room.guest_target("guest"));
    let first = ClientFrame::new(opcode::TEXT, r#"{"n":1}"#).encode();
    let second = ClientFrame::new(opcode::BINARY, r#"{"n":2}"#).encode();
    let mut guest = stage.dial("guest");
    let (now, later) = second.split_at(3);
    guest.bytes(&[&request.encode(), &first, now].concat());
    guest.upgraded(&request);
    guest.bytes(later);
    host.expect(r#"{"n":1}"#);
    host.expect(r#"{"n":2}"#);
}
