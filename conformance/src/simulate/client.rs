//! A client and the kernel it runs on: what it still has to send, how fast it reads, what it has seen.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;

use crate::frame::{ClientFrame, ServerFrame, opcode};
use crate::host::Received;
use crate::http::Answer;
use crate::sim::pipe::Pipe;

use super::call::Call;

/// A slow client moves its few bytes this often.
const TURN: Duration = Duration::from_millis(5);

/// What is taken out of a pipe at once by a client that is in no way slow.
const PORTION_BYTES: usize = 1 << 16;

pub(crate) struct Client {
    pub(crate) call: Call,
    /// What it still has to send.
    to_send: VecDeque<u8>,
    received: BytesMut,
    state: State,
    pub(crate) pace: Pace,
    /// When a slow one moves bytes again: writing, reading.
    turns: [Duration; 2],
    manner: Manner,
    /// It has sent a close frame, or what ends a connection like one.
    pub(crate) has_closed: bool,
    /// It has read a close frame.
    was_closed: bool,
    /// It ends its own direction once everything is sent.
    ending: bool,
    /// Payloads of pings, in order.
    pub(crate) pings: VecDeque<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asking,
    Refused,
    Joined,
    Ended,
}

/// What can be had of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Normal,
    /// It answers neither pings nor close frames.
    Mute,
    /// It is gone, and so is the way to it.
    Dead,
}

/// How it reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Free,
    /// So many bytes each turn.
    Slow(usize),
    /// It does not read; it writes as ever.
    Stalled,
}

/// What a client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Answer(u16),
    Message(Vec<u8>),
    Pong(Vec<u8>),
    Ping,
    Close(Option<u16>, String),
    End,
    /// The end inside a frame.
    CutShort,
    Nonsense(String),
}

impl Client {
    pub(crate) fn new(call: Call) -> Self {
        Self {
            call,
            to_send: VecDeque::new(),
            received: BytesMut::new(),
            state: State::Asking,
            pace: Pace::Free,
            turns: [Duration::ZERO; 2],
            manner: Manner::Normal,
            has_closed: false,
            was_closed: false,
            ending: false,
            pings: VecDeque::new(),
        }
    }

    /// Whether it may still send messages.
    pub(crate) fn speaks(&self) -> bool {
        self.state == State::Joined && !self.has_closed && !self.ending && !self.is_dead()
    }

