//! What came of it: counts and latencies.

use hdrhistogram::Histogram;

/// Three digits, whatever the latency.
const DIGITS: u8 = 3;
/// Nothing is waited for that long.
const LONGEST: u64 = 3600 * 1_000_000_000;

/// Of one thread, or of all.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Messages.
    pub(crate) sent: u64,
    /// What should have come of them.
    pub(crate) expected: u64,
    /// Messages received, over all receivers.
    pub(crate) received: u64,
    /// Those of them that came while the server's CPU was measured.
    pub(crate) measured: u64,
    /// Numbers that never came, over all receivers.
    pub(crate) lost: i64,
    /// Numbers below one that had come already: too late, or a second time.
    pub(crate) disordered: u64,
    /// Messages of another room, or one's own.
    pub(crate) foreign: u64,
    /// What else came: leave notices.
    pub(crate) other: u64,
    /// How often nothing moved in a closed loop.
    pub(crate) stalls: u64,
    /// Connections that ended before the run did, and why.
    pub(crate) closed: Vec<String>,
    /// Nanoseconds from when a message was meant to be sent.
    pub(crate) latency: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            sent: 0,
            expected: 0,
            received: 0,
            measured: 0,
            lost: 0,
            disordered: 0,
            foreign: 0,
            other: 0,
            stalls: 0,
            closed: Vec::new(),
            latency: Histogram::new_with_max(LONGEST, DIGITS).expect("both are allowed"),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.expected += other.expected;
        self.received += other.received;
        self.measured += other.measured;
        self.lost += other.lost;
        self.disordered += other.disordered;
        self.foreign += other.foreign;
        self.other += other.other;
        self.stalls += other.stalls;
        self.closed.extend(other.closed);
        self.latency += other.latency;
    }

    /// What no relay may do. Voice may be dropped (rule S2), data may not.
    pub(crate) fn faults(&self, voice: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if self.lost != 0 && !voice {
            faults.push(format!("{} messages were lost", self.lost));
        }
        if self.disordered != 0 {
            faults.push(format!("{} messages came late or twice", self.disordered));
        }
        if self.foreign != 0 {
            faults.push(format!("{} messages came to where they do not belong", self.foreign));
        }
        if let Some(first) = self.closed.first() {
            faults.push(format!("{} connections ended early, the first with: {first}", self.closed.len()));
        }
        faults
    }
}
