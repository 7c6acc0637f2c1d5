//! Watches a relay while it works: tells the model what happens, and holds what the relay does, and what
//! clients see of it, against the [invariants](super::invariants).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use relay_proto::{Action, Config, ConnId, Event, Fault, Initiator, Now, Refusal, Role};

use crate::sim::shards::Shards;

use super::call::{Ask, Call};
use super::client::Seen;
use super::invariants::{self as must, Violation};
use super::model::Model;
use super::queue::Count;
use super::state::{Drain, Outcome, Phase};
use super::world::Aftermath;

/// What came out of the relay, in order.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    Action(Action),
    Joined { conn: ConnId, room: String, role: Role },
    Left { conn: ConnId, room: String, peer: String, initiator: Initiator, code: u16, reason: &'static str },
    Refused(Refusal),
    LetGo(ConnId),
    Draining(usize),
    Misuse(&'static str),
}

/// What is about to follow from an event, for the connection that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Answer(Outcome),
    /// It is judged in another shard.
    HandOver,
    /// The client ended it, or is to be closed for this.
    Leave(Initiator, Option<u16>, &'static str),
    Abort,
}

pub(crate) struct Referee {
    pub(crate) model: Model,
    /// By client: what it is still to receive, and how it was let in or out.
    ends: BTreeMap<ConnId, End>,
    /// What has become of messages for connections that are gone.
    settled: [Count; 2],
    /// What this event is about.
    subject: Option<ConnId>,
    /// Its socket has ended.
    gone: Option<ConnId>,
    due: Due,
    call: Option<Call>,
    audience: Vec<ConnId>,
    /// Rooms that were closed.
    closed: Vec<usize>,
    ticked: bool,
    exited: bool,
}

/// The client's end of a connection.
#[derive(Default)]
pub(crate) struct End {
    /// What it may still receive: sender, payload.
    pub(crate) expected: Vec<(ConnId, Bytes)>,
    pub(crate) status: Option<u16>,
    pub(crate) close: Option<(Option<u16>, &'static str)>,
    /// Its socket was dropped, wherever that cut what was being written.
    pub(crate) dropped: bool,
}

impl Referee {
    pub(crate) fn new(config: Config, shards: usize) -> Self {
        Self {
            model: Model::new(config, shards),
            ends: BTreeMap::new(),
            settled: [Count::default(); 2],
            subject: None,
            gone: None,
            due: Due::Nothing,
            call: None,
            audience: Vec::new(),
            closed: Vec::new(),
            ticked: false,
            exited: false,
        }
    }

    /// A socket was accepted or not.
    pub(crate) fn opened(
        &mut self,
        now: Now,
        ip: IpAddr,
        conn: Option<ConnId>,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        self.model.now = now;
        must::admit_sockets(self.model.admits(ip), conn, outputs)?;
        if let Some(conn) = conn {
            must::give_out_an_id_once(&self.ends, conn)?;
            self.model.open(conn, ip);
            self.ends.insert(conn, End::default());
        }
        Ok(())
    }

    /// A connection that was handed over came to the other shard, and was taken in or not.
    pub(crate) fn arrived(
        &mut self,
        now: Now,
        before: ConnId,
        shard: usize,
        conn: Option<ConnId>,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        self.model.now = now;
        must::admit_sockets(self.model.admits_from_elsewhere(), conn, outputs)?;
        if let Some(conn) = conn {
            must::give_out_an_id_once(&self.ends, conn)?;
            must::be_in_the_shard(conn, shard)?;
            self.ends.insert(conn, End::default());
        }
        self.model.arrive(before, conn);
        Ok(())
    }

    /// Something is told to the relay. `elsewhere`: all that it made of it was to hand the connection over.
    pub(crate) fn before(&mut self, now: Now, event: &Event<'_>, call: Option<&Call>, elsewhere: bool) {
        self.model.now = now;
        self.call = call.copied();
        self.gone = if let Event::Disconnect { conn } = event { Some(*conn) } else { None };
        self.audience.clear();
        self.closed.clear();
        self.ticked = false;
        (self.subject, self.due) = match event {
            Event::Connect { conn, .. } if elsewhere => (Some(*conn), Due::HandOver),
            _ => self.expect(event, call),
        };
    }

    fn expect(&mut self, event: &Event<'_>, call: Option<&Call>) -> (Option<ConnId>, Due) {
        match event {
            Event::Connect { conn, .. } => {
                let outcome = call.and_then(|call| self.model.judge(*conn, call));
                (Some(*conn), outcome.map_or(Due::Abort, Due::Answer))
            }
            Event::Message { conn, payload } => {
                self.audience = self.model.message(*conn, payload);
                self.expect_at(&self.audience.clone(), *conn, payload);
                (Some(*conn), Due::Nothing)
            }
            Event::Ping { conn, .. } | Event::Pong { conn } => {
                self.model.heard(*conn);
                (Some(*conn), Due::Nothing)
            }
            Event::PeerClose { conn, code } => (Some(*conn), self.leave(*conn, Initiator::Peer, *code, "")),
            Event::Fault { conn, fault } => (Some(*conn), self.fault(*conn, *fault, call)),
            Event::Sent { conn } => {
                self.model.sent(*conn);
                (Some(*conn), Due::Nothing)
            }
            Event::Acked { conn, progress } => {
                let now = self.model.now.monotonic;
                if let Some(member) = self.model.member_mut(*conn) {
                    let before = member.received.replace(progress.received);
                    if before.is_some_and(|before| progress.received > before) {
                        member.heard = now;
                    }
                }
                (Some(*conn), Due::Nothing)
            }
            Event::Disconnect { conn } => (Some(*conn), self.leave(*conn, Initiator::Peer, Some(1006), "")),
            Event::Tick => {
                self.ticked = true;
                (None, Due::Nothing)
            }
            Event::Drain => {
                let rooms = u32::try_from(self.model.rooms.len()).unwrap_or(u32::MAX);
                let started = self.model.now.monotonic;
                let begun = Drain { started, rooms, closed: 0, closing: false, announced: 0, called: false };
                // The rooms whose turn comes at once are closed by this event; a second one changes nothing.
                let closing = begun.all_had_their_turn(self.model.config.drain, started);
                self.model.drain.get_or_insert(Drain { closing, ..begun });
                (None, Due::Nothing)
            }
        }
    }

    fn leave(&self, conn: ConnId, initiator: Initiator, code: Option<u16>, reason: &'static str) -> Due {
        if self.model.member(conn).is_some() { Due::Leave(initiator, code, reason) } else { Due::Nothing }
    }

    fn fault(&self, conn: ConnId, fault: Fault, call: Option<&Call>) -> Due {
        let at_head = call.is_some_and(|call| matches!(call.ask, Ask::Malformed | Ask::TooLarge));
        match fault {
            Fault::BadHead if at_head => Due::Answer(Outcome::Refused("bad_request")),
            Fault::HeadTooLarge if at_head => Due::Answer(Outcome::Refused("head_too_large")),
            Fault::BadHead | Fault::HeadTooLarge => Due::Nothing,
            Fault::TooBig => self.leave(conn, Initiator::Relay, Some(1009), "message too big"),
            Fault::Protocol => self.leave(conn, Initiator::Relay, Some(1002), "protocol error"),
            Fault::InvalidUtf8 => self.leave(conn, Initiator::Relay, Some(1007), "invalid UTF-8"),
        }
    }

    fn expect_at(&mut self, audience: &[ConnId], sender: ConnId, payload: &Bytes) {
        for conn in audience {
            self.ends.entry(*conn).or_default().expected.push((sender, payload.clone()));
        }
    }

    /// The relay did something.
    pub(crate) fn hear(&mut self, output: &Output) -> Result<(), Violation> {
        match output {
            Output::Action(action) => self.act(action),
            Output::Joined { conn, room, role } => {
                must::join_as_predicted(self.subject, self.due, self.call.as_ref(), *conn, room, *role)?;
                self.due = Due::Nothing;
                let call = self.call.expect("a request was judged");
                must::be_judged_where_the_room_is(&mut self.model, &call, *conn)?;
                self.model.join(*conn, &call);
                must::stay_within_caps(&self.model)
            }
            Output::Left { conn, room, peer, initiator, code, reason } => {
                self.left(*conn, room, peer, *initiator, *code, reason)
            }
            Output::Refused(refusal) => {
                must::refuse_as_predicted(self.due, *refusal)?;
                if self.due != Due::Abort {
                    let subject = self.subject.expect("somebody asked");
                    self.ends.entry(subject).or_default().status = Some(refusal.status());
                }
                Ok(())
            }
            Output::LetGo(conn) => {
                must::let_go_of_the_heaviest_only(&self.model, *conn)?;
                self.model.let_go(*conn);
                Ok(())
            }
            Output::Draining(rooms) => {
                self.model.drain.iter_mut().for_each(|drain| drain.announced += rooms);
                Ok(())
            }
            Output::Misuse(what) => {
                Err(Violation::new("I22", format!("the simulator was told of misuse: {what}")))
            }
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), Violation> {
        let now = self.model.now.monotonic;
        match action {
            Action::Respond { conn, response } => {
                must::write_one_thing_at_a_time(&self.model, *conn)?;
                must::answer_as_predicted(self.subject, self.due, *conn, response.status)?;
                if let Some(call) = self.call {
                    must::be_judged_where_the_room_is(&mut self.model, &call, *conn)?;
                }
                self.due = Due::Nothing;
                self.ends.entry(*conn).or_default().status = Some(response.status);
                self.model.answered(*conn);
                self.occupy(*conn, now);
                Ok(())
            }
            Action::Upgrade { conn, .. } => {
                must::write_one_thing_at_a_time(&self.model, *conn)?;
                must::be_a_member_before_the_101(&self.model, *conn)?;
                self.ends.entry(*conn).or_default().status = Some(101);
                self.occupy(*conn, now);
                Ok(())
            }
            Action::Send { conn, batch } => {
                must::write_one_thing_at_a_time(&self.model, *conn)?;
                must::send_what_waits(&mut self.model, *conn, &super::trace::all(batch))
            }
            Action::Close { conn, code, reason } => {
                must::write_one_thing_at_a_time(&self.model, *conn)?;
                must::close_with_the_code_of_the_rule(&mut self.model, *conn, *code, reason)?;
                self.ends.entry(*conn).or_default().close = Some((*code, reason));
                self.occupy(*conn, now);
                Ok(())
            }
            Action::Abort { conn } => {
                must::abort_only_what_is_over(&self.model, self.subject, self.due, *conn)?;
                self.due = if self.subject == Some(*conn) { Due::Nothing } else { self.due };
                self.remove(*conn);
                Ok(())
            }
            Action::Probe { conn } => must::be_alive(&self.model, *conn),
            Action::Pause { conn } => must::pause_only_at_a_limit(&mut self.model, *conn),
            Action::Resume { conn } => {
                must::resume_what_was_paused(&mut self.model, *conn)?;
                self.model.heard(*conn);
                Ok(())
            }
            Action::HandOver { conn, shard, .. } => {
                let asked = (self.subject, self.due, self.call.as_ref());
                must::hand_over_to_the_room(&mut self.model, asked, *conn, *shard)?;
                self.due = Due::Nothing;
                self.model.hand_over(*conn);
                Ok(())
            }
            Action::TickOthers => must::call_the_others_when_no_room_is_left(&mut self.model),
            Action::Exit => {
                // A connection that is gone is the last one or not while its event is dealt with.
                self.gone.take().into_iter().for_each(|conn| self.remove(conn));
                must::exit_when_done(&self.model, self.exited)?;
                self.exited = true;
                Ok(())
            }
        }
    }

    fn occupy(&mut self, conn: ConnId, now: Duration) {
        if let Some(entry) = self.model.conns.get_mut(&conn) {
            entry.queue.outstanding = Some((now, false));
        }
    }

    fn left(
        &mut self,
        conn: ConnId,
        room: &str,
        peer: &str,
        initiator: Initiator,
        code: u16,
        reason: &'static str,
    ) -> Result<(), Violation> {
        must::leave_under_the_right_name(&self.model, conn, room, peer)?;
        let frame = if self.subject == Some(conn) && matches!(self.due, Due::Leave(..)) {
            let frame = must::leave_as_predicted(self.due, initiator, code, reason)?;
            self.due = Due::Nothing;
            frame
        } else {
            must::close_for_a_reason(&self.model, conn, initiator, code, reason)?;
            Some(code)
        };
        let whole_room = matches!(reason, "room idle" | "restart");
        let number = self.model.member(conn).map(|member| member.room);
        self.closed.extend(number.filter(|_| whole_room));
        let told = self.model.leave(conn, (frame, reason), whole_room);
        if let Some((others, notice)) = told {
            self.audience.extend(&others);
            self.expect_at(&others, conn, &notice);
        }
        if let (Some(drain), Some(number)) = (&mut self.model.drain, number)
            && reason == "restart"
            && !self.model.rooms.contains_key(&number)
        {
            drain.closed += 1;
        }
        Ok(())
    }

    /// The event has been dealt with.
    pub(crate) fn after(&mut self, event: Aftermath, relay: &Shards) -> Result<(), Violation> {
        must::do_what_is_due(self.due)?;
        self.gone.take().into_iter().for_each(|conn| self.remove(conn));
        if event == Aftermath::Tick {
            self.model.ticked();
        }
        // Whose queue the relay had a reason to look at.
        let subject = self.subject.filter(|conn| {
            event == Aftermath::Sent || (event == Aftermath::Pinged && self.model.member(*conn).is_some())
        });
        let served: Vec<ConnId> = match event {
            Aftermath::Tick => self.model.conns.keys().copied().collect(),
            _ => subject.into_iter().collect(),
        };
        let next = relay.next_deadline();
        let next_at = next.map(|(at, _)| at);
        must::let_nobody_wait_for_nothing(&mut self.model, &served, &self.audience, next_at)?;
        let held: Vec<usize> = (0..self.model.shards).map(|shard| self.model.held_in(shard)).collect();
        must::stay_within_bounds(&self.model, &held)?;
        must::keep_accounts(&self.model, &self.settled, held.iter().sum(), &relay.stats())?;
        must::count_who_is_there(&self.model, relay)?;
        must::close_whole_rooms(&self.model, &self.closed)?;
        must::drain_in_time(&self.model, self.ticked, relay)?;
        must::know_when_to_wake(&self.model, self.ticked, next)
    }

    fn remove(&mut self, conn: ConnId) {
        self.ends.entry(conn).or_default().dropped = true;
        if let Some(mut entry) = self.model.conns.remove(&conn) {
            entry.queue.clear();
            for (settled, count) in self.settled.iter_mut().zip(entry.queue.counts) {
                settled.enqueued += count.enqueued;
                settled.delivered += count.delivered;
                settled.dropped += count.dropped;
            }
        }
    }

    /// A client saw something.
    pub(crate) fn saw(&mut self, conn: Option<ConnId>, seen: &Seen) -> Result<(), Violation> {
        let Some(end) = conn.and_then(|conn| self.ends.get_mut(&conn)) else { return Ok(()) };
        match seen {
            Seen::Answer(status) => must::read_the_answer_that_was_given(end, *status),
            Seen::Message(payload) => must::receive_in_order(end, payload, self.model.config.batch),
            Seen::Close(code, reason) => must::read_the_close_frame_that_was_sent(end, *code, reason),
            Seen::CutShort => must::end_with_a_frame(end),
            Seen::Nonsense(what) => Err(Violation::new("I1", format!("a client read {what}"))),
            Seen::Pong(_) | Seen::Ping | Seen::End => Ok(()),
        }
    }

    /// What this connection's client has not received yet.
    pub(crate) fn owed(&self, conn: ConnId) -> &[(ConnId, Bytes)] {
        self.ends.get(&conn).map_or(&[], |end| &end.expected)
    }

    /// Whether this connection's end is decided.
    pub(crate) fn is_closing(&self, conn: ConnId) -> bool {
        self.model.conns.get(&conn).is_none_or(|entry| matches!(entry.phase, Phase::Closing { .. }))
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exited
    }
}
