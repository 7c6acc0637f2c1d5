//! Rooms: life, members, caps, and who is told when somebody leaves (rules R1 to R4, R6, R8).

use super::{Needs, cases};
use crate::frame::ClientFrame;
use crate::http::Request;
use crate::peer::{Peer, Seen};
use crate::room::Room;
use crate::stage::Stage;

cases! {
    "room::lives_until_the_last_leaves" ["R1" "R3"] Needs::Nothing, lives_until_the_last_leaves;
    "room::everybody_else_gets_it" ["R2"] Needs::Nothing, everybody_else_gets_it;
    "room::two_with_one_peer_id" ["R2" "R7"] Needs::Nothing, two_with_one_peer_id;
    "room::max_rooms" ["R4" "C1"] Needs::Settings(&[("RELAY_MAX_ROOMS", "2")]), max_rooms;
    "room::max_clients" ["R4" "C1"] Needs::Settings(&[("RELAY_MAX_CLIENTS_PER_ROOM", "3")]), max_clients;
    "room::fifty_guests_at_once" ["R4"] Needs::Settings(&[("RELAY_MAX_CLIENTS_PER_ROOM", "20")]), fifty_guests_at_once;
    "room::fifty_rooms_at_once" ["R4"] Needs::Settings(&[("RELAY_MAX_ROOMS", "20")]), fifty_rooms_at_once;
    "room::public_key_and_cap" ["R4" "A7"] Needs::Settings(&[("RELAY_MAX_CLIENTS_PER_ROOM", "2")]), public_key_and_cap;
    "room::leave_notice" ["R6"] Needs::Nothing, leave_notice;
    "room::leave_notice_is_escaped" ["R6"] Needs::Nothing, leave_notice_is_escaped;
    "room::peer_id_from_first_message" ["R8"] Needs::Nothing, peer_id_from_first_message;
    "room::peer_id_not_learned" ["R8"] Needs::Nothing, peer_id_not_learned;
    "room::peer_id_of_another" ["R8"] Needs::Nothing, peer_id_of_another;
    "room::peer_id_taken_back" ["R8" "R7"] Needs::Nothing, peer_id_taken_back;
}

fn lives_until_the_last_leaves(stage: &Stage<'_>) {
    let room = stage.room("life");
    let host = stage.host(&room, "host");
    let mut first = stage.guest(&room, "first guest");
    host.leave();
    first.expect_leave("host");
    // The room and its key stay.
    let mut second = stage.guest(&room, "second guest");
    stage.fence(&mut second, &mut [&mut first]);
    first.leave();
    second.expect_leave("first guest");
    second.leave();
    stage.refused("a guest of an ended room", &room.guest_target("third guest"), 404, "room not found");
    let _host = stage.host(&room, "host");
}

fn everybody_else_gets_it(stage: &Stage<'_>) {
    let room = stage.room("fan-out");
    let mut host = stage.host(&room, "host");
    let mut first = stage.guest(&room, "first guest");
    let mut second = stage.guest(&room, "second guest");
    let other_room = stage.room("other");
    let mut other_host = stage.host(&other_room, "other host");
    let mut other_guest = stage.guest(&other_room, "other guest");

    host.send("from the host");
    first.expect("from the host");
    second.expect("from the host");
    first.send("from the first");
    host.expect("from the first");
    second.expect("from the first");
    // Not to its sender, nor to another room.
    stage.fence(&mut second, &mut [&mut host, &mut first]);
    stage.fence(&mut host, &mut [&mut first, &mut second]);
    stage.fence(&mut other_host, &mut [&mut other_guest]);
    stage.fence(&mut other_guest, &mut [&mut other_host]);
}

fn two_with_one_peer_id(stage: &Stage<'_>) {
    let room = stage.room("twins");
    let mut host = stage.host(&room, "host");
    let mut one = stage.join("one twin", &room.guest_target("twin"));
    let mut two = stage.join("other twin", &room.guest_target("twin"));
    one.send("from one");
    two.expect("from one");
    host.expect("from one");
    stage.fence(&mut two, &mut [&mut host, &mut one]);
    one.leave();
    stage.fence(&mut two, &mut [&mut host]);
    two.leave();
    host.expect_leave("twin");
}

fn max_rooms(stage: &Stage<'_>) {
    let [a, b, c] = ["a", "b", "c"].map(|label| stage.room(label));
    let mut host_a = stage.host(&a, "host a");
    let host_b = stage.host(&b, "host b");
    stage.refused("a third room", &c.host_target("host c"), 503, "max rooms reached");
    // Joining is no opening.
    let mut guest_a = stage.guest(&a, "guest a");
    let mut second_host_a = stage.host(&a, "second host a");
    stage.fence(&mut host_a, &mut [&mut guest_a, &mut second_host_a]);
    host_b.leave();
    let _host_c = stage.host(&c, "host c");
    stage.refused("a third room", &b.host_target("host b"), 503, "max rooms reached");
}

