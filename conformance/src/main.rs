//! `conformance check URL`: plays the suite against a relay that runs somewhere. `conformance replay FILE`: runs
//! what a relay has recorded through another machine. `conformance sim`: breaks the world around a simulated one. `conformance
//! bench`: puts load on a relay and measures it.
#![expect(clippy::print_stdout, reason = "its report is what this program is for")]

mod bench;
mod campaign;
mod doctor;
mod options;

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conformance::net::Sockets;
use conformance::replay::{self, Failure, Summary};
use conformance::{Case, Host, Needs, cases};
use options::{Command, Options};

/// Between two connections: half of what a relay allows by default (rule T3).
const PACE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let rest = || lexopt::Parser::from_args(std::env::args().skip(2));
    match std::env::args().nth(1).as_deref() {
        Some("sim") => return campaign::main(rest()),
        Some("bench") => return bench::main(rest()),
        Some("doctor") => return doctor::main(rest()),
        _ => {}
    }
    match Command::from_args() {
        Ok(Some(Command::Check(options))) => check(&options),
        Ok(Some(Command::Replay { file, trace })) => replay(&file, trace),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// The exit status when an invariant did not hold, as that of `sim`.
const INVARIANT: u8 = 11;

fn replay(file: &str, trace: bool) -> ExitCode {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let chart = trace.then_some(&mut stdout as &mut dyn Write);
    let outcome = File::open(file).map_err(Failure::Io);
    let outcome = outcome.and_then(|recording| replay::replay(BufReader::new(recording), chart));
    // A reader that has gone away (`| head`) is no failure of ours.
    match outcome {
        Ok(Summary { events, actions, connections, cut, violation }) => {
            let _ =
                writeln!(stdout, "the same: {connections} connections, {events} events, {actions} actions");
            if cut {
                let _ = writeln!(stdout, "the last line is not whole, as if the relay had been killed");
            }
            let Some((line, what)) = violation else { return ExitCode::SUCCESS };
            let _ = writeln!(stdout, "line {line}: {what}");
            ExitCode::from(INVARIANT)
        }
        Err(failure @ Failure::Differs { .. }) => {
            let _ = writeln!(stdout, "{failure}");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("{file}: {failure}");
            ExitCode::from(2)
        }
    }
}

fn check(options: &Options) -> ExitCode {
    // A case that fails says so below, with its transcript.
    std::panic::set_hook(Box::new(|_| {}));
    let host = Sockets::new(options.address, options.tls.clone()).paced(PACE);
    let run = run_id();
    let mut counts = Counts::default();
    for case in cases::all().filter(|case| case.name.contains(&options.filter)) {
        let rules = case.rules.join(" ");
        if let Some(missing) = missing(case, &host, options) {
            println!("skipped {:44} {rules} (needs {missing})", case.name);
            counts.skipped += 1;
            continue;
        }
        let played = case.play(&host, None, &format!("{run}{}", counts.total()));
        match played.failure {
            None => {
                println!("ok      {:44} {rules}", case.name);
                counts.passed += 1;
            }
            Some(failure) => {
                println!("FAILED  {:44} {rules}", case.name);
                println!("{}", indent(&failure));
                println!("{}", indent(&played.transcript));
                counts.failed += 1;
            }
        }
    }
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn total(&self) -> usize {
        self.passed + self.failed + self.skipped
    }
}

/// What this relay would need for the case, if that is not known to be there.
fn missing(case: &Case, host: &impl Host, options: &Options) -> Option<String> {
    match case.needs {
        Needs::Nothing => None,
        Needs::Settings(vars) => {
            let missing = vars.iter().filter(|var| !options.has(var));
            let missing: Vec<_> = missing.map(|(name, value)| format!("{name}={value}")).collect();
            (!missing.is_empty()).then(|| missing.join(" "))
        }
        Needs::Switch(_) => Some("to stop the relay".to_owned()),
        Needs::Start => Some("to start relays".to_owned()),
        Needs::Certificate => Some("to replace the certificate".to_owned()),
        Needs::Tls => (!host.encrypted()).then(|| "TLS".to_owned()),
    }
}

/// So that a second run on the same relay finds no room of the first.
#[expect(clippy::disallowed_methods, reason = "no two runs begin at one time")]
fn run_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-", now.as_nanos())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("        {line}")).collect::<Vec<_>>().join("\n")
}
