//! What waits: lanes, bounds, joining, coalescing.

use relay_proto::{Action, Event, Wake};

use crate::world::{World, frames, ms, payloads};

#[test]
fn s2_voice_is_bounded_by_number_and_age_and_counted() {
    let mut world = World::new(&[("RELAY_VOICE_QUEUE", "3"), ("RELAY_VOICE_MAX_AGE_MS", "100")]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    assert_eq!(payloads(&world.message(host, "KV0"), guest), ["KV0"]);
    for n in 1..=5 {
        assert_eq!(world.message(host, format!("KV{n}")), []);
    }
    world.pass(ms(50));
    assert_eq!(payloads(&world.sent(guest), guest), ["KV3", "KV4", "KV5"]);
    assert_eq!(world.message(host, "KVold"), []);
    world.pass(ms(101));
    assert_eq!(world.message(host, "KVnew"), []);
    assert_eq!(payloads(&world.sent(guest), guest), ["KVnew"]);
    let voice = world.relay.stats().lanes[0];
    assert_eq!(voice.dropped.map(|flow| flow.messages), [2, 1, 0, 0]);
    world.balance();
}

#[test]
fn s3_a_slow_consumer_is_closed_and_the_others_hear_of_it() {
    let mut world = World::new(&[("RELAY_MAX_MESSAGE_SIZE", "1000"), ("RELAY_DATA_QUEUE_BYTES", "1")]);
    let host = world.host("r");
    let slow = world.guest("r", "slow");
    let big = "x".repeat(1000);
    assert_eq!(payloads(&world.message(host, big.clone()), slow), std::slice::from_ref(&big));
    for _ in 0..3 {
        assert_eq!(world.message(host, big.clone()), []);
    }
    let overflow = world.message(host, big.clone());
    assert!(payloads(&overflow, host)[0].contains(r#""from":"slow""#));
    assert_eq!(world.relay.stats().slow_consumers, 1);
    // The close frame cannot cut into what is being written.
    assert_eq!(world.sent(slow), [Action::Close { conn: slow, code: Some(1013), reason: "slow consumer" }]);
    assert_eq!(world.sent(slow), []);
    assert_eq!(world.relay.next_deadline().map(|(at, wake)| (at.as_secs(), wake)), Some((5, Wake::Closing)));
    let (_, _, actions) = world.next();
    assert_eq!(actions, [Action::Abort { conn: slow }]);
    world.balance();
}

#[test]
fn s3_four_of_the_largest_messages_may_wait() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let _slow = world.guest("r", "slow");
    for _ in 0..4 {
        let _ = world.message(host, vec![b'x'; 1 << 20]);
        assert_eq!(world.relay.stats().slow_consumers, 0);
    }
    let _ = world.message(host, vec![b'x'; 1 << 20]);
    assert_eq!(world.relay.stats().slow_consumers, 1);
}

#[test]
fn s3_a_flood_of_empty_messages_is_bounded_too() {
    let mut world = World::new(&[("RELAY_MAX_MESSAGE_SIZE", "1000"), ("RELAY_DATA_QUEUE_BYTES", "1")]);
    let host = world.host("r");
    let slow = world.guest("r", "slow");
    let mut sent = 0;
    while world.relay.stats().slow_consumers == 0 {
        let _ = world.message(host, "");
        sent += 1;
        assert!(sent < 1000);
    }
    let _ = slow;
    world.balance();
}

#[test]
fn s4_all_queues_together_are_bounded_and_shared_payloads_count_once() {
    let vars = [("RELAY_MAX_QUEUED_BYTES", "100000"), ("RELAY_COALESCE_MS", "0")];
    let mut world = World::new(&vars);
    let host = world.host("r");
    let guests: Vec<_> = (0..10).map(|n| world.guest("r", &format!("g{n}"))).collect();
    // Ten receivers hold it, and it counts once.
    assert_eq!(world.message(host, vec![b'x'; 60_000]).len(), 10);
    assert_eq!(world.relay.stats().slow_consumers, 0);
    // Nine of them are done; the tenth is the one that holds most.
    for guest in &guests[1..] {
        assert_eq!(world.sent(*guest), []);
    }
    let _ = world.message(host, vec![b'y'; 60_000]);
    assert_eq!(world.relay.stats().slow_consumers, 1);
    let last = world.sent(guests[0]);
    assert_eq!(last, [Action::Close { conn: guests[0], code: Some(1013), reason: "slow consumer" }]);
    world.balance();
}

#[test]
fn s4_voice_that_was_let_go_no_longer_counts_for_its_receiver() {
    let vars =
        [("RELAY_MAX_QUEUED_BYTES", "50000"), ("RELAY_COALESCE_MS", "500"), ("RELAY_VOICE_MAX_AGE_MS", "10")];
    let mut world = World::new(&vars);
    let host = world.host("late");
    let listener = world.guest("late", "ann");
    assert_eq!(payloads(&world.message(host, "KV"), listener), ["KV"]);
    assert_eq!(world.sent(listener), []);
    // It waits for the end of the window, and is too old by then.
    assert_eq!(world.message(host, format!("KV{}", "v".repeat(40_000))), []);
    let (_, wake, actions) = world.next();
    assert_eq!((wake, actions), (Wake::Flush, vec![]));
    assert_eq!(world.relay.stats().held_bytes, 0);
    // Two others hold too much together; whoever holds nothing is none of them.
    for room in ["one", "two"] {
        let host = world.host(room);
        let _slow = world.guest(room, "slow");
        let _ = world.message(host, vec![b'x'; 30_000]);
    }
    assert_eq!(world.relay.stats().slow_consumers, 1);
    assert_eq!(world.message(host, "still there").len(), 1);
    world.balance();
}

#[test]
fn m3_only_what_looks_like_json_is_joined() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    assert_eq!(payloads(&world.message(host, "first"), guest), ["first"]);
    for message in ["{1}", "{2}", "{3\n}", "{4}", "raw", "{5}", "{6}"] {
        assert_eq!(world.message(host, message), []);
    }
    world.pass(ms(5));
    let next = world.sent(guest);
    assert_eq!(payloads(&next, guest), ["{1}\n{2}", "{3\n}", "{4}", "raw", "{5}\n{6}"]);
}

#[test]
fn m3_joined_messages_stay_below_64_kib_and_can_be_turned_off() {
    for (batch, expected) in [("on", 2), ("off", 3)] {
        let mut world = World::new(&[("RELAY_BATCH", batch), ("RELAY_COALESCE_MS", "0")]);
        let host = world.host("r");
        let guest = world.guest("r", "ann");
        let _ = world.message(host, "first");
        let message = format!("{{{}}}", "x".repeat(30_000));
        for _ in 0..3 {
            assert_eq!(world.message(host, message.clone()), []);
        }
        let mut frames = payloads(&world.sent(guest), guest);
        frames.extend(payloads(&world.sent(guest), guest));
        assert_eq!(frames.len(), expected);
        assert_eq!(frames.join("\n"), [message.as_str(); 3].join("\n"));
    }
}

#[test]
fn m4_voice_overtakes_data_that_waits() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    let _ = world.message(host, vec![b'd'; 60_000]);
    for _ in 0..3 {
        assert_eq!(world.message(host, vec![b'd'; 60_000]), []);
    }
    assert_eq!(world.message(host, "KV"), []);
    world.pass(ms(5));
    let next = frames(&world.sent(guest), guest);
    assert_eq!(next[0], (2, b"KV".to_vec()));
    assert_eq!(next.len(), 2, "data leaves in small batches, so that voice never waits for much of it");
    world.balance();
}

