//! Every case on every host, each a test of its own: `tokio::room::leave_notice`.

mod hosts;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conformance::host::Start;
use conformance::{Case, cases};
use hosts::Path;
use insta::internals::SettingsBindDropGuard;
use libtest_mimic::{Arguments, Failed, Trial};

/// Real hosts wait for real time; more tests than cores pass the time of the others.
const THREADS: usize = 8;

/// The families that are played over TLS too: what differs there is how bytes come and go.
const OVER_TLS: [&str; 5] = ["http::", "message::", "slow::", "stop::", "tls::"];

/// The families that are not played over a slow network: they are about time, which it takes, or about what
/// kernels hold, which is more with a proxy between them.
const NOT_WHEN_SLOW: [&str; 5] = ["config::", "slow::", "stop::", "time::", "tls::"];

/// How often the machine has stood still for longer than [`STANDSTILL`].
static STANDSTILLS: AtomicUsize = AtomicUsize::new(0);

/// A tenth of the shortest time-out of a case. On a machine that is shared it happens.
const STANDSTILL: Duration = Duration::from_millis(100);

/// How often a case is played, if the machine stood still meanwhile each time before.
const ATTEMPTS: usize = 3;

fn main() {
    thread::spawn(watch_for_standstills);
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let trials = hosts::ALL.iter().flat_map(|host| {
        cases::all().filter(|case| is_for(case, host.path)).map(move |case| {
            Trial::test(format!("{}::{}", host.name, case.name), move || play(case, host.start))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn is_for(case: &Case, path: Path) -> bool {
    let is_one_of = |families: &[&str]| families.iter().any(|family| case.name.starts_with(family));
    match path {
        Path::Plain => !is_one_of(&["tls::"]),
        Path::Tls => is_one_of(&OVER_TLS),
        Path::Slow => !is_one_of(&NOT_WHEN_SLOW),
    }
}

#[expect(clippy::disallowed_methods, reason = "it watches the machine, and nobody waits for it")]
fn watch_for_standstills() {
    loop {
        let before = Instant::now();
        thread::sleep(STANDSTILL / 5);
        if before.elapsed() > STANDSTILL {
            STANDSTILLS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A case that failed while the machine stood still has said nothing, and is played again.
fn play(case: &'static Case, start: Start) -> Result<(), Failed> {
    let mut attempt = 1;
    let played = loop {
        let standstills = STANDSTILLS.load(Ordering::Relaxed);
        let host = start(case.needs.settings())?;
        let played = case.play(&*host, Some(start), "run-1");
        let Some(failure) = &played.failure else { break played };
        if attempt == ATTEMPTS || standstills == STANDSTILLS.load(Ordering::Relaxed) {
            return Err(format!("{failure}\n\nso far:\n{}", played.transcript).into());
        }
        eprintln!("{}: the machine stood still; again, since: {failure}", case.name);
        attempt += 1;
    };
    let _settings = snapshots();
    insta::assert_snapshot!(case.name.replace("::", "__"), played.transcript);
    Ok(())
}

/// One file for each case, whatever the host.
fn snapshots() -> SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind_to_scope()
}
