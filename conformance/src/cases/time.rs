//! Keepalive, idle rooms, rates and addresses (rules T1 to T4, R1, R9).

use std::time::Duration;

use super::refusal::assert_whole_seconds;
use super::{Needs, cases};
use crate::frame::{ClientFrame, opcode};
use crate::http::{Answer, Request};
use crate::peer::{Pings, Seen};
use crate::stage::Stage;

const KEEPALIVE: &[(&str, &str)] = &[("RELAY_PING_INTERVAL", "0.5"), ("RELAY_PONG_TIMEOUT", "1")];
const IDLE: &[(&str, &str)] =
    &[("RELAY_ROOM_IDLE_TIMEOUT", "1"), ("RELAY_PING_INTERVAL", "0.2"), ("RELAY_PONG_TIMEOUT", "5")];
/// Two at once, then one a second.
const RATE: &[(&str, &str)] = &[("RELAY_RATE_LIMIT_PER_IP", "1")];
const RATE_WITHOUT_PROXIES: &[(&str, &str)] =
    &[("RELAY_RATE_LIMIT_PER_IP", "1"), ("RELAY_TRUSTED_PROXIES", "none")];
const RATE_BEHIND_PROXIES: &[(&str, &str)] =
    &[("RELAY_RATE_LIMIT_PER_IP", "1"), ("RELAY_TRUSTED_PROXIES", "127.0.0.0/8,::1/128,10.0.0.0/8")];

cases! {
    "time::ping" ["T1"] Needs::Settings(KEEPALIVE), ping;
    "time::silence" ["T1" "R6"] Needs::Settings(KEEPALIVE), silence;
    "time::any_frame_is_life" ["T1"] Needs::Settings(KEEPALIVE), any_frame_is_life;
    "time::client_ping" ["T2"] Needs::Nothing, client_ping;
    "time::ping_flood" ["T2"] Needs::Nothing, ping_flood;
    "time::idle_room" ["R9" "R1"] Needs::Settings(IDLE), idle_room;
    "time::room_kept_busy" ["R1"] Needs::Settings(IDLE), room_kept_busy;
    "time::rate" ["T3" "H8" "C1"] Needs::Settings(RATE), rate;
    "time::rate_comes_first" ["T3" "H5" "H7" "H10"] Needs::Settings(RATE), rate_comes_first;
    "time::rate_spares_the_rest" ["T3"] Needs::Settings(RATE), rate_spares_the_rest;
    "time::rate_by_address" ["T3" "T4"] Needs::Settings(RATE_BEHIND_PROXIES), rate_by_address;
    "time::untrusted_header" ["T4"] Needs::Settings(RATE_WITHOUT_PROXIES), untrusted_header;
}

fn ping(stage: &Stage<'_>) {
    let room = stage.room("ping");
    let mut host = stage.host(&room, "host");
    host.pings(Pings::Reported);
    for _ in 0..4 {
        let Seen::Ping(payload) = host.see() else { panic!("no ping") };
        host.bytes(&ClientFrame::new(opcode::PONG, payload).encode());
    }
    stage.transcript.note("host < pings, again and again");
}

fn silence(stage: &Stage<'_>) {
    let room = stage.room("silence");
    let mut host = stage.host(&room, "host");
    let mut silent = stage.guest(&room, "silent guest");
    silent.pings(Pings::Ignored);
    // The host answers its pings while it waits for this.
    host.expect_leave("silent guest");
    stage.transcript.unrecorded(|| match silent.see() {
        Seen::Close(..) => silent.expect_end(),
        seen => assert!(matches!(seen, Seen::End | Seen::Reset), "{seen:?}"),
    });
    stage.transcript.note("silent guest < gone");
    host.ping("still here");
    host.expect_pong("still here");
}

fn any_frame_is_life(stage: &Stage<'_>) {
    let room = stage.room("life");
    let mut host = stage.host(&room, "host");
    for opcode in [opcode::BINARY, opcode::TEXT, opcode::PING, opcode::PONG] {
        let mut guest = stage.guest(&room, "guest");
        guest.pings(Pings::Ignored);
        let frame = ClientFrame::new(opcode, "[]");
        stage.transcript.unrecorded(|| {
            // Two and a half time-outs.
            for _ in 0..10 {
                guest.frame(&frame);
                if matches!(opcode, opcode::BINARY | opcode::TEXT) {
                    host.expect("[]");
                }
                // The host must answer its own pings, so it is the one that lets time pass.
                assert_eq!(host.see_within(Duration::from_millis(250)), Seen::Nothing);
            }
            if opcode == opcode::PING {
                (0..10).for_each(|_| guest.expect_pong("[]"));
            }
        });
        stage.transcript.note(format!("a guest that only sends opcode {opcode:x} stays"));
        guest.leave();
        host.expect_leave("guest");
    }
}

