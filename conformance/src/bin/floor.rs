//! The floor of `conformance bench`: what the kernel charges for passing messages on, and nothing else.
//!
//! One thread reads frames, removes the mask, and writes each to everybody else in the room. No limit, no token,
//! no timer, no ping; a frame that is not whole waits, a receiver that does not take everything gets the rest
//! later. `single` writes each message to each receiver on its own; `coalesce` writes all messages that one read
//! brought at once; `tick` lets them wait for a number of milliseconds first.
#![expect(clippy::print_stdout, reason = "its address is what whoever started it waits for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use conformance::http::KEY;
use lexopt::prelude::*;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const HELP: &str = "\
Passes WebSocket messages on to everybody else in a room, as cheaply as the kernel allows.

    floor [single | coalesce | tick] [--listen HOST:PORT] [--tick-ms N]

single          one write per message and receiver (default)
coalesce        one write per receiver for all messages that one read brought
tick            one write per receiver and tick of --tick-ms (2)
--listen        default 127.0.0.1:0, a free port; the first line of the output tells which
";

const LISTENER: Token = Token(usize::MAX);
/// One read takes up to this much.
const READ_BYTES: usize = 64 * 1024;
const EVENTS: usize = 1024;
/// A head that is longer is not from our own load generator.
const MAX_HEAD_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Single,
    Coalesce,
    Tick(Duration),
}

