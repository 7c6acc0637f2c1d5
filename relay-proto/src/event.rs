//! The vocabulary between the machine and whoever drives it.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use bytes::Bytes;

use crate::frame::Batch;
use crate::http::{Request, Response};
use crate::refusal::Refusal;
use crate::shard::Pass;

/// Names one connection: a slot and the generation of its use, so that a late event for a slot that was
/// given to somebody else is recognised and ignored; and the shard whose slot it is. Made by
/// [`Relay::open`](crate::Relay::open) and [`Relay::take_over`](crate::Relay::take_over) only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) shard: u16,
}

impl ConnId {
    /// A small dense number, free to be used as an index beside the machine. It is given out again after
    /// the connection has ended.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// Which of several machines knows it, counted from 0.
    pub fn shard(self) -> usize {
        self.shard.into()
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shard > 0 {
            write!(f, "{}/", self.shard)?;
        }
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A whole request head was read.
    Connect {
        /// The connection that sent it.
        conn: ConnId,
        /// The head, from [`Head::request`](crate::http::Head::request).
        request: &'a Request<'a>,
    },
    /// One whole WebSocket message, text or binary, with its fragments put together.
    Message {
        /// Its sender.
        conn: ConnId,
        /// The payload, unmasked. May share a large buffer: the machine copies what is small and kept.
        payload: Bytes,
    },
    /// A ping was read. The machine answers; the adapter must not.
    Ping {
        /// Its sender.
        conn: ConnId,
        /// At most 125 bytes, to be echoed.
        payload: Bytes,
    },
    /// A pong was read.
    Pong {
        /// Its sender.
        conn: ConnId,
    },
    /// A valid close frame was read; nothing that follows it will be reported. The machine answers.
    PeerClose {
        /// Its sender.
        conn: ConnId,
        /// The status code, if the frame had one.
        code: Option<u16>,
    },
    /// The peer broke a rule below the machine's sight. Nothing more will be read from it.
    Fault {
        /// Who did it.
        conn: ConnId,
        /// What.
        fault: Fault,
    },
    /// What the last action of this connection asked to be written has reached the kernel.
    Sent {
        /// The connection.
        conn: ConnId,
    },
    /// The answer to [`Action::Probe`].
    Acked {
        /// The connection.
        conn: ConnId,
        /// What the kernel knows.
        progress: Progress,
    },
    /// The socket is gone, whoever ended it.
    Disconnect {
        /// The connection.
        conn: ConnId,
    },
    /// Fire what is due. Legal early, late and twice.
    Tick,
    /// Stop in good order (rule D1).
    Drain,
}

/// How far the bytes of a connection have come, as its kernel knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the peer has acknowledged since the connection began, or any other number that grows when
    /// bytes have moved towards it.
    pub acked: u64,
    /// Bytes that the kernel holds and the peer has not acknowledged.
    pub waiting: u64,
    /// Bytes that have come from the peer since the connection began, whether they were read or not.
    pub received: u64,
}

/// What a peer can do wrong before the machine sees a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "std", serde(rename_all = "snake_case"))]
pub enum Fault {
    /// The request head does not parse.
    BadHead,
    /// The request head is larger than 16 KiB or has more than 64 fields.
    HeadTooLarge,
    /// A message larger than `RELAY_MAX_MESSAGE_SIZE`, over all its fragments.
    TooBig,
    /// A violation of RFC 6455.
    Protocol,
    /// Text or a close reason that is not UTF-8.
    InvalidUtf8,
}

