//! A client with a name, over a [`Link`]: it speaks HTTP and WebSocket, right or wrong, reads strictly, and
//! writes down what it saw. It panics, as a test does, when something else comes than it expects.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;

use crate::frame::{ClientFrame, ServerFrame, opcode};
use crate::host::{Broken, Host, Link, PATIENCE, Received};
use crate::http::{Answer, KEY, OTHER_KEY, Request};
use crate::transcript::{Transcript, show};

/// Rule M3: as much as may be joined.
const MAX_JOINED_BYTES: usize = 64 * 1024;

/// One connection of a case.
pub struct Peer<'h> {
    name: String,
    host: &'h dyn Host,
    link: Box<dyn Link>,
    transcript: Transcript,
    received: BytesMut,
    /// Messages that came joined with one that was read (rule M3).
    joined: VecDeque<Vec<u8>>,
    pings: Pings,
}

/// What a peer does about the relay's pings. They come when they come, so they are in no transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pings {
    /// Every ping gets its pong.
    Answered,
    /// No ping gets one.
    Ignored,
    /// A ping is seen like everything else.
    Reported,
}

/// What a peer sees next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A message, one of those that came joined.
    Message(Vec<u8>),
    /// A ping, if asked for.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame.
    Close(Option<u16>, String),
    /// The relay has finished sending.
    End,
    /// The connection is broken.
    Reset,
    /// Nothing in the time given.
    Nothing,
}

impl<'h> Peer<'h> {
    pub(crate) fn new(name: &str, host: &'h dyn Host, transcript: Transcript) -> Self {
        Self {
            name: name.to_owned(),
            host,
            link: host.dial(),
            transcript,
            received: BytesMut::new(),
            joined: VecDeque::new(),
            pings: Pings::Answered,
        }
    }

    /// Its name in the transcript; also its peer id where [`Stage`](crate::Stage) let it join.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Decides about the relay's pings.
    pub fn pings(&mut self, pings: Pings) {
        self.pings = pings;
    }
}

/// Sending.
impl Peer<'_> {
    /// Sends one binary message.
    #[track_caller]
    pub fn send(&mut self, payload: impl AsRef<[u8]>) {
        self.frame(&ClientFrame::new(opcode::BINARY, payload));
    }

    /// Sends one text message.
    #[track_caller]
    pub fn text(&mut self, text: &str) {
        self.frame(&ClientFrame::new(opcode::TEXT, text));
    }

    /// Sends a ping.
    #[track_caller]
    pub fn ping(&mut self, payload: impl AsRef<[u8]>) {
        self.frame(&ClientFrame::new(opcode::PING, payload));
    }

    /// Sends any frame.
    #[track_caller]
    pub fn frame(&mut self, frame: &ClientFrame) {
        self.note(&format!("> {}", frame.describe()));
        self.bytes(&frame.encode());
    }

    /// Sends any bytes, without writing them down.
    #[track_caller]
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.try_bytes(bytes).is_err() {
            self.fail("could not send: the connection is broken, or the relay does not read");
        }
    }

    /// Sends any bytes where it may be too late for them.
    pub fn try_bytes(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.link.send(bytes)
    }

    /// Ends its direction (FIN).
    pub fn finish(&mut self) {
        self.note("> end");
        self.link.finish();
    }

    /// Breaks the connection off (RST).
    pub fn reset(mut self) {
        self.note("> reset");
        self.link.reset();
    }

    /// Leaves by the closing handshake (RFC 6455 section 7.1.2). Afterwards the relay has noticed.
    #[track_caller]
    pub fn leave(mut self) {
        self.frame(&ClientFrame::close(1000, ""));
        self.expect_close(1000, "");
    }
}

