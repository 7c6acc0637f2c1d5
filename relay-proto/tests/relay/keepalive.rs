//! Pings, silence, stalls, and senders that are too fast.

use std::time::Duration;

use relay_proto::{Action, Event, Progress, Wake};

use crate::world::{World, frames, ms, payloads};

const PING: (u8, Vec<u8>) = (9, Vec::new());

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn acked(world: &mut World, conn: relay_proto::ConnId, acked: u64, waiting: u64) -> Vec<Action> {
    world.handle(Event::Acked { conn, progress: Progress { acked, waiting, received: 0 } })
}

#[test]
fn t1_a_silent_peer_is_closed_after_the_pong_timeout() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let (at, wake, actions) = world.next();
    assert_eq!((at, wake), (secs(54), Wake::Ping));
    assert_eq!(actions[0], Action::Probe { conn: host });
    assert_eq!(frames(&actions[1..], host), [PING]);
    assert_eq!(acked(&mut world, host, 100, 0), []);
    assert_eq!(world.sent(host), []);
    let (at, wake, actions) = world.next();
    assert_eq!((at, wake), (secs(60), Wake::Silence));
    assert_eq!(actions, [Action::Probe { conn: host }]);
    // Its kernel took the ping; nobody behind it said a word.
    let closed = acked(&mut world, host, 102, 0);
    assert_eq!(closed, [Action::Close { conn: host, code: Some(1001), reason: "ping timeout" }]);
}

#[test]
fn t1_any_frame_is_a_sign_of_life() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let _ = world.next();
    assert_eq!(world.sent(host), []);
    world.pass(secs(5));
    assert_eq!(world.message(host, "hello"), []);
    let (at, wake, actions) = world.next();
    assert_eq!((at, wake, actions), (secs(60), Wake::Silence, vec![]), "the timer looks, and goes on");
    let (at, wake, _) = world.next();
    assert_eq!((at, wake), (secs(108), Wake::Ping));
}

#[test]
fn t1_silence_counts_only_after_a_ping_was_really_written() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    // The machine sleeps for an hour.
    world.pass(secs(3600 - 1));
    let actions = world.handle(Event::Tick);
    assert_eq!(frames(&actions[1..], host), [PING]);
    assert_eq!(world.sent(host), []);
    let (at, wake) = world.relay.next_deadline().expect("something is due");
    assert_eq!((at, wake), (secs(3599 + 1), Wake::RoomIdle));
}

#[test]
fn s5_a_reader_is_not_cut_while_bytes_move_towards_it() {
    let mut world = World::new(&[("RELAY_ROOM_IDLE_TIMEOUT", "0")]);
    let host = world.host("r");
    let slow = world.guest("r", "slow");
    assert_eq!(payloads(&world.message(host, "a long message"), slow), ["a long message"]);
    let mut moved = 0;
    while world.now.monotonic < secs(600) {
        let (_, _, actions) = world.next();
        for action in actions {
            moved += 1000;
            let _ = match action {
                Action::Probe { conn } if conn == slow => acked(&mut world, slow, moved, 5000),
                Action::Probe { conn } => acked(&mut world, conn, moved, 0),
                Action::Send { conn, .. } => {
                    assert_eq!(conn, host);
                    let _ = world.sent(host);
                    world.handle(Event::Pong { conn: host })
                }
                other => panic!("{other:?}"),
            };
        }
    }
    assert_eq!(world.relay.stats().guests, 1);
}

#[test]
fn s5_a_write_that_nobody_takes_ends_in_time_whatever_the_peer_sends() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let stalled = world.guest("r", "stalled");
    let _ = world.message(host, "x");
    while world.relay.stats().guests == 1 {
        world.pass(secs(1));
        let mut actions = world.message(host, "KV");
        actions.extend(world.message(stalled, "KV"));
        actions.extend(world.handle(Event::Tick));
        while let Some(action) = actions.pop() {
            actions.extend(match action {
                Action::Probe { conn } => {
                    let waiting = if conn == stalled { 5000 } else { 0 };
                    acked(&mut world, conn, 10, waiting)
                }
                Action::Send { conn, .. } => world.sent(conn),
                other => panic!("{other:?}"),
            });
        }
    }
    assert_eq!(world.now.monotonic, secs(60));
    assert_eq!((world.relay.stats().hosts, world.relay.stats().guests), (1, 0));
}

#[test]
fn a_probe_that_nobody_answers_decides_by_the_clock() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let _ = world.next();
    assert_eq!(world.sent(host), []);
    assert_eq!(world.next().2, [Action::Probe { conn: host }]);
    let (at, _, actions) = world.next();
    assert_eq!(at, secs(61));
    assert_eq!(actions, [Action::Close { conn: host, code: Some(1001), reason: "ping timeout" }]);
}

