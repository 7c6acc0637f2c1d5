//! What can be seen from inside a room.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conformance::Room;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use tungstenite::{Bytes, Message};

use super::link::{Member, PATIENCE, Place, now};
use super::{Report, Url, millis};

const PINGS: u8 = 20;
const PACKETS: u32 = 50;
const PACKET_EVERY: Duration = Duration::from_millis(20);
/// From what a chat needs to what a relay allows by default.
const SIZES: [usize; 4] = [1 << 10, 1 << 16, 1 << 18, 1 << 20];
/// A clock that is further off refuses tokens that are short of time.
const SKEW_MS: u64 = 5_000;
/// ITU-T G.114: what a call bears without being disturbed.
const SLOW: Duration = Duration::from_millis(150);
const JITTER_MS: f64 = 30.0;

pub(super) fn examine(place: &Place, url: &Url, idle: Duration, report: &mut Report) -> Option<()> {
    if !url.query.is_empty() {
        let mut guest = join(place, &format!("{}/ws?{}", url.base(), url.query), report)?;
        round_trip(&mut guest, report)?;
        rest(&mut guest, idle, report)?;
        guest.leave();
        return Some(());
    }
    let id = format!("doctor {:032x}", rand::random::<u128>());
    let room = Room { id, key: SigningKey::from_bytes(&rand::random()) };
    let unix = unix_ms() / 1000;
    let token = |role| {
        // A clock that is too far off shows at once.
        room.sign(
            &json!({ "room_id": room.id, "peer_id": role, "role": role, "nbf": unix - SKEW_MS / 1000, "exp": unix + 300 }),
        )
    };
    let host_url = format!("{}{}", url.base(), room.host_target_with(&token("host")));
    let guest_url = format!("{}{}", url.base(), room.guest_target_with(&token("guest")));
    let mut host = join(place, &host_url, report)?;
    let mut guest = join(place, &guest_url, report)?;
    round_trip(&mut host, report)?;
    voice(&mut host, &mut guest, report)?;
    rest(&mut host, idle, report)?;
    guest.leave();
    clock(&mut host, report);
    largest(place, &guest_url, host, report);
    Some(())
}

fn join(place: &Place, url: &str, report: &mut Report) -> Option<Member> {
    let who = if url.contains("&pubkey=") { "host" } else { "guest" };
    match place.join(url) {
        Ok(member) => {
            report.ok("upgrade", format!("joined as {who}: WebSocket and token are accepted"));
            Some(member)
        }
        Err(what) => {
            report.failure("upgrade", format!("as {who}: {what}"), fix_of_refusal(&what));
            None
        }
    }
}

fn fix_of_refusal(what: &str) -> &'static str {
    let fixes = [
        (
            "token expired",
            "get a new invitation; if it is new, set the clock of the relay or of this machine",
        ),
        ("token not yet valid", "set the clock of the relay, or of whoever signed the token"),
        (
            "invalid_token",
            "get a new invitation: this one was cut, or signed with another key than the room's",
        ),
        (
            "room_not_found",
            "the host has to be there first; behind a balancer, a room's guests go where its host is",
        ),
        ("rate_limited", "wait; behind a proxy, set RELAY_TRUSTED_PROXIES so that clients are told apart"),
        ("max_rooms", "raise RELAY_MAX_ROOMS, or wait until a room ends"),
        ("room_full", "raise RELAY_MAX_CLIENTS_PER_ROOM, or wait until somebody leaves"),
        ("draining", "the relay is stopping: wait until its successor runs"),
        ("upgrade_required", "have the proxy pass on Upgrade and Connection, in HTTP/1.1"),
        ("bad_handshake", "have the proxy pass on the Sec-WebSocket fields unchanged"),
        ("_mismatch", "use room, token and public key that belong together"),
    ];
    let fix = fixes.iter().find(|(code, _)| what.contains(code)).map(|(_, fix)| *fix);
    fix.unwrap_or("have the proxy pass /ws to the relay, with Upgrade and Connection, in HTTP/1.1")
}

/// Counts a connection that is lost meanwhile as a failure of the step.
fn hold<T>(step: &str, outcome: Result<T, String>, report: &mut Report) -> Option<T> {
    report.need(
        step,
        outcome,
        "something in between ended the connection: look into the logs of relay and proxy",
    )
}

fn round_trip(member: &mut Member, report: &mut Report) -> Option<()> {
    let mut times = Vec::new();
    for number in 0..PINGS {
        let began = now();
        hold("round trip", member.send(Message::Ping(vec![number].into())), report)?;
        loop {
            match hold("round trip", member.next(began + PATIENCE), report)? {
                Some(Message::Pong(payload)) if payload[..] == [number] => break times.push(began.elapsed()),
                Some(_) => {}
                None => {
                    report.failure(
                        "round trip",
                        "a ping was not answered",
                        "have the proxy pass on control frames",
                    );
                    return None;
                }
            }
        }
    }
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    let what = format!("p50 {}, p99 {} of {PINGS} pings", millis(median), millis(longest));
    if longest < SLOW {
        report.ok("round trip", what);
    } else {
        report.warning("round trip", what, "choose a relay that is nearer, or a network that is less busy");
    }
    Some(())
}

