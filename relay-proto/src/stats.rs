//! What is counted: plain numbers that an adapter renders. No room, peer, address or key is in them.

use alloc::collections::BTreeMap;
use core::ops::{AddAssign, SubAssign};

use crate::envelope::Lane;
use crate::event::Initiator;
use crate::refusal::Refusal;

/// Messages and their payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Flow {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

impl AddAssign for Flow {
    fn add_assign(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }
}

impl SubAssign for Flow {
    fn sub_assign(&mut self, less: Self) {
        self.messages -= less.messages;
        self.bytes -= less.bytes;
    }
}

/// Why a message that waited was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Voice: more than `RELAY_VOICE_QUEUE` waited (rule S2).
    QueueFull,
    /// Voice: older than `RELAY_VOICE_MAX_AGE_MS` (rule S2).
    Stale,
    /// Its receiver was closed for being slow (rules S3, S4).
    SlowConsumer,
    /// Its receiver left, or was closed for another reason.
    Gone,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [DropReason; 4] =
        [DropReason::QueueFull, DropReason::Stale, DropReason::SlowConsumer, DropReason::Gone];

    /// Whether messages of this lane are ever let go for it: data is not while its receiver is there (rule S3).
    pub fn concerns(self, lane: Lane) -> bool {
        match self {
            DropReason::QueueFull | DropReason::Stale => lane == Lane::Voice,
            DropReason::SlowConsumer | DropReason::Gone => true,
        }
    }

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::Stale => "stale",
            DropReason::SlowConsumer => "slow_consumer",
            DropReason::Gone => "gone",
        }
    }
}

/// The account of one lane. Always: `enqueued = delivered + dropped + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Came in from clients.
    pub received: Flow,
    /// Put into an outbox: each message once per receiver.
    pub enqueued: Flow,
    /// Reached the kernel.
    pub delivered: Flow,
    /// Let go, by [`DropReason`].
    pub dropped: [Flow; DropReason::ALL.len()],
    /// In an outbox or being written.
    pub waiting: Flow,
    /// Time from the outbox to the adapter, in microseconds.
    pub waited: Histogram,
}

impl LaneStats {
    fn merge(&mut self, other: &Self) {
        let Self { received, enqueued, delivered, dropped, waiting, waited } = other;
        self.received += *received;
        self.enqueued += *enqueued;
        self.delivered += *delivered;
        self.dropped.iter_mut().zip(dropped).for_each(|(sum, flow)| *sum += *flow);
        self.waiting += *waiting;
        self.waited.merge(waited);
    }
}

/// Counts of values up to each of its bounds, with everything above in the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// One more than there are bounds; not cumulative.
    pub counts: [u64; Histogram::MAX_BOUNDS + 1],
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    const MAX_BOUNDS: usize = 12;

    /// Members reached by one message.
    pub const FAN_OUT: &'static [u64] = &[0, 1, 2, 4, 8, 16, 32, 64, 128];
    /// Bytes.
    pub const SIZE: &'static [u64] =
        &[64, 128, 256, 512, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 16_777_216];
    /// Microseconds.
    pub const WAIT: &'static [u64] =
        &[100, 500, 1000, 2000, 5000, 10_000, 25_000, 50_000, 100_000, 400_000, 2_000_000, 10_000_000];

    pub(crate) fn observe(&mut self, bounds: &[u64], value: u64) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many values were seen.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Every counter of one relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sockets, from accept to close.
    pub connections: u64,
    /// Members that are hosts.
    pub hosts: u64,
    /// Members that are guests.
    pub guests: u64,
    /// Live rooms.
    pub rooms: u64,
    /// Whether the relay is stopping (rule D1).
    pub draining: bool,
    /// Bytes that wait anywhere: a payload counts once, however many receivers it has (rule S4).
    pub held_bytes: u64,
    /// Upgrades.
    pub accepted: u64,
    /// By the position of their code in [`Refusal::CODES`].
    pub refused: [u64; Refusal::CODES.len()],
    /// Members that left, by who ended it and the close code; a code outside of
    /// [`Stats::CLOSE_CODES`] counts as 0.
    pub disconnects: BTreeMap<(Initiator, u16), u64>,
    /// By [`Lane`].
    pub lanes: [LaneStats; Lane::ALL.len()],
    /// Receivers that were closed for being slow.
    pub slow_consumers: u64,
    /// Times that a sender was made to wait by its receive limit.
    pub paused: u64,
    /// Receivers per message.
    pub fan_out: Histogram,
    /// Payload bytes per message.
    pub message_size: Histogram,
    /// From ping to pong, in microseconds.
    pub ping_round_trip: Histogram,
}

