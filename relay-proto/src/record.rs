//! A recording of what a machine was told and what it decided, so that a bug seen in production becomes a
//! test.
//!
//! ```text
//!            event                           event
//!   hub ───────────────► Recorder ──────────────────────────► Relay
//!                           │ what decides of it: lengths,       │
//!                           │ kinds, stand-ins for names         │
//!                           ▼                                    │
//!                         Tape ◄── a line: event, actions ◄──────┘ actions
//! ```
//!
//! There is no payload in it, no token, no key, no name and no address. The machine reads little of those, and
//! all that it decides by is kept: how long a message is and how it begins, which names are the same name,
//! whether a token holds and if not, why. [`line`](mod@line) says how it is written down.
//!
//! A recording starts with a machine that decides as a new one, so that a new one can follow it: at its
//! beginning, or at any later moment at which nobody was connected.

pub mod line;
mod stand_ins;

use std::boxed::Box;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{fmt, format, vec};

use core::fmt::Write as _;
use core::net::IpAddr;
use core::time::Duration;

use bytes::Buf;

use crate::config::Config;
use crate::envelope::{Lane, announced_peer, joinable};
use crate::event::{Action, ConnId, Event, Notice, Sink};
use crate::frame::{Batch, Opcode};
use crate::gate::client_address;
use crate::http::{Request, Route};
use crate::refusal::Refusal;
use crate::relay::Relay;
use crate::room::RoomId;
use crate::time::Now;
use crate::token;
use line::{Asked, Beginning, Content, FORMAT, Handshake, Happened, Line, Method, Path, Pubkey, Query, Room};
use line::{Token, Verdict};
use stand_ins::StandIns;

/// Where the lines of recordings go. It must not wait for anything: the machine would wait with it.
pub trait Tape {
    /// Whether a new recording should begin as soon as one can, and the one before be given up.
    fn is_due(&self) -> bool;

    /// A new recording begins with this line.
    fn begin(&mut self, line: &[u8]);

    /// The recording goes on with this line. `false`: it does not, and has ended before it.
    fn push(&mut self, line: Vec<u8>) -> bool;
}

/// Stands between a hub and its machine, and writes down what passes.
pub struct Recorder {
    tape: Box<dyn Tape>,
    beginning: Vec<u8>,
    running: bool,
    cast: Cast,
}

impl Recorder {
    /// For a machine that was made with this configuration and seed.
    pub fn new(config: &Config, seed: [u8; 32], tape: Box<dyn Tape>) -> Self {
        let relay = env!("CARGO_PKG_VERSION").into();
        let beginning = Beginning { format: FORMAT, relay, seed, config: config.clone() };
        Self { tape, beginning: encode(&beginning), running: false, cast: Cast::default() }
    }

    /// As [`Relay::open`].
    #[must_use = "a connection that nobody knows would never end"]
    pub fn open(&mut self, relay: &mut Relay, now: Now, ip: IpAddr, sink: &mut impl Sink) -> Option<ConnId> {
        if self.tape.is_due() && relay.is_as_new(now) {
            self.tape.begin(&self.beginning);
            (self.running, self.cast) = (true, Cast::default());
        }
        let conn = relay.open(now, ip, sink);
        if self.running {
            let from = self.cast.names.address(ip, &relay.config);
            let number = conn.map(|conn| self.cast.enter(conn));
            self.push(now, Happened::Open { from }, vec![digest_open(number)]);
        }
        conn
    }

    /// As [`Relay::handle`].
    pub fn handle(&mut self, relay: &mut Relay, now: Now, event: Event<'_>, sink: &mut impl Sink) {
        let happened = if self.running { self.cast.describe(relay, now, &event) } else { None };
        let Some(happened) = happened else { return relay.handle(now, event, sink) };
        let mut tee = Tee { sink, cast: &self.cast, actions: Vec::new() };
        relay.handle(now, event, &mut tee);
        let actions = tee.actions;
        self.push(now, happened, actions);
    }

    fn push(&mut self, now: Now, event: Happened, actions: Vec<String>) {
        let line = Line { at: nanos(now.monotonic), unix: nanos(now.unix), event, actions };
        self.running = self.tape.push(encode(&line));
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("running", &self.running).finish_non_exhaustive()
    }
}

fn encode(line: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("plain data can be written as JSON");
    bytes.push(b'\n');
    bytes
}

/// Enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Who is who in one recording.
#[derive(Default)]
struct Cast {
    names: StandIns,
    /// By slot, who has it now: connections are numbered in the order in which they came.
    conns: Vec<Option<(ConnId, u32)>>,
    opened: u32,
}

impl Cast {
    fn enter(&mut self, conn: ConnId) -> u32 {
        if self.conns.len() <= conn.slot() {
            self.conns.resize(conn.slot() + 1, None);
        }
        self.opened += 1;
        self.conns[conn.slot()] = Some((conn, self.opened));
        self.opened
    }

    fn number(&self, conn: ConnId) -> Option<u32> {
        let (tenant, number) = (*self.conns.get(conn.slot())?)?;
        (tenant == conn).then_some(number)
    }

    /// None for a late event of a connection that has ended: it changes nothing.
    fn describe(&mut self, relay: &Relay, now: Now, event: &Event<'_>) -> Option<Happened> {
        let living = |conn: &ConnId| relay.knows(*conn).then(|| self.number(*conn)).flatten();
        Some(match event {
            Event::Connect { conn, request } => {
                Happened::Connect { conn: living(conn)?, request: self.asked(relay, now, *conn, request) }
            }
            Event::Message { conn, payload } => {
                let (number, bytes) = (living(conn)?, payload.len());
                let content = self.content(relay, *conn, payload);
                Happened::Message { conn: number, bytes, content }
            }
            Event::Ping { conn, payload } => Happened::Ping { conn: living(conn)?, bytes: payload.len() },
            Event::Pong { conn } => Happened::Pong { conn: living(conn)? },
            Event::PeerClose { conn, code } => Happened::PeerClose { conn: living(conn)?, code: *code },
            Event::Fault { conn, fault } => Happened::Fault { conn: living(conn)?, fault: *fault },
            Event::Sent { conn } => Happened::Sent { conn: living(conn)? },
            Event::Acked { conn, progress } => Happened::Acked {
                conn: living(conn)?,
                acked: progress.acked,
                waiting: progress.waiting,
                received: progress.received,
            },
            Event::Disconnect { conn } => Happened::Disconnect { conn: living(conn)? },
            Event::Tick => Happened::Tick,
            Event::Drain => Happened::Drain,
        })
    }

    fn content(&mut self, relay: &Relay, conn: ConnId, payload: &[u8]) -> Content {
        if Lane::of(payload) == Lane::Voice {
            return Content::Voice;
        }
        let joinable = joinable(payload);
        // Only the first data of a member is read (rule R8).
        let member = relay.connections.get(conn.slot).and_then(|connection| connection.member());
        let named = member.filter(|member| !member.introduced).and_then(|_| announced_peer(payload));
        match named {
            Some(peer) => Content::Named { from: self.names.peer(&peer), joinable },
            None if joinable => Content::Joinable,
            None => Content::Data,
        }
    }

    fn asked(&mut self, relay: &Relay, now: Now, conn: ConnId, request: &Request<'_>) -> Asked {
        let socket = relay.connections[conn.slot].ip;
        let client = client_address(socket, request, &relay.config.trusted_proxies);
        let route = request.route();
        Asked {
            method: match request.method {
                "GET" => Method::Get,
                "HEAD" => Method::Head,
                _ => Method::Other,
            },
            path: match route {
                Route::Status => Path::Status,
                Route::Health => Path::Health,
                Route::WebSocket => Path::Ws,
                Route::Unknown => Path::Unknown,
            },
            well_formed: request.judge(route) != Err(Refusal::BadRequest),
            json: request.wants_json(),
            client: (client != socket).then(|| self.names.address(client, &relay.config)),
            query: (route == Route::WebSocket).then(|| self.query(relay, now, request)),
            handshake: match request.judge_handshake() {
                Ok(_) => Handshake::Valid,
                Err(Refusal::UpgradeRequired) => Handshake::NoUpgrade,
                Err(Refusal::VersionRequired) => Handshake::OtherVersion,
                Err(_) => Handshake::BadKey,
            },
        }
    }

