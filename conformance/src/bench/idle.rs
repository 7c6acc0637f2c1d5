//! What connections cost that do nothing yet, or nothing any more.

use std::time::Duration;

use conformance::frame::{ClientFrame, opcode};
use mio::{Events, Poll, Token};

use super::clock;
use super::process::Usage;
use super::rooms;
use super::run::wait;
use super::wire::{Target, Wire, is_message};

/// What each says once.
const MESSAGE_BYTES: usize = 1024;
/// Until a relay has put away what it needs no longer.
const REST: Duration = Duration::from_millis(500);
/// How long all may take to receive what one of each room says.
const PATIENCE: Duration = Duration::from_secs(20);

/// Resident memory of a relay, in bytes.
pub(crate) struct Idle {
    pub(crate) connections: usize,
    pub(crate) people: usize,
    /// Before the first connection.
    pub(crate) empty: u64,
    /// With all of them, before anything was said.
    pub(crate) plain: u64,
    /// After everybody has sent and received.
    pub(crate) used: u64,
}

impl Idle {
    /// Bytes per connection: plain, and used.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a machine fit")]
    pub(crate) fn per_connection(&self) -> (f64, f64) {
        let share = |bytes: u64| (bytes as f64 - self.empty as f64) / self.connections as f64;
        (share(self.plain), share(self.used))
    }
}

/// Opens so many connections, looks, lets each send and receive once, and looks again.
pub(crate) fn idle(target: &Target, connections: usize, people: usize, pid: u32) -> Result<Idle, String> {
    let empty = Usage::of(pid)?.resident;
    let rooms = connections.div_ceil(people);
    let mut wires = rooms::fill(target, rooms, people)?;
    wait(REST);
    let plain = Usage::of(pid)?.resident;
    everybody_speaks(&mut wires, people)?;
    wait(REST);
    let used = Usage::of(pid)?.resident;
    Ok(Idle { connections: wires.len(), people, empty, plain, used })
}

/// In all rooms at once, one after the other.
fn everybody_speaks(wires: &mut [Wire], people: usize) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("a connection failed: {error}");
    let message = ClientFrame::new(opcode::BINARY, [b'i'; MESSAGE_BYTES]).encode();
    let mut poll = Poll::new().map_err(failed)?;
    for (index, wire) in wires.iter_mut().enumerate() {
        wire.register(poll.registry(), Token(index)).map_err(failed)?;
    }
    let (mut events, mut scratch) = (Events::with_capacity(1024), vec![0; 64 * 1024]);
    for turn in 0..people {
        let mut missing = wires.len() / people * (people - 1);
        for wire in wires.iter_mut().skip(turn).step_by(people) {
            wire.output().extend_from_slice(&message);
            wire.flush().map_err(failed)?;
        }
        let deadline = clock() + PATIENCE;
        while missing > 0 {
            let left = deadline.saturating_duration_since(clock());
            if left.is_zero() {
                return Err(format!("{missing} messages of {MESSAGE_BYTES} bytes did not come"));
            }
            poll.poll(&mut events, Some(left)).map_err(failed)?;
            for event in &events {
                let Token(index) = event.token();
                wires[index].flush().map_err(failed)?;
                let count = |code, payload: &[u8]| {
                    let counts = is_message(code) && payload.len() == MESSAGE_BYTES;
                    missing = missing.saturating_sub(usize::from(counts));
                };
                if !wires[index].receive(event.is_read_closed(), &mut scratch, count).map_err(failed)? {
                    return Err("the relay closed a connection".to_owned());
                }
            }
        }
    }
    Ok(())
}

/// What it takes to let somebody in.
pub(crate) struct Connect {
    pub(crate) connections: usize,
    pub(crate) people: usize,
    /// Of the relay, for all of them.
    pub(crate) usage: Usage,
    /// From the first to the last.
    pub(crate) time: Duration,
}

impl Connect {
    /// Microseconds of CPU for one connection.
    #[expect(clippy::cast_precision_loss, reason = "it is shown rounded")]
    pub(crate) fn per_connection(&self) -> f64 {
        self.usage.cpu.as_secs_f64() * 1e6 / self.connections as f64
    }
}

/// Opens so many connections, each with a token of its own.
pub(crate) fn connect(
    target: &Target,
    connections: usize,
    people: usize,
    pid: u32,
) -> Result<Connect, String> {
    let requests = rooms::invite(connections.div_ceil(people), people);
    let (before, start) = (Usage::of(pid)?, clock());
    let wires = rooms::enter(target, &requests, people)?;
    let time = start.elapsed();
    let usage = Usage::of(pid)? - before;
    Ok(Connect { connections: wires.len(), people, usage, time })
}
