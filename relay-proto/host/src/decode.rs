//! From bytes to messages (RFC 6455 section 5), for all connections of one thread.
//!
//! tungstenite decodes: masks, fragments, UTF-8, control frames. What it would write by itself goes nowhere: the
//! machine answers pings and close frames in its own order, and nothing can cut into a frame that is half written.
//!
//! A decoder between two messages remembers nothing. So one of them, and one buffer to read into, serve every
//! connection of a thread in turn; only a connection in the middle of a message has a decoder of its own, and one
//! that is idle has nothing.

use std::cell::{Cell, RefCell};
use std::io::{self, Cursor, Read, Write};
use std::mem;

use relay_proto::Fault;
use relay_proto::config::Config;
use relay_proto::hub::Connection;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

/// How much is read at once. A fast sender has its turn after that much. What one read brings leaves as one batch, so
/// with less a burst is more writes to each receiver; more than a batch can carry would gain nothing.
const CHUNK_BYTES: usize = 64 * 1024;

/// A decoder that has seen a longer message has a buffer that is too large to be kept.
const MAX_KEPT_BYTES: usize = 16 * 1024;

/// By how much tungstenite's own buffer grows. It fills with zeros what it is about to read into, so less is
/// quicker; what a frame needs it reserves by itself.
const STEP_BYTES: usize = 4096;

/// RFC 6455 section 5.2: two bytes, eight of extended length, four of mask.
const MAX_HEADER_BYTES: usize = 14;

/// What the connections of one thread share while they read.
pub struct Decoding {
    config: WebSocketConfig,
    chunk: RefCell<Box<[u8]>>,
    spare: Cell<Option<Box<Decoder>>>,
}

/// What one connection keeps between two reads: nothing, unless it is in the middle of a message.
#[derive(Default)]
pub struct Unfinished(Option<Box<Decoder>>);

impl Unfinished {
    /// Whether there is something to decode before more is read.
    pub fn has_more(&self) -> bool {
        self.0.as_ref().is_some_and(|decoder| decoder.complete > 0)
    }
}

/// Whether there is more to understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Messages may follow.
    More,
    /// The sender is over its receive limit: not now.
    Later,
    /// A close frame or a fault was read. What still comes is to be discarded.
    Discard,
}

impl Decoding {
    /// For the messages that this configuration allows.
    pub fn new(config: &Config) -> Self {
        let limit = Some(config.max_message_size);
        let config = WebSocketConfig::default()
            .read_buffer_size(STEP_BYTES)
            // A header that declares more is refused before anything is reserved for it.
            .max_frame_size(limit)
            .max_message_size(limit)
            // Nothing waits here: see `Source`.
            .write_buffer_size(0);
        Self { config, chunk: RefCell::new(vec![0; CHUNK_BYTES].into()), spare: Cell::new(None) }
    }

    /// Lends the thread's buffer for one attempt to read. Not across an await, so nobody else can want it.
    pub fn with_chunk<T>(&self, visit: impl FnOnce(&mut [u8]) -> T) -> T {
        visit(&mut self.chunk.borrow_mut())
    }

    /// Hands to the machine what these bytes complete.
    pub fn decode(&self, unfinished: &mut Unfinished, bytes: &[u8], conn: &Connection) -> Next {
        self.decode_into(unfinished, bytes, &mut |message| tell(conn, message))
    }

    fn decode_into(
        &self,
        unfinished: &mut Unfinished,
        bytes: &[u8],
        take: &mut impl FnMut(Result<Message, Error>) -> Next,
    ) -> Next {
        let mut decoder = unfinished
            .0
            .take()
            .or_else(|| self.spare.take())
            .unwrap_or_else(|| Box::new(Decoder::new(self.config)));
        let next = decoder.feed(bytes, take);
        if next == Next::Discard {
            // After a close frame or an error tungstenite must not be asked again.
            return next;
        }
        if next == Next::More && decoder.position.is_between_messages() {
            // One whose buffer a large message has grown is given back.
            self.spare.set(Some(decoder).filter(|decoder| decoder.position.largest <= MAX_KEPT_BYTES as u64));
        } else {
            unfinished.0 = Some(decoder);
        }
        next
    }
}

struct Decoder {
    context: WebSocketContext,
    position: Position,
    /// Messages that are there as a whole and were not wanted yet.
    complete: usize,
    /// What of them the context has not seen.
    rest: Vec<u8>,
}