impl Stats {
    /// The close codes that are told apart: what the relay sends, what clients commonly send, and 1006 for
    /// an end without a close frame.
    pub const CLOSE_CODES: [u16; 12] =
        [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013];

    /// Those of them with which the relay closes of its own accord (rules M5, M6, S3, T1, R9, D1).
    pub const RELAY_CLOSE_CODES: [u16; 6] = [1001, 1002, 1007, 1009, 1012, 1013];

    /// The account of a lane.
    pub fn lane(&self, lane: Lane) -> &LaneStats {
        &self.lanes[lane as usize]
    }

    /// Adds what another shard of the same relay has counted.
    pub fn merge(&mut self, other: &Self) {
        // Taken apart, so that a counter that is new cannot be forgotten here.
        let Self {
            connections,
            hosts,
            guests,
            rooms,
            draining,
            held_bytes,
            accepted,
            refused,
            disconnects,
            lanes,
            slow_consumers,
            paused,
            fan_out,
            message_size,
            ping_round_trip,
        } = other;
        self.connections += connections;
        self.hosts += hosts;
        self.guests += guests;
        self.rooms += rooms;
        self.draining |= draining;
        self.held_bytes += held_bytes;
        self.accepted += accepted;
        self.refused.iter_mut().zip(refused).for_each(|(sum, count)| *sum += count);
        for (end, count) in disconnects {
            *self.disconnects.entry(*end).or_default() += count;
        }
        self.lanes.iter_mut().zip(lanes).for_each(|(sum, lane)| sum.merge(lane));
        self.slow_consumers += slow_consumers;
        self.paused += paused;
        self.fan_out.merge(fan_out);
        self.message_size.merge(message_size);
        self.ping_round_trip.merge(ping_round_trip);
    }

    pub(crate) fn disconnected(&mut self, initiator: Initiator, code: u16) {
        let code = if Self::CLOSE_CODES.contains(&code) { code } else { 0 };
        *self.disconnects.entry((initiator, code)).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every counter is another number.
    fn counted(mut next: impl FnMut() -> u64) -> Stats {
        let flow = |next: &mut dyn FnMut() -> u64| Flow { messages: next(), bytes: next() };
        let histogram = |next: &mut dyn FnMut() -> u64| Histogram {
            counts: core::array::from_fn(|_| next()),
            sum: next(),
        };
        Stats {
            connections: next(),
            hosts: next(),
            guests: next(),
            rooms: next(),
            draining: true,
            held_bytes: next(),
            accepted: next(),
            refused: core::array::from_fn(|_| next()),
            disconnects: Stats::CLOSE_CODES.map(|code| ((Initiator::Relay, code), next())).into(),
            lanes: core::array::from_fn(|_| LaneStats {
                received: flow(&mut next),
                enqueued: flow(&mut next),
                delivered: flow(&mut next),
                dropped: core::array::from_fn(|_| flow(&mut next)),
                waiting: flow(&mut next),
                waited: histogram(&mut next),
            }),
            slow_consumers: next(),
            paused: next(),
            fan_out: histogram(&mut next),
            message_size: histogram(&mut next),
            ping_round_trip: histogram(&mut next),
        }
    }

    #[test]
    fn of_two_shards_every_counter_is_the_sum() {
        let from = |start: u64| {
            let mut last = start;
            counted(move || {
                last += 1;
                last
            })
        };
        let mut number = 0;
        let sum = counted(|| {
            number += 1;
            (1000 + number) + (5000 + number)
        });
        let mut stats = Stats::default();
        stats.merge(&from(1000));
        assert_eq!(stats, from(1000), "nothing is added to");
        stats.merge(&from(5000));
        assert_eq!(stats, sum);
        stats.merge(&Stats::default());
        assert_eq!(stats, sum, "nothing is added, and it still drains");
    }

    #[test]
    fn an_end_that_only_one_shard_has_seen_counts() {
        let [mut one, mut other] = [Stats::default(), Stats::default()];
        one.disconnected(Initiator::Peer, 1000);
        other.disconnected(Initiator::Peer, 1000);
        other.disconnected(Initiator::Relay, 1012);
        one.merge(&other);
        assert_eq!(one.disconnects, [((Initiator::Peer, 1000), 2), ((Initiator::Relay, 1012), 1)].into());
    }
}
