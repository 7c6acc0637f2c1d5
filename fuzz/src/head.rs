//! A request head, however it is cut, and what a new relay answers to it.

use std::net::IpAddr;
use std::time::Duration;

use relay_proto::http::Head;
use relay_proto::{Action, Config, Event, Fault, Now, Relay};

/// The bytes of a head, and of whatever comes behind it.
pub fn head(data: &[u8]) {
    let (whole, rest) = read(data.chunks(data.len().max(1)));
    let (single, _) = read(data.chunks(1));
    if let (Ok(whole), Ok(single)) = (&whole, &single) {
        assert_eq!(whole.request(), single.request());
    }
    assert_eq!(whole.is_ok(), single.is_ok(), "{:?}, but byte by byte {:?}", whole.err(), single.err());
    let (halves, _) = read(data.chunks(data.len().div_ceil(2).max(1)));
    match (whole, halves) {
        (Ok(whole), Ok(halves)) => {
            assert_eq!(whole.request(), halves.request());
            answer(&whole);
            let ahead = whole.into_rest();
            assert!(data.ends_with(&[ahead, rest].concat()));
        }
        (whole, halves) => assert_eq!(whole.is_ok(), halves.is_ok()),
    }
}

/// The head, or what is wrong with it; none if it is not whole. And what was not read.
fn read<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Result<Head, Option<Fault>>, Vec<u8>) {
    let (mut head, mut parts) = (Head::new(), parts);
    while let Some(part) = parts.next() {
        match head.push(part) {
            Ok(false) => assert_eq!(head.request(), None),
            Ok(true) => {
                assert!(head.request().is_some());
                return (Ok(head), parts.flatten().copied().collect());
            }
            Err(fault) => return (Err(Some(fault)), Vec::new()),
        }
    }
    (Err(None), Vec::new())
}

/// Nobody can join a relay that has no room without a valid token, which is not made by chance.
fn answer(head: &Head) {
    let now = Now { monotonic: Duration::from_secs(1), unix: Duration::from_secs(2_000_000_000) };
    let mut relay = Relay::new(Config::default(), [0; 32]);
    let mut actions = Vec::new();
    let conn = relay.open(now, IpAddr::from([127, 0, 0, 1]), &mut actions).expect("the first");
    let request = head.request().expect("it is whole");
    relay.handle(now, Event::Connect { conn, request: &request }, &mut actions);
    let [Action::Respond { conn: to, response }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(*to, conn);
    let text = std::str::from_utf8(&response.bytes).expect("an answer is text");
    let (fields, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let length = format!("\r\nContent-Length: {}", body.len());
    assert!(request.method == "HEAD" && body.is_empty() || fields.contains(&length), "{text}");
}
