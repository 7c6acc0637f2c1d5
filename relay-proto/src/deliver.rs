//! A message: from its sender to the outboxes of its room, and from there to the sockets.

use core::time::Duration;

use bytes::Bytes;

use crate::canary::{Canary, sings};
use crate::connection::{Closing, Connection, Phase};
use crate::depart::Departure;
use crate::envelope::{Lane, announced_peer};
use crate::event::{Action, Notice, Sink};
use crate::frame::{Frame, Opcode};
use crate::outbox::Ready;
use crate::relay::Relay;
use crate::room::PeerId;
use crate::stats::{DropReason, Histogram};
use crate::timers::{Key, Wake};

/// Receivers are told apart by how much they hold in steps of this, so that a place among the heaviest
/// changes seldom (rule S4).
const WEIGHT_STEP_BYTES: usize = 4096;

/// A write that took this long was blocked, so its end proves that bytes moved towards the peer (rule S5).
const BLOCKED: Duration = Duration::from_secs(1);

impl Relay {
    /// Rule R2.
    pub(crate) fn message(&mut self, slot: u32, payload: Bytes, sink: &mut impl Sink) {
        let lane = Lane::of(&payload);
        match &self.connections[slot].phase {
            Phase::Member(_) => {}
            Phase::Closing(_) => return,
            Phase::Handshake { .. } => return Self::misuse("a message before the handshake", sink),
        }
        self.heard(slot);
        self.meter(slot, payload.len(), sink);
        let received = &mut self.ledger.stats.lanes[lane as usize].received;
        received.add(payload.len());
        self.ledger.stats.message_size.observe(Histogram::SIZE, payload.len() as u64);
        if lane == Lane::Data {
            self.introduce(slot, &payload);
        }
        if let Some(member) = self.connections[slot].member() {
            let room = member.room;
            self.touch_room(room);
            let oldest = if sings(Canary::OtherRoom) { self.rooms.names().next() } else { None };
            let room = oldest.map_or(room, |(index, _)| index);
            self.distribute(room, Some(slot), lane, payload);
        }
    }

    /// To every member of a room but one.
    pub(crate) fn distribute(&mut self, room: u32, except: Option<u32>, lane: Lane, payload: Bytes) {
        let message = self.ledger.admit(Frame::encode(Opcode::Binary, payload), lane, self.now.monotonic);
        let mut receivers = 0;
        for position in 0..self.rooms[room].members.len() {
            let receiver = self.rooms[room].members[position];
            if Some(receiver) == except && !sings(Canary::Echo) {
                continue;
            }
            receivers += 1;
            let connection = &mut self.connections[receiver];
            if !connection.outbox.push(lane, message, &self.config, &mut self.ledger) {
                self.too_slow.push(receiver);
            }
            // Most receivers are as heavy as before, and one that waits for its flush waits for all of them.
            let (scheduled, weighed) = (connection.flush.is_some(), weight(connection) == connection.weight);
            if !scheduled {
                self.schedule(receiver);
            }
            if !weighed {
                self.weigh(receiver);
            }
        }
        self.ledger.distributed(message, receivers);
        self.ledger.stats.fan_out.observe(Histogram::FAN_OUT, u64::from(receivers));
    }

    /// Sees to it that a receiver is written to: when this turn is over, so that all that the turn has for it
    /// leaves in one write, or when its window ends (rule M7).
    fn schedule(&mut self, slot: u32) {
        let now = self.now.monotonic;
        let connection = &mut self.connections[slot];
        if connection.flush.is_some() {
            return;
        }
        match connection.outbox.ready(now, self.config.coalesce) {
            Ready::No => {}
            Ready::Now => self.timers.this_turn(slot, &mut connection.flush, now),
            Ready::At(at) => {
                if !sings(Canary::EndlessWindow) {
                    self.timers.set(Key::Flush(slot), &mut connection.flush, Some((at, Wake::Flush)));
                }
            }
        }
    }

    /// Emits the next batch of a receiver, or sees to it that it will be when its window ends (rule M7).
    pub(crate) fn flush(&mut self, slot: u32, sink: &mut impl Sink) {
        let now = self.now.monotonic;
        let connection = &mut self.connections[slot];
        match connection.outbox.ready(now, self.config.coalesce) {
            Ready::No => {}
            Ready::At(_) => self.schedule(slot),
            Ready::Now => {
                if connection.flush.is_some() {
                    self.timers.set(Key::Flush(slot), &mut connection.flush, None);
                }
                let batch = connection.outbox.take(now, &self.config, &mut self.ledger);
                // Voice that was too old to leave is not held any more.
                self.weigh(slot);
                if let Some(batch) = batch {
                    sink.action(Action::Send { conn: self.id(slot), batch });
                }
            }
        }
    }

