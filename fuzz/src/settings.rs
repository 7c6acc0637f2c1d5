//! Configuration: lines of `NAME=VALUE`. What is accepted must be fit to run with.

use std::net::IpAddr;
use std::time::Duration;

use relay_proto::http::Head;
use relay_proto::{Event, Now, Relay, Settings};

/// Lines; those without `=` are skipped.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Settings::from_vars(text.split('\n').filter_map(|line| line.split_once('='))) {
        Ok(settings) => run(settings),
        Err(error) => {
            let line = error.to_string();
            assert!(line.starts_with("RELAY_") && line.contains("; it has to be "), "{line:?}");
            assert!(!line.contains(['\n', '\r']), "{line:?}");
        }
    }
}

/// A connection that says nothing, one that asks, and a drain: every deadline is set once.
fn run(settings: Settings) {
    let mut relay = Relay::new(settings.relay, [0; 32]);
    let mut actions = Vec::new();
    let mut now = Now { monotonic: Duration::from_secs(1), unix: Duration::from_secs(2_000_000_000) };
    let open = |relay: &mut Relay| relay.open(now, IpAddr::from([192, 0, 2, 1]), &mut Vec::new());
    let (_silent, asking) = (open(&mut relay), open(&mut relay));
    let mut head = Head::new();
    assert_eq!(head.push(b"GET /ws HTTP/1.1\r\nHost: relay\r\n\r\n"), Ok(true));
    if let Some(conn) = asking {
        let request = head.request().expect("it is whole");
        relay.handle(now, Event::Connect { conn, request: &request }, &mut actions);
        relay.handle(now, Event::Sent { conn }, &mut actions);
    }
    relay.handle(now, Event::Drain, &mut actions);
    for _ in 0..100 {
        let Some((at, _)) = relay.next_deadline() else { return };
        now.monotonic = now.monotonic.max(at);
        relay.handle(now, Event::Tick, &mut actions);
        assert!(relay.next_deadline().is_none_or(|(at, _)| at > now.monotonic), "it is still due");
    }
    panic!("it never comes to rest");
}
