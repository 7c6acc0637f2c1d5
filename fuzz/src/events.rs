//! Events for the machine, decoded from bytes. An adapter that does everything at the wrong time included: what
//! it says out of turn must have no effect.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use relay_proto::http::Head;
use relay_proto::record::{Recorder, Tape};
use relay_proto::room::bound_room_id;
use relay_proto::token::{Claims, encode_key, sign};
use relay_proto::{Action, ConnId, Event, Fault, Now, Progress, Relay, Role, Settings};

/// Everything is scarce and short.
const NARROW: &[(&str, &str)] = &[
    ("RELAY_MAX_ROOMS", "2"),
    ("RELAY_MAX_CLIENTS_PER_ROOM", "4"),
    ("RELAY_MAX_MESSAGE_SIZE", "300"),
    ("RELAY_DATA_QUEUE_BYTES", "1"),
    ("RELAY_MAX_QUEUED_BYTES", "3000"),
    ("RELAY_VOICE_QUEUE", "3"),
    ("RELAY_VOICE_MAX_AGE_MS", "50"),
    ("RELAY_ROOM_IDLE_TIMEOUT", "1"),
    ("RELAY_PING_INTERVAL", "0.5"),
    ("RELAY_PONG_TIMEOUT", "1"),
    ("RELAY_HANDSHAKE_TIMEOUT", "0.5"),
    ("RELAY_RATE_LIMIT_PER_IP", "20"),
    ("RELAY_MAX_CONNECTIONS", "12"),
    ("RELAY_MAX_CONNECTIONS_PER_IP", "8"),
    ("RELAY_MAX_MESSAGES_PER_SECOND", "20"),
    ("RELAY_MAX_BYTES_PER_SECOND", "5000"),
    ("RELAY_DRAIN_SECONDS", "1"),
    ("RELAY_TRUSTED_PROXIES", "192.0.2.0/31"),
];

/// No more connections than the reader of a failure can tell apart.
const MAX_CONNS: usize = 64;

/// The first byte chooses the settings, then each event is a byte for what it is, and a few for the rest.
pub fn events(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let vars = if bytes.next().is_some_and(|byte| byte % 2 == 1) { NARROW } else { &[] };
    let mut world = World::new(vars);
    while world.step(&mut bytes).is_some() {}
    world.come_to_rest();
}

struct World {
    relay: Relay,
    recorder: Recorder,
    now: Now,
    conns: Vec<ConnId>,
    /// Whether a write is outstanding, by connection that lives.
    living: BTreeMap<ConnId, bool>,
}

/// Forgets what is recorded: here it must only not fail.
struct Oblivion;

impl Tape for Oblivion {
    fn is_due(&self) -> bool {
        true
    }

    fn begin(&mut self, line: &[u8]) {
        assert!(line.ends_with(b"}\n"));
    }

    fn push(&mut self, line: Vec<u8>) -> bool {
        assert!(line.ends_with(b"}\n"));
        true
    }
}

