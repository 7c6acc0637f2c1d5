//! Several machines that are one relay: which of them a room belongs to, and how a connection gets there.
//!
//! ```text
//!   accept ─► open ─► a request head ─► connect ──┬─ its room is here: as with one machine
//!                                                 │
//!                                                 └─ it is elsewhere: HandOver, with a pass
//!                                                        │ the adapter moves the socket to that shard
//!                                                        ▼
//!                                              take_over ─► connect, with the same head
//! ```
//!
//! All members of a room are in one shard, so a message never leaves it. What is limited for all shards together
//! is counted by one gate, which a connection passes and a message does not.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::num::NonZeroU16;
use core::time::Duration;

use sha2::{Digest, Sha256};

use crate::canary::{Canary, sings};
use crate::config::Config;
use crate::connection::Phase;
use crate::event::{Action, ConnId, Sink};
use crate::gate::{Gate, Origin};
use crate::http::{Request, Route};
use crate::refusal::Refusal;
use crate::relay::Relay;
use crate::time::Now;

/// The place of one machine among those that are one relay.
#[derive(Clone, Debug)]
pub struct Shard {
    index: u16,
    count: u16,
    /// So that nobody outside knows which rooms share a shard.
    key: [u8; 32],
    gate: Gate,
}

impl Shard {
    /// As many as are wanted, around one gate. `key` is what keeps it secret which rooms share one.
    pub fn all(count: NonZeroU16, key: [u8; 32]) -> Vec<Self> {
        let (count, gate) = (count.get(), Gate::new());
        (0..count).map(|index| Self { index, count, key, gate: gate.clone() }).collect()
    }

    /// The only one.
    pub(crate) fn single() -> Self {
        Self { index: 0, count: 1, key: [0; 32], gate: Gate::new() }
    }

    /// Counted from 0.
    pub fn index(&self) -> usize {
        self.index.into()
    }

    pub(crate) fn has_others(&self) -> bool {
        self.count > 1
    }

    pub(crate) fn number(&self) -> u16 {
        self.index
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What this shard decides by: what waits is counted here only, so each has its equal part of the bound for all
    /// (rule S4), and a flood in one takes nothing from the others.
    pub(crate) fn config(&self, mut config: Config) -> Config {
        if config.max_queued_bytes < usize::MAX {
            config.max_queued_bytes = (config.max_queued_bytes / usize::from(self.count)).max(1);
        }
        config
    }

    /// The shard of a room, by a keyed hash of its id.
    fn home(&self, room: &str) -> u16 {
        if sings(Canary::TwoHomes) {
            return self.index;
        }
        let hash = Sha256::new().chain_update(self.key).chain_update(room).finalize();
        let (word, _) = hash.split_first_chunk().expect("there are 32 bytes");
        u16::try_from(u64::from_le_bytes(*word) % u64::from(self.count)).unwrap_or_default()
    }

    /// Where a request is to be judged: here, unless it asks for a room of another shard.
    fn home_of(&self, request: &Request<'_>) -> u16 {
        if self.count == 1 || request.route() != Route::WebSocket {
            return self.index;
        }
        match request.parameter("room") {
            Ok(room) if !room.is_empty() => self.home(&room),
            Ok(_) | Err(_) => self.index,
        }
    }
}

/// What a connection takes along to another shard besides its socket and its request head. It is to be given to that
/// shard's [`take_over`](Relay::take_over), and once: its place among all sockets is counted until then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Pass {
    ip: IpAddr,
    counted: Option<Origin>,
    /// When its head was due; this one is whole, but what comes of it is not yet known.
    until: Option<Duration>,
}

impl Relay {
    /// A connection of another shard whose room is in this one, with the pass that it was given there. An id like those
    /// of [`open`](Self::open); next comes its request head. `None`: this shard takes nobody in any more, and the
    /// socket is to be closed at once.
    #[must_use = "a connection that nobody knows would never end"]
    #[expect(clippy::needless_pass_by_value, reason = "a pass is used once")]
    pub fn take_over(&mut self, now: Now, pass: Pass, sink: &mut impl Sink) -> Option<ConnId> {
        self.advance(now);
        let Pass { ip, counted, until } = pass;
        if !self.drain.accepts() {
            self.shard.gate().leave(counted);
            return self.turn_away(ip, Refusal::Draining, sink);
        }
        Some(self.seat(ip, counted, until))
    }

    /// Whether the connection has gone to the shard of the room that it asks for.
    pub(crate) fn hands_over(&mut self, slot: u32, request: &Request<'_>, sink: &mut impl Sink) -> bool {
        let (home, connection) = (self.shard.home_of(request), &self.connections[slot]);
        let Phase::Handshake { until } = connection.phase else { return false };
        if home == self.shard.index {
            return false;
        }
        if sings(Canary::TwoPlaces) {
            let _ = self.shard.gate().enter(None, &self.config);
        }
        let pass = Pass { ip: connection.ip, counted: connection.counted, until };
        sink.action(Action::HandOver { conn: self.id(slot), shard: home.into(), pass });
        self.forget(slot);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    fn shards(count: u16, key: u8) -> Vec<Shard> {
        Shard::all(NonZeroU16::new(count).expect("at least one"), [key; 32])
    }

    #[test]
    fn all_shards_agree_where_a_room_is() {
        let four = shards(4, 1);
        for room in 0..100 {
            let room = format!("room {room}");
            assert!(four.iter().all(|shard| shard.home(&room) == four[0].home(&room)));
        }
    }

    #[test]
    fn rooms_are_spread_and_only_the_key_says_how() {
        let mut rooms = vec![0; 4];
        let (one, other) = (&shards(4, 1)[0], &shards(4, 2)[0]);
        let mut same = 0;
        for room in 0..4000 {
            let room = format!("room {room}");
            rooms[usize::from(one.home(&room))] += 1;
            same += usize::from(one.home(&room) == other.home(&room));
        }
        assert!(rooms.iter().all(|count| (900..1100).contains(count)), "{rooms:?}");
        assert!((900..1100).contains(&same), "{same}");
    }

    #[test]
    fn s4_each_has_its_part_of_what_may_wait() {
        let config = Config { max_queued_bytes: 1000, ..Config::default() };
        assert_eq!(shards(3, 0)[2].config(config.clone()).max_queued_bytes, 333);
        assert_eq!(Shard::single().config(config).max_queued_bytes, 1000);
        let unlimited = Config { max_queued_bytes: usize::MAX, ..Config::default() };
        assert_eq!(shards(3, 0)[0].config(unlimited).max_queued_bytes, usize::MAX);
    }
}