fn max_clients(stage: &Stage<'_>) {
    let room = stage.room("crowd");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    let second_host = stage.host(&room, "second host");
    stage.refused("a fourth, a guest", &room.guest_target("x"), 503, "room full");
    stage.refused("a fourth, a host", &room.host_target("host"), 503, "room full");
    second_host.leave();
    host.expect_leave("second host");
    guest.expect_leave("second host");
    let mut third = stage.guest(&room, "third");
    stage.refused("a fourth, a guest", &room.guest_target("x"), 503, "room full");
    stage.fence(&mut third, &mut [&mut host, &mut guest]);
    // Another room has places of its own.
    let _other = stage.host(&stage.room("empty"), "other host");
}

/// The first server looked, and then let in: both at once let in too many.
fn fifty_guests_at_once(stage: &Stage<'_>) {
    let room = stage.room("rush");
    let mut host = stage.host(&room, "host");
    let targets: Vec<_> = (0..50).map(|guest| room.guest_target(&format!("guest {guest}"))).collect();
    let mut guests = rush(stage, &targets, "room full");
    assert_eq!(guests.len(), 19, "the host has one of the 20 places");
    stage.transcript.note(format!("of 50 guests, {} were let in", guests.len()));
    stage.fence(&mut host, &mut guests.iter_mut().collect::<Vec<_>>());
}

fn fifty_rooms_at_once(stage: &Stage<'_>) {
    let targets: Vec<_> = (0..50).map(|n| stage.room(&format!("rush {n}")).host_target("host")).collect();
    let hosts = rush(stage, &targets, "max rooms reached");
    assert_eq!(hosts.len(), 20);
    stage.transcript.note(format!("of 50 rooms, {} were opened", hosts.len()));
}

/// Sends all requests before it reads the first answer; gives back who was let in.
fn rush<'h>(stage: &Stage<'h>, targets: &[String], refusal: &str) -> Vec<Peer<'h>> {
    stage.transcript.unrecorded(|| {
        let waiting: Vec<_> = targets
            .iter()
            .map(|target| {
                let request = Request::upgrade(target);
                let mut peer = stage.dial("one of many");
                peer.bytes(&request.encode());
                (peer, request)
            })
            .collect();
        let admitted =
            waiting.into_iter().filter_map(|(mut peer, request)| match peer.upgraded_or_refused(&request) {
                None => Some(peer),
                Some(answer) => {
                    assert_eq!((answer.status, answer.body.trim_end()), (503, refusal));
                    None
                }
            });
        admitted.collect()
    })
}

/// On the first server, a public key lifted the cap.
fn public_key_and_cap(stage: &Stage<'_>) {
    let room = stage.room("cap");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    let with_key = room.host_target_with(&room.token("x", "guest"));
    stage.refused("a guest with the key", &with_key, 403, "role mismatch");
    let own = Room { key: crate::room::key("own"), ..room.clone() };
    stage.refused("a guest with its own key", &own.host_target("x"), 403, "room key mismatch");
    stage.fence(&mut host, &mut [&mut guest]);
}

fn leave_notice(stage: &Stage<'_>) {
    let room = stage.room("leave");
    let mut host = stage.host(&room, "host");
    let mut witness = stage.guest(&room, "witness");
    // By the closing handshake, with any code or none, by a bare end, by a reset.
    stage.guest(&room, "guest 1").leave();
    let mut guest = stage.guest(&room, "guest 2");
    guest.frame(&ClientFrame::new(crate::frame::opcode::CLOSE, ""));
    assert_eq!(guest.see(), Seen::Close(None, String::new()), "a close without a code is answered so");
    let mut guest = stage.guest(&room, "guest 3");
    guest.frame(&ClientFrame::close(4321, "custom"));
    guest.expect_close(4321, "");
    stage.guest(&room, "guest 4").finish();
    host.expect_leave("guest 1");
    host.expect_leave("guest 2");
    host.expect_leave("guest 3");
    host.expect_leave("guest 4");
    stage.guest(&room, "guest 5").reset();
    host.expect_leave("guest 5");
    for guest in 1..=5 {
        witness.expect_leave(&format!("guest {guest}"));
    }
    stage.fence(&mut host, &mut [&mut witness]);
    host.leave();
    witness.expect_leave("host");
}