    /// Something was written: whatever waited for that goes next.
    pub(crate) fn sent(&mut self, slot: u32, sink: &mut impl Sink) {
        let now = self.now.monotonic;
        let connection = &mut self.connections[slot];
        let Some(written) = connection.outbox.sent(&mut self.ledger) else {
            return Self::misuse("nothing was outstanding", sink);
        };
        if now.saturating_sub(written.since) > BLOCKED {
            connection.pulse.moved = now;
        }
        if written.ping {
            connection.pulse.unanswered.get_or_insert(now);
            connection.pulse.pinged = Some(now);
        }
        self.flush(slot, sink);
        self.weigh(slot);
        let connection = &mut self.connections[slot];
        match &mut connection.phase {
            Phase::Closing(Closing { frame: Some(_), .. }) => self.write_close(slot, sink),
            // The close frame was the last thing to write; now it is the peer's turn.
            Phase::Closing(Closing { until, echo: Some(echo), .. }) => {
                *until = now + *echo;
                self.arm(slot);
            }
            Phase::Member(_) if written.ping => self.arm(slot),
            Phase::Closing(_) | Phase::Member(_) | Phase::Handshake { .. } => {}
        }
    }

    /// Rule R8.
    fn introduce(&mut self, slot: u32, payload: &[u8]) {
        let Some(member) = self.connections[slot].member_mut().filter(|member| !member.introduced) else {
            return;
        };
        member.introduced = true;
        let (room, token_peer) = (member.room, member.token_peer.clone());
        let Some(peer) = announced_peer(payload) else { return };
        if peer != token_peer && self.may_be_called(slot, room, &peer, &token_peer) {
            self.connections[slot].member_mut().expect("it was one above").announced_peer = Some(peer);
        }
    }

    /// Whether no other connection holds this name, unless the host named both in their tokens alike.
    fn may_be_called(&self, slot: u32, room: u32, peer: &PeerId, token_peer: &PeerId) -> bool {
        let others = self.rooms[room].members.iter().filter(|other| **other != slot);
        let members = others.filter_map(|other| self.connections[*other].member());
        let mut rivals = members.filter(|member| member.peer() == peer || member.token_peer == *peer);
        rivals.all(|rival| rival.token_peer == *token_peer || sings(Canary::StolenName))
    }

    /// Keeps the place of a receiver among the heaviest (rule S4).
    pub(crate) fn weigh(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        let weight = weight(connection);
        if weight != connection.weight {
            self.heaviest.remove(&(connection.weight, slot));
            connection.weight = weight;
            if weight > 0 {
                self.heaviest.insert((weight, slot));
            }
        }
    }

    /// Rules S3 and S4. Closing somebody sends leave notices, which may be too much for somebody else.
    pub(crate) fn close_the_slow(&mut self, sink: &mut impl Sink) {
        loop {
            let Some(slot) = self.too_slow.pop().or_else(|| self.heaviest_of_too_much()) else { return };
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            match &mut connection.phase {
                Phase::Member(_) => {
                    self.ledger.stats.slow_consumers += 1;
                    self.close(slot, Departure::SlowConsumer, sink);
                }
                // It has left its room in a drain, and what waits for it was to be written first.
                Phase::Closing(Closing { frame: Some(frame), .. }) if connection.outbox.held() > 0 => {
                    self.ledger.stats.slow_consumers += 1;
                    *frame = Departure::SlowConsumer.close_frame();
                    connection.outbox.clear(DropReason::SlowConsumer, &mut self.ledger);
                    sink.notice(Notice::LetGo { conn: self.id(slot) });
                    self.weigh(slot);
                    self.write_close(slot, sink);
                }
                Phase::Closing(_) | Phase::Handshake { .. } => self.weigh(slot),
            }
        }
    }

    fn heaviest_of_too_much(&self) -> Option<u32> {
        if self.ledger.stats.held_bytes <= self.config.max_queued_bytes as u64 {
            return None;
        }
        if let Some((_, slot)) = self.heaviest.last() {
            return Some(*slot);
        }
        // Too much in all, and nobody holds as much as one step: so there are at most as many holders as the
        // bound has bytes, and it was set very low.
        let held = |slot: &u32| self.connections[*slot].outbox.held();
        self.connections.indexes().filter(|slot| held(slot) > 0).max_by_key(held)
    }

    /// Why a message was let go, by why its receiver went.
    pub(crate) fn drop_reason(departure: Departure) -> DropReason {
        if departure == Departure::SlowConsumer { DropReason::SlowConsumer } else { DropReason::Gone }
    }
}

/// What a receiver holds, in steps.
fn weight(receiver: &Connection) -> usize {
    receiver.outbox.held() / WEIGHT_STEP_BYTES
}
