//! `conformance bench`: what it counts is what was sent, and whoever asks wrongly is told so on one line.
//! Nothing here is about how long something takes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use relay_host::Running;
use relay_proto::Settings;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    command.arg("bench").args(arguments).output().expect("it runs")
}

/// The report of a run that has to succeed.
fn report(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--json"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    assert_eq!(stderr, "", "no progress where there is no terminal");
    serde_json::from_str(&stdout).expect("JSON")
}

fn count(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

/// All that was sent has come, once, to everybody else.
fn is_complete(report: &Value, receivers: u64) {
    assert_eq!(count(report, "received"), count(report, "sent") * receivers, "{report}");
    assert_eq!(count(report, "expected"), count(report, "received"), "{report}");
    for nothing in ["lost", "disordered", "foreign", "stalls"] {
        assert_eq!(count(report, nothing), 0, "{nothing} in {report}");
    }
    assert_eq!(report["closed"], Value::Array(Vec::new()), "{report}");
}

/// Dropping it stops it.
struct Floor(Child, String);

impl Floor {
    fn start(mode: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_floor")).arg(mode).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("it starts");
        let (stdout, mut line) = (child.stdout.take().expect("it is a pipe"), String::new());
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("addr="));
        let url = format!("ws://{}/ws", address.expect("an address"));
        Self(child, url)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn relay(spawn: fn(&Settings) -> Result<Running, relay_host::StartError>) -> (Running, String) {
    // Data is never dropped; voice would be on a machine that is busy enough.
    let vars = [
        ("RELAY_ADDR", "127.0.0.1:0"),
        ("RELAY_RATE_LIMIT_PER_IP", "0"),
        ("RELAY_VOICE_QUEUE", "0"),
        ("RELAY_VOICE_MAX_AGE_MS", "0"),
    ];
    let relay = spawn(&Settings::from_vars(vars).expect("they are allowed")).expect("it starts");
    let url = format!("ws://{}/ws", relay.addr());
    (relay, url)
}

const SHORT: [&str; 4] = ["--seconds", "1", "--warm-up", "0.2"];

#[test]
fn every_profile_counts_what_both_adapters_deliver() {
    for spawn in [relay_tokio::spawn, relay_smol::spawn] {
        let (_relay, url) = relay(spawn);
        let run = |more: &[&str]| report(&[&[url.as_str()], &SHORT[..], more].concat());
        // Two rooms of four, all speak, 1.2 seconds of ten a second: the paced loop sends exactly so much.
        let paced = run(&["--rooms", "2", "--people", "4", "--rate", "10", "--threads", "2"]);
        assert_eq!(count(&paced, "sent"), 2 * 4 * 12);
        is_complete(&paced, 3);
        let data =
            run(&["--profile", "data", "--rooms", "3", "--people", "3", "--speakers", "1", "--window", "8"]);
        is_complete(&data, 2);
        assert!(count(&data, "sent") > 3 * 8, "the window has moved: {data}");
        let large =
            run(&["--profile", "large", "--rooms", "1", "--people", "3", "--speakers", "1", "--window", "2"]);
        is_complete(&large, 2);
    }
}

#[test]
fn the_floor_passes_everything_on_in_each_mode() {
    for mode in ["single", "coalesce", "tick"] {
        let floor = Floor::start(mode);
        let (url, pid) = (floor.1.as_str(), floor.0.id().to_string());
        for profile in ["voice", "data", "large"] {
            let run =
                [url, "--profile", profile, "--rooms", "2", "--people", "3", "--window", "4", "--pid", &pid];
            let report = report(&[&run[..], &SHORT].concat());
            is_complete(&report, 2);
            assert!(report["server"]["cpu_seconds"].as_f64().is_some_and(|cpu| cpu > 0.0), "{report}");
        }
    }
}

#[test]
fn idle_connections_and_new_ones_are_counted() {
    let floor = Floor::start("single");
    let (url, pid) = (floor.1.as_str(), floor.0.id().to_string());
    let crowd = ["--connections", "40", "--people", "4", "--pid", &pid];
    let idle = report(&[&[url, "--profile", "idle"], &crowd[..]].concat());
    assert_eq!(count(&idle, "connections"), 40);
    assert!(count(&idle, "used_bytes") > 0);
    let connect = report(&[&[url, "--profile", "connect"], &crowd[..]].concat());
    assert_eq!(count(&connect, "connections"), 40);
    assert!(connect["cpu_microseconds_per_connection"].as_f64().is_some_and(|cpu| cpu > 0.0), "{connect}");
}

#[test]
fn latencies_are_drawn() {
    let floor = Floor::start("single");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("latency-{}.svg", std::process::id()));
    let path = file.to_str().expect("the target directory has a name in UTF-8");
    report(&[&[floor.1.as_str(), "--rooms", "1", "--people", "2", "--plot", path], &SHORT[..]].concat());
    let picture = std::fs::read_to_string(&file).expect("it was drawn");
    assert!(picture.starts_with("<svg") && picture.contains("polyline"), "{picture:.300}");
    let _ = std::fs::remove_file(file);
}

#[test]
fn what_was_lost_is_a_failure() {
    // Eight members in a relay that lets one in per second at most: the others are told how to change it.
    let vars = [("RELAY_ADDR", "127.0.0.1:0"), ("RELAY_RATE_LIMIT_PER_IP", "1")];
    let relay = relay_tokio::spawn(&Settings::from_vars(vars).expect("they are allowed")).expect("it starts");
    let output = bench(&[&format!("ws://{}/ws", relay.addr()), "--rooms", "1", "--people", "8"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("429") && error.contains("RELAY_RATE_LIMIT_PER_IP=0"), "{error}");

    // A sender that is cut off because its messages are too large: what it sent has not come.
    let vars =
        [("RELAY_ADDR", "127.0.0.1:0"), ("RELAY_RATE_LIMIT_PER_IP", "0"), ("RELAY_MAX_MESSAGE_SIZE", "1000")];
    let relay = relay_tokio::spawn(&Settings::from_vars(vars).expect("they are allowed")).expect("it starts");
    let url = format!("ws://{}/ws", relay.addr());
    let run = [&url, "--profile", "data", "--rooms", "1", "--people", "2", "--speakers", "1"];
    let output = bench(&[&run[..], &SHORT].concat());
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("FAILED: ") && error.lines().count() == 1, "{error}");
}

#[test]
fn wrong_arguments_are_told_on_one_line() {
    let url = "ws://127.0.0.1:1/ws";
    for (arguments, complaint) in [
        (&[][..], "bench needs the URL of a relay"),
        (&["http://127.0.0.1:1/ws"], "http:// is neither ws:// nor wss://"),
        (&["wss://127.0.0.1:1/ws"], "wss needs --ca FILE or --insecure"),
        (&[url, "--profile", "fax"], "--profile fax: one of voice, data, large, idle, connect"),
        (&[url, "--rooms", "0"], "--rooms 0: a number from 1 to"),
        (&[url, "--people", "many"], "--people many: a number from 2 to"),
        (&[url, "--seconds", "NaN"], "--seconds NaN: a number from 0.1 to"),
        (&[url, "--rate", "1", "--window", "2"], "--rate and --window: one of them"),
        (&[url, "--people", "3", "--speakers", "4"], "--speakers 4: a room has 3 members"),
        (&[url, "--profile", "idle"], "--profile idle needs --pid"),
        (&[url, "--profile", "connect", "--pid", "1", "--window", "3"], "--window: not for connect"),
        (&[url, "--profile", "idle", "--pid", "1", "--plot", "x.svg"], "--plot: only voice, data and large"),
        (&[url, "--connections", "3"], "--connections: only for idle and connect"),
        (&[url, "--table"], "--table starts relays of its own"),
        (&["--table", "--only", "tea"], "--only tea: one of talk, "),
        (&["--table", "--tokio", "/nonexistent"], "--tokio /nonexistent: no file; build it with"),
    ] {
        let output = bench(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(complaint) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}

#[test]
fn a_relay_that_is_not_there_is_told_on_one_line() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let url = format!("ws://{}/ws", listener.local_addr().expect("it is bound"));
    drop(listener);
    let (_relay, alive) = relay(relay_tokio::spawn);
    for (arguments, complaint) in [
        (&[url.as_str()][..], "cannot connect to "),
        (&[&alive, "--pid", "4294967295"], "--pid 4294967295: "),
        (&[&alive, "--people", "21", "--rooms", "1"], "RELAY_MAX_CLIENTS_PER_ROOM"),
    ] {
        let output = bench(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(complaint) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}
