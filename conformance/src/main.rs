//! `conformance check URL` plays the suite against a relay that runs somewhere; `conformance sim` breaks the
//! world around a simulated one.
#![expect(clippy::print_stdout, reason = "its report is what this program is for")]

mod campaign;
mod options;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conformance::net::Sockets;
use conformance::{Case, Host, Needs, cases};
use options::Options;

/// Between two connections: half of what a relay allows by default (rule T3).
const PACE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("sim") => campaign::main(lexopt::Parser::from_args(std::env::args().skip(2))),
        _ => Options::from_args().map(|options| options.map_or(ExitCode::SUCCESS, |options| check(&options))),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
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
