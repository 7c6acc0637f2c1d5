//! One direction of a socket.

use std::collections::VecDeque;
use std::io;
use std::io::{Read, Write};
use std::time::Duration;

use relay_proto::Progress;

use crate::host::Received;

/// What the kernels on both sides hold together. Real ones hold more, so a case about a reader that stalls
/// sends as much as fills those.
const CAPACITY_BYTES: usize = 128 * 1024;

/// Bytes on their way in order, and how they end. By default they arrive at once.
#[derive(Debug)]
pub(crate) struct Pipe {
    capacity: usize,
    latency: Duration,
    now: Duration,
    bytes: VecDeque<u8>,
    /// How many of `bytes`, counted from the front, have arrived.
    arrived: usize,
    /// The others, piece by piece: when each arrives.
    flight: VecDeque<(Duration, usize)>,
    /// When the end arrives.
    finish: Option<Duration>,
    broken: bool,
    /// Nothing arrives any more, and nobody will ever say so.
    dead: bool,
    /// How many bytes were ever taken out.
    taken: u64,
}

/// What a kernel would know of its two directions.
pub(crate) fn progress(inbound: &Pipe, outbound: &Pipe) -> Progress {
    Progress {
        acked: outbound.taken,
        waiting: outbound.bytes.len() as u64,
        received: inbound.taken + inbound.arrived as u64,
    }
}

impl Default for Pipe {
    fn default() -> Self {
        Self::new(CAPACITY_BYTES, Duration::ZERO, Duration::ZERO)
    }
}

impl Pipe {
    pub(crate) fn new(capacity: usize, latency: Duration, now: Duration) -> Self {
        Self {
            capacity,
            latency,
            now,
            bytes: VecDeque::new(),
            arrived: 0,
            flight: VecDeque::new(),
            finish: None,
            broken: false,
            dead: false,
            taken: 0,
        }
    }

    /// It is that late now: what was on its way may have arrived.
    pub(crate) fn advance(&mut self, now: Duration) {
        self.now = now;
        if self.dead {
            return;
        }
        while let Some((at, len)) = self.flight.front() {
            if *at > now {
                return;
            }
            self.arrived += len;
            self.flight.pop_front();
        }
    }

    /// When something arrives next.
    pub(crate) fn next_arrival(&self) -> Option<Duration> {
        if self.dead || self.broken {
            return None;
        }
        let piece = self.flight.front().map(|(at, _)| *at);
        piece.or(self.finish).filter(|at| *at > self.now)
    }

    /// What is sent from now on takes that long. It never overtakes what was sent before.
    pub(crate) fn delay(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// Takes in what there is room for, and says how much that was.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let room = self.capacity.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend(&bytes[..room]);
        let at = self.arrival();
        if at > self.now || self.dead {
            self.flight.push_back((at, room));
        } else {
            self.arrived += room;
        }
        room
    }

    fn arrival(&self) -> Duration {
        let before = self.flight.back().map_or(Duration::ZERO, |(at, _)| *at);
        before.max(self.now + self.latency)
    }

    /// All that has arrived, or how it ended.
    pub(crate) fn take(&mut self) -> Option<Received> {
        self.take_up_to(usize::MAX)
    }

    /// As much of what has arrived, or how it ended.
    pub(crate) fn take_up_to(&mut self, limit: usize) -> Option<Received> {
        if self.arrived > 0 {
            let count = self.arrived.min(limit);
            self.pass(count);
            return (count > 0).then(|| Received::Bytes(self.bytes.drain(..count).collect()));
        }
        if self.broken {
            return Some(Received::Reset);
        }
        self.has_ended().then_some(Received::End)
    }

    fn pass(&mut self, count: usize) {
        self.arrived -= count;
        self.taken += count as u64;
    }

    fn has_ended(&self) -> bool {
        !self.dead && self.bytes.is_empty() && self.finish.is_some_and(|at| at <= self.now)
    }

    /// Whether nothing can be taken out now.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrived == 0
    }

    /// Nothing more will be pushed.
    pub(crate) fn finish(&mut self) {
        self.finish.get_or_insert(self.arrival());
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// What was in flight is lost.
    pub(crate) fn break_off(&mut self) {
        self.bytes.clear();
        self.flight.clear();
        self.arrived = 0;
        self.broken = true;
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The reader has closed its socket: what arrives is thrown away.
    pub(crate) fn ignore(&mut self) {
        self.capacity = usize::MAX;
    }

    /// The other side is gone, and nobody says so.
    pub(crate) fn die(&mut self) {
        self.dead = true;
    }
}

/// As tungstenite wants it: its reads come from the pipe, its writes go nowhere.
pub(super) struct Inlet<'a>(pub(super) &'a mut Pipe);

impl Read for Inlet<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() && !self.0.has_ended() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let limit = self.0.arrived.min(buffer.len());
        let len = self.0.bytes.read(&mut buffer[..limit])?;
        self.0.pass(len);
        Ok(len)
    }
}

impl Write for Inlet<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
