//! The relay's side of one connection: what an adapter's two tasks do, a step at a time.

use bytes::{Buf, Bytes};
use relay_proto::frame::{Batch, Frame};
use relay_proto::http::Head;
use relay_proto::{Action, ConnId, Event, Fault, Pass};
use tungstenite::Message;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use super::pipe::{Inlet, Pipe, progress};
use crate::host::Received;

/// What is read at once. Thousands of worlds are built a second; the default would be most of their memory.
const READ_BUFFER_BYTES: usize = 4096;

/// A socket that was accepted.
pub(crate) struct Socket {
    /// None when it has ended, never began, or is on its way from one shard to another.
    pub(crate) conn: Option<ConnId>,
    /// Where it goes, and what it takes along.
    transit: Option<(usize, Pass)>,
    pub(crate) inbound: Pipe,
    pub(crate) outbound: Pipe,
    reading: Reading,
    writing: Option<Writing>,
    upgraded: bool,
    paused: bool,
    probed: bool,
    max_message_size: usize,
}

/// What is done with bytes that come.
enum Reading {
    Head(Head),
    Frames(Box<WebSocketContext>),
    /// They are discarded, and their end is the end of the connection.
    Nothing,
}

struct Writing {
    batch: Batch,
    then: Then,
}

#[derive(PartialEq, Eq)]
enum Then {
    Continue,
    Finish,
}

/// What a step led to.
pub(crate) enum Happened {
    /// A request to be judged; its answer decides how reading goes on.
    Head(Head),
    /// Something that the machine has to know.
    Event(Event<'static>),
    /// Only bytes moved.
    Moved,
}

impl Socket {
    pub(crate) fn new(conn: Option<ConnId>, max_message_size: usize) -> Self {
        Self::over(Pipe::default(), Pipe::default(), conn, max_message_size)
    }

    /// Over two directions of some quality.
    pub(crate) fn over(inbound: Pipe, outbound: Pipe, conn: Option<ConnId>, max_message_size: usize) -> Self {
        let mut socket = Self {
            conn,
            transit: None,
            inbound,
            outbound,
            reading: Reading::Head(Head::new()),
            writing: None,
            upgraded: false,
            paused: false,
            probed: false,
            max_message_size,
        };
        if conn.is_none() {
            socket.die();
        }
        socket
    }

