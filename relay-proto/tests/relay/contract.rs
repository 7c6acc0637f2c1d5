//! The numbered contract of [`relay_proto::Relay`].

use std::time::Duration;

use relay_proto::{Action, Event, Fault, Wake};

use crate::world::{World, frames, guest_query, host_query, ms, payloads};

#[test]
fn contract_1_nothing_is_pending_but_timers() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    assert_eq!(payloads(&world.message(host, "one"), guest), ["one"]);
    assert_eq!(world.sent(guest), []);
    assert_eq!(world.relay.next_deadline(), Some((Duration::from_secs(54), Wake::Ping)));
    assert_eq!(world.handle(Event::Tick), []);
}

#[test]
fn contract_2_misuse_is_told_and_has_no_effect() {
    let mut world = World::new(&[]);
    let conn = world.open();
    assert_eq!(world.sent(conn), []);
    assert_eq!(world.message(conn, "early"), []);
    assert_eq!(world.handle(Event::Pong { conn }), []);
    assert_eq!(world.handle(Event::PeerClose { conn, code: None }), []);
    assert_eq!(world.handle(Event::Fault { conn, fault: Fault::TooBig }), []);
    let misuse = world.seen.notices.iter().filter(|notice| notice.starts_with("Misuse")).count();
    assert_eq!(misuse, 5);
    let member = world.host("r");
    assert_eq!(world.sent(member), []);
    assert_eq!(world.head(member, "GET / HTTP/1.1\r\nHost: r\r\n\r\n"), []);
    assert_eq!(world.relay.stats().rooms, 1);
}

#[test]
fn contract_3_the_same_events_give_the_same_actions() {
    let run = || {
        let mut world = World::new(&[("RELAY_DRAIN_SECONDS", "1")]);
        let mut all = Vec::new();
        for room in 0..20 {
            let (host, actions) = world.upgrade(&host_query(&format!("r{room}"), "h", 1));
            all.extend(actions);
            all.extend(world.sent(host));
        }
        all.extend(world.handle(Event::Drain));
        while world.relay.next_deadline().is_some() {
            all.extend(world.next().2);
        }
        all
    };
    let first = run();
    assert!(first.contains(&Action::Exit));
    assert_eq!(first, run());
}

#[test]
fn contract_4_traffic_does_not_move_the_timer_of_a_connection() {
    let mut world = World::new(&[("RELAY_COALESCE_MS", "0")]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    let before = world.relay.next_deadline();
    for _ in 0..10 {
        world.pass(ms(100));
        assert_eq!(payloads(&world.message(host, "x"), guest), ["x"]);
        assert_eq!(world.sent(guest), []);
        assert_eq!(world.relay.next_deadline(), before);
    }
}

#[test]
fn contract_5_a_clock_that_goes_back_is_clamped() {
    let mut world = World::new(&[]);
    world.pass(Duration::from_secs(100));
    let host = world.host("r");
    world.now.monotonic = Duration::from_secs(1);
    let guest = world.guest("r", "ann");
    assert_eq!(world.relay.next_deadline(), Some((Duration::from_secs(154), Wake::Ping)));
    world.now.unix = Duration::ZERO;
    assert_eq!(world.handle(Event::Tick), []);
    // What it leaves for others is due at the end of the turn; that comes when the clock is back where it was.
    world.handle(Event::Disconnect { conn: host });
    world.now.monotonic = Duration::from_secs(100);
    let notice = world.handle(Event::Tick);
    assert!(payloads(&notice, guest)[0].contains(r#""ts":0,"#));
}

#[test]
fn contract_6_one_write_is_outstanding_and_the_rest_waits() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    assert_eq!(payloads(&world.message(host, "1"), guest), ["1"]);
    assert_eq!(world.message(host, "2"), []);
    assert_eq!(world.handle(Event::Ping { conn: guest, payload: "p".into() }), []);
    assert_eq!(world.message(host, "KV3"), []);
    world.pass(ms(5));
    let next = world.sent(guest);
    let expected = [(0xA, b"p".to_vec()), (2, b"KV3".to_vec()), (2, b"2".to_vec())];
    assert_eq!(frames(&next, guest), expected);
    assert_eq!(world.sent(guest), []);
    world.balance();
}

#[test]
fn contract_7_r5_a_member_is_in_before_its_101_is_written() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let (guest, actions) = world.upgrade(&guest_query("r", "ann", 1));
    assert!(matches!(&actions[..], [Action::Upgrade { conn, .. }] if *conn == guest));
    assert_eq!(world.message(host, "early"), []);
    assert_eq!(payloads(&world.sent(guest), guest), ["early"]);
}

#[test]
fn a_late_event_for_a_recycled_slot_is_ignored() {
    let mut world = World::new(&[]);
    let old = world.host("r");
    assert_eq!(world.handle(Event::Disconnect { conn: old }), []);
    let new = world.host("r");
    assert_eq!(old.slot(), new.slot());
    assert_ne!(old, new);
    assert_eq!(world.handle(Event::Disconnect { conn: old }), []);
    assert_eq!(world.sent(old), []);
    assert_eq!(world.relay.stats().hosts, 1);
    assert!(!world.seen.notices.iter().any(|notice| notice.starts_with("Misuse")));
}
