//! Both adapters under load, from clients of every kind and over networks that break: everything that they
//! decided is decided again by another machine, and when all is over nothing is left.

#[path = "load/client.rs"]
mod client;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use client::{Client, SECRETS};
use conformance::proxy::{Faults, Proxy};
use conformance::replay::{Failure, replay};
use relay_host::{Running, StartError};
use relay_proto::Settings;
use serde_json::Value;

const CROWD: u64 = 10;
const SESSIONS: usize = 15;
const MAX_RUNS: usize = 3;

type Spawn = fn(&Settings) -> Result<Running, StartError>;

/// Scarce and short, so that every limit is met.
const NARROW: &[(&str, &str)] = &[
    ("RELAY_ADDR", "127.0.0.1:0"),
    ("RELAY_MAX_ROOMS", "5"),
    ("RELAY_MAX_CLIENTS_PER_ROOM", "6"),
    ("RELAY_MAX_MESSAGE_SIZE", "20000"),
    ("RELAY_DATA_QUEUE_BYTES", "1"),
    ("RELAY_VOICE_QUEUE", "4"),
    ("RELAY_RATE_LIMIT_PER_IP", "5"),
    ("RELAY_MAX_CONNECTIONS", "40"),
    ("RELAY_MAX_CONNECTIONS_PER_IP", "20"),
    ("RELAY_MAX_MESSAGES_PER_SECOND", "500"),
    ("RELAY_HANDSHAKE_TIMEOUT", "0.5"),
    ("RELAY_ROOM_IDLE_TIMEOUT", "0.6"),
    ("RELAY_PING_INTERVAL", "0.2"),
    ("RELAY_PONG_TIMEOUT", "0.5"),
    ("RELAY_DRAIN_SECONDS", "0.3"),
];

/// What the crowd must have met: otherwise this test proves less than it says.
const MET: [&str; 30] = [
    "accept",
    "turn away",
    "respond 200",
    "respond 400",
    "respond 401",
    "respond 403",
    "respond 404",
    "respond 405",
    "respond 426",
    "respond 429",
    "respond 431",
    "respond 503",
    "upgrade 129",
    "send data",
    "send voice",
    "send ping",
    "send pong",
    "close",
    "close 1000",
    "close 1001",
    "close 1002",
    "close 1007",
    "close 1009",
    "close 1012",
    "close 1013",
    "abort",
    "probe",
    "pause",
    "resume",
    "exit",
];

#[test]
fn what_relay_tokio_did_under_load_is_decided_again() {
    record_and_replay("tokio", relay_tokio::spawn);
}

#[test]
fn what_relay_smol_did_under_load_is_decided_again() {
    record_and_replay("smol", relay_smol::spawn);
}

/// What a busy machine makes of a crowd differs from run to run: each run has to replay, and a few of them together
/// to show everything.
fn record_and_replay(adapter: &str, spawn: Spawn) {
    let mut met = BTreeSet::new();
    for _ in 0..MAX_RUNS {
        met.extend(record_and_replay_once(adapter, spawn));
        if MET.iter().all(|kind| met.contains(*kind)) {
            return;
        }
    }
    let missing: Vec<_> = MET.iter().filter(|kind| !met.contains(**kind)).collect();
    panic!("never met: {missing:?} in {met:?}");
}

/// The kinds of action that were met.
fn record_and_replay_once(adapter: &str, spawn: Spawn) -> BTreeSet<String> {
    let directory = Directory::new(adapter);
    let path = directory.0.join("recording");
    let path = path.to_str().expect("the target directory has a name in UTF-8");
    let vars = NARROW.iter().copied().chain([("RELAY_RECORD", path)]);
    let relay = spawn(&Settings::from_vars(vars).expect("they are allowed")).expect("it starts");
    meet(relay.addr());
    let kept = Client::new(relay.addr(), CROWD).stay();
    relay.drain();
    relay.wait();
    drop(kept);

    let recording = fs::read(path).expect("it was recorded");
    let summary = replay(&recording[..], None).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(!summary.cut && summary.violation.is_none(), "{summary:?}");
    assert!(summary.connections > 200 && summary.events > 3000, "{summary:?}");
    let text = String::from_utf8(recording).expect("JSON is UTF-8");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret:?} is in the recording");
    }
    the_program_says_so(path, &text);
    kinds(&text)
}