    /// Whether nobody can do anything with it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.state == State::Ended || self.is_dead()
    }

    /// Whether anything can still happen at its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.to_send.extend(bytes);
    }

    pub(crate) fn say_goodbye(&mut self, code: Option<u16>) {
        let payload = code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
        self.send(&ClientFrame::new(opcode::CLOSE, payload).encode());
        self.has_closed = true;
    }

    /// Ends its direction behind what is still to be sent.
    pub(crate) fn finish(&mut self) {
        self.ending = true;
    }

    /// Its socket is closed: it sends and sees nothing any more.
    pub(crate) fn abandon(&mut self) {
        self.state = State::Ended;
        self.to_send.clear();
    }

    pub(crate) fn mute(&mut self) {
        if self.manner == Manner::Normal {
            self.manner = Manner::Mute;
        }
    }

    pub(crate) fn die(&mut self) {
        self.manner = Manner::Dead;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.manner == Manner::Dead
    }

    /// It answers again, also to the close frame that it left without an answer.
    pub(crate) fn unmute(&mut self) {
        if self.manner == Manner::Mute {
            self.manner = Manner::Normal;
        }
        if self.was_closed {
            self.finish();
        }
    }

    /// It goes in good order, if it still can.
    pub(crate) fn leave(&mut self) {
        if self.speaks() {
            self.say_goodbye(Some(1000));
        } else {
            self.finish();
        }
    }

    /// When it wants to move bytes again by itself.
    pub(crate) fn next_turn(&self, outbound: &Pipe) -> Option<Duration> {
        let Pace::Slow(_) = self.pace else { return None };
        if self.is_dead() || self.state == State::Ended {
            return None;
        }
        let writing = (!self.to_send.is_empty()).then_some(self.turns[0]);
        let reading = (!outbound.is_empty()).then_some(self.turns[1]);
        writing.into_iter().chain(reading).min()
    }

    /// Puts into the pipe what it takes. Whether anything moved.
    pub(crate) fn write(&mut self, inbound: &mut Pipe, now: Duration) -> bool {
        if self.is_dead() || inbound.is_broken() {
            return false;
        }
        let mut moved = false;
        if !self.to_send.is_empty() && self.takes_turn(0, now) {
            let portion = self.portion();
            let bytes = self.to_send.make_contiguous();
            let count = inbound.push(&bytes[..portion.min(bytes.len())]);
            self.to_send.drain(..count);
            moved = count > 0;
        }
        if self.ending && self.to_send.is_empty() && !inbound.is_finished() {
            inbound.finish();
            moved = true;
        }
        moved
    }

    /// Takes out of the pipe what it wants; what it saw. None: nothing moved.
    pub(crate) fn read(&mut self, outbound: &mut Pipe, now: Duration) -> Option<Vec<Seen>> {
        let reads = !self.is_dead() && self.state != State::Ended && self.pace != Pace::Stalled;
        if !reads || (!outbound.is_empty() && !self.takes_turn(1, now)) {
            return None;
        }
        match outbound.take_up_to(self.portion())? {
            Received::Bytes(bytes) => {
                self.received.extend_from_slice(&bytes);
                Some(self.understand())
            }
            Received::End | Received::Reset | Received::Nothing => {
                let cut_short =
                    !self.received.is_empty() && self.state == State::Joined && !outbound.is_broken();
                self.state = State::Ended;
                self.ending = true;
                Some(cut_short.then_some(Seen::CutShort).into_iter().chain([Seen::End]).collect())
            }
        }
    }

    fn portion(&self) -> usize {
        match self.pace {
            Pace::Slow(bytes) => bytes,
            Pace::Free | Pace::Stalled => PORTION_BYTES,
        }
    }

    fn takes_turn(&mut self, which: usize, now: Duration) -> bool {
        if let Pace::Slow(_) = self.pace {
            if now < self.turns[which] {
                return false;
            }
            self.turns[which] = now + TURN;
        }
        true
    }

    fn understand(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        if self.state == State::Asking {
            match Answer::take_head(&mut self.received) {
                Ok(None) => return seen,
                Ok(Some(answer)) => {
                    let state = if answer.status == 101 { State::Joined } else { State::Refused };
                    self.state = state;
                    seen.push(Seen::Answer(answer.status));
                }
                Err(what) => return vec![Seen::Nonsense(what)],
            }
        }
        while self.state == State::Joined {
            match ServerFrame::take(&mut self.received) {
                Ok(None) => break,
                Ok(Some(frame)) => seen.push(self.understand_frame(frame)),
                Err(what) => return vec![Seen::Nonsense(what)],
            }
        }
        seen
    }

    fn understand_frame(&mut self, frame: ServerFrame) -> Seen {
        match frame.opcode {
            opcode::PING => {
                if self.manner != Manner::Mute && !self.has_closed && !self.ending {
                    self.send(&ClientFrame::new(opcode::PONG, frame.payload).encode());
                }
                Seen::Ping
            }
            opcode::PONG => Seen::Pong(frame.payload),
            opcode::CLOSE => self.understand_close(&frame.payload),
            _ => Seen::Message(frame.payload),
        }
    }

    fn understand_close(&mut self, payload: &[u8]) -> Seen {
        let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        self.was_closed = true;
        if self.manner != Manner::Mute {
            if !self.has_closed && !self.ending {
                self.say_goodbye(code);
            }
            self.finish();
        }
        Seen::Close(code, String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned())
    }
}