fn voice(host: &mut Member, guest: &mut Member, report: &mut Report) -> Option<()> {
    let began = now();
    let (mut jitter, mut before, mut heard) = (0.0, None, 0);
    for number in 0..PACKETS {
        let due = began + PACKET_EVERY * number;
        let packet = [&b"KV"[..], &number.to_be_bytes(), &[0; 114]].concat();
        hold("voice", host.send(Message::Binary(packet.into())), report)?;
        let last = number + 1 == PACKETS;
        let until = if last { due + PATIENCE } else { due + PACKET_EVERY };
        while let Some(message) = hold("voice", guest.next(until), report)? {
            let Some(number) = packet_number(&message) else { continue };
            // RFC 3550 section 6.4.1
            let transit = began.elapsed().as_secs_f64() * 1000.0 - 20.0 * f64::from(number);
            jitter += (f64::abs(transit - before.unwrap_or(transit)) - jitter) / 16.0;
            before = Some(transit);
            heard += 1;
            if last && number + 1 == PACKETS {
                break;
            }
        }
    }
    let what = format!("jitter {jitter:.1} ms, {} of {PACKETS} packets lost", PACKETS - heard);
    if jitter < JITTER_MS && heard == PACKETS {
        report.ok("voice", what);
    } else {
        report.warning(
            "voice",
            what,
            "look for a busy network or a proxy that buffers; wired is better than radio",
        );
    }
    Some(())
}

fn packet_number(message: &Message) -> Option<u32> {
    let Message::Binary(data) = message else { return None };
    Some(u32::from_be_bytes(*data.strip_prefix(b"KV")?.first_chunk()?))
}

/// Nothing is sent, but for the pongs that the relay asks for.
fn rest(member: &mut Member, idle: Duration, report: &mut Report) -> Option<()> {
    let began = now();
    loop {
        match member.next(began + idle) {
            Ok(Some(_)) => {}
            Ok(None) => {
                break report
                    .ok("idle", format!("nothing cut the connection in {:.1} s", idle.as_secs_f64()));
            }
            Err(what) => {
                report.failure(
                    "idle",
                    format!("cut after {:.1} s: {what}", began.elapsed().as_secs_f64()),
                    "raise the time-outs of the proxy above RELAY_PING_INTERVAL, or lower that below them",
                );
                return None;
            }
        }
    }
    Some(())
}

/// The leave notice of the guest says what time it is there.
fn clock(host: &mut Member, report: &mut Report) {
    let until = now() + PATIENCE;
    while let Ok(Some(message)) = host.next(until) {
        let Message::Binary(data) = message else { continue };
        let Ok(notice) = serde_json::from_slice::<Value>(&data) else { continue };
        let Some(there) = notice["ts"].as_u64() else { continue };
        let off = there.abs_diff(unix_ms());
        let what = format!("the relay's is {:.1} s off from ours", Duration::from_millis(off).as_secs_f64());
        if off < SKEW_MS {
            return report.ok("clock", what);
        }
        return report.warning("clock", what, "let NTP set both: tokens are judged by the relay's clock");
    }
    report.failure("clock", "no notice that the guest has left", "look into the log of the relay");
}

fn largest(place: &Place, guest_url: &str, mut host: Member, report: &mut Report) {
    let Ok(mut guest) = place.join(guest_url) else {
        return report.failure("size", "the guest was not let in again", "look into the log of the relay");
    };
    let mut passed = 0;
    let mut end = String::new();
    for size in SIZES {
        match carry(&mut host, &mut guest, size) {
            Ok(()) => passed = size,
            Err(what) => {
                end = format!("; with {} KiB: {what}", size / 1024);
                break;
            }
        }
    }
    let what = format!("a message of {} KiB passes{end}", passed / 1024);
    if end.is_empty() {
        report.ok("size", what);
    } else if passed == 0 {
        report.failure("size", what, "raise RELAY_MAX_MESSAGE_SIZE, or the limit of the proxy");
    } else {
        report.warning(
            "size",
            what,
            "raise RELAY_MAX_MESSAGE_SIZE if clients send more, or the limit of the proxy",
        );
    }
}

fn carry(host: &mut Member, guest: &mut Member, size: usize) -> Result<(), String> {
    let sent = Bytes::from(vec![0; size]);
    // A relay that refuses the size closes while it is being sent: what it said is still there to be read.
    let refused = host.send(Message::Binary(sent.clone())).err();
    let until = now() + PATIENCE;
    loop {
        match guest.next(soon(until))? {
            Some(Message::Binary(data)) if data == sent => return Ok(()),
            Some(_) => {}
            None => {
                host.next(soon(until))?;
                if now() >= until {
                    return Err(refused.unwrap_or_else(|| format!("not there after {PATIENCE:?}")));
                }
            }
        }
    }
}

fn soon(until: Instant) -> Instant {
    until.min(now() + Duration::from_millis(50))
}

#[expect(clippy::disallowed_methods, reason = "this is the clock of the real world")]
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
