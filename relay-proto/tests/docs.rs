//! What the documents repeat of the code is what the code says. A failing test prints what should stand there.

use std::fs;
use std::path::Path;

use relay_proto::Refusal;
use relay_proto::config::VARIABLES;
use relay_proto::metrics::METRICS;
use relay_proto::token::TokenError;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of all tables whose first cell begins like this.
fn rows<'t>(text: &'t str, begin: &str) -> Vec<&'t str> {
    text.lines().filter(|line| line.starts_with(begin)).collect()
}

#[track_caller]
fn same(found: &[&str], expected: &[String]) {
    assert!(found == expected, "the table should be:\n{}", expected.join("\n"));
}

#[test]
fn the_table_of_variables() {
    let row = |variable: &relay_proto::config::Variable| {
        let default =
            if variable.default.is_empty() { "–".to_owned() } else { format!("`{}`", variable.default) };
        format!("| `{}` | {default} | {} | {} |", variable.name, variable.allowed, variable.help)
    };
    let expected: Vec<String> = VARIABLES.iter().map(row).collect();
    same(&rows(&read("docs/configuration.md"), "| `RELAY_"), &expected);
}

#[test]
fn every_variable_says_when_to_change_it() {
    let text = read("docs/configuration.md");
    let subjects = text.lines().filter(|line| line.starts_with("- `RELAY_")).flat_map(|line| {
        let (subjects, _) = line.split_once(": ").expect("a colon, then the advice");
        subjects.trim_start_matches("- ").split(", ")
    });
    let expected = VARIABLES.iter().map(|variable| format!("`{}`", variable.name));
    assert!(subjects.eq(expected), "there should be one for each variable, in their order");
}

/// The ids in bold at the beginning of a row.
fn bold_rules(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("| **")?.split("**").next()).collect()
}

#[test]
fn every_rule_that_the_first_server_lacked_has_its_reason() {
    let (protocol, security) = (read("docs/protocol.md"), read("docs/security.md"));
    let rules = bold_rules(&protocol);
    assert!(!rules.is_empty());
    assert_eq!(bold_rules(&security), rules);
}

#[test]
fn the_oldest_rust_that_will_do() {
    let oldest = concat!("Rust ", env!("CARGO_PKG_RUST_VERSION"));
    for document in ["README.md", "CONTRIBUTING.md"] {
        assert!(read(document).contains(oldest), "{document} should say {oldest}");
    }
}

#[test]
fn the_table_of_refusals() {
    let all = [
        Refusal::RateLimited,
        Refusal::MissingParameter,
        Refusal::InvalidRoom,
        Refusal::InvalidPubkey,
        Refusal::RoomNotFound,
        Refusal::InvalidToken(TokenError::Malformed),
        Refusal::RoomMismatch,
        Refusal::RoleMismatch,
        Refusal::RoomKeyMismatch,
        Refusal::Draining,
        Refusal::MaxRooms,
        Refusal::RoomFull,
        Refusal::UpgradeRequired,
        Refusal::BadHandshake,
        Refusal::BadRequest,
        Refusal::NotFound,
        Refusal::MethodNotAllowed { allow: "GET" },
        Refusal::HeadTooLarge,
        Refusal::TooManyConnections,
    ];
    assert_eq!(all.map(Refusal::code), Refusal::CODES);
    let text = read("docs/protocol.md");
    for refusal in all {
        let cell = match refusal {
            Refusal::TooManyConnections => "– | `too_many_connections` | –".to_owned(),
            Refusal::InvalidToken(_) => "401 | `invalid_token` | `invalid token: <reason>`".to_owned(),
            _ => format!("{} | `{}` | `{}`", refusal.status(), refusal.code(), refusal.text().0),
        };
        assert_eq!(text.lines().filter(|line| line.contains(&cell)).count(), 1, "{cell}");
    }
}

#[test]
fn the_reasons_of_a_token_in_their_order() {
    let reasons = [
        TokenError::Malformed,
        TokenError::UnsupportedAlgorithm,
        TokenError::SignatureEncoding,
        TokenError::Signature,
        TokenError::ClaimsEncoding,
        TokenError::ClaimsJson,
        TokenError::Expired,
        TokenError::NotYetValid,
        TokenError::MissingRoom,
        TokenError::MissingPeer,
        TokenError::InvalidPeer,
        TokenError::InvalidRole,
    ];
    let text = read("docs/protocol.md");
    for (place, reason) in (1..).zip(reasons) {
        assert!(
            text.lines().any(|line| line.starts_with(&format!("{place}. `{reason}`"))),
            "{place}. {reason}"
        );
    }
}

#[test]
fn the_table_of_metrics() {
    let row = |metric: &relay_proto::metrics::Metric| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        format!("| `{}` | {} | {labels} | {} |", metric.name, metric.kind(), metric.help)
    };
    let expected: Vec<String> = METRICS.iter().map(row).collect();
    let text = read("docs/operating.md");
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| `relay_") || line.starts_with("| `process_"))
        .collect();
    same(&found, &expected);
}
