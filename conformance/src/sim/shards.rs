//! Several machines that are one relay, as an adapter has them on as many threads. Here they take turns.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use relay_proto::{Action, Config, ConnId, Event, Notice, Now, Pass, Relay, Shard, Sink, Stats, Wake};

/// One relay, whatever it is made of. What it emits carries the shard in its ids.
pub(crate) struct Shards {
    relays: Vec<Relay>,
    /// Whose turn it is to accept a socket.
    accepting: usize,
    /// Which of them have nothing left to wait for.
    exited: Vec<bool>,
}

impl Shards {
    /// `seed` decides where each room is, too.
    pub(crate) fn new(config: &Config, seed: [u8; 32], count: NonZeroU16) -> Self {
        let relay = |shard: Shard| {
            let mut seed = seed;
            // The first has the seed as it is, so that one alone is the machine that everybody knows.
            seed[31] ^= u8::try_from(shard.index()).unwrap_or(u8::MAX);
            Relay::of_shard(config.clone(), seed, shard)
        };
        let relays: Vec<Relay> = Shard::all(count, seed).into_iter().map(relay).collect();
        Self { exited: vec![false; relays.len()], relays, accepting: 0 }
    }

    /// A socket was accepted, by each in turn.
    pub(crate) fn open(&mut self, now: Now, ip: IpAddr, sink: &mut impl Sink) -> Option<ConnId> {
        let shard = self.accepting;
        self.accepting = (shard + 1) % self.relays.len();
        self.relays[shard].open(now, ip, sink)
    }

    /// What a [`Action::HandOver`] asks for.
    pub(crate) fn take_over(
        &mut self,
        now: Now,
        shard: usize,
        pass: Pass,
        sink: &mut impl Sink,
    ) -> Option<ConnId> {
        self.relays[shard].take_over(now, pass, sink)
    }

    /// Tells the one that the event is about, or all. [`Action::TickOthers`] is carried out here; [`Action::Exit`]
    /// comes when the last has ended.
    pub(crate) fn handle(&mut self, now: Now, event: Event<'_>, sink: &mut impl Sink) {
        match conn_of(&event) {
            Some(conn) => self.tell(conn.shard(), now, event, sink),
            None => (0..self.relays.len()).for_each(|shard| self.tell(shard, now, event.clone(), sink)),
        }
    }

    fn tell(&mut self, shard: usize, now: Now, event: Event<'_>, sink: &mut impl Sink) {
        let mut heard = Heard { sink: &mut *sink, exit: false, tick_others: false };
        self.relays[shard].handle(now, event, &mut heard);
        let Heard { exit, tick_others, .. } = heard;
        if exit {
            assert!(!std::mem::replace(&mut self.exited[shard], true), "shard {shard} ends twice");
            if self.exited.iter().all(|exited| *exited) {
                sink.action(Action::Exit);
            }
        }
        if tick_others {
            let others = (0..self.relays.len()).filter(|other| *other != shard);
            others.for_each(|other| self.tell(other, now, Event::Tick, sink));
        }
    }

    /// What any of them has to be woken for first.
    pub(crate) fn next_deadline(&self) -> Option<(Duration, Wake)> {
        self.each().filter_map(Relay::next_deadline).min_by_key(|(at, _)| *at)
    }

    /// Of all of them together.
    pub(crate) fn stats(&self) -> Cow<'_, Stats> {
        let (first, others) = self.relays.split_first().expect("there is one at least");
        let mut stats = Cow::Borrowed(first.stats());
        for other in others {
            stats.to_mut().merge(other.stats());
        }
        stats
    }

    /// In their order.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Relay> {
        self.relays.iter()
    }

    /// Whether this one has nothing left to wait for.
    pub(crate) fn has_exited(&self, shard: usize) -> bool {
        self.exited[shard]
    }
}

/// Passes on what one of several decides, but for its end.
struct Heard<'a, S> {
    sink: &'a mut S,
    exit: bool,
    tick_others: bool,
}

impl<S: Sink> Sink for Heard<'_, S> {
    fn action(&mut self, action: Action) {
        match action {
            Action::Exit => return self.exit = true,
            Action::TickOthers => self.tick_others = true,
            Action::Respond { .. }
            | Action::Upgrade { .. }
            | Action::Send { .. }
            | Action::Close { .. }
            | Action::Abort { .. }
            | Action::Probe { .. }
            | Action::Pause { .. }
            | Action::Resume { .. }
            | Action::HandOver { .. } => {}
        }
        self.sink.action(action);
    }

    fn notice(&mut self, notice: Notice<'_>) {
        self.sink.notice(notice);
    }
}

fn conn_of(event: &Event<'_>) -> Option<ConnId> {
    match event {
        Event::Connect { conn, .. }
        | Event::Message { conn, .. }
        | Event::Ping { conn, .. }
        | Event::Pong { conn }
        | Event::PeerClose { conn, .. }
        | Event::Fault { conn, .. }
        | Event::Sent { conn }
        | Event::Acked { conn, .. }
        | Event::Disconnect { conn } => Some(*conn),
        Event::Tick | Event::Drain => None,
    }
}
