//! One relay, its clients and everything between them, in virtual time.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use relay_proto::http::Head;
use relay_proto::{Action, ConnId, Event, Notice, Now, Settings, Sink};

use crate::sim::pipe::Pipe;
use crate::sim::shards::Shards;
use crate::sim::socket::{Happened, Socket};

use super::UNIX_ORIGIN;
use super::call::{Call, address};
use super::client::{Client, Seen};
use super::exercised::Exercised;
use super::invariants::Violation;
use super::referee::{Output, Referee};
use super::script::Run;
use super::trace::Trace;

/// A relay that wants to be woken this often without time going on will never come to rest.
const MAX_WAKES: usize = 10_000;

pub(crate) struct World {
    pub(crate) now: Duration,
    /// How far the wall clock is off, in seconds.
    pub(crate) wall: i64,
    /// How late the adapter's timer fires.
    pub(crate) late: Duration,
    /// Where a round through the sockets begins, and whether it goes backwards.
    pub(crate) order: u16,
    pub(crate) relay: Shards,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) clients: Vec<Client>,
    /// What each socket's connection was called, after its end too.
    pub(crate) conns: Vec<Option<ConnId>>,
    /// Sockets on which something may still happen.
    pub(crate) live: Vec<usize>,
    seats: BTreeMap<ConnId, usize>,
    /// Sockets on their way from one shard to another, and when each arrives.
    transits: BTreeMap<usize, Duration>,
    pub(crate) referee: Referee,
    pub(crate) trace: Trace,
    pub(crate) exercised: Exercised,
    window: usize,
    latency: Duration,
    /// How long a socket takes from one shard to another.
    hand_over: Duration,
    /// Messages are told apart by this.
    pub(crate) number: u64,
}

