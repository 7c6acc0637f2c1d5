//! A relay full of members, whose network takes everything at once. For what it costs: benchmarks, allocations.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use relay_proto::http::Head;
use relay_proto::token::{Claims, encode_key, sign};
use relay_proto::{Action, ConnId, Event, Now, Relay, Role, Settings, Sink};

const UPGRADE: &str = "Host: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Receivers that have something to confirm; it grows to what it needs, and stays so.
#[derive(Default)]
struct Writes(Vec<ConnId>);

impl Sink for Writes {
    fn action(&mut self, action: Action) {
        if let Action::Upgrade { conn, .. } | Action::Send { conn, .. } = action {
            self.0.push(conn);
        }
    }
}

pub struct Crowd {
    relay: Relay,
    now: Now,
    writes: Writes,
    /// Batches that were written.
    pub written: usize,
}

impl Crowd {
    pub fn new() -> Self {
        let vars =
            [("RELAY_RATE_LIMIT_PER_IP", "0"), ("RELAY_MAX_ROOMS", "0"), ("RELAY_MAX_CLIENTS_PER_ROOM", "0")];
        let config = Settings::from_vars(vars).expect("they are allowed").relay;
        let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(1_800_000_000) };
        Self { relay: Relay::new(config, [7; 32]), now, writes: Writes::default(), written: 0 }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix += time;
    }

    /// Tells the relay, and writes at once what it wants written.
    pub fn handle(&mut self, event: Event<'_>) {
        self.relay.handle(self.now, event, &mut self.writes);
        while let Some(conn) = self.writes.0.pop() {
            self.written += 1;
            self.relay.handle(self.now, Event::Sent { conn }, &mut self.writes);
        }
    }

    pub fn message(&mut self, conn: ConnId, payload: Bytes) {
        self.handle(Event::Message { conn, payload });
    }

    /// What an adapter does when it has read all that there was.
    pub fn end_turn(&mut self) {
        if self.relay.next_deadline().is_some_and(|(at, _)| at <= self.now.monotonic) {
            self.handle(Event::Tick);
        }
    }

    pub fn join(&mut self, query: &str) -> ConnId {
        let ip = IpAddr::from([192, 0, 2, 1]);
        let conn = self.relay.open(self.now, ip, &mut self.writes).expect("there is room");
        let mut head = Head::new();
        let whole = head.push(format!("GET /ws?{query} HTTP/1.1\r\n{UPGRADE}\r\n").as_bytes());
        assert_eq!(whole, Ok(true));
        let before = self.written;
        self.handle(Event::Connect { conn, request: &head.request().expect("it is whole") });
        assert!(self.written > before, "nobody was let in by {query}");
        conn
    }

    pub fn leave(&mut self, conn: ConnId) {
        self.handle(Event::Disconnect { conn });
    }

    /// A host and its guests.
    pub fn room(&mut self, room: &str, members: usize) -> Vec<ConnId> {
        let guests = (1..members).map(|guest| query(room, &format!("guest-{guest}"), Role::Guest));
        [query(room, "host", Role::Host)].into_iter().chain(guests).map(|query| self.join(&query)).collect()
    }
}

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub fn token(room: &str, peer: &str, role: Role) -> String {
    let (room_id, peer_id) = (room.into(), peer.into());
    sign(&key(), &Claims { room_id, peer_id, role, name: None, iat: None, nbf: None, exp: None })
}

pub fn query(room: &str, peer: &str, role: Role) -> String {
    let query = format!("room={room}&token={}", token(room, peer, role));
    match role {
        Role::Host => format!("{query}&pubkey={}", encode_key(&key().verifying_key())),
        Role::Guest => query,
    }
}
