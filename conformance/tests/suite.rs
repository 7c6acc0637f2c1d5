//! Every case on every host, each a test of its own: `tokio::room::leave_notice`.

mod hosts;

use std::path::Path;

use conformance::host::Start;
use conformance::{Case, cases};
use insta::internals::SettingsBindDropGuard;
use libtest_mimic::{Arguments, Failed, Trial};

/// Real hosts wait for real time; more tests than cores pass the time of the others.
const THREADS: usize = 8;

/// The families that are played over TLS too: what differs there is how bytes come and go.
const OVER_TLS: [&str; 5] = ["http::", "message::", "slow::", "stop::", "tls::"];

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let trials = hosts::ALL.iter().flat_map(|host| {
        cases::all()
            .filter(|case| if host.encrypted { is_for_tls(case) } else { !case.name.starts_with("tls::") })
            .map(move |case| {
                Trial::test(format!("{}::{}", host.name, case.name), move || play(case, host.start))
            })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn is_for_tls(case: &Case) -> bool {
    OVER_TLS.iter().any(|family| case.name.starts_with(family))
}

fn play(case: &'static Case, start: Start) -> Result<(), Failed> {
    let host = start(case.needs.settings())?;
    let played = case.play(&*host, Some(start), "run-1");
    if let Some(failure) = played.failure {
        return Err(format!("{failure}\n\nso far:\n{}", played.transcript).into());
    }
    let _settings = snapshots();
    insta::assert_snapshot!(case.name.replace("::", "__"), played.transcript);
    Ok(())
}

/// One file for each case, whatever the host.
fn snapshots() -> SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind_to_scope()
}