impl World {
    /// Before anything has happened.
    ///
    /// # Errors
    /// What an operator would read about the variables.
    pub(crate) fn new(run: &Run, charted: bool) -> Result<Self, String> {
        let vars = run.vars.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings = Settings::from_vars(vars).map_err(|error| error.to_string())?;
        let (shards, config) = (settings.shards(NonZeroU16::MIN), settings.relay);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&run.number("SIM_SEED").unwrap_or(0).to_le_bytes());
        Ok(Self {
            now: Duration::ZERO,
            wall: 0,
            late: Duration::ZERO,
            order: 0,
            relay: Shards::new(&config, seed, shards),
            sockets: Vec::new(),
            clients: Vec::new(),
            conns: Vec::new(),
            live: Vec::new(),
            seats: BTreeMap::new(),
            transits: BTreeMap::new(),
            referee: Referee::new(config, shards.get().into()),
            trace: Trace::new(charted),
            exercised: Exercised::default(),
            window: run.number("SIM_WINDOW").map_or(131_072, |bytes| usize::try_from(bytes).unwrap_or(1)),
            latency: Duration::from_millis(run.number("SIM_LATENCY_MS").unwrap_or(0)),
            hand_over: Duration::from_millis(run.number("SIM_HAND_OVER_MS").unwrap_or(0)),
            number: 0,
        })
    }

    pub(crate) fn clocks(&self) -> Now {
        let unix = UNIX_ORIGIN + self.now;
        let wall = Duration::from_secs(self.wall.unsigned_abs());
        let unix = if self.wall < 0 { unix.saturating_sub(wall) } else { unix + wall };
        Now { monotonic: self.now, unix }
    }

    /// A client dials; it has not said anything yet.
    pub(crate) fn dial(&mut self, ip: u16, call: Call) -> Result<usize, Violation> {
        let (ip, proxied) = address(ip);
        let index = self.clients.len();
        let now = self.clocks();
        let mut outcome = Outcome::default();
        let conn = self.relay.open(now, ip, &mut outcome);
        let pipe = || Pipe::new(self.window, self.latency, self.now);
        let max_message_size = self.referee.model.config.max_message_size;
        self.sockets.push(Socket::over(pipe(), pipe(), conn, max_message_size));
        self.clients.push(Client::new(Call { proxied, ..call }));
        self.conns.push(conn);
        self.live.push(index);
        self.seats.extend(conn.map(|conn| (conn, index)));
        self.exercised.outputs(&outcome.0);
        self.referee.opened(now, ip, conn, &outcome.0)?;
        Ok(index)
    }

    /// Tells the relay, has the referee look at what it does, and does it.
    pub(crate) fn handle(&mut self, event: &Event<'_>, client: Option<usize>) -> Result<(), Violation> {
        let now = self.clocks();
        let call = client.map(|client| self.clients[client].call);
        self.trace.event(self.now, client, event);
        self.exercised.event(event);
        let after = Aftermath::of(event);
        let mut outcome = Outcome::default();
        self.relay.handle(now, event.clone(), &mut outcome);
        // Which room is in which shard is for the relay to choose, so it is the one that says whether a request is
        // judged here at all.
        let elsewhere = matches!(outcome.0[..], [Output::Action(Action::HandOver { .. })]);
        self.referee.before(now, event, call.as_ref(), elsewhere);
        self.exercised.outputs(&outcome.0);
        for output in &outcome.0 {
            if let Output::Action(action) = output {
                self.trace.action(conn_of(action).and_then(|conn| self.seats.get(&conn).copied()), action);
            }
            self.referee.hear(output)?;
        }
        self.referee.after(after, &self.relay)?;
        for output in outcome.0 {
            if let Output::Action(action) = output {
                self.perform(action);
            }
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) {
        let Some(conn) = conn_of(&action) else { return };
        // The referee has seen to it that there is one.
        let Some(index) = self.seats.get(&conn).copied() else { return };
        self.sockets[index].perform(action);
        if self.sockets[index].conn.is_none() {
            self.seats.remove(&conn);
        }
    }

    /// Lets everything happen, and time pass, until that moment.
    pub(crate) fn run_until(&mut self, until: Duration) -> Result<(), Violation> {
        let mut wakes = 0;
        loop {
            self.settle()?;
            let tick = self.relay.next_deadline().map(|(at, _)| (at + self.late).max(self.now));
            let next = tick.into_iter().chain(self.next_arrival()).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            wakes = if next == self.now { wakes + 1 } else { 0 };
            if wakes > MAX_WAKES {
                return Err(Violation::new("L1", "time stands still: something is always due"));
            }
            self.now = next;
            if tick.is_some_and(|tick| tick <= next) {
                self.tick()?;
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    pub(crate) fn tick(&mut self) -> Result<(), Violation> {
        self.exercised.wake(self.relay.next_deadline().filter(|(at, _)| *at <= self.now));
        self.handle(&Event::Tick, None)
    }

    /// When the next bytes arrive, or a slow client moves some.
    fn next_arrival(&self) -> Option<Duration> {
        let arrivals = self.live.iter().flat_map(|index| {
            let socket = &self.sockets[*index];
            let turn = self.clients[*index].next_turn(&socket.outbound);
            [socket.inbound.next_arrival(), socket.outbound.next_arrival(), turn]
        });
        let transits = self.transits.values().copied();
        arrivals.flatten().chain(transits).filter(|at| *at > self.now).min()
    }

    /// Moves bytes until nothing moves without time.
    pub(crate) fn settle(&mut self) -> Result<(), Violation> {
        self.live.retain(|index| {
            let (client, socket) = (&self.clients[*index], &self.sockets[*index]);
            let at_the_relay = socket.conn.is_some() || socket.is_in_transit();
            at_the_relay || !(client.has_ended() || client.is_dead())
        });
        let mut round = self.live.clone();
        if !round.is_empty() {
            let middle = usize::from(self.order / 2) % round.len();
            round.rotate_left(middle);
            if self.order % 2 == 1 {
                round.reverse();
            }
        }
        // A socket on which nothing moved may move again when another has.
        loop {
            let mut moved = false;
            for index in &round {
                moved |= self.step(*index)?;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Lets one thing happen on each side of one socket.
    fn step(&mut self, index: usize) -> Result<bool, Violation> {
        let now = self.now;
        let (client, socket) = (&mut self.clients[index], &mut self.sockets[index]);
        socket.inbound.advance(now);
        socket.outbound.advance(now);
        let wrote = client.write(&mut socket.inbound, now);
        let seen = client.read(&mut socket.outbound, now);
        let read = seen.is_some();
        for seen in seen.into_iter().flatten() {
            self.saw(index, &seen)?;
        }
        if self.transits.get(&index).is_some_and(|at| *at <= now) {
            self.arrive(index)?;
            return Ok(true);
        }
        let happened = self.sockets[index].next_event();
        let reacted = happened.is_some();
        if let (Some(happened), Some(conn)) = (happened, self.sockets[index].conn) {
            self.react(index, conn, happened)?;
        }
        Ok(wrote || read || reacted)
    }

    fn saw(&mut self, index: usize, seen: &Seen) -> Result<(), Violation> {
        self.exercised.seen(seen);
        if let Seen::Pong(payload) = seen {
            // Only the latest of several pings has to be answered (rule T2).
            let pings = &mut self.clients[index].pings;
            let Some(place) = pings.iter().position(|ping| ping == payload) else {
                return Err(Violation::new("I23", "a pong to no ping"));
            };
            pings.drain(..=place);
        }
        self.referee.saw(self.conns[index], seen)
    }

    fn react(&mut self, index: usize, conn: ConnId, happened: Happened) -> Result<(), Violation> {
        match happened {
            Happened::Moved => Ok(()),
            Happened::Head(head) => self.request(index, conn, head),
            Happened::Event(event) => {
                let gone = matches!(event, Event::Disconnect { .. });
                self.handle(&event, Some(index))?;
                if gone {
                    self.seats.remove(&conn);
                    self.sockets[index].die();
                }
                Ok(())
            }
        }
    }
}

impl World {
    fn request(&mut self, index: usize, conn: ConnId, head: Head) -> Result<(), Violation> {
        let request = head.request().expect("the head is whole");
        self.handle(&Event::Connect { conn, request: &request }, Some(index))?;
        self.sockets[index].answered(head);
        if self.sockets[index].is_in_transit() {
            self.transits.insert(index, self.now + self.hand_over);
        }
        Ok(())
    }

    /// A socket that was handed over comes to the shard of its room.
    fn arrive(&mut self, index: usize) -> Result<(), Violation> {
        self.transits.remove(&index);
        let (shard, pass, head) = self.sockets[index].arrive().expect("it is on its way");
        let now = self.clocks();
        let mut outcome = Outcome::default();
        let conn = self.relay.take_over(now, shard, pass, &mut outcome);
        self.trace.arrival(self.now, index, shard);
        self.exercised.outputs(&outcome.0);
        let before = self.conns[index].expect("it came from another shard");
        self.referee.arrived(now, before, shard, conn, &outcome.0)?;
        let Some(conn) = conn else {
            self.sockets[index].die();
            return Ok(());
        };
        self.sockets[index].conn = Some(conn);
        self.conns[index] = Some(conn);
        self.seats.insert(conn, index);
        self.request(index, conn, head)
    }
}

/// What the referee has to know of an event after the relay has taken it: whose queues were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aftermath {
    Tick,
    Sent,
    Pinged,
    Other,
}

impl Aftermath {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Tick => Self::Tick,
            Event::Sent { .. } => Self::Sent,
            Event::Ping { .. } => Self::Pinged,
            Event::Connect { .. }
            | Event::Message { .. }
            | Event::Pong { .. }
            | Event::PeerClose { .. }
            | Event::Fault { .. }
            | Event::Acked { .. }
            | Event::Disconnect { .. }
            | Event::Drain => Self::Other,
        }
    }
}

pub(crate) fn conn_of(action: &Action) -> Option<ConnId> {
    match action {
        Action::Respond { conn, .. }
        | Action::Upgrade { conn, .. }
        | Action::Send { conn, .. }
        | Action::Close { conn, .. }
        | Action::Abort { conn }
        | Action::Probe { conn }
        | Action::Pause { conn }
        | Action::Resume { conn }
        | Action::HandOver { conn, .. } => Some(*conn),
        Action::TickOthers | Action::Exit => None,
    }
}

/// Everything that came out, in order.
#[derive(Default)]
struct Outcome(Vec<Output>);

impl Sink for Outcome {
    fn action(&mut self, action: Action) {
        self.0.push(Output::Action(action));
    }

    fn notice(&mut self, notice: Notice<'_>) {
        self.0.push(match notice {
            Notice::Joined { conn, room, role, .. } => Output::Joined { conn, room: room.to_owned(), role },
            Notice::Left { conn, room, peer, initiator, code, reason } => {
                Output::Left { conn, room: room.to_owned(), peer: peer.to_owned(), initiator, code, reason }
            }
            Notice::Refused { refusal, .. } => Output::Refused(refusal),
            Notice::LetGo { conn } => Output::LetGo(conn),
            Notice::Draining { rooms } => Output::Draining(rooms),
            Notice::Misuse { what } => Output::Misuse(what),
        });
    }
}