/// On the first server, a peer id could bring its own JSON.
fn leave_notice_is_escaped(stage: &Stage<'_>) {
    let room = stage.room("escaped");
    let mut host = stage.host(&room, "host");
    for id in
        [r#"x","type":"session:end"#, r"back\slash", r#"\""#, "Zoë 🦀", "</script>&amp;'", "\u{2028}\u{feff}"]
    {
        stage.join("guest", &room.guest_target(id)).leave();
        host.expect_leave(id);
        // The same when it was learned (rule R8).
        let mut guest = stage.guest(&room, "guest");
        let message = serde_json::json!({ "from": id }).to_string();
        guest.send(&message);
        host.expect(&message);
        guest.leave();
        host.expect_leave(id);
    }
}

/// A guest says something and leaves; the host is told that `known_as` has left.
#[track_caller]
fn speaks_and_leaves(host: &mut Peer<'_>, mut guest: Peer<'_>, messages: &[&[u8]], known_as: &str) {
    for message in messages {
        guest.send(message);
        host.expect(message);
    }
    guest.leave();
    host.expect_leave(known_as);
}

fn peer_id_from_first_message(stage: &Stage<'_>) {
    let room = stage.room("learn");
    let mut host = stage.host(&room, "host");
    let longest = "l".repeat(128);
    for (messages, known_as) in [
        (vec![r#"{"from":"learned"}"#], "learned"),
        (vec![r#" {"type":"x", "payload":{"from":"inner"}, "from":"learned", "to":[1]} "#], "learned"),
        (vec![r#"{"from":"l\u0065arned \u00e9"}"#], "learned é"),
        (vec![r#"{"from":"first"}"#, r#"{"from":"second"}"#], "first"),
        // Voice says nothing, before and behind its magic.
        (vec![r#"KV{"from":"voice"}"#, "KV", r#"{"from":"learned"}"#], "learned"),
        (vec![&format!(r#"{{"from":"{longest}"}}"#)], &longest),
    ] {
        let guest = stage.guest(&room, "guest");
        let messages: Vec<_> = messages.iter().map(|message| message.as_bytes()).collect();
        speaks_and_leaves(&mut host, guest, &messages, known_as);
    }
}

fn peer_id_not_learned(stage: &Stage<'_>) {
    let room = stage.room("not learned");
    let mut host = stage.host(&room, "host");
    let too_long = format!(r#"{{"from":"{}"}}"#, "l".repeat(129));
    for first in [
        "",
        "from",
        "{",
        r#"{"from":""}"#,
        r#"{"from":null}"#,
        r#"{"from":7}"#,
        r#"{"from":["x"]}"#,
        r#"{"From":"x"}"#,
        r#"{"payload":{"from":"x"}}"#,
        r#"[{"from":"x"}]"#,
        r#"{"from":"x"} trailing"#,
        r#"{"from":"a\nb"}"#,
        r#"{"from":"\u0085"}"#,
        &too_long,
    ] {
        // The first message is the only chance.
        let guest = stage.guest(&room, "guest");
        speaks_and_leaves(&mut host, guest, &[first.as_bytes(), br#"{"from":"second"}"#], "guest");
    }
    let guest = stage.guest(&room, "guest");
    speaks_and_leaves(&mut host, guest, &[b"{\"from\":\"\xff\"}"], "guest");
}

/// Nobody can announce the departure of somebody else.
fn peer_id_of_another(stage: &Stage<'_>) {
    let room = stage.room("impostor");
    let mut host = stage.host(&room, "host");
    let mut victim = stage.guest(&room, "victim");
    let learned = br#"{"from":"alias of the victim"}"#;
    victim.send(learned);
    host.expect(learned);
    // Neither what a live connection calls itself, nor what its token calls it.
    for id in ["alias of the victim", "victim", "host"] {
        let mut impostor = stage.guest(&room, "impostor");
        let message = serde_json::json!({ "from": id }).to_string();
        impostor.send(&message);
        host.expect(&message);
        victim.expect(&message);
        impostor.leave();
        host.expect_leave("impostor");
        victim.expect_leave("impostor");
    }
    stage.fence(&mut victim, &mut [&mut host]);
    victim.leave();
    host.expect_leave("alias of the victim");
    // What nobody has any more is free.
    let guest = stage.guest(&room, "guest");
    speaks_and_leaves(&mut host, guest, &[learned], "alias of the victim");
}

/// A peer that comes back calls itself as before, while its old connection may still be there.
fn peer_id_taken_back(stage: &Stage<'_>) {
    let room = stage.room("taken back");
    let mut host = stage.host(&room, "host");
    let hello = br#"{"from":"alias"}"#;
    let mut old = stage.join("old connection", &room.guest_target("guest"));
    old.send(hello);
    host.expect(hello);
    let mut new = stage.join("new connection", &room.guest_target("guest"));
    new.send(hello);
    host.expect(hello);
    old.expect(hello);
    old.leave();
    // It has not left: it is there.
    stage.fence(&mut new, &mut [&mut host]);
    new.leave();
    host.expect_leave("alias");
}