impl World {
    fn new(vars: &[(&str, &str)]) -> Self {
        let config = Settings::from_vars(vars.iter().copied()).expect("the settings are valid").relay;
        let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(2_000_000_000) };
        let recorder = Recorder::new(&config, [7; 32], Box::new(Oblivion));
        Self { relay: Relay::new(config, [7; 32]), recorder, now, conns: Vec::new(), living: BTreeMap::new() }
    }

    fn step(&mut self, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
        match bytes.next()? % 16 {
            0 | 1 => self.open(bytes.next()? % 4),
            2 | 3 => {
                let (conn, request) = (self.conn(bytes)?, bytes.next()?);
                self.connect(conn, usize::from(request));
                self.handle(Event::Sent { conn });
            }
            4 => {
                let (conn, request) = (self.conn(bytes)?, bytes.next()?);
                self.connect(conn, usize::from(request));
            }
            5..=7 => {
                let (conn, times) = (self.conn(bytes)?, bytes.next()? % 8);
                let payload = payload(bytes)?;
                for _ in 0..=times {
                    self.handle(Event::Message { conn, payload: payload.clone() });
                }
            }
            8 => {
                let (conn, payload) = (self.conn(bytes)?, vec![0; usize::from(bytes.next()? % 126)].into());
                self.handle(Event::Ping { conn, payload });
            }
            9 => {
                let conn = self.conn(bytes)?;
                self.handle(Event::Pong { conn });
            }
            10 => {
                let (conn, code) = (self.conn(bytes)?, u16::from(bytes.next()?));
                self.handle(Event::PeerClose { conn, code: code.checked_sub(1).map(|code| code + 1000) });
            }
            11 => {
                let (conn, fault) = (self.conn(bytes)?, usize::from(bytes.next()? % 5));
                let faults =
                    [Fault::BadHead, Fault::HeadTooLarge, Fault::TooBig, Fault::Protocol, Fault::InvalidUtf8];
                self.handle(Event::Fault { conn, fault: faults[fault] });
            }
            12 => {
                let conn = self.conn(bytes)?;
                self.handle(Event::Sent { conn });
            }
            13 => {
                let (conn, [acked, waiting, received]) =
                    (self.conn(bytes)?, [bytes.next()?, bytes.next()?, bytes.next()?].map(u64::from));
                self.handle(Event::Acked { conn, progress: Progress { acked, waiting, received } });
            }
            14 => {
                let conn = self.conn(bytes)?;
                self.handle(Event::Disconnect { conn });
            }
            _ => self.time(bytes.next()?),
        }
        Some(())
    }

    fn open(&mut self, ip: u8) {
        let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, ip));
        let mut actions = Vec::new();
        if self.conns.len() < MAX_CONNS
            && let Some(conn) = self.recorder.open(&mut self.relay, self.now, ip, &mut actions)
        {
            assert!(!self.conns.contains(&conn), "{conn} was given out twice");
            self.conns.push(conn);
            self.living.insert(conn, false);
        }
        assert_eq!(actions, []);
    }

    fn connect(&mut self, conn: ConnId, request: usize) {
        let mut head = Head::new();
        assert_eq!(head.push(requests()[request % requests().len()].as_bytes()), Ok(true));
        let request = head.request().expect("the head is whole");
        self.handle(Event::Connect { conn, request: &request });
    }

    /// Any connection that ever was.
    fn conn(&self, bytes: &mut impl Iterator<Item = u8>) -> Option<ConnId> {
        let index = usize::from(bytes.next()?);
        // The latest are the most interesting.
        self.conns.iter().rev().nth(index % self.conns.len().max(1)).copied()
    }

    /// Time passes, or the wall clock is set; rarely the relay is told to stop.
    fn time(&mut self, what: u8) {
        match what {
            0 => self.handle(Event::Drain),
            1..=15 => self.now.unix = Duration::from_secs(u64::from(what) * 500_000_000),
            16..=31 => {
                let late = Duration::from_secs(u64::from(what) * 100);
                self.now.monotonic += late;
            }
            _ => self.now.monotonic += Duration::from_millis(u64::from(what) * 4),
        }
        self.handle(Event::Tick);
        let next = self.relay.next_deadline();
        assert!(next.is_none_or(|(at, _)| at > self.now.monotonic), "{next:?} is still due");
    }

    fn handle(&mut self, event: Event<'_>) {
        match &event {
            Event::Sent { conn } => {
                self.living.entry(*conn).and_modify(|outstanding| *outstanding = false);
            }
            Event::Disconnect { conn } => _ = self.living.remove(conn),
            _ => {}
        }
        let mut actions = Vec::new();
        self.recorder.handle(&mut self.relay, self.now, event, &mut actions);
        for action in &actions {
            self.check(action);
        }
        for lane in &self.relay.stats().lanes {
            let dropped: u64 = lane.dropped.iter().map(|flow| flow.bytes).sum();
            assert_eq!(lane.enqueued.bytes, lane.delivered.bytes + dropped + lane.waiting.bytes);
        }
    }

    /// Contract 6, and nothing for the dead.
    fn check(&mut self, action: &Action) {
        let (conn, write) = match action {
            Action::Respond { conn, .. }
            | Action::Upgrade { conn, .. }
            | Action::Send { conn, .. }
            | Action::Close { conn, .. } => (conn, true),
            Action::Abort { conn } => {
                assert!(self.living.remove(conn).is_some(), "{action:?} for a dead connection");
                return;
            }
            Action::Probe { conn } | Action::Pause { conn } | Action::Resume { conn } => (conn, false),
            Action::HandOver { .. } | Action::TickOthers => unreachable!("there is one shard"),
            Action::Exit => return assert!(self.living.is_empty(), "it ends too early"),
        };
        let outstanding = self.living.get_mut(conn);
        let outstanding = outstanding.unwrap_or_else(|| panic!("{action:?} for a dead connection"));
        assert!(!write || !*outstanding, "a second write is outstanding: {action:?}");
        *outstanding |= write;
    }

    /// Everybody leaves: nothing may be left behind, and nothing be due for ever.
    fn come_to_rest(&mut self) {
        for conn in self.conns.clone() {
            self.handle(Event::Disconnect { conn });
        }
        let stats = self.relay.stats();
        assert_eq!((stats.connections, stats.hosts, stats.guests, stats.rooms), (0, 0, 0, 0));
        assert!(stats.lanes.iter().all(|lane| lane.waiting.messages == 0 && lane.waiting.bytes == 0));
        for _ in 0..10 {
            let Some((at, _)) = self.relay.next_deadline() else { return };
            self.now.monotonic = self.now.monotonic.max(at);
            self.handle(Event::Tick);
        }
        panic!("still due: {:?}", self.relay.next_deadline());
    }
}