impl Decoder {
    fn new(config: WebSocketConfig) -> Self {
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self { context, position: Position::default(), complete: 0, rest: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8], take: &mut impl FnMut(Result<Message, Error>) -> Next) -> Next {
        debug_assert!(bytes.is_empty() || self.complete == 0, "what is there comes first");
        let rest = mem::take(&mut self.rest);
        let mut source = Source(if self.complete == 0 { bytes } else { &rest });
        self.complete += self.position.advance(bytes);
        while self.complete > 0 {
            self.complete -= 1;
            let next = take(self.context.read(&mut source));
            if next == Next::Later {
                self.rest = source.0.to_vec();
            }
            if next != Next::More {
                return next;
            }
        }
        if self.position.is_between_messages() {
            return Next::More;
        }
        // What is left is the beginning of a message, or was none.
        match self.context.read(&mut source) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Next::More,
            other => take(other),
        }
    }
}

/// Where the bytes so far end in the sequence of frames; tungstenite knows, and does not tell.
#[derive(Default)]
struct Position {
    /// The beginning of a header.
    header: Vec<u8>,
    /// What is still to come of a payload.
    payload: u64,
    /// Between the fragments of a message.
    fragmented: bool,
    /// The frame at hand ends a message, or is one of control.
    is_last: bool,
    /// The longest payload so far.
    largest: u64,
}

impl Position {
    fn is_between_messages(&self) -> bool {
        self.header.is_empty() && self.payload == 0 && !self.fragmented
    }

    /// Returns how many messages, those of control included, these bytes complete.
    fn advance(&mut self, mut bytes: &[u8]) -> usize {
        let mut completed = 0;
        while !bytes.is_empty() {
            if self.payload == 0 {
                let known = self.header.len();
                let more = bytes.len().min(MAX_HEADER_BYTES - known);
                self.header.extend_from_slice(&bytes[..more]);
                let mut cursor = Cursor::new(&self.header);
                // One that tungstenite will refuse: it has no end.
                let Ok(parsed) = FrameHeader::parse(&mut cursor) else { return completed };
                let Some((header, len)) = parsed else { return completed };
                bytes = &bytes[usize::try_from(cursor.position()).unwrap_or(known) - known..];
                self.header.clear();
                self.payload = len;
                self.largest = self.largest.max(len);
                let is_data =
                    matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary | Data::Continue));
                self.is_last = header.is_final || !is_data;
                if is_data {
                    self.fragmented = !header.is_final;
                }
            }
            let read = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= read as u64;
            bytes = &bytes[read..];
            completed += usize::from(self.payload == 0 && self.is_last);
        }
        completed
    }
}

/// What tungstenite reads from. Its pongs and close frames go nowhere: see the top of this file.
struct Source<'a>(&'a [u8]);

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(into) }
    }
}

impl Write for Source<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tell(conn: &Connection, message: Result<Message, Error>) -> Next {
    match message {
        Ok(Message::Text(text)) => conn.message(text.into()),
        Ok(Message::Binary(payload)) => conn.message(payload),
        Ok(Message::Ping(payload)) => conn.ping(payload),
        Ok(Message::Pong(_)) => conn.pong(),
        Ok(Message::Close(frame)) => {
            close(conn, frame);
            return Next::Discard;
        }
        Ok(Message::Frame(_)) => unreachable!("tungstenite reads no raw frames"),
        Err(error) => {
            conn.fault(fault(&error));
            return Next::Discard;
        }
    }
    if conn.is_paused() { Next::Later } else { Next::More }
}

/// tungstenite turns a code that must not be on the wire (RFC 6455 section 7.4) into 1002 with a text of its
/// own. A peer that really sent these two gets the same answer.
fn close(conn: &Connection, frame: Option<CloseFrame>) {
    match frame {
        Some(frame) if frame.code == CloseCode::Protocol && frame.reason.as_str() == "Protocol violation" => {
            conn.fault(Fault::Protocol);
        }
        Some(frame) => conn.peer_close(Some(frame.code.into())),
        None => conn.peer_close(None),
    }
}

