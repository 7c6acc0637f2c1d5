//! One run of the load generator, from the first connection to the last count.

use std::thread;
use std::time::{Duration, Instant};

use super::clock;
use nix::time::{ClockId, clock_gettime};

use super::load::Load;
use super::payload::Kind;
use super::plan::Plan;
use super::process::Usage;
use super::progress::Progress;
use super::rooms;
use super::tally::Tally;
use super::wire::Target;

/// What came of it, and what it took.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// Of the relay, while it was measured.
    pub(crate) server: Option<Usage>,
    /// CPU time of the load generator, at the same time.
    pub(crate) generator: Duration,
}

impl Outcome {
    /// Nanoseconds of the server's CPU for one delivery.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of days fit")]
    pub(crate) fn cpu_per_delivery(&self) -> Option<f64> {
        Some(self.server?.cpu.as_nanos() as f64 / self.tally.measured.max(1) as f64)
    }

    /// Whether a relay may do what this one did.
    pub(crate) fn verdict(&self, plan: &Plan) -> Result<(), String> {
        if self.tally.received == 0 {
            return Err("FAILED: nothing was received".to_owned());
        }
        let faults = self.tally.faults(plan.kind == Kind::Voice);
        if faults.is_empty() { Ok(()) } else { Err(format!("FAILED: {}", faults.join("; "))) }
    }
}

/// Fills the rooms, lets everybody speak, and counts.
pub(crate) fn run(plan: &Plan, target: &Target, pid: Option<u32>) -> Result<Outcome, String> {
    if let Some(pid) = pid {
        // Said before, rather than after, all the work.
        Usage::of(pid)?;
    }
    let mut wires = rooms::fill(target, plan.rooms, plan.people)?;
    let origin = clock();
    let mut loads = Vec::new();
    let share = plan.rooms.div_ceil(plan.threads);
    for first in (0..plan.rooms).step_by(share) {
        let rest = wires.split_off((share * plan.people).min(wires.len()));
        loads.push(Load::new(plan, origin, first, std::mem::replace(&mut wires, rest)));
    }
    thread::scope(|scope| {
        let threads: Vec<_> = loads.into_iter().map(|load| scope.spawn(|| load.run())).collect();
        let usage = sample(plan, origin, pid);
        let mut tally = Tally::new();
        for thread in threads {
            tally.add(thread.join().map_err(|_| "a thread of the load generator panicked")??);
        }
        let (server, generator) = usage?;
        Ok(Outcome { tally, server, generator })
    })
}

/// What relay and generator use in the time that is measured.
fn sample(plan: &Plan, origin: Instant, pid: Option<u32>) -> Result<(Option<Usage>, Duration), String> {
    let of_both = || Ok::<_, String>((pid.map(Usage::of).transpose()?, own_cpu()?));
    let start = origin + plan.warm_up;
    let mut progress = Progress::new(plan.warm_up + plan.duration);
    progress.until(start);
    let before = of_both()?;
    progress.until(start + plan.duration);
    let after = of_both()?;
    progress.clear();
    let server = after.0.zip(before.0).map(|(after, before)| after - before);
    Ok((server, after.1.saturating_sub(before.1)))
}

/// Threads that have ended count too.
fn own_cpu() -> Result<Duration, String> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_err(|error| error.to_string())?;
    Ok(time.into())
}

/// Waits in real time: what is measured takes as long as it takes.
#[expect(clippy::disallowed_methods, reason = "measuring takes real time")]
pub(crate) fn wait_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(clock()));
}

/// See [`wait_until`].
pub(crate) fn wait(time: Duration) {
    wait_until(clock() + time);
}
