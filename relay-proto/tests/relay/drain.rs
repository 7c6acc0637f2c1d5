//! Rule D1.

use relay_proto::{Action, ConnId, Event, Refusal, Wake};

use crate::world::{World, guest_query, host_query, ms, payloads, response};

fn restart(conn: ConnId) -> Action {
    Action::Close { conn, code: Some(1012), reason: "restart" }
}

#[test]
fn d1_rooms_are_closed_whole_host_first_and_spread_over_the_window() {
    let mut world = World::new(&[]);
    let rooms: Vec<(ConnId, ConnId)> = (0..4)
        .map(|n| {
            let host = world.host(&format!("r{n}"));
            (host, world.guest(&format!("r{n}"), "ann"))
        })
        .collect();
    let mut order: Vec<ConnId> = Vec::new();
    for turn in 0..4 {
        let actions = if turn == 0 {
            world.handle(Event::Drain)
        } else {
            let (at, wake, actions) = world.next();
            assert_eq!((at, wake), (ms(2500 * turn), Wake::Drain));
            actions
        };
        let [Action::Close { conn: host, .. }, Action::Close { conn: guest, .. }] = actions[..] else {
            panic!("{actions:?}");
        };
        assert!(rooms.contains(&(host, guest)));
        order.push(host);
        // Both answer and go.
        for conn in [host, guest] {
            assert_eq!(world.sent(conn), []);
            assert_eq!(world.handle(Event::PeerClose { conn, code: Some(1012) }), []);
            let last = turn == 3 && conn == guest;
            let expected: &[Action] = if last { &[Action::Exit] } else { &[] };
            assert_eq!(world.handle(Event::Disconnect { conn }), expected);
        }
    }
    assert_ne!(order, rooms.iter().map(|(host, _)| *host).collect::<Vec<_>>(), "a random order");
    assert_eq!(world.relay.next_deadline(), None);
}

#[test]
fn d1_while_draining_no_room_opens_but_guests_still_join() {
    let mut world = World::new(&[]);
    let hosts = [world.host("a"), world.host("b")];
    let first = world.handle(Event::Drain);
    let open = if first == [restart(hosts[0])] { "b" } else { "a" };
    let (guest, actions) = world.upgrade(&guest_query(open, "ann", 1));
    assert!(matches!(&actions[..], [Action::Upgrade { conn, .. }] if *conn == guest));
    let (status, text) = response(&world.upgrade(&host_query("new", "h", 1)).1);
    assert_eq!(status, 503);
    assert!(text.contains("Retry-After: 10\r\n") && text.ends_with("\r\n\r\ndraining\n"));
    let conn = world.open();
    let (status, text) = response(&world.head(conn, "GET /health HTTP/1.1\r\nHost: r\r\n\r\n"));
    assert_eq!(status, 503);
    assert!(text.ends_with("\r\n\r\n{\"status\":\"draining\"}"));
}

#[test]
fn d1_what_waits_is_flushed_before_the_close_frame() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    let _ = world.message(host, "1");
    for n in 2..5 {
        assert_eq!(world.message(host, n.to_string()), []);
    }
    assert_eq!(world.handle(Event::Drain), [restart(host)]);
    world.pass(ms(5));
    assert_eq!(payloads(&world.sent(guest), guest), ["2", "3", "4"]);
    assert_eq!(world.sent(guest), [restart(guest)]);
    world.balance();
}

#[test]
fn s4_a_room_that_is_being_drained_does_not_cost_others_their_members() {
    let mut drained = 0;
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut world = World::new(&[("RELAY_MAX_QUEUED_BYTES", "100000")]);
        let rooms = ["a", "b"].map(|room| (room, world.host(room), world.guest(room, "ann")));
        let [(_, host, heavy)] =
            rooms.into_iter().filter(|(room, ..)| *room == first).collect::<Vec<_>>()[..]
        else {
            unreachable!()
        };
        let _ = world.message(host, vec![b'x'; 80_000]);
        // The order is a random one.
        if world.handle(Event::Drain) != [restart(host)] {
            continue;
        }
        drained += 1;
        let (_, host, _) = *rooms.iter().find(|(room, ..)| *room == second).expect("one of two");
        assert_eq!(world.message(host, vec![b'x'; 30_000]).len(), 1);
        assert_eq!((world.relay.stats().slow_consumers, world.relay.stats().guests), (1, 1));
        let close = Action::Close { conn: heavy, code: Some(1013), reason: "slow consumer" };
        assert_eq!(world.sent(heavy), [close]);
        world.balance();
    }
    assert_eq!(drained, 1);
}

#[test]
fn d1_everything_ends_within_five_seconds_of_the_window() {
    let mut world = World::new(&[("RELAY_DRAIN_SECONDS", "2")]);
    let host = world.host("r");
    let stuck = world.guest("r", "stuck");
    let _ = world.message(host, "never taken");
    let idle = world.open();
    let actions = world.handle(Event::Drain);
    assert_eq!(actions, [restart(host), Action::Abort { conn: idle }]);
    assert_eq!(world.open_from([192, 0, 2, 9]), None);
    let (at, wake, actions) = world.next();
    assert_eq!((at, wake), (ms(3500), Wake::Closing));
    assert_eq!(actions, [Action::Abort { conn: host }, Action::Abort { conn: stuck }, Action::Exit]);
}

#[test]
fn d1_a_machine_that_slept_through_a_drain_ends_at_once() {
    let mut world = World::new(&[]);
    let hosts = [world.host("a"), world.host("b")];
    let first = world.handle(Event::Drain);
    let [closed, open] = if first == [restart(hosts[0])] { hosts } else { [hosts[1], hosts[0]] };
    world.pass(ms(20_000));
    let abort = |conn| Action::Abort { conn };
    assert_eq!(world.handle(Event::Tick), [abort(closed), restart(open), abort(open), Action::Exit]);
    assert_eq!(world.relay.next_deadline(), None);
}

#[test]
fn d1_nobody_waits_for_the_turn_of_a_room_that_has_ended() {
    let mut world = World::new(&[]);
    let hosts = [world.host("a"), world.host("b")];
    let first = world.handle(Event::Drain);
    let [closed, open] = if first == [restart(hosts[0])] { hosts } else { [hosts[1], hosts[0]] };
    assert_eq!(world.sent(closed), []);
    assert_eq!(world.handle(Event::Disconnect { conn: closed }), []);
    assert_eq!(world.handle(Event::Disconnect { conn: open }), [Action::Exit]);
    assert_eq!(world.relay.next_deadline(), None);
}

#[test]
fn d1_an_empty_relay_ends_at_once() {
    let mut world = World::new(&[]);
    assert_eq!(world.handle(Event::Drain), [Action::Exit]);
    assert_eq!(world.handle(Event::Drain), []);
    assert_eq!(world.relay.next_deadline(), None);
    assert_eq!(world.open_from([192, 0, 2, 1]), None);
    assert_eq!(world.relay.stats().refused[Refusal::Draining.index()], 1);
}
