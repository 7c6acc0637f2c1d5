//! A relay with its clock, its clients' keys, and short words for what happens.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::{Buf, Bytes};
use ed25519_dalek::SigningKey;
use relay_proto::frame::Batch;
use relay_proto::http::Head;
use relay_proto::token::{Claims, encode_key, sign};
use relay_proto::{Action, Config, ConnId, Event, Notice, Now, Relay, Role, Settings, Shard, Sink, Wake};

pub(crate) const UNIX: u64 = 1_800_000_000;

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn config(vars: &[(&str, &str)]) -> Config {
    Settings::from_vars(vars.iter().copied()).expect("the settings are valid").relay
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn claims(room: &str, peer: &str, role: Role) -> Claims {
    Claims { room_id: room.into(), peer_id: peer.into(), role, name: None, iat: None, nbf: None, exp: None }
}

/// The query of a host whose key is made from `seed`.
pub(crate) fn host_query(room: &str, peer: &str, seed: u8) -> String {
    let token = sign(&key(seed), &claims(room, peer, Role::Host));
    format!("room={room}&token={token}&pubkey={}", encode_key(&key(seed).verifying_key()))
}

pub(crate) fn guest_query(room: &str, peer: &str, seed: u8) -> String {
    format!("room={room}&token={}", sign(&key(seed), &claims(room, peer, Role::Guest)))
}

pub(crate) const UPGRADE: &str = "Host: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Everything that came out, in order.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) actions: Vec<Action>,
    pub(crate) notices: Vec<String>,
}

impl Sink for Seen {
    fn action(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn notice(&mut self, notice: Notice<'_>) {
        self.notices.push(format!("{notice:?}"));
    }
}

pub(crate) struct World {
    pub(crate) relay: Relay,
    pub(crate) now: Now,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn new(vars: &[(&str, &str)]) -> Self {
        Self::around(Relay::new(config(vars), [7; 32]))
    }

    /// So many that are one relay.
    pub(crate) fn shards(count: u16, vars: &[(&str, &str)]) -> Vec<Self> {
        let all = Shard::all(count.try_into().expect("at least one"), [7; 32]);
        all.into_iter().map(|shard| Self::around(Relay::of_shard(config(vars), [7; 32], shard))).collect()
    }

    fn around(relay: Relay) -> Self {
        let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(UNIX) };
        Self { relay, now, seen: Seen::default() }
    }