/// A payload of some bytes as they are, padded to some length.
fn payload(bytes: &mut impl Iterator<Item = u8>) -> Option<Bytes> {
    let kinds: [&[u8]; 6] =
        [b"", b"KV", b"{", b"{\"from\":\"p\"}", b" {\"from\":\"q\"}", b"{\"from\":\"\\\"\\n\"}"];
    let (kind, written, padded) = (bytes.next()?, bytes.next()? % 32, bytes.next()?);
    let mut payload = kinds[usize::from(kind) % kinds.len()].to_vec();
    payload.extend(bytes.by_ref().take(usize::from(written)));
    payload.resize(payload.len() + usize::from(padded), b' ');
    Some(payload.into())
}

/// Requests of every kind, good and bad. Keys take time, so they are made once.
fn requests() -> &'static [String] {
    static REQUESTS: OnceLock<Vec<String>> = OnceLock::new();

    REQUESTS.get_or_init(|| {
        let keys = [1, 2].map(|number| SigningKey::from_bytes(&[number; 32]));
        let bound = bound_room_id(&keys[0].verifying_key(), "r");
        let mut targets =
            vec!["/ws".to_owned(), "/".to_owned(), "/health".to_owned(), "/ws?room=%FF".to_owned()];
        for key in &keys {
            for room in ["one", "two", "three", &bound] {
                for (peer, role) in
                    [("p", Role::Host), ("q", Role::Guest), ("p", Role::Guest), ("\"", Role::Host)]
                {
                    let exp = (peer == "q").then_some(5_000_000_000);
                    let (room_id, peer_id) = (room.to_owned(), peer.to_owned());
                    let claims = Claims { room_id, peer_id, role, name: None, iat: None, nbf: None, exp };
                    let guest = format!("/ws?room={room}&token={}", sign(key, &claims));
                    targets.push(format!("{guest}&pubkey={}", encode_key(&key.verifying_key())));
                    targets.push(guest);
                }
            }
        }
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let heads = targets.iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: relay\r\n{upgrade}"));
        let mut heads: Vec<_> = heads.collect();
        heads.push("GET /ws HTTP/1.0\r\n".to_owned());
        heads.push(format!("{}X-Forwarded-For: 198.51.100.7, 192.0.2.0\r\n", heads[4]));
        heads.into_iter().map(|head| head + "\r\n").collect()
    })
}
