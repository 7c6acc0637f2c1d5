//! The simulator: it is the same every time, it reaches everything, and what it once found stays fixed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::simulate::{Exercised, Run, from_bytes, generate, play};
use relay_proto::Refusal;

const OPS: usize = 100;

/// Runs of the coverage test: more than it takes, and few enough for a build without optimisation.
const RUNS: u64 = 250;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let entries = fs::read_dir(folder).expect("there are scripts");
    let mut scripts: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    scripts.retain(|script| script.extension().is_some_and(|extension| extension == "txt"));
    scripts.sort();
    scripts
}

#[test]
fn what_was_found_once_stays_fixed() {
    for script in scripts() {
        let run: Run = fs::read_to_string(&script).expect("it is text").parse().expect("it is a script");
        assert_eq!(play(&run).failure, None, "{}", script.display());
    }
}

#[test]
fn the_corpus_of_the_fuzzer_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/script");
    let files: Vec<_> = fs::read_dir(corpus).expect("there is a corpus").collect();
    assert!(files.len() >= 5, "it is next to nothing");
    for file in files {
        let path = file.expect("it can be read").path();
        let run = from_bytes(&fs::read(&path).expect("it can be read")).expect("it is long enough");
        assert_eq!(play(&run).failure, None, "{}\n{run}", path.display());
    }
}

#[test]
fn a_script_is_its_run() {
    for seed in 0..20 {
        let run = generate(seed, OPS);
        assert_eq!(run.to_string().parse::<Run>().as_ref(), Ok(&run));
    }
    assert!("host 1".parse::<Run>().is_err(), "an operand is missing");
    assert!("host 1 2 3 4".parse::<Run>().is_err(), "an operand too many");
    assert!("fly 1".parse::<Run>().is_err());
}

#[test]
fn the_same_seed_is_the_same_run_in_every_process() {
    let program = env!("CARGO_BIN_EXE_conformance");
    for seed in [1, 2, 3] {
        let run = generate(seed, OPS);
        let here = play(&run);
        assert_eq!(here.hash, play(&run).hash);
        assert_ne!(here.hash, play(&generate(seed + 1, OPS)).hash);
        let seed = seed.to_string();
        let there =
            Command::new(program).args(["sim", "--hash", "--seed", &seed]).output().expect("it starts");
        assert_eq!(String::from_utf8_lossy(&there.stdout).trim(), format!("{:016x}", here.hash));
    }
}

#[test]
fn runs_hold_and_reach_everything() {
    let mut exercised = Exercised::default();
    for seed in 0..RUNS {
        let played = play(&generate(seed, OPS));
        assert_eq!(played.failure, None, "seed {seed}: conformance sim --seed {seed} --runs 1");
        exercised.add(&played.exercised);
    }
    let reached = |kind: &str, names: &[&str]| {
        for name in names {
            assert!(exercised.count(kind, name) > 0, "no {kind} {name} in\n{exercised}");
        }
    };
    reached("refused", &Refusal::CODES);
    reached("action", &["Respond", "Upgrade", "Send", "Close", "Abort", "Probe", "Pause", "Resume", "Exit"]);
    reached("action", &["HandOver", "TickOthers"]);
    reached("wake", &["Handshake", "Ping", "Silence", "Closing", "Resume", "RoomIdle", "Flush", "Drain"]);
    reached("closed", &["protocol error", "invalid UTF-8", "message too big", "slow consumer"]);
    reached("closed", &["ping timeout", "room idle", "restart"]);
    reached("left", &["by a close frame", "without a word"]);
    reached("dropped", &["queue_full", "stale", "slow_consumer", "gone"]);
    reached("op", conformance::simulate::Op::WORDS);
}
