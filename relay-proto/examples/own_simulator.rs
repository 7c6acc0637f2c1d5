//! The relay in somebody else's simulator: time, addresses and the order of events come from there.
#![expect(clippy::print_stdout, reason = "what happens is what this shows")]

use std::time::Duration;

use relay_proto::http::Head;
use relay_proto::token::{Claims, encode_key, sign};
use relay_proto::{Action, Config, ConnId, Event, Now, Relay, Role, Wake};

const UPGRADE: &str = "Host: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

struct World {
    relay: Relay,
    now: Now,
}

impl World {
    /// Tells the relay, and does at once what it wants.
    fn handle(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.relay.handle(self.now, event, &mut actions);
        for action in actions.clone() {
            // A network would take its time here, or lose the connection instead.
            if let Action::Upgrade { conn, .. } | Action::Send { conn, .. } = action {
                actions.extend(self.handle(Event::Sent { conn }));
            }
        }
        actions
    }

    fn join(&mut self, query: &str) -> ConnId {
        let conn = self.relay.open(self.now, [192, 0, 2, 1].into(), &mut Vec::new()).expect("a place");
        let mut head = Head::new();
        assert_eq!(head.push(format!("GET /ws?{query} HTTP/1.1\r\n{UPGRADE}\r\n").as_bytes()), Ok(true));
        let actions = self.handle(Event::Connect { conn, request: &head.request().expect("it is whole") });
        assert!(matches!(actions[..], [Action::Upgrade { .. }]), "{actions:?}");
        conn
    }
}

fn main() {
    let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(1 << 31) };
    let mut world = World { relay: Relay::new(Config::default(), [7; 32]), now };
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let token = |peer: &str, role| {
        let (room_id, peer_id) = ("room".into(), peer.into());
        sign(&key, &Claims { room_id, peer_id, role, name: None, iat: None, nbf: None, exp: None })
    };
    let (token, guests) = (token("host", Role::Host), token("guest", Role::Guest));
    let host = world.join(&format!("room=room&token={token}&pubkey={}", encode_key(&key.verifying_key())));
    let guest = world.join(&format!("room=room&token={guests}"));
    // Receivers are written to when the turn is over: with one write, whatever else the turn has for them.
    assert_eq!(world.handle(Event::Message { conn: host, payload: "hello".into() }), []);
    assert_eq!(world.relay.next_deadline(), Some((now.monotonic, Wake::Flush)));
    let actions = world.handle(Event::Tick);
    assert!(matches!(actions[..], [Action::Send { conn, .. }] if conn == guest), "{actions:?}");
    // Nobody says anything any more: from deadline to deadline, until the relay has given up on both.
    while let Some((at, wake)) = world.relay.next_deadline() {
        world.now.monotonic = at;
        println!("{at:?} {wake:?}: {:?}", world.handle(Event::Tick));
    }
}