#[test]
fn t2_a_flood_of_pings_takes_the_room_of_one() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    assert_eq!(
        frames(&world.handle(Event::Ping { conn: host, payload: "0".into() }), host),
        [(10, b"0".to_vec())]
    );
    for n in 1..100_000 {
        assert_eq!(world.handle(Event::Ping { conn: host, payload: n.to_string().into() }), []);
    }
    assert_eq!(frames(&world.sent(host), host), [(10, b"99999".to_vec())]);
    assert_eq!(world.sent(host), []);
}

#[test]
fn c2_a_sender_over_its_limit_is_read_more_slowly_and_loses_nothing() {
    let mut world = World::new(&[("RELAY_MAX_MESSAGES_PER_SECOND", "10"), ("RELAY_COALESCE_MS", "0")]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    for n in 0..10 {
        let n = n.to_string();
        assert_eq!(payloads(&world.message(host, n.clone()), guest), [n]);
        assert_eq!(world.sent(guest), []);
    }
    let actions = world.message(host, "over");
    assert_eq!(actions[0], Action::Pause { conn: host });
    assert_eq!(payloads(&actions[1..], guest), ["over"]);
    let (at, wake, actions) = world.next();
    assert_eq!((at, wake), (ms(100), Wake::Resume));
    assert_eq!(actions, [Action::Resume { conn: host }]);
}

#[test]
fn c2_a_paused_sender_is_not_silent() {
    let mut world = World::new(&[("RELAY_MAX_BYTES_PER_SECOND", "10000")]);
    let host = world.host("r");
    assert_eq!(world.message(host, vec![b'x'; 1_000_000]), [Action::Pause { conn: host }]);
    loop {
        let (at, wake, actions) = world.next();
        for action in actions {
            match action {
                Action::Probe { conn } => assert_eq!(acked(&mut world, conn, 100, 0), []),
                Action::Send { conn, .. } => assert_eq!(world.sent(conn), []),
                Action::Resume { .. } => return assert_eq!((at, wake), (secs(99), Wake::Resume)),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn c2_a_paused_sender_that_is_closed_is_read_to_its_end() {
    let mut world = World::new(&[("RELAY_MAX_BYTES_PER_SECOND", "1000"), ("RELAY_ROOM_IDLE_TIMEOUT", "10")]);
    let host = world.host("r");
    assert_eq!(world.message(host, vec![b'x'; 100_000]), [Action::Pause { conn: host }]);
    // Its answer to the close frame would not be read, and what it sent meanwhile end in a reset.
    let (_, wake, actions) = world.next();
    assert_eq!(wake, Wake::RoomIdle);
    let close = Action::Close { conn: host, code: Some(1001), reason: "room idle" };
    assert_eq!(actions, [Action::Resume { conn: host }, close]);
    assert_eq!(world.sent(host), []);
    assert_eq!(world.next().2, [Action::Abort { conn: host }]);
}

#[test]
fn t1_a_message_that_takes_long_to_come_is_no_silence() {
    let mut world = World::new(&[("RELAY_ROOM_IDLE_TIMEOUT", "0")]);
    let host = world.host("r");
    let mut received = 0;
    while world.now.monotonic < secs(300) {
        for action in world.next().2 {
            received += 1000;
            let more = match action {
                Action::Probe { conn } => {
                    let progress = Progress { acked: 100, waiting: 0, received };
                    world.handle(Event::Acked { conn, progress })
                }
                Action::Send { conn, .. } => world.sent(conn),
                other => panic!("{other:?}"),
            };
            assert_eq!(more, []);
        }
    }
    assert_eq!(world.message(host, "at last"), []);
}

#[test]
fn h9_a_head_that_does_not_come_ends_with_the_handshake_timeout() {
    let mut world = World::new(&[]);
    let conn = world.open();
    let (at, wake, actions) = world.next();
    assert_eq!((at, wake), (secs(10), Wake::Handshake));
    assert_eq!(actions, [Action::Abort { conn }]);
    assert_eq!(world.relay.next_deadline(), None);
    assert_eq!(world.relay.stats().connections, 0);
}

#[test]
fn r9_an_idle_room_is_closed_and_pings_do_not_keep_it() {
    let mut world = World::new(&[("RELAY_ROOM_IDLE_TIMEOUT", "100")]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    world.pass(secs(50));
    assert_eq!(payloads(&world.message(host, "x"), guest), ["x"]);
    assert_eq!(world.sent(guest), []);
    let mut closed = Vec::new();
    while closed.len() < 2 {
        for action in world.next().2 {
            match action {
                Action::Send { conn, .. } => {
                    let _ = world.sent(conn);
                    let _ = world.handle(Event::Pong { conn });
                }
                Action::Close { conn, code: Some(1001), reason: "room idle" } => closed.push(conn),
                Action::Probe { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(closed, [host, guest]);
    assert_eq!(world.now.monotonic, secs(150));
    assert_eq!(world.relay.stats().rooms, 0);
}
