//! `conformance doctor` at the bedside of relays that are well, and of some that are not.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{self, Command};

use conformance::Room;
use conformance::proxy::{Faults, Proxy};
use relay_host::{Running, StartError};
use relay_proto::Settings;

type Spawn = fn(&Settings) -> Result<Running, StartError>;

const ADAPTERS: [(&str, Spawn); 2] = [("tokio", relay_tokio::spawn), ("smol", relay_smol::spawn)];

const STEPS: [&str; 8] = ["name", "TCP", "HTTP", "upgrade", "round trip", "idle", "clock", "size"];

fn start(spawn: Spawn, vars: &[(&str, &str)]) -> Running {
    let address = [("RELAY_ADDR", "127.0.0.1:0")];
    let settings = Settings::from_vars(address.iter().chain(vars).copied()).expect("they are good");
    spawn(&settings).expect("it starts")
}

/// Exit status and report.
fn doctor(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    let output = command.arg("doctor").args(arguments).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("it speaks UTF-8"))
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/ws")
}

#[track_caller]
fn assert_line(report: &str, parts: &[&str]) {
    let found = report.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(found, "no line with {parts:?}:\n{report}");
}

#[track_caller]
fn assert_all_well(report: &str, steps: &[&str]) {
    for step in steps {
        assert_line(report, &["ok  ", step]);
    }
    assert!(report.contains(" 0 failures"), "{report}");
}

#[test]
fn a_relay_that_is_well() {
    for (_, spawn) in ADAPTERS {
        let relay = start(spawn, &[]);
        let (status, report) = doctor(&[&url(relay.addr()), "--idle", "0.2"]);
        assert_all_well(&report, &STEPS);
        // How even the voice comes is the machine's affair; that it comes is ours.
        assert_line(&report, &["voice", "jitter", " 0 of 50 packets lost"]);
        assert_eq!(status, Some(0), "{report}");
    }
}

#[test]
fn a_certificate_that_nobody_knows() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("doctor-{}", process::id()));
    fs::create_dir_all(&directory).expect("the target directory can be written to");
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.join(name).display().to_string());
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("rcgen can do it");
    fs::write(&cert, made.cert.pem()).expect("the file can be written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("the file can be written");
    for (_, spawn) in ADAPTERS {
        let relay = start(spawn, &[("RELAY_TLS_CERT", &cert), ("RELAY_TLS_KEY", &key)]);
        let url = format!("wss://{}/ws", relay.addr());

        let (status, report) = doctor(&[&url, "--idle", "0.2"]);
        assert_line(&report, &["FAILED", "TLS", "UnknownIssuer"]);
        assert_line(&report, &["→", "--ca FILE"]);
        // The rest is looked at all the same.
        assert_line(&report, &["ok  ", "size", "1024 KiB"]);
        assert_eq!(status, Some(1), "{report}");

        for trust in [&["--insecure"][..], &["--ca", &cert]] {
            let (status, report) = doctor(&[&[&*url, "--idle", "0.2"], trust].concat());
            assert_all_well(&report, &STEPS);
            assert_line(&report, &["ok  ", "TLS", "TLSv1_3"]);
            assert_line(&report, &["ok  ", "certificate", "expires in"]);
            assert_eq!(status, Some(0), "{report}");
        }
    }
    fs::remove_dir_all(directory).expect("it is there");
}

#[test]
fn a_token_of_another_key() {
    let relay = start(relay_tokio::spawn, &[]);
    let (room, other) = (Room::new("lobby"), Room::new("another"));
    let forged = other.sign(&room.claims("host", "host"));
    let invitation = format!("ws://{}{}#key", relay.addr(), room.host_target_with(&forged));
    let (status, report) = doctor(&[&invitation]);
    assert_line(&report, &["FAILED", "upgrade", "401", "invalid signature"]);
    assert_line(&report, &["→ get a new invitation"]);
    assert_eq!(status, Some(1), "{report}");
}

#[test]
fn an_invitation() {
    let relay = start(relay_smol::spawn, &[]);
    let room = Room::new("lobby");
    let invitation = format!("ws://{}{}#key", relay.addr(), room.host_target("host"));
    let (status, report) = doctor(&[&invitation, "--idle", "0.2"]);
    assert_all_well(&report, &["upgrade", "round trip", "idle"]);
    assert!(!report.contains("voice"), "nothing is said in the rooms of others:\n{report}");
    assert_eq!(status, Some(0), "{report}");
}

#[test]
fn a_port_where_nobody_is() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let (status, report) = doctor(&[&url(address.expect("a port is free"))]);
    assert_line(&report, &["FAILED", "TCP", "refuses"]);
    assert_line(&report, &["→ start the relay"]);
    assert_eq!(status, Some(1), "{report}");
}

#[test]
fn a_connection_that_is_cut_when_it_is_idle() {
    let relay = start(relay_tokio::spawn, &[("RELAY_ROOM_IDLE_TIMEOUT", "3")]);
    let (status, report) = doctor(&[&url(relay.addr()), "--idle", "60s"]);
    assert_line(&report, &["ok  ", "round trip"]);
    assert_line(&report, &["FAILED", "idle", "cut after", "room idle"]);
    assert_eq!(status, Some(1), "{report}");
}

#[test]
fn a_network_that_breaks_connections_off() {
    let relay = start(relay_tokio::spawn, &[]);
    let faults = Faults { reset: Some(1), ..Faults::BROKEN };
    let proxy = Proxy::start(relay.addr(), faults).expect("a port is free");
    let (status, report) = doctor(&[&url(proxy.address())]);
    assert_line(&report, &["ok  ", "TCP"]);
    assert_line(&report, &["FAILED"]);
    assert_eq!(status, Some(1), "{report}");
}

#[test]
fn a_relay_that_takes_less() {
    let relay = start(relay_smol::spawn, &[("RELAY_MAX_MESSAGE_SIZE", "100000")]);
    let (status, report) = doctor(&[&url(relay.addr()), "--idle", "0"]);
    assert_line(&report, &["warning", "size", " 64 KiB passes", "1009"]);
    assert_line(&report, &["→ raise RELAY_MAX_MESSAGE_SIZE"]);
    assert_eq!(status, Some(0), "{report}");
}

#[test]
fn what_cannot_be_asked() {
    for wrong in [
        &["http://127.0.0.1/ws"][..],
        &["ws://127.0.0.1/path"],
        &["ws://127.0.0.1:x/ws"],
        &[],
        &["ws://127.0.0.1/ws", "--idle", "-1"],
        &["ws://127.0.0.1/ws", "--ca", "/nowhere"],
    ] {
        let (status, said) = doctor(wrong);
        assert_eq!(status, Some(2), "{wrong:?}: {said}");
    }
}
