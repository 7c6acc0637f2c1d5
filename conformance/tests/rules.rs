//! The specification, the cases and the snapshots name the same things.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use conformance::cases;

/// Rules about the process around a relay, which no peer can see; and where a test that begins with the id of
/// the rule proves each.
const ELSEWHERE: &[(&str, &str)] = &[
    ("C4", "relay-tokio/tests/program/cases.rs"),
    ("C5", "relay-proto/tests/metrics.rs"),
    ("C6", "relay-tokio/tests/program/cases.rs"),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The ids of the rows `| A1 | …` and `| **A1** | …`.
fn specified() -> BTreeSet<String> {
    let is_id = |cell: &str| {
        let mut letters = cell.chars();
        letters.next().is_some_and(|first| first.is_ascii_uppercase())
            && !letters.as_str().is_empty()
            && letters.all(|digit| digit.is_ascii_digit())
    };
    read("docs/protocol.md")
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next())
        .map(|cell| cell.trim().trim_matches('*').to_owned())
        .filter(|cell| is_id(cell))
        .collect()
}

fn proven() -> BTreeSet<String> {
    let by_cases = cases::all().flat_map(|case| case.rules);
    by_cases.chain(ELSEWHERE.iter().map(|(rule, _)| rule)).map(|rule| (*rule).to_owned()).collect()
}

#[test]
fn every_rule_has_a_case_and_every_case_a_rule() {
    let (specified, proven) = (specified(), proven());
    let without_case: Vec<_> = specified.difference(&proven).collect();
    let unknown: Vec<_> = proven.difference(&specified).collect();
    assert!(without_case.is_empty(), "rules without a case: {without_case:?}");
    assert!(unknown.is_empty(), "cases name rules that docs/protocol.md does not have: {unknown:?}");
}

#[test]
fn what_is_proven_elsewhere_is_proven_there() {
    for (rule, path) in ELSEWHERE {
        let test = format!("fn {}_", rule.to_lowercase());
        assert!(read(path).contains(&test), "{path} has no test for rule {rule}");
    }
}

#[test]
fn names_are_unique_and_every_snapshot_has_a_case() {
    let names: BTreeSet<_> = cases::all().map(|case| case.name.replace("::", "__")).collect();
    assert_eq!(names.len(), cases::all().count(), "two cases have one name");
    let directory = workspace().join("conformance/tests/snapshots");
    let files = fs::read_dir(directory).expect("there are snapshots").map(|file| file.expect("a file"));
    let snapshots: BTreeSet<_> =
        files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".snap")?.to_owned())).collect();
    assert_eq!(snapshots, names);
}
