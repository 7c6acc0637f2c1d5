//! What the machine takes without any socket: `cargo bench -p relay-proto`.

#[path = "../tests/crowd/mod.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is shared with a test")]
mod crowd;

use std::time::Duration;

use bytes::Bytes;
use crowd::{Crowd, key, query, token};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use relay_proto::token::verify;
use relay_proto::{Event, Role};

/// Longer than a coalescing window: every receiver is idle again.
const APART: Duration = Duration::from_millis(20);
const CROWD: usize = 10_000;
const MEMBERS: usize = 20;

fn main() {
    divan::main();
}

/// One voice packet to everybody else, each written on its own.
#[divan::bench(args = [2, 8, 20])]
fn fan_out(bencher: Bencher<'_, '_>, members: usize) {
    let mut crowd = Crowd::new();
    let room = crowd.room("room", members);
    let packet = Bytes::from([&b"KV"[..], &[0; 118]].concat());
    bencher.counter(ItemsCount::new(members - 1)).bench_local(|| {
        crowd.pass(APART);
        crowd.message(room[0], packet.clone());
    });
}

/// As many packets as come in one window, written together at its end.
#[divan::bench(args = [2, 8, 20])]
fn fan_out_of_a_window(bencher: Bencher<'_, '_>, members: usize) {
    const PACKETS: usize = 10;
    let mut crowd = Crowd::new();
    let room = crowd.room("room", members);
    let packet = Bytes::from([&b"KV"[..], &[0; 118]].concat());
    bencher.counter(ItemsCount::new(PACKETS * (members - 1))).bench_local(|| {
        for _ in 0..PACKETS {
            crowd.message(room[0], packet.clone());
        }
        crowd.pass(APART);
        crowd.handle(Event::Tick);
    });
}

/// A guest that joins, signature included, and leaves.
#[divan::bench(args = [2, 20])]
fn join_and_leave(bencher: Bencher<'_, '_>, members: usize) {
    let mut crowd = Crowd::new();
    crowd.room("room", members - 1);
    let query = query("room", "newcomer", Role::Guest);
    bencher.bench_local(|| {
        crowd.pass(APART);
        let conn = crowd.join(&query);
        crowd.leave(conn);
    });
}

/// Nothing is due for any of ten thousand.
#[divan::bench]
fn idle_tick(bencher: Bencher<'_, '_>) {
    let mut crowd = Crowd::new();
    for room in 0..CROWD / MEMBERS {
        crowd.room(&room.to_string(), MEMBERS);
    }
    bencher.bench_local(|| crowd.handle(Event::Tick));
}

#[divan::bench]
fn verify_token(bencher: Bencher<'_, '_>) {
    let (token, key) = (token("room", "guest", Role::Guest), key().verifying_key());
    let unix = Duration::from_secs(1_800_000_000);
    bencher.bench_local(|| verify(black_box(&token), &key, unix));
}