fn main() -> ExitCode {
    let served = options().and_then(|options| {
        let Some((listen, mode)) = options else {
            println!("{HELP}");
            return Ok(());
        };
        serve(listen, mode)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Option<(SocketAddr, Mode)>, Box<dyn Error>> {
    let (mut listen, mut mode, mut tick) = (SocketAddr::from(([127, 0, 0, 1], 0)), Mode::Single, 2);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => listen = parser.value()?.parse()?,
            Long("tick-ms") => tick = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(None),
            Value(word) if word == "single" => mode = Mode::Single,
            Value(word) if word == "coalesce" => mode = Mode::Coalesce,
            Value(word) if word == "tick" => mode = Mode::Tick(Duration::ZERO),
            other => return Err(other.unexpected().into()),
        }
    }
    if let Mode::Tick(duration) = &mut mode {
        *duration = Duration::from_millis(tick);
    }
    Ok(Some((listen, mode)))
}

fn serve(listen: SocketAddr, mode: Mode) -> Result<(), Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen).map_err(|error| format!("--listen {listen}: {error}"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening addr={} pid={}", listener.local_addr()?, std::process::id());
    io::stdout().flush()?;

    let mut floor =
        Floor { mode, peers: Vec::new(), free: Vec::new(), rooms: BTreeMap::new(), dirty: Vec::new() };
    let (mut events, mut scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
    let mut due = None;
    loop {
        let timeout = due.map(|due: Instant| due.saturating_duration_since(now()));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener, &poll)?,
                Token(peer) => {
                    if event.is_writable() {
                        floor.write(peer, &[]);
                    }
                    if event.is_readable() && !floor.read(peer, event.is_read_closed(), &mut scratch) {
                        floor.forget(peer);
                    }
                }
            }
        }
        if let Mode::Tick(tick) = mode {
            if due.is_some_and(|due| due <= now()) {
                floor.flush();
                due = None;
            }
            due = due.or_else(|| (!floor.dirty.is_empty()).then(|| now() + tick));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a tick is real time")]
fn now() -> Instant {
    Instant::now()
}

struct Peer {
    stream: TcpStream,
    /// None before the upgrade.
    room: Option<String>,
    /// What is not whole yet.
    input: Vec<u8>,
    /// What the socket did not take yet.
    output: Vec<u8>,
    /// What the next tick will write.
    ticked: Vec<u8>,
}

struct Floor {
    mode: Mode,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    rooms: BTreeMap<String, Vec<usize>>,
    /// Whoever has something in `ticked`.
    dirty: Vec<usize>,
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
            let (input, output, ticked) = (Vec::new(), Vec::new(), Vec::new());
            self.peers[slot] = Some(Peer { stream, room: None, input, output, ticked });
        }
    }

    /// Reads until nothing is left. False: the peer is gone.
    fn read(&mut self, slot: usize, ended: bool, scratch: &mut [u8]) -> bool {
        loop {
            let Some(peer) = &mut self.peers[slot] else { return true };
            match peer.stream.read(scratch) {
                Ok(0) => return false,
                Ok(count) => {
                    if !self.take(slot, &mut scratch[..count]) {
                        return false;
                    }
                    // A short read has emptied the socket; what comes later is a new event (epoll(7)).
                    if count < READ_BYTES && !ended {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn take(&mut self, slot: usize, chunk: &mut [u8]) -> bool {
        let Some(peer) = &mut self.peers[slot] else { return true };
        if peer.room.is_none() {
            peer.input.extend_from_slice(chunk);
            return self.upgrade(slot);
        }
        if peer.input.is_empty() {
            let Some(used) = self.pass_on(slot, chunk) else { return false };
            if let Some(peer) = &mut self.peers[slot] {
                peer.input.extend_from_slice(&chunk[used..]);
            }
            return true;
        }
        let mut input = std::mem::take(&mut peer.input);
        input.extend_from_slice(chunk);
        let used = self.pass_on(slot, &mut input);
        if let (Some(peer), Some(used)) = (&mut self.peers[slot], used) {
            input.drain(..used);
            peer.input = input;
        }
        used.is_some()
    }

    /// Answers the handshake once its head is whole. What is in front of a head's end is not looked at.
    fn upgrade(&mut self, slot: usize) -> bool {
        let Some(peer) = &mut self.peers[slot] else { return true };
        let Some(end) = peer.input.windows(4).position(|window| window == b"\r\n\r\n") else {
            return peer.input.len() <= MAX_HEAD_BYTES;
        };
        let head = String::from_utf8_lossy(&peer.input[..end]).into_owned();
        let mut rest = peer.input.split_off(end + 4);
        peer.input.clear();
        let room = head.split(['?', '&', ' ']).find_map(|pair| pair.strip_prefix("room="));
        let Some(room) = room else { return false };
        peer.room = Some(room.to_owned());
        self.rooms.entry(room.to_owned()).or_default().push(slot);
        // The load generator always sends the key of the RFC's example.
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            KEY.1
        );
        self.write(slot, answer.as_bytes());
        rest.is_empty() || self.take(slot, &mut rest)
    }

    /// Writes the whole frames of a chunk to the others. How much of it they were; None: a close frame.
    fn pass_on(&mut self, slot: usize, chunk: &mut [u8]) -> Option<usize> {
        let mut out = Vec::new();
        let mut used = 0;
        let mut open = true;
        while let Some((header, length)) = client_header(&chunk[used..]) {
            if chunk.len() - used < header + length {
                break;
            }
            let opcode = chunk[used] & 0x0F;
            let (head, payload) = chunk[used..used + header + length].split_at_mut(header);
            used += header + length;
            match opcode {
                0x1 | 0x2 => {
                    unmask(payload, &head[header - 4..]);
                    encode(payload, &mut out);
                    if self.mode == Mode::Single {
                        self.pass_to_others(slot, &out);
                        out.clear();
                    }
                }
                0x8 => open = false,
                _ => {}
            }
        }
        if !out.is_empty() {
            self.pass_to_others(slot, &out);
        }
        open.then_some(used)
    }

    fn pass_to_others(&mut self, slot: usize, bytes: &[u8]) {
        let Some(room) = self.peers[slot].as_ref().and_then(|peer| peer.room.as_ref()) else { return };
        let Some(members) = self.rooms.get(room) else { return };
        for &member in members {
            if member == slot {
                continue;
            }
            let Some(peer) = &mut self.peers[member] else { continue };
            if let Mode::Tick(_) = self.mode {
                if peer.ticked.is_empty() {
                    self.dirty.push(member);
                }
                peer.ticked.extend_from_slice(bytes);
            } else {
                peer.write(bytes);
            }
        }
    }

    fn write(&mut self, slot: usize, bytes: &[u8]) {
        if let Some(peer) = &mut self.peers[slot] {
            peer.write(bytes);
        }
    }

    fn flush(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            if let Some(peer) = &mut self.peers[slot] {
                let mut bytes = std::mem::take(&mut peer.ticked);
                peer.write(&bytes);
                bytes.clear();
                peer.ticked = bytes;
            }
        }
    }

    fn forget(&mut self, slot: usize) {
        let Some(peer) = self.peers[slot].take() else { return };
        self.dirty.retain(|dirty| *dirty != slot);
        self.free.push(slot);
        if let Some(room) = peer.room
            && let Some(members) = self.rooms.get_mut(&room)
        {
            members.retain(|member| *member != slot);
            if members.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }
}

impl Peer {
    /// Writes what waits and these bytes, or keeps them. One that is gone is noticed when it is read from.
    fn write(&mut self, bytes: &[u8]) {
        if self.output.is_empty() {
            let taken = write(&mut self.stream, bytes);
            self.output.extend_from_slice(&bytes[taken..]);
        } else {
            self.output.extend_from_slice(bytes);
            let taken = write(&mut self.stream, &self.output);
            self.output.drain(..taken);
        }
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return taken,
            Err(_) => return bytes.len(),
        }
    }
    taken
}

/// The length of a masked frame's header and of its payload, if the header is whole (RFC 6455 section 5.2).
fn client_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, length) = match bytes.get(1)? & 0x7F {
        126 => (8, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (14, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (6, usize::from(short)),
    };
    (bytes.len() >= header).then_some((header, length))
}

fn unmask(payload: &mut [u8], key: &[u8]) {
    let wide = [key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]];
    let wide = u64::from_ne_bytes(wide);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let clear = u64::from_ne_bytes(word.as_ref().try_into().unwrap_or_default()) ^ wide;
        word.copy_from_slice(&clear.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// A binary frame of a server.
#[expect(clippy::cast_possible_truncation, reason = "each arm fits")]
fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x82);
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        medium @ 126..=0xFFFF => {
            out.push(126);
            out.extend((medium as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