    fn query(&mut self, relay: &Relay, now: Now, request: &Request<'_>) -> Query {
        let [room, token, pubkey] = ["room", "token", "pubkey"].map(|name| request.parameter(name));
        let (Ok(room), Ok(token), Ok(pubkey)) = (room, token, pubkey) else { return Query::Undecodable };
        let id = RoomId::new(&room);
        let key = if pubkey.is_empty() {
            let live = id.as_ref().and_then(|id| relay.rooms.find(id));
            live.map(|live| relay.rooms[live].key)
        } else {
            token::decode_key(&pubkey)
        };
        Query::Readable {
            room: match &id {
                _ if room.is_empty() => Room::Missing,
                None => Room::Invalid,
                Some(id) => self.names.room(id),
            },
            pubkey: match &key {
                _ if pubkey.is_empty() => Pubkey::Missing,
                None => Pubkey::Invalid,
                Some(key) => Pubkey::Key(self.names.key(key)),
            },
            token: match &key {
                _ if token.is_empty() => Token::Missing,
                None => Token::Unread,
                Some(key) => {
                    let verdict = match token::verify(&token, key, now.unix) {
                        Err(reason) => Verdict::Refused(reason),
                        Ok(claims) => Verdict::Holds {
                            for_room: claims.room_id == room,
                            role: claims.role,
                            peer: self.names.peer_text(&claims.peer_id),
                        },
                    };
                    Token::Judged { key: self.names.key(key), verdict }
                }
            },
        }
    }
}

/// Passes actions on, and keeps what is to be known of each.
struct Tee<'a, S> {
    sink: &'a mut S,
    cast: &'a Cast,
    actions: Vec<String>,
}

impl<S: Sink> Sink for Tee<'_, S> {
    fn action(&mut self, action: Action) {
        self.actions.push(digest(&action, |conn| self.cast.number(conn)));
        self.sink.action(action);
    }

    fn notice(&mut self, notice: Notice<'_>) {
        self.sink.notice(notice);
    }
}

/// What [`Relay::open`] decided, in the form of an action.
pub fn digest_open(number: Option<u32>) -> String {
    number.map_or_else(|| "turn away".to_string(), |number| format!("accept c{number}"))
}

/// An action in short: what it is, for whom, and how long or with which code. Connections get the numbers that
/// they have in the recording.
pub fn digest(action: &Action, number: impl Fn(ConnId) -> Option<u32>) -> String {
    let to =
        |conn: &ConnId| number(*conn).map_or_else(|| "nobody".to_string(), |number| format!("c{number}"));
    match action {
        Action::Respond { conn, response } => {
            format!("respond {} {} {}", to(conn), response.status, response.bytes.len())
        }
        Action::Upgrade { conn, response } => format!("upgrade {} {}", to(conn), response.bytes.len()),
        Action::Send { conn, batch } => format!("send {}{}", to(conn), frames(batch)),
        Action::Close { conn, code: Some(code), reason } => {
            format!("close {} {code} {reason}", to(conn)).trim_end().to_string()
        }
        Action::Close { conn, code: None, .. } => format!("close {}", to(conn)),
        Action::Abort { conn } => format!("abort {}", to(conn)),
        Action::Probe { conn } => format!("probe {}", to(conn)),
        Action::Pause { conn } => format!("pause {}", to(conn)),
        Action::Resume { conn } => format!("resume {}", to(conn)),
        Action::HandOver { conn, shard, .. } => format!("hand over {} to {shard}", to(conn)),
        Action::TickOthers => "tick others".to_string(),
        Action::Exit => "exit".to_string(),
    }
}

/// The kinds and lengths of the frames of a batch (RFC 6455 section 5.2, without a mask).
fn frames(batch: &Batch) -> String {
    let mut rest = batch.clone();
    let mut text = String::new();
    while rest.has_remaining() {
        let opcode = rest.get_u8() & 0x0F;
        let bytes = match rest.get_u8() {
            126 => rest.get_u16().into(),
            127 => usize::try_from(rest.get_u64()).unwrap_or(usize::MAX),
            short => short.into(),
        };
        let mut start = [0; 2];
        let shown = bytes.min(start.len());
        rest.copy_to_slice(&mut start[..shown]);
        rest.advance(bytes - shown);
        let kind = match opcode {
            ping if ping == Opcode::Ping as u8 => "ping",
            pong if pong == Opcode::Pong as u8 => "pong",
            _ if Lane::of(&start[..shown]) == Lane::Voice => "voice",
            _ => "data",
        };
        let _ = write!(text, " {kind}:{bytes}");
    }
    text
}