/// All who come, at once.
fn meet(address: SocketAddr) {
    let tour = thread::spawn(move || Client::new(address, CROWD).tour());
    let proxy = Proxy::start(address, Faults::BROKEN).expect("there are ports");
    crowd(address, proxy.address());
    tour.join().expect("no client fails");
}

/// Every other client comes over a network that breaks.
fn crowd(direct: SocketAddr, broken: SocketAddr) {
    let visit = |seed| {
        let mut client = Client::new(if seed % 2 == 0 { direct } else { broken }, seed);
        thread::spawn(move || (0..SESSIONS).for_each(|_| client.session()))
    };
    let clients: Vec<_> = (0..CROWD).map(visit).collect();
    for client in clients {
        client.join().expect("no client fails");
    }
}

#[test]
fn relay_tokio_is_empty_when_all_connections_have_broken() {
    comes_to_rest(relay_tokio::spawn);
}

#[test]
fn relay_smol_is_empty_when_all_connections_have_broken() {
    comes_to_rest(relay_smol::spawn);
}

/// No time-out helps: each end has to be noticed as it comes.
fn comes_to_rest(spawn: Spawn) {
    let vars =
        [("RELAY_ADDR", "127.0.0.1:0"), ("RELAY_RATE_LIMIT_PER_IP", "0"), ("RELAY_PING_INTERVAL", "0")];
    let relay = spawn(&Settings::from_vars(vars).expect("they are allowed")).expect("it starts");
    let proxy = Proxy::start(relay.addr(), Faults::BROKEN).expect("there are ports");
    crowd(relay.addr(), proxy.address());
    Client::new(relay.addr(), CROWD).finds_nobody();
}

/// The kinds of actions in a recording: the word, and for answers, frames and closes which.
fn kinds(recording: &str) -> BTreeSet<String> {
    let lines = recording.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut kinds = BTreeSet::new();
    for line in lines {
        for action in line["actions"].as_array().into_iter().flatten() {
            let words: Vec<_> = action.as_str().expect("a text").split([' ', ':']).collect();
            match words[..] {
                ["send", _, ref frames @ ..] => {
                    kinds.extend(frames.iter().step_by(2).map(|frame| format!("send {frame}")));
                }
                ["respond" | "upgrade" | "close", _, which, ..] => {
                    _ = kinds.insert(format!("{} {which}", words[0]));
                }
                ["turn", ..] => _ = kinds.insert("turn away".to_owned()),
                _ => _ = kinds.insert(words[0].to_owned()),
            }
        }
    }
    kinds
}

/// `conformance replay`: 0 for the same, 1 for a difference, which it shows.
fn the_program_says_so(path: &str, text: &str) {
    let run = |path: &str, arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_conformance")).args(["replay", path]).args(arguments).output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (status, report) = run(path, &["--trace"]);
    assert_eq!(status, Some(0), "{report}");
    assert!(report.contains("◄── accept c1\n") && report.contains("the same: "));

    let number = text.lines().position(|line| line.contains("1002 protocol error")).expect("it was met") + 1;
    let changed = format!("{path}.changed");
    fs::write(&changed, text.replacen("1002 protocol error", "1002 another error", 1)).expect("a file");
    let (status, report) = run(&changed, &[]);
    assert_eq!(status, Some(1), "{report}");
    assert!(report.starts_with(&format!("line {number} differs: ")), "{report}");
    assert!(report.contains("another error") && report.contains("protocol error"), "{report}");
}

#[test]
fn what_is_no_recording_is_not_replayed() {
    for (text, complaint) in [
        ("", "line 1 cannot be replayed: there is nothing"),
        ("{}\n", "line 1 cannot be replayed: missing field"),
        ("no JSON\n{}\n", "line 1 cannot be replayed: "),
    ] {
        let failure = replay(text.as_bytes(), None).expect_err("it is none");
        assert!(matches!(failure, Failure::Unreadable { line: 1, .. }));
        assert!(failure.to_string().starts_with(complaint), "{failure}");
    }
}

/// Gone at the end, unless the test has failed.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("record-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target directory can be written to");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !thread::panicking() {
            // Left behind, it would only take room.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