/// Asking.
impl Peer<'_> {
    /// Sends a request that is not granted, and reads the answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Answer {
        self.bytes(&request.encode());
        self.answer(request)
    }

    /// Sends bytes that may be no request at all, and reads the answer.
    #[track_caller]
    pub fn ask_raw(&mut self, text: &str) -> Answer {
        self.bytes(text.as_bytes());
        self.answer(&Request::get("/"))
    }

    /// Reads the answer to a request, behind which the relay must end the connection.
    #[track_caller]
    pub fn answer(&mut self, request: &Request) -> Answer {
        let answer = self.answer_head();
        if answer.status == 101 {
            self.fail("was let in");
        }
        self.answer_rest(answer, request)
    }

    #[track_caller]
    fn answer_rest(&mut self, mut answer: Answer, request: &Request) -> Answer {
        loop {
            match self.fill(self.deadline(PATIENCE)) {
                Received::Bytes(_) => {}
                Received::End => break,
                Received::Reset => self.fail("the connection broke behind the answer"),
                Received::Nothing => self.fail("the connection was left open behind the answer"),
            }
        }
        let announced = if request.is_head() { 0 } else { answer.content_length() };
        if self.received.len() != announced {
            self.fail(&format!("{} bytes of content, but {announced} announced", self.received.len()));
        }
        answer.body = String::from_utf8_lossy(&self.received).into_owned();
        answer
    }

    /// Reads a 101.
    #[track_caller]
    pub fn upgraded(&mut self, request: &Request) {
        if let Some(answer) = self.upgraded_or_refused(request) {
            self.fail(&format!("was not let in: {} {}", answer.status, answer.body.trim()));
        }
    }

    /// Reads a 101 (rule H11), or a refusal.
    #[track_caller]
    pub fn upgraded_or_refused(&mut self, request: &Request) -> Option<Answer> {
        let answer = self.answer_head();
        if answer.status != 101 {
            return Some(self.answer_rest(answer, request));
        }
        let key = request.field("Sec-WebSocket-Key");
        let accept =
            [KEY, OTHER_KEY].iter().find(|(known, _)| Some(*known) == key).map(|(_, accept)| *accept);
        let mut fields: Vec<_> =
            answer.fields.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
        fields.sort_unstable();
        let expected = [
            ("connection".to_owned(), "Upgrade"),
            ("sec-websocket-accept".to_owned(), accept.expect("a key with a known answer")),
            ("upgrade".to_owned(), "websocket"),
        ];
        if fields != expected {
            self.fail(&format!("H11: the 101 carries {fields:?}"));
        }
        self.note("< 101");
        None
    }

    #[track_caller]
    fn answer_head(&mut self) -> Answer {
        let until = self.deadline(PATIENCE);
        loop {
            match Answer::take_head(&mut self.received) {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(what) => self.fail(&format!("answered with {what}")),
            }
            match self.fill(until) {
                Received::Bytes(_) => {}
                ended => self.fail(&format!("no answer: {ended:?}")),
            }
        }
    }
}

