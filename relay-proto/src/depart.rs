//! The ways out: of a room, and of the relay.

use crate::canary::{Canary, sings};
use crate::connection::{CLOSING, CloseFrame, Closing, Phase};
use crate::drain;
use crate::envelope::{Lane, leave_notice};
use crate::event::{Action, Fault, Initiator, Notice, Role, Sink};
use crate::relay::Relay;
use crate::stats::DropReason;
use crate::timers::{Key, Wake};

/// Why a member leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// It sent a close frame.
    PeerClosed { code: Option<u16> },
    /// Its socket ended without one.
    Lost,
    /// Rule M5.
    TooBig,
    /// Rule M6.
    ProtocolError,
    /// Rule M6.
    InvalidUtf8,
    /// Rules S3, S4.
    SlowConsumer,
    /// Rules T1, S5.
    Silent,
    /// Rule R9.
    RoomIdle,
    /// Rule D1.
    Restart,
}

impl Departure {
    /// Every close frame that the relay sends of its own accord (RFC 6455 section 7.4.1 and its registry).
    pub(crate) fn close_frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Departure::PeerClosed { code } => return CloseFrame { code, reason: "" },
            Departure::Lost => (1006, ""),
            Departure::TooBig if sings(Canary::WrongCode) => (1002, "message too big"),
            Departure::TooBig => (1009, "message too big"),
            Departure::ProtocolError => (1002, "protocol error"),
            Departure::InvalidUtf8 => (1007, "invalid UTF-8"),
            Departure::SlowConsumer => (1013, "slow consumer"),
            Departure::Silent => (1001, "ping timeout"),
            Departure::RoomIdle => (1001, "room idle"),
            Departure::Restart => (1012, "restart"),
        };
        CloseFrame { code: Some(code), reason }
    }

    fn initiator(self) -> Initiator {
        match self {
            Departure::PeerClosed { .. } | Departure::Lost => Initiator::Peer,
            Departure::TooBig
            | Departure::ProtocolError
            | Departure::InvalidUtf8
            | Departure::SlowConsumer
            | Departure::Silent
            | Departure::RoomIdle
            | Departure::Restart => Initiator::Relay,
        }
    }

    /// Rule R6, but for those that go together with their whole room.
    fn is_announced(self) -> bool {
        !matches!(self, Departure::RoomIdle | Departure::Restart)
    }
}

impl Relay {
    pub(crate) fn peer_closed(&mut self, slot: u32, code: Option<u16>, sink: &mut impl Sink) {
        match self.connections[slot].phase {
            Phase::Member(_) => self.close(slot, Departure::PeerClosed { code }, sink),
            // The echo of our own.
            Phase::Closing(_) => {}
            Phase::Handshake { .. } => Self::misuse("a close frame before the handshake", sink),
        }
    }

    pub(crate) fn fault(&mut self, slot: u32, fault: Fault, sink: &mut impl Sink) {
        let departure = match (&self.connections[slot].phase, fault) {
            (Phase::Closing(_), _) => return,
            (Phase::Handshake { .. }, Fault::BadHead | Fault::HeadTooLarge) => {
                return self.bad_head(slot, fault, sink);
            }
            (Phase::Member(_), Fault::TooBig) => Departure::TooBig,
            (Phase::Member(_), Fault::Protocol) => Departure::ProtocolError,
            (Phase::Member(_), Fault::InvalidUtf8) => Departure::InvalidUtf8,
            (Phase::Member(_), Fault::BadHead | Fault::HeadTooLarge)
            | (Phase::Handshake { .. }, Fault::TooBig | Fault::Protocol | Fault::InvalidUtf8) => {
                return Self::misuse("a fault that does not fit the phase", sink);
            }
        };
        self.close(slot, departure, sink);
    }

    pub(crate) fn disconnected(&mut self, slot: u32, sink: &mut impl Sink) {
        self.leave(slot, Departure::Lost, sink);
        self.remove(slot);
    }

    /// Drops the socket of a connection, whatever its phase.
    pub(crate) fn abort(&mut self, slot: u32, sink: &mut impl Sink) {
        self.leave(slot, Departure::Lost, sink);
        sink.action(Action::Abort { conn: self.id(slot) });
        self.remove(slot);
    }

    /// Takes a member out of its room at once, and ends its connection in good order.
    pub(crate) fn close(&mut self, slot: u32, departure: Departure, sink: &mut impl Sink) {
        if self.connections[slot].intake.paused_until.take().is_some() {
            // What it sends is to be discarded: left unread it would end in a reset.
            sink.action(Action::Resume { conn: self.id(slot) });
        }
        self.leave(slot, departure, sink);
        let now = self.now.monotonic;
        let connection = &mut self.connections[slot];
        let frame = Some(departure.close_frame());
        connection.phase = Phase::Closing(if departure == Departure::Restart {
            // What waits is flushed first.
            Closing { until: now + drain::FLUSH, frame, echo: Some(drain::ECHO) }
        } else {
            connection.outbox.clear(Self::drop_reason(departure), &mut self.ledger);
            Closing { until: now + CLOSING, frame, echo: None }
        });
        self.weigh(slot);
        self.arm(slot);
        self.write_close(slot, sink);
    }

