//! Settings: that they are heard, and what is said about those that cannot be (rules C1 to C3).

use std::time::Duration;

use super::{Needs, cases};
use crate::host::Vars;
use crate::http::Request;
use crate::peer::Seen;
use crate::stage::Stage;

// Without a time-out for handshakes, so that nobody is cut off for another reason.
const FEW_SOCKETS: &[(&str, &str)] = &[("RELAY_MAX_CONNECTIONS", "3"), ("RELAY_HANDSHAKE_TIMEOUT", "0")];
const FEW_SOCKETS_PER_ADDRESS: &[(&str, &str)] = &[
    ("RELAY_MAX_CONNECTIONS_PER_IP", "3"),
    ("RELAY_TRUSTED_PROXIES", "none"),
    ("RELAY_HANDSHAKE_TIMEOUT", "0"),
];
const FEW_SOCKETS_BEHIND_PROXY: &[(&str, &str)] = &[("RELAY_MAX_CONNECTIONS_PER_IP", "2")];
const NO_LIMITS: &[(&str, &str)] = &[
    ("RELAY_MAX_ROOMS", "0"),
    ("RELAY_MAX_CLIENTS_PER_ROOM", "0"),
    ("RELAY_ROOM_IDLE_TIMEOUT", "0"),
    ("RELAY_RATE_LIMIT_PER_IP", "0"),
    ("RELAY_MAX_CONNECTIONS", "0"),
    ("RELAY_MAX_CONNECTIONS_PER_IP", "0"),
    ("RELAY_VOICE_QUEUE", "0"),
    ("RELAY_MAX_BYTES_PER_SECOND", "0"),
    ("RELAY_MAX_MESSAGES_PER_SECOND", "0"),
];

cases! {
    "config::max_connections" ["C2" "H5"] Needs::Settings(FEW_SOCKETS), too_many_connections;
    "config::max_connections_per_ip" ["C2" "H5"] Needs::Settings(FEW_SOCKETS_PER_ADDRESS), too_many_connections;
    "config::max_connections_behind_a_proxy" ["C2" "T4"] Needs::Settings(FEW_SOCKETS_BEHIND_PROXY), too_many_behind_a_proxy;
    "config::zero_is_no_limit" ["C1" "C2"] Needs::Settings(NO_LIMITS), zero_is_no_limit;
    "config::messages_per_second" ["C2"] Needs::Settings(&[("RELAY_MAX_MESSAGES_PER_SECOND", "10")]), messages_per_second;
    "config::bytes_per_second" ["C2"] Needs::Settings(&[("RELAY_MAX_BYTES_PER_SECOND", "10000")]), bytes_per_second;
    "config::decimals" ["C2"] Needs::Start, decimals;
    "config::bad_values" ["C3"] Needs::Start, bad_values;
}

/// All sockets count, whatever became of their requests.
fn too_many_connections(stage: &Stage<'_>) {
    let room = stage.room("sockets");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    let mut silent = stage.dial("silent client");
    stage.dial("one too many").expect_gone();
    silent.finish();
    silent.expect_gone();
    // A place is free as soon as the relay has heard of it.
    let mut second = stage.guest(&room, "second guest");
    stage.dial("one too many").expect_gone();
    stage.fence(&mut second, &mut [&mut host, &mut guest]);
}

/// The sockets of a trusted proxy are those of its clients.
fn too_many_behind_a_proxy(stage: &Stage<'_>) {
    let room = stage.room("proxy");
    let join = |name: &str, ip: &str| {
        let request = Request::upgrade(&room.host_target(name)).with("X-Forwarded-For", ip);
        let mut peer = stage.dial(name);
        peer.bytes(&request.encode());
        (peer, request)
    };
    let admitted = |name: &str, ip: &str| {
        let (mut peer, request) = join(name, ip);
        peer.upgraded(&request);
        peer
    };
    let mut first = admitted("first of one address", "192.0.2.1");
    let mut second = admitted("second of one address", "192.0.2.1");
    join("third of one address", "192.0.2.1").0.expect_gone();
    let mut other = admitted("first of another", "192.0.2.2");
    stage.fence(&mut other, &mut [&mut first, &mut second]);
    second.leave();
    first.expect_leave("second of one address");
    let mut third = admitted("third of one address", "192.0.2.1");
    stage.fence(&mut third, &mut [&mut first]);
}