#[test]
fn m4_joined_data_leaves_in_small_batches_too() {
    let mut world = World::new(&[("RELAY_COALESCE_MS", "0")]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    let _ = world.message(host, "first");
    let _ = world.message(host, vec![b'x'; 60_000]);
    for _ in 0..70 {
        let _ = world.message(host, format!("{{{}}}", "x".repeat(998)));
    }
    let bytes: usize = frames(&world.sent(guest), guest).iter().map(|(_, payload)| payload.len()).sum();
    assert!(bytes <= 64 * 1024, "{bytes}");
}

#[test]
fn m7_an_idle_receiver_gets_a_message_at_once_and_a_busy_one_all_at_the_end_of_its_window() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    assert_eq!(payloads(&world.message(host, "KV1"), guest), ["KV1"]);
    assert_eq!(world.sent(guest), []);
    world.pass(ms(1));
    assert_eq!(world.message(host, "KV2"), []);
    assert_eq!(world.relay.next_deadline(), Some((ms(2), Wake::Flush)));
    assert_eq!(world.message(host, "KV3"), []);
    let (_, _, actions) = world.next();
    assert_eq!(payloads(&actions, guest), ["KV2", "KV3"]);
    assert_eq!(world.sent(guest), []);
    world.pass(ms(2));
    assert_eq!(payloads(&world.message(host, "KV4"), guest), ["KV4"]);
}

#[test]
fn m7_off_means_at_once() {
    let mut world = World::new(&[("RELAY_COALESCE_MS", "0")]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    for n in 0..3 {
        assert_eq!(payloads(&world.message(host, format!("{n}")), guest), [format!("{n}")]);
        assert_eq!(world.sent(guest), []);
    }
}

#[test]
fn what_waited_for_somebody_who_left_is_counted_as_dropped() {
    let mut world = World::new(&[]);
    let host = world.host("r");
    let guest = world.guest("r", "ann");
    for _ in 0..5 {
        let _ = world.message(host, "x");
    }
    let _ = world.handle(Event::Disconnect { conn: guest });
    let data = world.relay.stats().lanes[1];
    assert_eq!((data.dropped[3].messages, data.delivered.messages), (5, 0));
    assert_eq!(data.waiting.messages, 1, "the leave notice for the host");
    world.balance();
}
