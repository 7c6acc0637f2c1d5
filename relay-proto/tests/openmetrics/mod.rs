//! A reader of OpenMetrics text for tests.

use std::collections::{BTreeMap, BTreeSet};

/// A sample: its name and its labels as written.
pub(crate) type Series = (String, BTreeMap<String, String>);

/// OpenMetrics text, read strictly: whatever the relay has no need to write is an error.
pub(crate) struct Scrape {
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) samples: BTreeMap<Series, f64>,
}

impl Scrape {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.strip_suffix("# EOF\n").expect("the end is marked");
        let mut scrape = Self { types: BTreeMap::new(), samples: BTreeMap::new() };
        // The family that is being described or sampled, its type, and whether a sample was seen.
        let (mut family, mut kind, mut sampled) = (String::new(), String::new(), true);
        for line in lines.lines() {
            assert!(!line.is_empty() && line == line.trim(), "{line:?}");
            let Some(comment) = line.strip_prefix("# ") else {
                let (name, labels, value) = sample(line);
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} in {family}"));
                let suffixes: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "histogram" => &["_sum", "_count", "_bucket"],
                    "info" => &["_info"],
                    other => panic!("{other}"),
                };
                assert!(suffixes.contains(&suffix), "{line}");
                assert_eq!(labels.contains_key("le"), suffix == "_bucket", "{line}");
                assert!(!value.is_nan() && (kind == "gauge" || value.is_finite() && value >= 0.0), "{line}");
                assert!(scrape.samples.insert((name, labels), value).is_none(), "twice: {line}");
                sampled = true;
                continue;
            };
            let mut words = comment.splitn(3, ' ');
            let mut word = || words.next().expect("three words").to_owned();
            match word().as_str() {
                "HELP" => {
                    assert!(sampled, "{family} has no sample");
                    (family, kind, sampled) = (word(), String::new(), false);
                    assert!(is_name(&family), "{line}");
                    assert!(word().ends_with('.'), "a sentence: {line}");
                }
                "TYPE" => {
                    assert!(word() == family && kind.is_empty() && !sampled, "{line}");
                    kind = word();
                    assert!(scrape.types.insert(family.clone(), kind.clone()).is_none(), "twice: {line}");
                }
                "UNIT" => {
                    assert!(word() == family && !kind.is_empty() && !sampled, "{line}");
                    assert!(family.ends_with(&format!("_{}", word())), "{line}");
                }
                other => panic!("{other}"),
            }
        }
        assert!(sampled, "{family} has no sample");
        scrape
    }

    /// The value of one series, its labels as `name=value`.
    pub(crate) fn get(&self, name: &str, labels: &[&str]) -> f64 {
        let pair = |label: &&str| {
            let (name, value) = label.split_once('=').expect("name=value");
            (name.to_owned(), value.to_owned())
        };
        let series = (name.to_owned(), labels.iter().map(pair).collect());
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series:?}"))
    }

    #[track_caller]
    pub(crate) fn expect(&self, name: &str, labels: &[&str], value: f64) {
        assert!(
            (self.get(name, labels) - value).abs() < 1e-9,
            "{name}{labels:?} is {}",
            self.get(name, labels)
        );
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.samples.keys().filter(|(other, _)| other == name).count()
    }

    pub(crate) fn series(&self) -> BTreeSet<&Series> {
        self.samples.keys().collect()
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// `name value` or `name{label="value",…} value`; no label of ours needs an escape.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => {
            let labels = labels.strip_suffix('}').expect("a closing brace");
            assert!(!labels.is_empty(), "{line}");
            (name, labels)
        }
    };
    assert!(is_name(name), "{line}");
    let mut pairs = BTreeMap::new();
    for label in labels.split(',').filter(|_| !labels.is_empty()) {
        let (key, value) = label.split_once('=').expect("a pair");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes");
        assert!(is_name(key) && !value.is_empty() && !value.contains(['"', '\\', '\n']), "{line}");
        assert!(pairs.insert(key.to_owned(), value.to_owned()).is_none(), "{line}");
    }
    (name.to_owned(), pairs, value.parse().expect("a number"))
}