fn client_ping(stage: &Stage<'_>) {
    let room = stage.room("client ping");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    for payload in [&b""[..], b"payload", b"\x00\xff", &[b'p'; 125]] {
        host.ping(payload);
        host.expect_pong(payload);
    }
    // A pong that nobody asked for is no news (RFC 6455 section 5.5.3).
    host.frame(&ClientFrame::new(opcode::PONG, "unasked"));
    stage.fence(&mut host, &mut [&mut guest]);
    stage.fence(&mut guest, &mut [&mut host]);
}

/// The first server kept a pong for each.
fn ping_flood(stage: &Stage<'_>) {
    let room = stage.room("flood");
    let mut host = stage.host(&room, "host");
    let mut flooding = stage.guest(&room, "flooding guest");
    let portion = ClientFrame::new(opcode::PING, [b'p'; 125]).encode().repeat(1000);
    let pongs = stage.transcript.unrecorded(|| {
        // 26 MB: more than the kernels hold.
        (0..200).for_each(|_| flooding.bytes(&portion));
        flooding.ping("last");
        let mut pongs = 0;
        while flooding.see() != Seen::Pong(b"last".to_vec()) {
            pongs += 1;
            assert!(pongs <= 200_000, "more pongs than pings");
        }
        pongs
    });
    // RFC 6455 section 5.5.3: only the most recent ping has to be answered.
    assert!(pongs < 200_000, "every pong was kept");
    stage.transcript.note("flooding guest < some pongs, and that of the last ping");
    stage.fence(&mut host, &mut [&mut flooding]);
    stage.fence(&mut flooding, &mut [&mut host]);
}

fn idle_room(stage: &Stage<'_>) {
    let room = stage.room("idle");
    let elapsed = stage.stopwatch();
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    // Pings in both directions are no activity.
    host.ping("");
    host.expect_pong("");
    host.expect_close(1001, "room idle");
    guest.expect_close(1001, "room idle");
    let took = elapsed();
    assert!(took >= Duration::from_secs(1), "closed after {took:?}");
    stage.refused("a guest of an ended room", &room.guest_target("guest"), 404, "room not found");
}

fn room_kept_busy(stage: &Stage<'_>) {
    let room = stage.room("busy");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    stage.transcript.unrecorded(|| {
        for n in 0..8 {
            assert_eq!(host.see_within(Duration::from_millis(250)), Seen::Nothing);
            guest.send(format!("[{n}]"));
            host.expect(format!("[{n}]"));
        }
        // A join and a leave count as well.
        for _ in 0..4 {
            assert_eq!(host.see_within(Duration::from_millis(250)), Seen::Nothing);
            let second = stage.guest(&room, "second guest");
            assert_eq!(host.see_within(Duration::from_millis(250)), Seen::Nothing);
            second.leave();
            host.expect_leave("second guest");
            guest.expect_leave("second guest");
        }
    });
    stage.transcript.note("four time-outs long the room stays");
    stage.fence(&mut guest, &mut [&mut host]);
}

/// Asks until it is refused for its rate; a slow machine may let more than two through.
#[track_caller]
fn ask_until_limited(stage: &Stage<'_>, request: &Request) -> (usize, Answer) {
    (0..20)
        .map(|count| (count, stage.ask(request)))
        .find(|(_, answer)| answer.status == 429)
        .expect("twenty requests at once are too many")
}

fn rate(stage: &Stage<'_>) {
    let request = Request::upgrade("/ws");
    let (passed, answer) = ask_until_limited(stage, &request);
    assert!(passed >= 2, "only {passed} at once");
    assert_eq!(answer.body, "rate limit exceeded\n");
    stage.record("one too many", &answer);
    assert_whole_seconds(answer.field("Retry-After"));
    let seconds = answer.field("Retry-After").and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
    stage.host.pass(Duration::from_secs(seconds));
    stage.refused("after that time", "/ws", 400, "missing room or token");
}

