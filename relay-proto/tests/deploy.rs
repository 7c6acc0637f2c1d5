//! What the files for operators say of variables, times and versions is what the relay knows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use relay_proto::Settings;
use relay_proto::config::VARIABLES;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const COMPOSE: &str = "compose.yaml";
const SERVICE: &str = "deploy/systemd/relay.service";
const KUBERNETES: &str = "deploy/kubernetes/deployment.yaml";
const HAPROXY: [&str; 2] = ["deploy/haproxy/haproxy.cfg", "deploy/haproxy/cluster.cfg"];
const OTHERS: [&str; 7] = [
    "Containerfile",
    "deploy/systemd/relay.socket",
    "deploy/nginx/relay.conf",
    "deploy/nginx/cluster.conf",
    "deploy/caddy/Caddyfile",
    "docs/deployment.md",
    "docs/scaling.md",
];

#[test]
fn every_variable_exists() {
    let mut named = 0;
    for path in [COMPOSE, SERVICE, KUBERNETES].into_iter().chain(HAPROXY).chain(OTHERS) {
        let text = read(path);
        for (place, _) in text.match_indices("RELAY_") {
            let end = |c: char| !c.is_ascii_uppercase() && c != '_';
            let name = text[place..].split(end).next().unwrap_or_default();
            // `RELAY_…` is all of them.
            let known = name == "RELAY_" || VARIABLES.iter().any(|variable| variable.name == name);
            assert!(known, "{path}: {name}");
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
}

/// `NAME: VALUE` of compose, without those that have no value.
fn compose_settings() -> Settings {
    let text = read(COMPOSE);
    let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
    let vars: Vec<_> = lines
        .filter(|(name, _)| name.starts_with("RELAY_"))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect();
    assert!(vars.len() >= 3, "{vars:?}");
    Settings::from_vars(vars).unwrap_or_else(|error| panic!("{COMPOSE}: {error}"))
}

/// `name: NAME`, and in the next line `value: VALUE`.
fn kubernetes_settings() -> Settings {
    let text = read(KUBERNETES);
    let mut lines = text.lines().map(str::trim);
    let mut vars = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("- name: ").filter(|name| name.starts_with("RELAY_")) {
            let value = lines.next().and_then(|line| line.strip_prefix("value: ")).expect("a value");
            vars.push((name, value.trim_matches('"')));
        }
    }
    assert!(vars.len() >= 3, "{vars:?}");
    Settings::from_vars(vars).unwrap_or_else(|error| panic!("{KUBERNETES}: {error}"))
}

/// The number of seconds behind a word, as `20`, `20s` or `2m`.
fn seconds(path: &str, word: &str) -> Duration {
    let text = read(path);
    let mut found = text.lines().filter_map(|line| line.trim().strip_prefix(word));
    let value = found.next().unwrap_or_else(|| panic!("{path}: no {word}")).trim_end_matches(';').trim();
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().unwrap_or_else(|_| panic!("{path}: {word}{value}"));
    Duration::from_secs(if value.ends_with('m') { number * 60 } else { number })
}

#[test]
fn whoever_stops_a_relay_lets_it_drain() {
    let last_connections = Duration::from_secs(5);
    for (path, word, drain) in [
        (COMPOSE, "stop_grace_period:", compose_settings().relay.drain),
        (SERVICE, "TimeoutStopSec=", Settings::default().relay.drain),
        (KUBERNETES, "terminationGracePeriodSeconds:", kubernetes_settings().relay.drain),
    ] {
        let word = if word.ends_with(':') { format!("{word} ") } else { word.to_owned() };
        assert!(seconds(path, &word) > drain + last_connections, "{path}");
    }
}

#[test]
fn no_proxy_cuts_a_connection_between_two_pings() {
    let interval = Settings::default().relay.ping_interval.expect("there are pings");
    for (path, word) in [
        (HAPROXY[0], "timeout tunnel "),
        (HAPROXY[1], "timeout tunnel "),
        ("deploy/nginx/relay.conf", "proxy_read_timeout "),
        ("deploy/nginx/relay.conf", "proxy_send_timeout "),
    ] {
        assert!(seconds(path, word) >= 2 * interval, "{path}: {word}");
    }
}

#[test]
fn the_version_is_that_of_the_crates() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("Containerfile").contains(&format!("image.version=\"{version}\"")));
    assert!(read("deploy/kubernetes/kustomization.yaml").contains(&format!("newTag: {version}\n")));
}
