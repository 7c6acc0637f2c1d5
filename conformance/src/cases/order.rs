//! What may not get lost or out of turn when things happen at once (rules R5, R7, M4).

use super::{Needs, cases};
use crate::frame::{ClientFrame, opcode};
use crate::http::Request;
use crate::peer::Seen;
use crate::stage::Stage;

cases! {
    "order::message_right_behind_the_101" ["R5"] Needs::Nothing, message_right_behind_the_101;
    "order::join_under_fire" ["R5" "M4"] Needs::Nothing, join_under_fire;
    "order::reconnect" ["R7"] Needs::Nothing, reconnect;
    "order::reconnect_race" ["R7"] Needs::Nothing, reconnect_race;
    "order::one_sender" ["M4" "R2"] Needs::Nothing, one_sender;
    "order::voice_and_data" ["M4" "M2"] Needs::Nothing, voice_and_data;
    "order::last_words" ["R6" "M4"] Needs::Nothing, last_words;
    "order::last_words_under_fire" ["R2" "R6"] Needs::Settings(&[("RELAY_COALESCE_MS", "0")]), last_words_under_fire;
}

/// The first server sent the 101 before the guest was in the room, and lost up to 15 % of these.
fn message_right_behind_the_101(stage: &Stage<'_>) {
    let room = stage.room("right behind");
    let mut host = stage.host(&room, "host");
    stage.repeat(300, |_| {
        let mut guest = stage.guest(&room, "guest");
        host.send(r#"{"type":"key"}"#);
        guest.expect(r#"{"type":"key"}"#);
        guest.leave();
        host.expect_leave("guest");
    });
}

/// While a guest joins, the host talks: the guest sees a gapless end of it, from its 101 at the latest.
fn join_under_fire(stage: &Stage<'_>) {
    let room = stage.room("under fire");
    let mut host = stage.host(&room, "host");
    stage.repeat(20, |_| {
        let request = Request::upgrade(&room.guest_target("guest"));
        let mut guest = stage.dial("guest");
        stage.transcript.unrecorded(|| {
            guest.bytes(&request.encode());
            (0..20).for_each(|n| host.send(format!("{n}")));
            guest.upgraded(&request);
            host.send("20");
            let mut seen = Vec::new();
            while seen.last() != Some(&20) {
                let Seen::Message(text) = guest.see() else { panic!("after {seen:?}, the end") };
                seen.push(String::from_utf8_lossy(&text).parse::<usize>().expect("a number"));
            }
            assert_eq!(seen, (21 - seen.len()..=20).collect::<Vec<_>>(), "a gap");
        });
        guest.leave();
        host.expect_leave("guest");
    });
}

fn reconnect(stage: &Stage<'_>) {
    let room = stage.room("reconnect");
    let old = stage.join("old connection", &room.host_target("host"));
    let mut guest = stage.guest(&room, "guest");
    let mut new = stage.join("new connection", &room.host_target("host"));
    old.leave();
    stage.fence(&mut new, &mut [&mut guest]);
    new.leave();
    guest.expect_leave("host");
}

/// The new connection joins while the old one is being removed.
fn reconnect_race(stage: &Stage<'_>) {
    let room = stage.room("reconnect race");
    let mut witness = stage.host(&room, "witness");
    let mut current = stage.host(&room, "host");
    stage.repeat(50, |_| {
        let request = Request::upgrade(&room.host_target("host"));
        let mut next = stage.dial("host");
        next.bytes(&request.encode());
        current.frame(&ClientFrame::close(1000, ""));
        next.upgraded(&request);
        current.expect_close(1000, "");
        // The old one may have gone first; then it was away, and that was said before anything of the new.
        next.send(r#"{"type":"back"}"#);
        let mut seen = Vec::new();
        stage.transcript.unrecorded(|| {
            while seen.last().is_none_or(|last: &String| !last.contains("back")) {
                let Seen::Message(text) = witness.see() else { panic!("after {seen:?}, the end") };
                seen.push(String::from_utf8_lossy(&text).into_owned());
            }
        });
        assert!(seen.len() <= 2, "{seen:?}");
        stage.fence(&mut next, &mut [&mut witness]);
        current = next;
    });
}

fn one_sender(stage: &Stage<'_>) {
    let room = stage.room("order");
    let mut host = stage.host(&room, "host");
    let mut guests: Vec<_> = (0..4).map(|n| stage.guest(&room, &format!("guest {n}"))).collect();
    let message = |n: usize| format!(r#"{{"n":{n},"pad":"{}"}}"#, "x".repeat(n * 7 % 300));
    stage.transcript.unrecorded(|| {
        (0..500).for_each(|n| host.send(message(n)));
        for guest in &mut guests {
            (0..500).for_each(|n| guest.expect(message(n)));
        }
    });
    stage.transcript.note("500 messages in order at each of 4 guests");
}

/// Each lane is in order; nothing is said about one lane and the other.
fn voice_and_data(stage: &Stage<'_>) {
    let room = stage.room("lanes");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    // Few enough to be kept, however slow the guest (rule S2).
    let count = 60;
    let burst: Vec<u8> = (0..count)
        .flat_map(|n| {
            let data = ClientFrame::new(opcode::BINARY, format!(r#"{{"n":{n}}}"#));
            let voice = ClientFrame::new(opcode::BINARY, format!("KV{n}"));
            [data.encode(), voice.encode()].concat()
        })
        .collect();
    let (mut data, mut voice) = (Vec::new(), Vec::new());
    stage.transcript.unrecorded(|| {
        host.bytes(&burst);
        while data.len() + voice.len() < 2 * count {
            match guest.see() {
                Seen::Message(message) if message.starts_with(b"KV") => voice.push(message),
                Seen::Message(message) => data.push(message),
                other => panic!("after {} data and {} voice: {other:?}", data.len(), voice.len()),
            }
        }
    });
    let text = |n: usize| format!(r#"{{"n":{n}}}"#).into_bytes();
    assert!(data.iter().enumerate().all(|(n, message)| *message == text(n)), "data out of order");
    let packet = |n: usize| format!("KV{n}").into_bytes();
    assert!(voice.iter().enumerate().all(|(n, message)| *message == packet(n)), "voice out of order");
    stage.transcript.note(format!("{} data and {} voice, each in order", data.len(), voice.len()));
}

/// What a member said before it left comes before the notice that it has.
fn last_words(stage: &Stage<'_>) {
    let room = stage.room("last words");
    let mut host = stage.host(&room, "host");
    stage.repeat(20, |_| {
        let mut guest = stage.guest(&room, "guest");
        let words = ClientFrame::new(opcode::BINARY, r#"{"last":"words"}"#).encode();
        guest.bytes(&[words, ClientFrame::close(1000, "").encode()].concat());
        guest.expect_close(1000, "");
        host.expect(r#"{"last":"words"}"#);
        host.expect_leave("guest");
    });
}

/// Who closes its socket with something unread breaks the connection off. What it said before was sent, though
/// nothing can be written to it any more.
fn last_words_under_fire(stage: &Stage<'_>) {
    let room = stage.room("last words under fire");
    let mut host = stage.host(&room, "host");
    let mut witness = stage.guest(&room, "witness");
    stage.repeat(100, |_| {
        let mut guest = stage.guest(&room, "guest");
        for _ in 0..2 {
            host.send("unread");
            witness.expect("unread");
        }
        let words = ClientFrame::new(opcode::BINARY, "[last words]").encode();
        guest.bytes(&[words, ClientFrame::close(1000, "").encode()].concat());
        drop(guest);
        (0..20).for_each(|_| host.send("KV"));
        host.expect("[last words]");
        host.expect_leave("guest");
        host.send("end");
        while witness.see() != Seen::Message(b"end".to_vec()) {}
    });
}