fn zero_is_no_limit(stage: &Stage<'_>) {
    let room = stage.room("no limit");
    let mut host = stage.host(&room, "host");
    let mut guests: Vec<_> =
        stage.transcript.unrecorded(|| (0..40).map(|n| stage.guest(&room, &format!("guest {n}"))).collect());
    stage.transcript.unrecorded(|| stage.fence(&mut host, &mut guests.iter_mut().collect::<Vec<_>>()));
    stage.transcript.note("40 guests");
}

/// Sends 30 messages that take three seconds at the limit; none is lost, and they take their time.
fn is_read_more_slowly(stage: &Stage<'_>, message: impl Fn(usize) -> Vec<u8>) {
    let room = stage.room("limited");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    let elapsed = stage.stopwatch();
    stage.transcript.unrecorded(|| {
        (0..30).for_each(|n| host.send(message(n)));
        (0..30).for_each(|n| guest.expect(message(n)));
    });
    let took = elapsed();
    assert!(took >= Duration::from_secs(1), "30 messages took {took:?}");
    stage.transcript.note("30 messages, all there, and not at once");
    // The limit is the sender's.
    guest.send("[answer]");
    host.expect("[answer]");
}

fn messages_per_second(stage: &Stage<'_>) {
    is_read_more_slowly(stage, |n| format!("[{n}]").into_bytes());
}

fn bytes_per_second(stage: &Stage<'_>) {
    is_read_more_slowly(stage, |n| [format!("[{n}]").as_bytes(), &[b' '; 1000]].concat());
}

/// Durations are seconds and may be decimals.
fn decimals(stage: &Stage<'_>) {
    let start = stage.start.expect("the case needs it");
    let host = start(&[("RELAY_HANDSHAKE_TIMEOUT", "0.2")]).expect("it starts");
    let other = Stage::new(&*host, None, "RUN");
    let elapsed = other.stopwatch();
    let mut silent = other.dial("silent client");
    assert!(matches!(silent.see(), Seen::End | Seen::Reset));
    let took = elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(5), "{took:?}");
}

/// One line that names the variable and the value; nothing starts.
fn bad_values(stage: &Stage<'_>) {
    let start = stage.start.expect("the case needs it");
    let bad: &[Vars<'_>] = &[
        &[("RELAY_ADDR", "nowhere")],
        &[("RELAY_ADDR", ":70000")],
        &[("RELAY_ADDR", "")],
        &[("RELAY_MAX_ROOMS", "many")],
        &[("RELAY_MAX_ROOMS", "-1")],
        &[("RELAY_MAX_ROOMS", "1.5")],
        &[("RELAY_MAX_ROOMS", " 1")],
        &[("RELAY_MAX_ROOMS", "99999999999999999999999")],
        &[("RELAY_MAX_CLIENTS_PER_ROOM", "0x10")],
        &[("RELAY_MAX_MESSAGE_SIZE", "0")],
        &[("RELAY_MAX_MESSAGE_SIZE", "1M")],
        &[("RELAY_ROOM_IDLE_TIMEOUT", "-1")],
        &[("RELAY_ROOM_IDLE_TIMEOUT", "1h")],
        &[("RELAY_ROOM_IDLE_TIMEOUT", "NaN")],
        &[("RELAY_ROOM_IDLE_TIMEOUT", "inf")],
        &[("RELAY_HANDSHAKE_TIMEOUT", "1e400")],
        &[("RELAY_RATE_LIMIT_PER_IP", "+1")],
        &[("RELAY_COALESCE_MS", "2.5")],
        &[("RELAY_BATCH", "yes")],
        &[("RELAY_TRUSTED_PROXIES", "10.0.0.0/33")],
        &[("RELAY_TRUSTED_PROXIES", "proxy.example")],
        &[("RELAY_METRICS_ADDR", "9090")],
        &[("RELAY_LOG_FORMAT", "xml\nline")],
    ];
    for vars in bad {
        let (name, value) = vars[0];
        let Err(error) = start(vars) else { panic!("{name}={value} was accepted") };
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(error.contains(name), "{error} does not name {name}");
        assert!(error.contains(value.lines().next().unwrap_or_default()), "{error} does not show {value}");
        stage.transcript.note(error);
    }
    // Half of a pair would be a relay in plain text by mistake.
    for (alone, missing) in [("RELAY_TLS_CERT", "RELAY_TLS_KEY"), ("RELAY_TLS_KEY", "RELAY_TLS_CERT")] {
        let Err(error) = start(&[(alone, "file.pem")]) else { panic!("{alone} alone was accepted") };
        assert!(error.contains(missing), "{error} does not name {missing}");
        stage.transcript.note(error);
    }
}
