//! `conformance bench URL`: puts load on a relay, and says how fast every message came and what that cost.
//! `conformance bench --table`: does so with both adapters and with the floor (`bin/floor.rs`), side by side.

mod flight;
mod idle;
mod load;
mod machine;
mod options;
mod payload;
mod plan;
mod plot;
mod process;
mod progress;
mod report;
mod rooms;
mod run;
mod server;
mod table;
mod tally;
mod wire;

use std::process::ExitCode;
use std::time::Instant;

use options::{Command, Failure, Job, Options};

/// Reads the arguments behind `bench`, and does what they say.
pub(crate) fn main(parser: lexopt::Parser) -> ExitCode {
    let command = match Command::read(parser) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Help => {
            println!("{}", options::HELP);
            Ok(())
        }
        Command::Url(options) => measure(&options),
        Command::Table(options) => {
            raise_descriptors();
            table::table(&options).map_err(Failure)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Failure> {
    raise_descriptors();
    match &options.job {
        Job::Load(plan) => {
            let outcome = run::run(plan, &options.target, options.pid)?;
            report::load(plan, &outcome, options.json);
            if let Some(file) = &options.plot {
                plot::draw(file, &plan.to_string(), &outcome.tally.latency)?;
            }
            outcome.verdict(plan).map_err(Failure)
        }
        Job::Idle { connections, people, pid } => {
            let idle = idle::idle(&options.target, *connections, *people, *pid)?;
            report::idle(&idle, options.json);
            Ok(())
        }
        Job::Connect { connections, people, pid } => {
            let connect = idle::connect(&options.target, *connections, *people, *pid)?;
            report::connect(&connect, options.json);
            Ok(())
        }
    }
}

/// A socket each takes a descriptor each; what is not allowed shows when it is missing.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock of the real world")]
fn clock() -> Instant {
    Instant::now()
}
