//! What one reader that stalls costs the others, and the relay (rules S1, S3):
//!
//! ```text
//! relay-tokio & cargo run --release -p conformance --example stalled_reader -- 127.0.0.1:8443 $!
//! ```
//!
//! A room of twenty under load: the host sends voice and data, eighteen guests measure how long each message takes.
//! After a first minute another guest joins and does not read for a second minute.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it measures, and prints what it measured"
)]

use std::env;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conformance::frame::{ClientFrame, opcode};
use conformance::net::Sockets;
use conformance::{Peer, Seen, Stage};

const GUESTS: usize = 18;
const PHASE: Duration = Duration::from_secs(60);
/// Voice at this pace, and with each packet one data message.
const PACE: Duration = Duration::from_millis(20);
const VOICE_BYTES: usize = 120;
const DATA_BYTES: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let address: SocketAddr = arguments.next().ok_or("the first argument is ADDRESS:PORT")?.parse()?;
    let pid: u32 = arguments.next().ok_or("the second argument is the process id of the relay")?.parse()?;

    let start = Instant::now();
    let sockets = Sockets::new(address, None);
    let stage = Stage::new(&sockets, None, &format!("stalled {}", std::process::id()));
    let room = stage.room("room");
    let mut host = stage.host(&room, "host");
    let over = AtomicBool::new(false);
    let latencies: Vec<[Vec<Duration>; 2]> = thread::scope(|scope| {
        let guests: Vec<_> = (0..GUESTS)
            .map(|n| {
                let (room, over) = (room.clone(), &over);
                scope.spawn(move || {
                    let sockets = Sockets::new(address, None);
                    let stage = Stage::new(&sockets, None, "");
                    listen(&mut stage.guest(&room, &format!("guest {n}")), start, over)
                })
            })
            .collect();
        println!("memory before: {} KiB", resident_kib(pid));
        talk(&mut host, start, PHASE, pid);
        println!("one more guest joins and does not read");
        let stalled = stage.guest(&room, "stalled");
        talk(&mut host, start, PHASE, pid);
        drop(stalled);
        over.store(true, Ordering::Relaxed);
        guests.into_iter().map(|guest| guest.join().expect("a guest")).collect()
    });
    for (phase, name) in ["everybody reads", "one stalls"].into_iter().enumerate() {
        let mut all: Vec<Duration> =
            latencies.iter().flat_map(|phases| phases[phase].iter().copied()).collect();
        all.sort_unstable();
        let at = |share: usize| all[(all.len() - 1) * share / 1000];
        println!(
            "{name}: {} deliveries, p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
            all.len(),
            at(500),
            at(990),
            at(999),
            at(1000)
        );
    }
    Ok(())
}

/// Sends at a pace. Each message says when it was meant to be sent.
fn talk(host: &mut Peer<'_>, start: Instant, time: Duration, pid: u32) {
    let begin = start.elapsed();
    let (mut due, mut most) = (begin, 0);
    while due < begin + time {
        thread::sleep(due.saturating_sub(start.elapsed()));
        let stamp = due.as_nanos().to_string();
        let voice = format!("KV{stamp:>width$}", width = VOICE_BYTES - 2);
        let data = format!("{{{stamp:>width$}}}", width = DATA_BYTES - 2);
        for payload in [voice, data] {
            host.bytes(&ClientFrame::new(opcode::BINARY, payload.into_bytes()).encode());
        }
        most = most.max(resident_kib(pid));
        due += PACE;
    }
    println!("memory at most: {most} KiB");
}

/// How long each message took, in the first minute and after it.
fn listen(guest: &mut Peer<'_>, start: Instant, over: &AtomicBool) -> [Vec<Duration>; 2] {
    let mut latencies = [Vec::new(), Vec::new()];
    while !over.load(Ordering::Relaxed) {
        let Seen::Message(message) = guest.see_within(Duration::from_millis(200)) else { continue };
        let digits: String = message.iter().filter(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
        // A leave notice holds digits too, but no such time.
        let Some(sent) = digits.parse().ok().map(Duration::from_nanos) else { continue };
        let now = start.elapsed();
        if sent <= now && now.checked_sub(sent).is_some_and(|took| took < PHASE) {
            latencies[usize::from(sent > PHASE)].push(now.saturating_sub(sent));
        }
    }
    latencies
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the relay runs on this machine");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