/// What the machine wants done. The first four ask for something to be written; of those at most one is outstanding per
/// connection, until its [`Event::Sent`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Write the response, then finish: shut down writing, discard what is read until the peer ends.
    Respond {
        /// The connection.
        conn: ConnId,
        /// The whole answer.
        response: Response,
    },
    /// Write the 101; what follows on the wire are WebSocket frames.
    Upgrade {
        /// The connection.
        conn: ConnId,
        /// The 101.
        response: Response,
    },
    /// Write these frames.
    Send {
        /// The connection.
        conn: ConnId,
        /// Frames, encoded.
        batch: Batch,
    },
    /// Write the close frame, then finish as after [`Respond`](Action::Respond).
    Close {
        /// The connection.
        conn: ConnId,
        /// RFC 6455 section 7.4; none only in answer to a close frame that had none.
        code: Option<u16>,
        /// At most 123 bytes of UTF-8.
        reason: &'static str,
    },
    /// Drop the socket now; the id is dead.
    Abort {
        /// The connection.
        conn: ConnId,
    },
    /// Tell how much the peer has acknowledged, by [`Event::Acked`].
    Probe {
        /// The connection.
        conn: ConnId,
    },
    /// Read no further until [`Resume`](Action::Resume): its sender is over its receive limit.
    Pause {
        /// The connection.
        conn: ConnId,
    },
    /// Read again.
    Resume {
        /// The connection.
        conn: ConnId,
    },
    /// Its room is in another shard: stop reading, and bring socket, request head and pass there, to
    /// [`Relay::take_over`](crate::Relay::take_over). Here the id is dead. Only with several shards.
    HandOver {
        /// The connection.
        conn: ConnId,
        /// Where it belongs, counted from 0.
        shard: usize,
        /// To be given to that shard.
        pass: Pass,
    },
    /// No shard has a room any more, and this one is the first to know: send each other shard a tick. Only with several
    /// shards, in a drain.
    TickOthers,
    /// The drain is over: nothing is left to wait for, in this shard.
    Exit,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Initiator {
    /// The client, by a close frame, an end or a reset.
    Peer,
    /// The relay.
    Relay,
}

/// How a caller takes part in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "std", serde(rename_all = "snake_case"))]
pub enum Role {
    /// It presented the room's public key.
    Host,
    /// It was let in by the key of a room that was there.
    Guest,
}

impl Role {
    /// As in a token.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Host => "host",
            Role::Guest => "guest",
        }
    }
}

/// What a log or a test wants to know; never control flow. Ids are what peers sent: escape them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A member is in its room.
    Joined {
        /// The connection.
        conn: ConnId,
        /// The client's address, behind proxies too.
        ip: IpAddr,
        /// The room's id.
        room: &'a str,
        /// The peer id of the token.
        peer: &'a str,
        /// Host or guest.
        role: Role,
    },
    /// A member is no longer in its room.
    Left {
        /// The connection.
        conn: ConnId,
        /// The room's id.
        room: &'a str,
        /// The peer id at the end.
        peer: &'a str,
        /// Who ended it.
        initiator: Initiator,
        /// The close code sent or received; 1006 when there was none.
        code: u16,
        /// The reason that the relay gives, or empty.
        reason: &'static str,
    },
    /// A request or a connection was refused.
    Refused {
        /// The client's address, behind proxies too.
        ip: IpAddr,
        /// Why.
        refusal: Refusal,
    },
    /// What waited for a member that a drain closes is let go, because too much waits in all (rule S4): it
    /// will be told so by 1013 in place of 1012.
    LetGo {
        /// The connection.
        conn: ConnId,
    },
    /// A drain has begun. Said once, whichever of several shards was the first.
    Draining {
        /// Rooms that are still open, in all shards.
        rooms: usize,
    },
    /// The adapter called the machine out of turn. Harmless here, a bug there.
    Misuse {
        /// What it did.
        what: &'static str,
    },
}

/// Receives what [`Relay::handle`](crate::Relay::handle) decides, in order.
pub trait Sink {
    /// Something to do.
    fn action(&mut self, action: Action);

    /// Something to know.
    fn notice(&mut self, notice: Notice<'_>) {
        let _ = notice;
    }
}

impl Sink for Vec<Action> {
    fn action(&mut self, action: Action) {
        self.push(action);
    }
}
