//! What the files for Prometheus and Grafana ask for is what a relay tells: every name, label and value.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use relay_proto::metrics::{Facts, METRICS, Process, render};
use relay_proto::{Config, Relay};
use serde_json::Value;

const GRAFANA: &str = "deploy/grafana/relay.json";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
const ALERTS_TEST: &str = ".ci/alerts.yml";
const OPERATING: &str = "docs/operating.md";

/// What Prometheus adds to what it reads, and its own metric.
const ADDED: [&str; 2] = ["job", "instance"];
const UP: &str = "up";

/// Labels by their names, and the values that they may have.
type Labels = BTreeMap<String, BTreeSet<String>>;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The series of a relay, as it writes them, and the one of Prometheus.
fn told() -> BTreeMap<String, Labels> {
    let some = Some(Duration::from_secs(1));
    let process =
        Process { cpu: some, resident_bytes: Some(1), open_fds: Some(1), max_fds: Some(1), started: some };
    let facts = Facts { adapter: "tokio", version: "1.2.3", shards: 2, certificate_expiry: Some(1), process };
    let config = Config::default();
    let text = render(Relay::new(config.clone(), [7; 32]).stats(), &config, facts);
    let mut told = BTreeMap::from([(UP.to_owned(), Labels::new())]);
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = sample.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let known = told.entry(name.to_owned()).or_default();
        for (label, _, value) in matchers(labels.trim_end_matches('}')) {
            known.entry(label.to_owned()).or_default().insert(value.to_owned());
        }
    }
    told
}

/// `label="value",other=~"value"` as names, operators and values; no value of ours holds a comma or a quote.
fn matchers(text: &str) -> Vec<(&str, &str, &str)> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (left, value) = part.trim().split_once('"').unwrap_or_else(|| panic!("no value: {part}"));
            let label = left.trim_end_matches(['=', '~', '!']);
            (label, &left[label.len()..], value.strip_suffix('"').expect("a quote"))
        })
        .collect()
}

fn word(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// Every metric of a query with its matchers.
fn selectors(query: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        // A string is none, but for those that belong to a metric and are gone already.
        if let Some((_, behind)) = rest[..start].split_once('"') {
            rest = behind.split_once('"').expect("the end of a string").1;
            continue;
        }
        let name = word(&rest[start..]);
        rest = &rest[start + name.len()..];
        if name == UP || name.starts_with("relay_") || name.starts_with("process_") {
            let inside = rest.strip_prefix('{').map(|inside| inside.split_once('}').expect("a brace").0);
            found.push((name, inside.unwrap_or_default()));
            rest = &rest[inside.map_or(0, |inside| inside.len() + 2)..];
        }
    }
    found
}

/// What stands in the braces of `by (…)` and `without (…)`.
fn groupings(query: &str) -> impl Iterator<Item = &str> {
    let after = ["by (", "without ("].into_iter().flat_map(|key| query.split(key).skip(1));
    after.flat_map(|rest| rest.split_once(')').expect("a brace").0.split(',')).map(str::trim)
}

fn check(query: &str, told: &BTreeMap<String, Labels>) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut labels: BTreeSet<&str> = ADDED.into();
    for (name, inside) in selectors(query) {
        let known = told.get(name).unwrap_or_else(|| panic!("{name}: {query}"));
        labels.extend(known.keys().map(String::as_str));
        for (label, operator, value) in matchers(inside) {
            assert!(["=", "!=", "=~", "!~"].contains(&operator), "{query}");
            if !ADDED.contains(&label) {
                let values = known.get(label).unwrap_or_else(|| panic!("{name} has no {label}: {query}"));
                for value in value.split('|') {
                    assert!(values.contains(value), "{name} is never {label}={value}: {query}");
                }
            }
        }
        named.insert(name.to_owned());
    }
    for label in groupings(query) {
        assert!(labels.contains(label), "{label}: {query}");
    }
    assert!(!named.is_empty(), "{query}");
    named
}

/// The queries in a tree of JSON, wherever they stand.
fn queries(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(query) if name == "expr" || name == "query" && query.contains("relay_") => vec![query],
                _ => queries(value),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read(GRAFANA)).unwrap_or_else(|error| panic!("{GRAFANA}: {error}"))
}

#[test]
fn the_dashboard_asks_for_what_is_told_and_for_all_of_it() {
    let (told, dashboard) = (told(), dashboard());
    let named: BTreeSet<String> =
        queries(&dashboard).into_iter().flat_map(|query| check(query, &told)).collect();
    for metric in METRICS {
        let shown = metric.series().iter().any(|series| named.contains(series));
        assert!(shown, "{GRAFANA} does not show {}", metric.name);
    }
}

#[test]
fn the_panels_stand_beside_each_other() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().expect("a number"));
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} covers another", panel["title"]);
        }
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{}", panel["title"]);
        let letters = panel["targets"].as_array().into_iter().flatten().map(|target| &target["refId"]);
        let letters: Vec<_> = letters.map(Value::to_string).collect();
        assert_eq!(letters.iter().collect::<BTreeSet<_>>().len(), letters.len(), "{}", panel["title"]);
    }
    assert!(ids.len() > 30, "{}", ids.len());
}

/// What stands behind each `key: ` of a YAML file, or in the block below it.
fn values(text: &str, key: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let value = line.trim_start().trim_start_matches("- ").strip_prefix(key);
        match value.and_then(|value| value.strip_prefix(": ")) {
            Some("|") => {
                let block = std::iter::from_fn(|| lines.next_if(|next| indent(next) > indent(line)));
                found.push(block.map(str::trim).collect::<Vec<_>>().join(" "));
            }
            Some(value) => found.push(value.to_owned()),
            None => {}
        }
    }
    found
}

#[test]
fn the_alerts_ask_for_what_is_told() {
    let (told, alerts) = (told(), read(ALERTS));
    let queries = values(&alerts, "expr");
    assert_eq!(queries.len(), values(&alerts, "alert").len());
    let named: BTreeSet<String> = queries.iter().flat_map(|query| check(query, &told)).collect();
    assert!(named.len() > 10, "{named:?}");
}

#[test]
fn every_alert_is_tried_and_explained() {
    let (alerts, tried, explained) = (read(ALERTS), read(ALERTS_TEST), read(OPERATING));
    let names = |text, key| -> BTreeSet<String> { values(text, key).into_iter().collect() };
    let alerts = names(&alerts, "alert");
    assert_eq!(alerts, names(&tried, "alertname"));
    let rows = explained.lines().filter(|line| line.starts_with("| `Relay"));
    let cells = rows.map(|row| row.split('|').nth(1).expect("a cell"));
    let cells = cells.flat_map(|cell| cell.split(',')).map(|name| name.trim().trim_matches('`').to_owned());
    assert_eq!(alerts, cells.collect());
}