fn rate_comes_first(stage: &Stage<'_>) {
    // Whatever the request is, it uses up rate, and the rate is judged before it.
    let room = stage.room("rate");
    let requests = [
        Request::new("HEAD", "/ws"),
        Request::new("POST", "/ws"),
        Request::get(&room.guest_target("guest")),
        Request::upgrade(&room.host_target("host")).with("Content-Length", "3"),
        Request::upgrade("/ws?room=%ff"),
    ];
    let limited =
        (0..20).map(|n| stage.ask(&requests[n % requests.len()])).find(|answer| answer.status == 429);
    assert!(limited.is_some(), "twenty requests at once are too many");
    let answer = stage.transcript.unrecorded(|| {
        let json = Request::new("DELETE", "/ws").with("Accept", "application/json");
        ask_until_limited(stage, &json).1
    });
    assert_eq!(answer.body, r#"{"error":"rate_limited","message":"rate limit exceeded"}"#);
    stage.record("DELETE /ws", &answer);
}

fn rate_spares_the_rest(stage: &Stage<'_>) {
    for _ in 0..20 {
        assert_eq!(stage.ask(&Request::get("/health")).status, 200);
        assert_eq!(stage.ask(&Request::get("/")).status, 200);
        assert_eq!(stage.ask(&Request::get("/nothing")).status, 404);
    }
    let room = stage.room("spared");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    // Who is in is not counted.
    for n in 0..50 {
        stage.transcript.unrecorded(|| {
            host.send(format!("[{n}]"));
            guest.expect(format!("[{n}]"));
        });
    }
    stage.transcript.note("60 requests to other paths and 50 messages are not counted");
}

/// Whether two lists of fields are taken to be of one address: the second finds the rate used up.
fn is_one_address(stage: &Stage<'_>, used: &[(&str, &str)], then: &[(&str, &str)]) -> bool {
    let with = |fields: &[(&str, &str)]| {
        fields.iter().fold(Request::upgrade("/ws"), |request, (name, value)| request.with(name, value))
    };
    // A real clock goes on: the bucket must be empty just before, and nearly so just after.
    ask_until_limited(stage, &with(used));
    let elapsed = stage.stopwatch();
    let limited = stage.ask(&with(then)).status == 429;
    assert!(elapsed() < Duration::from_millis(900), "too slow to tell");
    limited
}

fn rate_by_address(stage: &Stage<'_>) {
    const XFF: &str = "X-Forwarded-For";
    const REAL: &str = "X-Real-IP";

    for (used, then, same) in [
        // The right-most untrusted address.
        ([(XFF, "192.0.2.1")], [(XFF, "192.0.2.1")], true),
        ([(XFF, "192.0.2.2")], [(XFF, "192.0.2.3")], false),
        ([(XFF, "192.0.2.4")], [(XFF, "198.51.100.1, 192.0.2.4")], true),
        ([(XFF, "192.0.2.5")], [(XFF, "192.0.2.5, 198.51.100.2")], false),
        ([(XFF, "192.0.2.6")], [(XFF, "192.0.2.6, 10.1.2.3,127.0.0.1")], true),
        ([(XFF, "192.0.2.7")], [(XFF, "192.0.2.7:4711")], true),
        // All trusted: the left-most.
        ([(XFF, "10.0.0.1, 10.0.0.2")], [(XFF, "10.0.0.1")], true),
        // No address: the proxy's own.
        ([(XFF, "unknown")], [("X-Other", "1")], true),
        ([(XFF, "192.0.2.8, unknown, 10.0.0.3")], [(XFF, "_hidden")], true),
        // Else X-Real-IP.
        ([(REAL, "192.0.2.9")], [(XFF, "192.0.2.9")], true),
        ([(REAL, "192.0.2.10")], [(REAL, "192.0.2.11")], false),
        // IPv4 in IPv6 is IPv4; IPv6 counts by /64.
        ([(XFF, "192.0.2.12")], [(XFF, "::ffff:192.0.2.12")], true),
        ([(XFF, "2001:db8::1")], [(XFF, "2001:db8::2:0:0:1")], true),
        ([(XFF, "2001:db8:0:1::1")], [(XFF, "[2001:db8:0:1::2]:4711")], true),
        ([(XFF, "2001:db8:0:2::1")], [(XFF, "2001:db8:0:3::1")], false),
    ] {
        let what = format!("{used:?} then {then:?}");
        assert_eq!(is_one_address(stage, &used, &then), same, "{what}");
        stage.transcript.note(format!("{what}: {}", if same { "one address" } else { "two" }));
    }
    // Several fields are one list.
    let two = [("X-Forwarded-For", "192.0.2.20"), ("X-Forwarded-For", "192.0.2.21")];
    assert!(is_one_address(stage, &[("X-Forwarded-For", "192.0.2.21")], &two));
}

/// The first server believed the header of anyone.
fn untrusted_header(stage: &Stage<'_>) {
    let used = [("X-Forwarded-For", "192.0.2.1")];
    assert!(is_one_address(stage, &used, &[("X-Forwarded-For", "192.0.2.2")]));
    assert!(is_one_address(stage, &used, &[("X-Real-IP", "192.0.2.3")]));
    assert!(is_one_address(stage, &used, &[]));
    stage.transcript.note("three addresses in headers are one");
}
