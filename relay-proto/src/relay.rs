//! The machine itself: what it holds, and where each event goes. How each is handled stands in the files
//! beside it, one subject each: [`admit`](crate::admit), [`deliver`](crate::deliver),
//! [`depart`](crate::depart), [`keepalive`](crate::keepalive), [`drain`](crate::drain).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use crate::canary::{Canary, sings};
use crate::config::Config;
use crate::connection::{Connection, Intake, Phase, Pulse};
use crate::drain::Drain;
use crate::event::{ConnId, Event, Notice, Sink};
use crate::gate::Origin;
use crate::ledger::Ledger;
use crate::outbox::Outbox;
use crate::refusal::Refusal;
use crate::rng::Rng;
use crate::room::Rooms;
use crate::shard::Shard;
use crate::slab::Slab;
use crate::stats::Stats;
use crate::time::Now;
use crate::timers::{Key, Timers, Wake};

/// One relay: rooms, connections, what waits for them, and when to look again.
///
/// # Contract
///
/// 1. When [`handle`](Self::handle) returns, nothing is pending inside but timers: whoever has carried out
///    the actions and sleeps until [`next_deadline`](Self::next_deadline) has forgotten nothing. A message makes
///    that deadline now: its receivers are written to by the [`Event::Tick`] that ends the adapter's turn, each
///    with one write for all that the turn brought it.
/// 2. No input of a peer makes `handle` panic or fail. What an adapter does wrong is a
///    [`Notice::Misuse`] and otherwise without effect.
/// 3. The same configuration, seed, events and times give the same actions, byte for byte, on every machine
///    and in every process.
/// 4. Work per event is bounded by the size of the room (and by the logarithm of how much there is
///    otherwise). A connection has one timer, and traffic does not move it.
/// 5. A `now.monotonic` that goes back is clamped; `now.unix` may jump. Only the times of tokens and the `ts`
///    of a leave notice read it.
/// 6. At most one [`Action`](crate::Action) that asks for a write is outstanding per connection, until its
///    [`Event::Sent`].
/// 7. A member is in its room when its [`Action::Upgrade`](crate::Action::Upgrade) is emitted; what is for it
///    waits until the 101 is written (rule R5).
#[derive(Debug)]
pub struct Relay {
    pub(crate) config: Config,
    pub(crate) now: Now,
    pub(crate) connections: Slab<Connection>,
    pub(crate) rooms: Rooms,
    pub(crate) ledger: Ledger,
    pub(crate) shard: Shard,
    pub(crate) timers: Timers,
    /// Receivers by what they hold, in steps; those that hold little are not in it (rule S4).
    pub(crate) heaviest: BTreeSet<(usize, u32)>,
    /// Receivers that turned out too slow while a message was being distributed.
    pub(crate) too_slow: Vec<u32>,
    pub(crate) drain: Drain,
    pub(crate) rng: Rng,
}