    /// Takes an action of the machine.
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::Respond { response, .. } => self.write(Batch::single(response.bytes), Then::Finish),
            Action::Upgrade { response, .. } => {
                self.upgraded = true;
                self.write(Batch::single(response.bytes), Then::Continue);
            }
            Action::Send { batch, .. } => self.write(batch, Then::Continue),
            Action::Close { code, reason, .. } => {
                self.write(Frame::close(code, reason).into(), Then::Finish);
            }
            Action::Abort { .. } => self.die(),
            Action::Probe { .. } => self.probed = true,
            Action::Pause { .. } => self.paused = true,
            Action::Resume { .. } => self.paused = false,
            Action::HandOver { shard, pass, .. } => {
                self.conn = None;
                self.transit = Some((shard, pass));
            }
            Action::TickOthers | Action::Exit => {}
        }
    }

    fn write(&mut self, batch: Batch, then: Then) {
        assert!(self.writing.is_none(), "two writes are outstanding");
        if then == Then::Finish {
            self.reading = Reading::Nothing;
        }
        self.writing = Some(Writing { batch, then });
    }

    /// Whether it has left one shard and not yet come to another.
    pub(crate) fn is_in_transit(&self) -> bool {
        self.transit.is_some()
    }

    /// It comes to another shard, with the head that is to be judged there.
    pub(crate) fn arrive(&mut self) -> Option<(usize, Pass, Head)> {
        let (shard, pass) = self.transit.take()?;
        match std::mem::replace(&mut self.reading, Reading::Nothing) {
            Reading::Head(head) => Some((shard, pass, head)),
            Reading::Frames(_) | Reading::Nothing => unreachable!("it was handed over with its head"),
        }
    }

    /// The machine has judged the head that was read.
    pub(crate) fn answered(&mut self, head: Head) {
        if self.is_in_transit() {
            self.reading = Reading::Head(head);
        } else if self.upgraded {
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER_BYTES)
                .max_message_size(Some(self.max_message_size))
                .max_frame_size(Some(self.max_message_size));
            let context = WebSocketContext::from_partially_read(head.into_rest(), Role::Server, Some(config));
            self.reading = Reading::Frames(Box::new(context));
        }
    }

    /// Does one thing that can be done now.
    pub(crate) fn next_event(&mut self) -> Option<Happened> {
        let conn = self.conn?;
        if self.inbound.is_broken() {
            return Some(Happened::Event(Event::Disconnect { conn }));
        }
        if std::mem::take(&mut self.probed) {
            return Some(Happened::Event(Event::Acked {
                conn,
                progress: progress(&self.inbound, &self.outbound),
            }));
        }
        self.next_written(conn).or_else(|| self.next_read(conn))
    }

    fn next_written(&mut self, conn: ConnId) -> Option<Happened> {
        let writing = self.writing.as_mut()?;
        let count = self.outbound.push(writing.batch.chunk());
        writing.batch.advance(count);
        if writing.batch.has_remaining() {
            return (count > 0).then_some(Happened::Moved);
        }
        if self.writing.take()?.then == Then::Finish {
            self.outbound.finish();
        }
        Some(Happened::Event(Event::Sent { conn }))
    }

    fn next_read(&mut self, conn: ConnId) -> Option<Happened> {
        if self.paused {
            return None;
        }
        let event = match &mut self.reading {
            Reading::Head(head) => match self.inbound.take()? {
                Received::Bytes(bytes) => match head.push(&bytes) {
                    Ok(false) => return Some(Happened::Moved),
                    Ok(true) => {
                        let head = std::mem::take(head);
                        self.reading = Reading::Nothing;
                        return Some(Happened::Head(head));
                    }
                    Err(fault) => Event::Fault { conn, fault },
                },
                Received::End | Received::Reset | Received::Nothing => Event::Disconnect { conn },
            },
            Reading::Frames(context) => {
                let had_bytes = !self.inbound.is_empty();
                match context.read(&mut Inlet(&mut self.inbound)) {
                    Ok(message) => heard(conn, message)?,
                    Err(Error::Io(_)) => return had_bytes.then_some(Happened::Moved),
                    Err(error) => match fault(&error) {
                        Some(fault) => Event::Fault { conn, fault },
                        None => Event::Disconnect { conn },
                    },
                }
            }
            Reading::Nothing => match self.inbound.take()? {
                Received::Bytes(_) => return Some(Happened::Moved),
                // A client that has finished asking still gets its answer.
                _ if !self.outbound.is_finished() => return None,
                _ => Event::Disconnect { conn },
            },
        };
        if matches!(event, Event::Fault { .. } | Event::PeerClose { .. }) {
            self.reading = Reading::Nothing;
        }
        Some(Happened::Event(event))
    }

    /// Whether the client can still send.
    pub(crate) fn is_broken(&self) -> bool {
        (self.conn.is_none() && !self.is_in_transit()) || self.inbound.is_broken()
    }

    /// The client has closed its socket: what the relay still sends is lost.
    pub(crate) fn hang_up(&mut self) {
        self.inbound.finish();
    }

    /// The client resets the connection.
    pub(crate) fn break_off(&mut self) {
        self.inbound.break_off();
        self.outbound.break_off();
    }

    /// The relay has closed its socket.
    pub(crate) fn die(&mut self) {
        self.conn = None;
        self.writing = None;
        self.outbound.finish();
    }
}

fn heard(conn: ConnId, message: Message) -> Option<Event<'static>> {
    Some(match message {
        Message::Text(text) => Event::Message { conn, payload: Bytes::from(text) },
        Message::Binary(payload) => Event::Message { conn, payload },
        Message::Ping(payload) => Event::Ping { conn, payload },
        Message::Pong(_) => Event::Pong { conn },
        // tungstenite's word for a code that must not be on the wire (RFC 6455 section 7.4).
        Message::Close(Some(CloseFrame { code: CloseCode::Protocol, reason }))
            if reason.as_str() == "Protocol violation" =>
        {
            Event::Fault { conn, fault: Fault::Protocol }
        }
        Message::Close(close) => Event::PeerClose { conn, code: close.map(|close| close.code.into()) },
        Message::Frame(_) => return None,
    })
}

/// Whose fault it is that no more can be read; none if the bytes just ended.
fn fault(error: &Error) -> Option<Fault> {
    match error {
        Error::Capacity(_) => Some(Fault::TooBig),
        Error::Utf8(_) => Some(Fault::InvalidUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(Fault::Protocol),
        _ => None,
    }
}