    /// Emits the close frame, once everything in front of it is written.
    pub(crate) fn write_close(&mut self, slot: u32, sink: &mut impl Sink) {
        let connection = &mut self.connections[slot];
        let Phase::Closing(closing) = &mut connection.phase else { return };
        if !connection.outbox.is_done() {
            return;
        }
        if let Some(CloseFrame { code, reason }) = closing.frame.take() {
            connection.outbox.occupy(self.now.monotonic);
            sink.action(Action::Close { conn: self.id(slot), code, reason });
        }
    }

    /// Rule R9.
    pub(crate) fn room_due(&mut self, index: u32, sink: &mut impl Sink) {
        let Some(timeout) = self.config.room_idle_timeout else { return };
        let room = &mut self.rooms[index];
        let at = room.active + timeout;
        if at <= self.now.monotonic {
            self.close_room(index, Departure::RoomIdle, sink);
        } else {
            self.timers.set(Key::Room(index), &mut room.armed, Some((at, Wake::RoomIdle)));
        }
    }

    /// Closes every member of a room, hosts first.
    pub(crate) fn close_room(&mut self, index: u32, departure: Departure, sink: &mut impl Sink) {
        let mut members = self.rooms[index].members.clone();
        members.sort_by_key(|slot| self.connections[*slot].member().map(|member| member.role));
        if sings(Canary::HalfClosedRoom) {
            members.truncate(1);
        }
        for slot in members {
            self.close(slot, departure, sink);
        }
    }

    /// Rules R3, R6, R7: the others hear of it, unless somebody of that name is still there. The last one
    /// out takes the room along. Does nothing for a connection that is in no room.
    fn leave(&mut self, slot: u32, departure: Departure, sink: &mut impl Sink) {
        let Some(member) = self.connections[slot].member() else { return };
        let (index, peer, role) = (member.room, member.peer().clone(), member.role);
        let CloseFrame { code, reason } = departure.close_frame();
        // RFC 6455 section 7.4.1: 1005 is a close frame without a code.
        let (initiator, code) = (departure.initiator(), code.unwrap_or(1005));
        let room = self.rooms[index].id.as_str();
        sink.notice(Notice::Left { conn: self.id(slot), room, peer: peer.as_str(), initiator, code, reason });
        self.ledger.stats.disconnected(initiator, code);
        match role {
            Role::Host => self.ledger.stats.hosts -= 1,
            Role::Guest => self.ledger.stats.guests -= 1,
        }

        // From here on the room does not know it, so that it gets no message any more.
        let now = self.now.monotonic;
        self.connections[slot].phase =
            Phase::Closing(Closing { until: now + CLOSING, frame: None, echo: None });
        self.rooms[index].members.retain(|other| *other != slot);
        let ghost = sings(Canary::GhostRoom) && departure == Departure::Lost;
        if self.rooms[index].members.is_empty() && !ghost {
            self.ledger.stats.rooms -= 1;
            self.timers.set(Key::Room(index), &mut self.rooms[index].armed, None);
            self.rooms.close(index);
            return self.room_closed(sink);
        }
        self.touch_room(index);
        let members = self.rooms[index].members.iter();
        let mut namesakes = members.filter_map(|other| self.connections[*other].member());
        let silent = sings(Canary::SilentLeave) && departure == Departure::Lost;
        if departure.is_announced()
            && !silent
            && !namesakes.any(|other| *other.peer() == peer && !sings(Canary::HastyLeave))
        {
            let notice = leave_notice(&peer, self.now.unix);
            self.distribute(index, None, Lane::Data, notice);
        }
    }

    fn remove(&mut self, slot: u32) {
        let counted = self.connections[slot].counted;
        self.forget(slot);
        self.shard.gate().leave(counted);
    }

    /// Nothing is left of it but its place among the sockets of all shards.
    pub(crate) fn forget(&mut self, slot: u32) {
        let Some(mut connection) = self.connections.remove(slot) else { return };
        connection.outbox.clear(DropReason::Gone, &mut self.ledger);
        self.timers.set(Key::Connection(slot), &mut connection.armed, None);
        self.timers.set(Key::Flush(slot), &mut connection.flush, None);
        self.heaviest.remove(&(connection.weight, slot));
        self.ledger.stats.connections -= 1;
    }
}