/// Seeing.
impl Peer<'_> {
    /// What comes next.
    #[track_caller]
    pub fn see(&mut self) -> Seen {
        self.see_within(PATIENCE)
    }

    /// What comes next, if it comes in that time.
    #[track_caller]
    pub fn see_within(&mut self, within: Duration) -> Seen {
        let until = self.deadline(within);
        loop {
            if let Some(message) = self.joined.pop_front() {
                return Seen::Message(message);
            }
            let frame = match self.frame_until(until) {
                Ok(frame) => frame,
                Err(seen) => return seen,
            };
            match frame.opcode {
                opcode::BINARY => self.joined = self.split(frame.payload),
                opcode::PONG => return Seen::Pong(frame.payload),
                opcode::CLOSE => return self.read_close(&frame.payload),
                opcode::PING if self.pings == Pings::Reported => return Seen::Ping(frame.payload),
                opcode::PING if self.pings == Pings::Answered => {
                    // The connection may end just now; then that is what will be seen.
                    let _ = self.try_bytes(&ClientFrame::new(opcode::PONG, frame.payload).encode());
                }
                _ => {}
            }
        }
    }

    /// The next message as it was framed, joined or not.
    #[track_caller]
    pub fn see_framed(&mut self) -> Vec<u8> {
        assert!(self.joined.is_empty(), "{}: part of a frame was read already", self.name);
        match self.frame_until(self.deadline(PATIENCE)) {
            Ok(frame) if frame.opcode == opcode::BINARY => frame.payload,
            other => self.fail(&format!("expected a message, saw {other:?}")),
        }
    }

    /// Expects that this message comes next.
    #[track_caller]
    pub fn expect(&mut self, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref();
        match self.see() {
            Seen::Message(message) if message == payload => self.note(&format!("< {}", show(payload))),
            other => self.fail(&format!("expected {}, saw {}", show(payload), describe(&other))),
        }
    }

    /// Expects the leave notice of that peer, byte for byte (rule R6), but for its time.
    #[track_caller]
    pub fn expect_leave(&mut self, of: &str) {
        let seen = self.see();
        let Seen::Message(message) = &seen else {
            self.fail(&format!("expected the leave notice of {of:?}, saw {}", describe(&seen)));
        };
        let text = String::from_utf8_lossy(message);
        let from = serde_json::to_string(of).expect("a string is JSON");
        let digits = text
            .strip_prefix(&format!(r#"{{"id":"","type":"session:leave","from":{from},"ts":"#))
            .and_then(|rest| rest.strip_suffix(r#","nonce":0,"payload":null,"sig":null}"#));
        let Some(ts) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
            self.fail(&format!("expected the leave notice of {of:?}, saw {text}"));
        };
        // Unix milliseconds; a minute for clocks that disagree.
        if ts.abs_diff(self.host.unix() * 1000) > 60_000 {
            self.fail(&format!("the time of the leave notice is {ts}"));
        }
        self.note(&format!("< leave notice of {of:?}"));
    }

    /// Expects a pong.
    #[track_caller]
    pub fn expect_pong(&mut self, payload: impl AsRef<[u8]>) {
        match self.see() {
            Seen::Pong(pong) if pong == payload.as_ref() => self.note(&format!("< pong {}", show(&pong))),
            other => self.fail(&format!("expected a pong, saw {}", describe(&other))),
        }
    }

    /// Expects a close frame, and the end behind it.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16, reason: &str) {
        match self.see() {
            Seen::Close(Some(c), r) if c == code && r == reason => {
                self.note(format!("< close {code} {reason}").trim_end());
            }
            other => self.fail(&format!("expected close {code} {reason}, saw {}", describe(&other))),
        }
        self.expect_end();
    }

    /// Expects a close frame with that code and whatever explanation, and the end behind it.
    #[track_caller]
    pub fn expect_close_code(&mut self, code: u16) {
        match self.see() {
            Seen::Close(Some(c), reason) if c == code => self.note(&format!("< close {code} {reason}")),
            other => self.fail(&format!("expected close {code}, saw {}", describe(&other))),
        }
        self.expect_end();
    }

    /// Expects that the relay has finished sending.
    #[track_caller]
    pub fn expect_end(&mut self) {
        match self.see() {
            Seen::End => {}
            other => self.fail(&format!("expected the end, saw {}", describe(&other))),
        }
    }

    /// Expects that the connection ends, in good order or not, before anything else comes.
    #[track_caller]
    pub fn expect_gone(&mut self) {
        match self.see() {
            Seen::End | Seen::Reset => self.note("< gone"),
            other => self.fail(&format!("expected to be cut off, saw {}", describe(&other))),
        }
    }

    #[track_caller]
    fn read_close(&self, payload: &[u8]) -> Seen {
        match payload {
            [] => Seen::Close(None, String::new()),
            [high, low, reason @ ..] => match std::str::from_utf8(reason) {
                Ok(reason) => Seen::Close(Some(u16::from_be_bytes([*high, *low])), reason.to_owned()),
                Err(_) => self.fail("a close frame whose reason is not UTF-8"),
            },
            [_] => self.fail("a close frame with a payload of one byte"),
        }
    }

    /// Rule M3: what was joined are objects without a line break. A single message that has line breaks is
    /// recognised by lines that are no objects.
    #[track_caller]
    fn split(&self, payload: Vec<u8>) -> VecDeque<Vec<u8>> {
        let lines: VecDeque<_> = payload.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if lines.len() == 1 || !lines.iter().all(|line| line.starts_with(b"{")) {
            return VecDeque::from([payload]);
        }
        if payload.len() > MAX_JOINED_BYTES {
            self.fail(&format!("M3: {} bytes were joined", payload.len()));
        }
        lines
    }

    #[track_caller]
    fn frame_until(&mut self, until: Duration) -> Result<ServerFrame, Seen> {
        loop {
            match ServerFrame::take(&mut self.received) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(what) => self.fail(&format!("the relay sent {what}")),
            }
            match self.fill(until) {
                Received::Bytes(_) => {}
                Received::End if self.received.is_empty() => return Err(Seen::End),
                Received::End => self.fail("the relay ended inside a frame"),
                Received::Reset => return Err(Seen::Reset),
                Received::Nothing => return Err(Seen::Nothing),
            }
        }
    }
}

impl Peer<'_> {
    fn deadline(&self, within: Duration) -> Duration {
        self.host.elapsed() + within
    }

    /// Takes up to one portion of bytes from the link, and keeps them.
    pub fn fill(&mut self, until: Duration) -> Received {
        let received = self.link.receive(until.saturating_sub(self.host.elapsed()));
        if let Received::Bytes(bytes) = &received {
            self.received.extend_from_slice(bytes);
        }
        received
    }

    fn note(&self, what: &str) {
        self.transcript.note(format!("{} {what}", self.name));
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}", self.name);
    }
}

fn describe(seen: &Seen) -> String {
    match seen {
        Seen::Message(payload) => show(payload),
        Seen::Nothing => "nothing in time".to_owned(),
        other => format!("{other:?}"),
    }
}