    /// The actions since the last call.
    #[must_use]
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.seen.actions)
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix += time;
    }

    pub(crate) fn handle(&mut self, event: Event<'_>) -> Vec<Action> {
        self.relay.handle(self.now, event, &mut self.seen);
        self.end_turn();
        self.actions()
    }

    /// An adapter whose turn is over looks at the deadlines: what a message left for its receivers is due.
    fn end_turn(&mut self) {
        if self
            .relay
            .next_deadline()
            .is_some_and(|(at, wake)| wake == Wake::Flush && at <= self.now.monotonic)
        {
            self.relay.handle(self.now, Event::Tick, &mut self.seen);
        }
    }

    /// Lets time pass to the next deadline and fires it.
    pub(crate) fn next(&mut self) -> (Duration, Wake, Vec<Action>) {
        let (at, wake) = self.relay.next_deadline().expect("something is due");
        self.pass(at.saturating_sub(self.now.monotonic));
        (at, wake, self.handle(Event::Tick))
    }

    pub(crate) fn open_from(&mut self, ip: [u8; 4]) -> Option<ConnId> {
        self.relay.open(self.now, IpAddr::from(ip), &mut self.seen)
    }

    pub(crate) fn open(&mut self) -> ConnId {
        self.open_from(Ipv4Addr::new(192, 0, 2, 1).octets()).expect("there is room")
    }

    /// Sends a whole head.
    pub(crate) fn head(&mut self, conn: ConnId, head: &str) -> Vec<Action> {
        let mut parser = Head::new();
        assert_eq!(parser.push(head.as_bytes()), Ok(true), "{head}");
        let request = parser.request().expect("it is whole");
        self.handle(Event::Connect { conn, request: &request })
    }

    pub(crate) fn upgrade(&mut self, query: &str) -> (ConnId, Vec<Action>) {
        let conn = self.open();
        (conn, self.ask(conn, query))
    }

    /// Asks for the upgrade.
    pub(crate) fn ask(&mut self, conn: ConnId, query: &str) -> Vec<Action> {
        self.head(conn, &format!("GET /ws?{query} HTTP/1.1\r\n{UPGRADE}\r\n"))
    }

    /// A member whose 101 is written.
    pub(crate) fn member(&mut self, query: &str) -> ConnId {
        let (conn, actions) = self.upgrade(query);
        assert!(matches!(&actions[..], [Action::Upgrade { .. }]), "{actions:?}");
        assert_eq!(self.sent(conn), []);
        conn
    }

    pub(crate) fn host(&mut self, room: &str) -> ConnId {
        self.member(&host_query(room, "host", 1))
    }

    pub(crate) fn guest(&mut self, room: &str, peer: &str) -> ConnId {
        self.member(&guest_query(room, peer, 1))
    }

    pub(crate) fn message(&mut self, conn: ConnId, payload: impl Into<Bytes>) -> Vec<Action> {
        self.handle(Event::Message { conn, payload: payload.into() })
    }

    pub(crate) fn sent(&mut self, conn: ConnId) -> Vec<Action> {
        self.handle(Event::Sent { conn })
    }

    /// `enqueued = delivered + dropped + waiting`, for each lane.
    pub(crate) fn balance(&self) {
        for lane in &self.relay.stats().lanes {
            let dropped: u64 = lane.dropped.iter().map(|flow| flow.messages).sum();
            assert_eq!(
                lane.enqueued.messages,
                lane.delivered.messages + dropped + lane.waiting.messages,
                "{lane:?}"
            );
            let dropped: u64 = lane.dropped.iter().map(|flow| flow.bytes).sum();
            assert_eq!(lane.enqueued.bytes, lane.delivered.bytes + dropped + lane.waiting.bytes, "{lane:?}");
        }
    }
}

/// The frames of one send: opcode and payload. Panics on anything else.
pub(crate) fn frames(actions: &[Action], to: ConnId) -> Vec<(u8, Vec<u8>)> {
    match actions {
        [Action::Send { conn, batch }] if *conn == to => decode(batch),
        _ => panic!("expected one Send to {to}: {actions:?}"),
    }
}

/// The payloads of one send of messages.
pub(crate) fn payloads(actions: &[Action], to: ConnId) -> Vec<String> {
    let binary = |(opcode, payload): (u8, Vec<u8>)| {
        assert_eq!(opcode, 2);
        String::from_utf8_lossy(&payload).into_owned()
    };
    frames(actions, to).into_iter().map(binary).collect()
}

fn decode(batch: &Batch) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = batch.clone();
    let mut frames = Vec::new();
    while bytes.has_remaining() {
        let opcode = bytes.get_u8();
        assert_eq!(opcode & 0xF0, 0x80, "every frame is final and has no reserved bit");
        let len = match bytes.get_u8() {
            126 => usize::from(bytes.get_u16()),
            127 => usize::try_from(bytes.get_u64()).expect("it is in memory"),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        bytes.copy_to_slice(&mut payload);
        frames.push((opcode & 0x0F, payload));
    }
    frames
}

pub(crate) fn response(actions: &[Action]) -> (u16, String) {
    match actions {
        [Action::Respond { response, .. } | Action::Upgrade { response, .. }] => {
            (response.status, String::from_utf8_lossy(&response.bytes).into_owned())
        }
        _ => panic!("expected one answer: {actions:?}"),
    }
}
