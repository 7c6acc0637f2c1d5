//! The payloads that wait anywhere, each held once however many receivers it has, and the account of them.

use alloc::vec::Vec;
use core::cell::OnceCell;
use core::time::Duration;

use crate::canary::{Canary, sings};
use crate::envelope::{Lane, joinable};
use crate::frame::{Batch, Frame, Gather, MAX_HEADER_BYTES};
use crate::slab::Slab;
use crate::stats::{DropReason, Flow, Histogram, LaneStats, Stats};

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
    joinable: OnceCell<bool>,
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

/// Messages that left together, and their bytes.
#[derive(Debug, Default)]
struct Gathered {
    /// None, or several.
    payloads: Vec<u32>,
    batch: Batch,
}

/// Who holds what, and the counters that say so.
#[derive(Debug)]
pub(crate) struct Ledger {
    payloads: Slab<Payload>,
    /// What left last, for the next receiver for which the same leaves: in a room with one speaker, all of them.
    /// Forgotten as soon as any payload is, so an index in it means what it meant, and it keeps nothing alive.
    last: Gathered,
    pub(crate) stats: Stats,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { payloads: Slab::new(), last: Gathered::default(), stats: Stats::default() }
    }

    /// Takes up a message, to be put into outboxes; [`distributed`](Self::distributed) tells into how many.
    pub(crate) fn admit(&mut self, frame: Frame, lane: Lane, now: Duration) -> Waiting {
        let cost = cost(&frame);
        self.stats.held_bytes += cost as u64 + u64::from(sings(Canary::DoubleCount));
        let (payload, _) =
            self.payloads.insert(Payload { frame, lane, holders: 1, joinable: OnceCell::new() });
        Waiting { payload, cost: u32::try_from(cost).unwrap_or(u32::MAX), since: now }
    }

    /// Every outbox that is to hold it does.
    pub(crate) fn distributed(&mut self, waiting: Waiting, receivers: u32) {
        let Payload { frame, lane, holders, .. } = &mut self.payloads[waiting.payload];
        *holders += receivers;
        let (messages, lane) = (u64::from(receivers), *lane);
        let flow = Flow { messages, bytes: messages * frame.payload_len() as u64 };
        let account = self.lane(lane);
        account.enqueued += flow;
        account.waiting += flow;
        self.release(waiting.payload);
    }

    /// An outbox is done with these. Returns what they cost, by lane.
    pub(crate) fn settle(
        &mut self,
        messages: impl IntoIterator<Item = Waiting>,
        fate: Fate,
    ) -> [usize; Lane::ALL.len()] {
        let (mut flows, mut costs) = ([Flow::default(); Lane::ALL.len()], [0; Lane::ALL.len()]);
        for waiting in messages {
            let Payload { frame, lane, .. } = &self.payloads[waiting.payload];
            flows[*lane as usize].add(frame.payload_len());
            costs[*lane as usize] += waiting.cost as usize;
            self.release(waiting.payload);
        }
        for (account, flow) in self.stats.lanes.iter_mut().zip(flows) {
            account.waiting -= flow;
            match fate {
                Fate::Delivered => account.delivered += flow,
                Fate::Dropped(reason) => account.dropped[reason as usize] += flow,
            }
        }
        costs
    }

    /// Whoever admitted it has distributed it, or an outbox is done with it.
    fn release(&mut self, payload: u32) {
        let entry = &mut self.payloads[payload];
        entry.holders -= 1;
        if entry.holders == 0 {
            self.stats.held_bytes -= cost(&entry.frame) as u64;
            self.payloads.remove(payload);
            self.last.payloads.clear();
            self.last.batch = Batch::default();
        }
    }

    /// The bytes of messages that leave together, those joined that may be (rule M3) if `join` is set.
    pub(crate) fn gather(&mut self, messages: &[Waiting], join: bool) -> Batch {
        if let [alone] = messages {
            let mut batch = Batch::default();
            batch.append(self.frame(*alone));
            return batch;
        }
        let payloads = messages.iter().map(|waiting| waiting.payload);
        if !payloads.clone().eq(self.last.payloads.iter().copied()) {
            self.last.batch = self.encode(messages, join);
            self.last.payloads.clear();
            self.last.payloads.extend(payloads);
        }
        self.last.batch.clone()
    }

    fn encode(&self, messages: &[Waiting], join: bool) -> Batch {
        let bytes = messages.iter().map(|waiting| self.frame(*waiting).len()).sum();
        let mut gather = Gather::expecting(bytes);
        for run in messages.chunk_by(|one, next| join && self.joinable(*one) && self.joinable(*next)) {
            match run {
                [alone] => gather.append(self.frame(*alone)),
                run => gather.append_joined(run.iter().map(|waiting| self.frame(*waiting).payload())),
            }
        }
        gather.finish()
    }

    fn frame(&self, waiting: Waiting) -> &Frame {
        &self.payloads[waiting.payload].frame
    }

    fn joinable(&self, waiting: Waiting) -> bool {
        let Payload { frame, joinable: known, .. } = &self.payloads[waiting.payload];
        *known.get_or_init(|| joinable(frame.payload()))
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
