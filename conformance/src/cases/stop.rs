//! Stopping in good order (rules D1, H2).

use super::{Needs, cases};
use crate::host::Switch;
use crate::http::Request;
use crate::peer::Seen;
use crate::stage::Stage;

/// Long enough to look around in between.
const SLOW: &[(&str, &str)] = &[("RELAY_DRAIN_SECONDS", "4")];
const AT_ONCE: &[(&str, &str)] = &[("RELAY_DRAIN_SECONDS", "0")];

cases! {
    "stop::all_are_closed" ["D1"] Needs::Switch(AT_ONCE), all_are_closed;
    "stop::what_waits_is_flushed" ["D1"] Needs::Switch(&[("RELAY_DRAIN_SECONDS", "0"), ("RELAY_COALESCE_MS", "1000")]), what_waits_is_flushed;
    "stop::draining" ["D1" "H1" "H2" "H5" "H8" "H10"] Needs::Switch(SLOW), draining;
}

fn switch<'h>(stage: &Stage<'h>) -> &'h dyn Switch {
    stage.host.switch().expect("the case needs one")
}

fn all_are_closed(stage: &Stage<'_>) {
    let room = stage.room("restart");
    let mut host = stage.host(&room, "host");
    let mut guests: Vec<_> = (0..3).map(|n| stage.guest(&room, &format!("guest {n}"))).collect();
    let other = stage.room("other restart");
    let mut other_host = stage.host(&other, "other host");
    switch(stage).drain();
    // No leave notice comes before it.
    for peer in guests.iter_mut().chain([&mut host, &mut other_host]) {
        peer.expect_close(1012, "restart");
    }
}

fn what_waits_is_flushed(stage: &Stage<'_>) {
    let room = stage.room("flush");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    host.send("[0]");
    guest.expect("[0]");
    for n in 1..50 {
        host.send(format!("[{n}]"));
    }
    host.ping("all taken");
    host.expect_pong("all taken");
    switch(stage).drain();
    for n in 1..50 {
        guest.expect(format!("[{n}]"));
    }
    guest.expect_close(1012, "restart");
    host.expect_close(1012, "restart");
}

fn draining(stage: &Stage<'_>) {
    let rooms = ["one room", "another room"].map(|label| stage.room(label));
    let mut hosts = rooms.clone().map(|room| stage.host(&room, "host"));
    let mut guests = rooms.clone().map(|room| stage.guest(&room, "guest"));
    switch(stage).drain();

    stage.until("the health of a draining relay", || stage.ask(&Request::get("/health")).status == 503);
    let health = stage.ask_recorded("GET /health", &Request::get("/health"));
    assert_eq!((health.status, health.body.as_str()), (503, r#"{"status":"draining"}"#));
    let page = stage.ask(&Request::get("/"));
    assert!(page.status == 200 && page.body.contains("Draining"), "{}", page.body);
    assert!(!page.body.contains("Serving"), "{}", page.body);

    // Rooms go whole, in an order that nobody can foresee. While the first goes, the other lives on.
    let first = stage.transcript.unrecorded(|| {
        let deadline = stage.host.elapsed() + crate::host::PATIENCE;
        loop {
            let gone = hosts.iter_mut().position(|host| {
                match host.see_within(std::time::Duration::from_millis(10)) {
                    Seen::Nothing => false,
                    Seen::Close(Some(1012), reason) if reason == "restart" => true,
                    other => panic!("{other:?} instead of a close"),
                }
            });
            match gone {
                Some(room) => break room,
                None => assert!(stage.host.elapsed() < deadline, "no room was closed"),
            }
        }
    });
    let second = 1 - first;
    hosts[first].expect_end();
    guests[first].expect_close(1012, "restart");
    let mut late = stage.guest(&rooms[second], "late guest");
    stage.fence(&mut late, &mut [&mut hosts[second], &mut guests[second]]);

    let answer = stage.refused("a new room", &stage.room("new").host_target("host"), 503, "draining");
    super::refusal::assert_whole_seconds(answer.field("Retry-After"));
    let plain = Request::get(&stage.room("new").host_target("host")).with("Accept", "application/json");
    assert_eq!(stage.ask(&plain).body, r#"{"error":"draining","message":"draining"}"#);

    for peer in [&mut hosts[second], &mut guests[second], &mut late] {
        peer.expect_close(1012, "restart");
    }
}
