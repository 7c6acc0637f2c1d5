//! The payloads that wait anywhere, each held once however many receivers it has, and the account of them.

use core::time::Duration;

use crate::canary::{Canary, sings};
use crate::envelope::{Lane, joinable};
use crate::frame::{Frame, MAX_HEADER_BYTES};
use crate::slab::Slab;
use crate::stats::{DropReason, Histogram, LaneStats, Stats};

/// What a waiting message costs besides its bytes. Without it, a bound in bytes would not bound a flood of
/// empty messages.
const OVERHEAD_BYTES: usize = 64;

/// At most what a waiting message costs besides its payload.
pub(crate) const MAX_OVERHEAD_BYTES: usize = OVERHEAD_BYTES + MAX_HEADER_BYTES;

/// A message on its way: its frame is encoded once and shared by all outboxes that hold its index.
#[derive(Debug)]
struct Payload {
    frame: Frame,
    lane: Lane,
    /// Outboxes that hold it.
    holders: u32,
    /// Asked at most once, and only of a message that had to wait.
    joinable: Option<bool>,
}

/// A message in an outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) payload: u32,
    /// What it costs to keep it: its frame, and something for the bookkeeping.
    pub(crate) cost: u32,
    pub(crate) since: Duration,
}

/// What became of a message that waited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Delivered,
    Dropped(DropReason),
}

/// Who holds what, and the counters that say so.
#[derive(Debug)]
pub(crate) struct Ledger {
    payloads: Slab<Payload>,
    pub(crate) stats: Stats,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { payloads: Slab::new(), stats: Stats::default() }
    }

    /// Takes up a message that nobody holds yet; [`release`](Self::release) ends its distribution.
    pub(crate) fn admit(&mut self, frame: Frame, lane: Lane) -> u32 {
        self.stats.held_bytes += cost(&frame) as u64 + u64::from(sings(Canary::DoubleCount));
        self.payloads.insert(Payload { frame, lane, holders: 1, joinable: None }).0
    }

    /// One more outbox holds it.
    pub(crate) fn hold(&mut self, payload: u32, now: Duration) -> Waiting {
        let Payload { frame, lane, holders, .. } = &mut self.payloads[payload];
        let (bytes, cost, lane) = (frame.payload_len(), cost(frame), *lane);
        *holders += 1;
        let account = self.lane(lane);
        account.enqueued.add(bytes);
        account.waiting.add(bytes);
        Waiting { payload, cost: u32::try_from(cost).unwrap_or(u32::MAX), since: now }
    }

    /// An outbox is done with it.
    pub(crate) fn settle(&mut self, waiting: Waiting, fate: Fate) {
        let Payload { frame, lane, .. } = &self.payloads[waiting.payload];
        let (bytes, lane) = (frame.payload_len(), *lane);
        let account = self.lane(lane);
        account.waiting.sub(bytes);
        match fate {
            Fate::Delivered => account.delivered.add(bytes),
            Fate::Dropped(reason) => account.dropped[reason as usize].add(bytes),
        }
        self.release(waiting.payload);
    }

    /// Whoever admitted it has distributed it, or an outbox is done with it.
    pub(crate) fn release(&mut self, payload: u32) {
        let entry = &mut self.payloads[payload];
        entry.holders -= 1;
        if entry.holders == 0 {
            self.stats.held_bytes -= cost(&entry.frame) as u64;
            self.payloads.remove(payload);
        }
    }

    pub(crate) fn frame(&self, payload: u32) -> &Frame {
        &self.payloads[payload].frame
    }

    pub(crate) fn lane_of(&self, payload: u32) -> Lane {
        self.payloads[payload].lane
    }

    /// Rule M3.
    pub(crate) fn joinable(&mut self, payload: u32) -> bool {
        let Payload { frame, joinable: known, .. } = &mut self.payloads[payload];
        *known.get_or_insert_with(|| joinable(&frame.payload()))
    }

    /// It leaves for its receiver after this time in the outbox.
    pub(crate) fn waited(&mut self, lane: Lane, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.lane(lane).waited.observe(Histogram::WAIT, micros);
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneStats {
        &mut self.stats.lanes[lane as usize]
    }
}

fn cost(frame: &Frame) -> usize {
    frame.len() + OVERHEAD_BYTES
}