/// What the peer did wrong. The source has no errors of its own, and the rest only clients and writers meet.
fn fault(error: &Error) -> Fault {
    match error {
        Error::Capacity(_) => Fault::TooBig,
        Error::Utf8(_) => Fault::InvalidUtf8,
        _ => Fault::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![first];
        if let Ok(len @ 0..=125) = u8::try_from(payload.len()) {
            frame.push(0x80 | len);
        } else {
            frame.push(0xFE);
            frame.extend(u16::try_from(payload.len()).expect("a test's payload").to_be_bytes());
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn decoding() -> Decoding {
        Decoding::new(&Config { max_message_size: 40_000, ..Config::default() })
    }

    /// What comes out if the bytes arrive in pieces of that size, and whether something is kept behind each.
    fn in_pieces(bytes: &[u8], size: usize) -> (Vec<String>, Vec<bool>) {
        let (decoding, mut unfinished) = (decoding(), Unfinished::default());
        let (mut seen, mut kept) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            let next = decoding.decode_into(&mut unfinished, piece, &mut |message| {
                seen.push(format!("{message:?}"));
                if matches!(message, Ok(Message::Close(_)) | Err(_)) { Next::Discard } else { Next::More }
            });
            kept.push(unfinished.0.is_some());
            if next == Next::Discard {
                break;
            }
        }
        (seen, kept)
    }

    /// What tungstenite makes of it, alone and at once.
    fn plainly(bytes: &[u8]) -> Vec<String> {
        let mut context = WebSocketContext::new(Role::Server, Some(decoding().config));
        let mut source = Source(bytes);
        let mut seen = Vec::new();
        loop {
            let message = context.read(&mut source);
            if matches!(&message, Err(Error::Io(_))) {
                return seen;
            }
            let ends = matches!(message, Ok(Message::Close(_)) | Err(_));
            seen.push(format!("{message:?}"));
            if ends {
                return seen;
            }
        }
    }

    #[test]
    fn however_the_bytes_are_cut_the_messages_are_the_same() {
        let long = vec![7; 39_000];
        let conversations: [&[(u8, &[u8])]; 9] = [
            &[(0x82, b"one"), (0x81, b"two"), (0x89, b"ping"), (0x8A, b""), (0x82, b"")],
            &[(0x01, b"frag"), (0x89, b"between"), (0x00, b"men"), (0x80, b"ted"), (0x82, b"next")],
            &[(0x82, &long), (0x82, b"behind"), (0x02, &long), (0x80, b"end")],
            &[(0x82, b"one"), (0x88, b"\x03\xe8bye"), (0x82, b"ignored")],
            &[(0x81, b"\xff"), (0x82, b"ignored")],
            &[(0x01, b"\xff"), (0x80, b"ignored")],
            &[(0x83, b"reserved"), (0x82, b"ignored")],
            &[(0x82, b"one"), (0x80, b"continues nothing")],
            &[(0x02, &long), (0x80, &long)],
        ];
        for conversation in conversations {
            let bytes: Vec<u8> =
                conversation.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
            let expected = plainly(&bytes);
            assert!(!expected.is_empty());
            for size in [1, 2, 3, 7, 100, 5000, 16_384, bytes.len()] {
                assert_eq!(in_pieces(&bytes, size).0, expected, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_not_wanted_yet_is_not_lost() {
        let bytes: Vec<u8> =
            [frame(0x82, b"one"), frame(0x82, b"two"), frame(0x82, b"three"), frame(0x82, b"four")].concat();
        let (decoding, mut unfinished) = (decoding(), Unfinished::default());
        let mut seen = Vec::new();
        let cut = bytes.len() - 3;
        let mut feed = |unfinished: &mut Unfinished, bytes: &[u8]| {
            decoding.decode_into(unfinished, bytes, &mut |message| {
                seen.push(message.unwrap().into_data());
                Next::Later
            })
        };
        assert_eq!(feed(&mut unfinished, &bytes[..cut]), Next::Later);
        assert_eq!(feed(&mut unfinished, &[]), Next::Later);
        assert!(unfinished.has_more());
        assert_eq!(feed(&mut unfinished, &[]), Next::Later);
        assert!(!unfinished.has_more());
        assert_eq!(feed(&mut unfinished, &bytes[cut..]), Next::Later);
        assert_eq!(seen, ["one", "two", "three", "four"].map(Bytes::from));
    }

    #[test]
    fn between_two_messages_nothing_is_kept() {
        let message = frame(0x82, b"hello");
        let (_, kept) = in_pieces(&[message.clone(), message.clone()].concat(), message.len());
        assert_eq!(kept, [false, false]);
        let (_, kept) = in_pieces(&message, message.len() - 1);
        assert_eq!(kept, [true, false]);
        // Between two fragments the message is kept, at a frame's end too.
        let fragments = [frame(0x02, b"hello"), frame(0x80, b"world")];
        let (_, kept) = in_pieces(&fragments.concat(), fragments[0].len());
        assert_eq!(kept, [true, false]);
    }

    #[test]
    fn a_decoder_that_has_grown_is_not_kept_for_others() {
        let (decoding, mut unfinished) = (decoding(), Unfinished::default());
        let mut ignore = |_| Next::More;
        decoding.decode_into(&mut unfinished, &frame(0x82, &vec![0; MAX_KEPT_BYTES]), &mut ignore);
        let spare = decoding.spare.take();
        assert!(spare.is_some());
        decoding.spare.set(spare);
        decoding.decode_into(&mut unfinished, &frame(0x82, &vec![0; MAX_KEPT_BYTES + 1]), &mut ignore);
        assert!(decoding.spare.take().is_none());
    }
}
