//! Stopping with many connections (rule D1): five hundred of them, with messages that wait for each, lose none
//! and are gone in time.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use conformance::net::Sockets;
use conformance::{Peer, Stage};
use relay_host::{Running, StartError};
use relay_proto::Settings;

const ROOMS: usize = 25;
const GUESTS: usize = 19;
const MESSAGES: usize = 40;
/// More in all than the socket of a guest that does not read takes in, so that the rest waits in the relay.
const MESSAGE_BYTES: usize = 16 * 1024;

const WINDOW: Duration = Duration::from_secs(2);
/// Rule D1: at the latest so long after the window.
const GRACE: Duration = Duration::from_secs(5);

#[test]
fn d1_tokio_drains_a_crowd() {
    drain_a_crowd(relay_tokio::spawn);
}

#[test]
fn d1_smol_drains_a_crowd() {
    drain_a_crowd(relay_smol::spawn);
}

#[expect(clippy::disallowed_methods, reason = "the rule is about time, and these are real sockets")]
fn drain_a_crowd(spawn: fn(&Settings) -> Result<Running, StartError>) {
    let window = WINDOW.as_secs().to_string();
    let vars = [
        ("RELAY_ADDR", "127.0.0.1:0"),
        ("RELAY_RATE_LIMIT_PER_IP", "0"),
        ("RELAY_DRAIN_SECONDS", window.as_str()),
    ];
    let relay = spawn(&Settings::from_vars(vars).expect("valid")).expect("it starts");
    let (addr, everything_waits) = (relay.addr(), Barrier::new(ROOMS + 1));
    thread::scope(|scope| {
        for room in 0..ROOMS {
            let everything_waits = &everything_waits;
            scope.spawn(move || {
                let sockets = Sockets::new(addr, None);
                let stage = Stage::new(&sockets, None, &format!("crowd {room}"));
                live_through_a_drain(&stage, everything_waits);
            });
        }
        everything_waits.wait();
        let start = Instant::now();
        relay.drain();
        relay.wait();
        let took = start.elapsed();
        assert!(took <= WINDOW + GRACE, "{took:?}");
    });
}

/// A room whose host has sent everything before the drain begins, and whose guests read only then.
fn live_through_a_drain(stage: &Stage<'_>, everything_waits: &Barrier) {
    let room = stage.room("room");
    let mut host = stage.host(&room, "host");
    let mut guests: Vec<Peer<'_>> = (0..GUESTS).map(|n| stage.guest(&room, &format!("guest {n}"))).collect();
    let messages: Vec<Vec<u8>> = (0..MESSAGES).map(|n| format!("{n:MESSAGE_BYTES$}").into_bytes()).collect();
    for message in &messages {
        host.send(message);
    }
    // The relay has taken all of them when it answers what came behind them.
    host.ping("all taken");
    host.expect_pong("all taken");
    everything_waits.wait();
    for guest in &mut guests {
        for message in &messages {
            guest.expect(message);
        }
        guest.expect_close(1012, "restart");
    }
    host.expect_close(1012, "restart");
}
