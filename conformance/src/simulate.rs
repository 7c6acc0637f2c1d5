//! The relay in a world that breaks: slow, stalled, dead and hostile clients, links that are TCP and not
//! packets, clocks that jump, timers that are late; in virtual time, on one thread, without a runtime.
//!
//! ```text
//!    seed ─► generate ─► Run { vars, ops } ◄─ script            found: shrink, a script, one line to replay
//!                            │                                                   ▲
//!                            ▼                                                   │
//!    clients ◄─► pipes ◄─► sockets ◄─► Relay          heal ─► must come to rest ─┤
//!        │                               │                                       │
//!        └──────────► Referee ◄──────────┘ ── invariants, after every event ─────┘
//!                        │
//!                      Model: what should happen, in plain code
//! ```
//!
//! `docs/simulation.md` is the guide: how to read a failure, how to write an invariant.

mod act;
mod call;
mod client;
mod exercised;
mod generate;
mod heal;
mod invariants;
mod model;
mod op;
mod queue;
mod referee;
mod rng;
mod script;
mod shrink;
mod state;
mod trace;
mod world;

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use exercised::Exercised;
pub use invariants::Violation;
pub use op::Op;
pub use script::Run;
pub use shrink::shrink;
use world::World;

/// Virtual time begins here: 2033-05-18, a round number.
const UNIX_ORIGIN: Duration = Duration::from_secs(2_000_000_000);

/// The run that belongs to a seed, with so many operations.
pub fn generate(seed: u64, ops: usize) -> Run {
    generate::generate(seed, ops)
}

/// A run gets slower with its length, and what a fuzzer finds in a shorter one says more.
const MAX_FUZZED_OPS: usize = 60;

/// The run that bytes choose: the first eight the world and its limits, each four that follow one operation.
pub fn from_bytes(data: &[u8]) -> Option<Run> {
    let (world, ops) = data.split_first_chunk::<8>()?;
    let op = |chunk: &[u8]| generate(chunk.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)), 1).ops;
    let ops = ops.chunks_exact(4).take(MAX_FUZZED_OPS).flat_map(op).collect();
    Some(Run { ops, ..generate(u64::from_le_bytes(*world), 0) })
}

/// What a run was like.
#[derive(Clone, Debug)]
pub struct Played {
    /// The same for the same run, on every machine and in every process.
    pub hash: u64,
    /// What happened in it.
    pub exercised: Exercised,
    /// A sequence chart, if it was asked for.
    pub chart: Vec<String>,
    /// What went wrong.
    pub failure: Option<Failure>,
}

/// How a run went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something panicked.
    Panic(String),
    /// An invariant did not hold (`I1` and so on).
    Invariant(Violation),
    /// The healed world did not come to rest (`L1` and so on).
    Liveness(Violation),
    /// The relay does not start with these variables.
    Unusable(String),
}

impl Failure {
    /// What did not hold, in one word.
    pub fn name(&self) -> String {
        match self {
            Failure::Panic(_) => "panic".to_owned(),
            Failure::Invariant(violation) | Failure::Liveness(violation) => {
                violation.invariant.to_lowercase()
            }
            Failure::Unusable(_) => "unusable".to_owned(),
        }
    }

    /// Whether it is likely to have the same cause.
    pub fn resembles(&self, other: &Failure) -> bool {
        match (self, other) {
            (Failure::Panic(_), Failure::Panic(_)) => true,
            (Failure::Invariant(this), Failure::Invariant(other))
            | (Failure::Liveness(this), Failure::Liveness(other)) => this.invariant == other.invariant,
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Panic(what) => write!(f, "panic: {what}"),
            Failure::Invariant(Violation { invariant, what })
            | Failure::Liveness(Violation { invariant, what }) => {
                write!(f, "{invariant}: {what}")
            }
            Failure::Unusable(what) => f.write_str(what),
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        let liveness = violation.invariant.starts_with('L');
        if liveness { Failure::Liveness(violation) } else { Failure::Invariant(violation) }
    }
}

/// Plays a run: its operations, then the healing.
pub fn play(run: &Run) -> Played {
    play_charted(run, false)
}

/// The same, with a chart.
pub fn chart(run: &Run) -> Played {
    play_charted(run, true)
}

fn play_charted(run: &Run, charted: bool) -> Played {
    let mut world = match World::new(run, charted) {
        Ok(world) => world,
        Err(what) => return Played::unusable(what),
    };
    // A world that has panicked is only asked for what it has written down.
    let outcome = catch_unwind(AssertUnwindSafe(|| world.play(&run.ops)));
    world.exercised.dropped(&world.relay.stats());
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation.into()),
        Err(panic) => Some(Failure::Panic(text_of(panic.as_ref()))),
    };
    Played { hash: world.trace.hash(), exercised: world.exercised, chart: world.trace.into_lines(), failure }
}

impl Played {
    fn unusable(what: String) -> Self {
        let failure = Some(Failure::Unusable(what));
        Self { hash: 0, exercised: Exercised::default(), chart: Vec::new(), failure }
    }
}

impl World {
    fn play(&mut self, ops: &[Op]) -> Result<(), Violation> {
        let mut together = 0;
        for op in ops {
            self.exercised.op(*op);
            self.trace.note(self.now, || op.to_string());
            self.apply(*op)?;
            together =
                if let Op::Together { count } = op { count + 1 } else { u16::saturating_sub(together, 1) };
            if together == 0 {
                self.settle()?;
            }
        }
        self.heal()
    }
}

thread_local! {
    /// Where the last panic was, and what it said.
    static PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// From now on, a panic is not printed by itself: what it said is part of the failure.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.set(Some(info.to_string()))));
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    PANIC.take().unwrap_or_else(|| text.unwrap_or("without a message").to_owned())
}