impl Relay {
    /// An empty relay. `seed` is all the randomness it will ever have.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self::of_shard(config, seed, Shard::single())
    }

    /// One of several machines that are one relay together.
    pub fn of_shard(config: Config, seed: [u8; 32], shard: Shard) -> Self {
        Self {
            config: shard.config(config),
            now: Now::default(),
            connections: Slab::new(),
            rooms: Rooms::new(),
            ledger: Ledger::new(),
            shard,
            timers: Timers::new(),
            heaviest: BTreeSet::new(),
            too_slow: Vec::new(),
            drain: Drain::new(),
            rng: Rng::new(seed),
        }
    }

    /// A socket was accepted from this address. Ids are made here, and by [`take_over`](Self::take_over) where there
    /// are several shards. `None`: it is one too many, to be closed at once.
    #[must_use = "a connection that nobody knows would never end"]
    pub fn open(&mut self, now: Now, ip: IpAddr, sink: &mut impl Sink) -> Option<ConnId> {
        self.advance(now);
        let ip = ip.to_canonical();
        if !self.drain.accepts() {
            return self.turn_away(ip, Refusal::Draining, sink);
        }
        // A proxy's sockets belong to many clients: they are counted when the head tells for whom.
        let proxied = self.config.trusted_proxies.iter().any(|network| network.contains(&ip));
        let counted = (!proxied).then(|| Origin::of(ip));
        if !self.shard.gate().enter(counted, &self.config) {
            return self.turn_away(ip, Refusal::TooManyConnections, sink);
        }
        let until = self.config.handshake_timeout.map(|timeout| self.now.monotonic + timeout);
        Some(self.seat(ip, counted, until))
    }

    /// A connection whose request head is awaited.
    pub(crate) fn seat(&mut self, ip: IpAddr, counted: Option<Origin>, until: Option<Duration>) -> ConnId {
        let (slot, _) = self.connections.insert(Connection {
            ip,
            counted,
            phase: Phase::Handshake { until },
            outbox: Outbox::default(),
            pulse: Pulse::default(),
            intake: Intake::default(),
            armed: None,
            flush: None,
            weight: 0,
        });
        self.ledger.stats.connections += 1;
        self.arm(slot);
        self.id(slot)
    }

    pub(crate) fn turn_away(&mut self, ip: IpAddr, refusal: Refusal, sink: &mut impl Sink) -> Option<ConnId> {
        self.ledger.stats.refused[refusal.index()] += 1;
        sink.notice(Notice::Refused { ip, refusal });
        None
    }

    /// Takes one event and emits what follows from it.
    pub fn handle(&mut self, now: Now, event: Event<'_>, sink: &mut impl Sink) {
        self.advance(now);
        match event {
            Event::Connect { conn, request } => self.with(conn, |relay, slot| {
                relay.connect(slot, request, sink);
            }),
            Event::Message { conn, payload } => self.with(conn, |relay, slot| {
                relay.message(slot, payload, sink);
            }),
            Event::Ping { conn, payload } => self.with(conn, |relay, slot| relay.pinged(slot, payload, sink)),
            Event::Pong { conn } => self.with(conn, |relay, slot| relay.ponged(slot, sink)),
            Event::PeerClose { conn, code } => self.with(conn, |relay, slot| {
                relay.peer_closed(slot, code, sink);
            }),
            Event::Fault { conn, fault } => self.with(conn, |relay, slot| relay.fault(slot, fault, sink)),
            Event::Sent { conn } => self.with(conn, |relay, slot| relay.sent(slot, sink)),
            Event::Acked { conn, progress } => self.with(conn, |relay, slot| {
                relay.acked(slot, progress, sink);
            }),
            Event::Disconnect { conn } => self.with(conn, |relay, slot| relay.disconnected(slot, sink)),
            Event::Tick => self.tick(sink),
            Event::Drain => self.start_drain(sink),
        }
        self.close_the_slow(sink);
        self.exit_when_done(sink);
    }

    /// Whether all that it will decide is what a new one would: nobody is connected, and no rate is used up.
    pub fn is_as_new(&self, now: Now) -> bool {
        self.connections.len() == 0 && self.drain.is_running() && self.shard.gate().is_as_new(now.monotonic)
    }

    /// When to send the next [`Event::Tick`] at the latest, and why.
    pub fn next_deadline(&self) -> Option<(Duration, Wake)> {
        self.timers.next()
    }

    /// What has been counted.
    pub fn stats(&self) -> &Stats {
        &self.ledger.stats
    }

    /// Contract 5.
    pub(crate) fn advance(&mut self, now: Now) {
        self.now = Now { monotonic: now.monotonic.max(self.now.monotonic), unix: now.unix };
    }

    /// Whether a connection has not ended.
    pub(crate) fn knows(&self, conn: ConnId) -> bool {
        conn.shard == self.shard.number() && self.connections.lives(conn.slot, conn.generation)
    }

    /// A late event for a connection that has ended is ignored.
    fn with(&mut self, conn: ConnId, work: impl FnOnce(&mut Self, u32)) {
        if self.knows(conn) {
            work(self, conn.slot);
        }
    }

    pub(crate) fn id(&self, slot: u32) -> ConnId {
        ConnId { slot, generation: self.connections.generation(slot), shard: self.shard.number() }
    }

    pub(crate) fn misuse(what: &'static str, sink: &mut impl Sink) {
        sink.notice(Notice::Misuse { what });
    }

    /// Sets the one timer of a connection. Only needed when its deadline may have come nearer.
    pub(crate) fn arm(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        let mut deadline = connection.deadline(connection.silence_deadline(&self.config));
        if sings(Canary::ForgottenDeadline) && matches!(connection.phase, Phase::Closing(_)) {
            deadline = None;
        }
        self.timers.set(Key::Connection(slot), &mut connection.armed, deadline);
    }

    fn tick(&mut self, sink: &mut impl Sink) {
        while let Some(key) = self.timers.pop_due(self.now.monotonic) {
            match key {
                Key::Connection(slot) => {
                    self.connections[slot].armed = None;
                    self.connection_due(slot, sink);
                }
                Key::Flush(slot) => {
                    // Of a turn, it may have been written to or have ended since.
                    let due = self.connections.get_mut(slot).and_then(|receiver| receiver.flush.take());
                    if due.is_some() {
                        self.flush(slot, sink);
                        self.write_close(slot, sink);
                    }
                }
                Key::Room(room) => {
                    self.rooms[room].armed = None;
                    self.room_due(room, sink);
                }
                Key::Drain => self.drain_due(sink),
            }
        }
    }
}
