//! What is allocated in the steady state, exactly: whoever changes it changes it here, and knows.

#[allow(unreachable_pub, dead_code, reason = "it is shared with the benchmarks")]
mod crowd;

use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use crowd::Crowd;
use relay_proto::Event;

/// Rounds until nothing grows any more.
const WARM_UP: usize = 200;
const MEASURED: usize = 100;
/// Longer than a coalescing window.
const APART: Duration = Duration::from_millis(20);

/// Allocations of all measured rounds, and batches that were written in them.
fn steady(members: usize, speakers: usize, payload: &Bytes, at_once: usize) -> (u64, usize) {
    let mut crowd = Crowd::new();
    let room = crowd.room("room", members);
    let round = |crowd: &mut Crowd| {
        for message in 0..at_once {
            crowd.message(room[message % speakers], payload.clone());
        }
        crowd.end_turn();
        crowd.pass(APART);
        crowd.handle(Event::Tick);
    };
    (0..WARM_UP).for_each(|_| round(&mut crowd));
    crowd.written = 0;
    let allocated = measure(|| (0..MEASURED).for_each(|_| round(&mut crowd)));
    assert_eq!(allocated.count_current, 0, "nothing is kept");
    (allocated.count_total, crowd.written)
}

fn voice() -> Bytes {
    Bytes::from([&b"KV"[..], &[0; 118]].concat())
}

fn data() -> Bytes {
    Bytes::from(format!("{{\"pad\":\"{}\"}}", "x".repeat(1014)))
}

#[test]
fn a_message_that_is_written_at_once() {
    let per_message = |members, payload| {
        let (count, written) = steady(members, 1, &payload, 1);
        assert_eq!(written, MEASURED * (members - 1));
        count
    };
    let counts = [2, 8, 20].map(|members| (per_message(members, voice()), per_message(members, data())));
    assert_eq!(
        counts,
        [(200, 200), (200, 200), (200, 200)],
        "for 100 of voice and of data, to 1, 7 and 19 receivers"
    );
}

#[test]
fn messages_that_wait_for_a_window() {
    let of_window = |speakers, payload| {
        let (count, written) = steady(20, speakers, &payload, 20);
        assert!(written < MEASURED * 20 * 19 / 2, "they were written together: {written}");
        count
    };
    let counts = [20, 1].map(|speakers| (of_window(speakers, voice()), of_window(speakers, data())));
    assert_eq!(
        counts,
        [(8_000, 9_400), (4_200, 5_500)],
        "for 100 windows of 20 messages to 19 receivers each: all speak, so no two get the same; one does"
    );
}

#[test]
fn an_idle_tick_allocates_nothing() {
    let mut crowd = Crowd::new();
    for room in 0..50 {
        crowd.room(&room.to_string(), 20);
    }
    crowd.handle(Event::Tick);
    assert_eq!(measure(|| (0..MEASURED).for_each(|_| crowd.handle(Event::Tick))).count_total, 0);
}
