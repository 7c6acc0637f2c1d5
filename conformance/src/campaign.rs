//! `conformance sim`: many runs of the simulator, on several threads, until one fails or the time is over.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conformance::simulate::{Exercised, Failure, Run, chart, generate, play, quiet_panics, shrink};
use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Breaks the world around a simulated relay, and looks whether its rules hold.

    conformance sim [--seed N] [--runs N] [--ops N] [--until SECONDS] [--threads N] [--trace]
    conformance sim --script FILE [--trace]
    conformance sim --hash --seed N [--ops N]
    conformance sim --canaries

--seed N        the first run; the others follow. Without: some other every time
--runs N        how many; 1000 unless --until is given
--ops N         operations of each, 100
--until 60s     stop after this time
--threads N     as many as there are processors
--trace         print what happened as a sequence chart
--script FILE   play this run
--hash          print a number that is the same wherever this seed is played
--canaries      look whether mistakes that are built in on purpose are found (a build with --cfg canary only)

Exit status: 0 all held; 2 wrong arguments; 10 panic, 11 an invariant did not hold, 12 no rest after healing.
";

/// How long a failure may be shrunk.
const SHRINKING: Duration = Duration::from_secs(20);

/// Between two updates of the progress line.
const PROGRESS: Duration = Duration::from_millis(200);

/// What was asked for.
struct Options {
    seed: u64,
    runs: u64,
    ops: usize,
    until: Option<Duration>,
    threads: usize,
    trace: bool,
    hash: bool,
    script: Option<PathBuf>,
    canaries: bool,
}

impl Options {
    fn read(mut parser: lexopt::Parser) -> Result<Option<Self>, Box<dyn Error>> {
        let mut options = Self {
            seed: some_seed(),
            runs: 0,
            ops: 100,
            until: None,
            threads: thread::available_parallelism().map_or(1, usize::from),
            trace: false,
            hash: false,
            script: None,
            canaries: false,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("seed") => options.seed = parser.value()?.parse()?,
                Long("runs") => options.runs = parser.value()?.parse()?,
                Long("ops") => options.ops = parser.value()?.parse()?,
                Long("until") => {
                    let text = parser.value()?.string()?;
                    options.until = Some(Duration::from_secs(text.trim_end_matches('s').parse()?));
                }
                Long("threads") => options.threads = parser.value()?.parse()?,
                Long("trace") => options.trace = true,
                Long("hash") => options.hash = true,
                Long("script") => options.script = Some(parser.value()?.into()),
                Long("canaries") => options.canaries = true,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        if options.runs == 0 {
            options.runs = if options.until.is_some() { u64::MAX } else { 1000 };
        }
        Ok(Some(options))
    }
}

#[expect(clippy::disallowed_methods, reason = "a campaign should try what none has tried before")]
fn some_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() << 24
}

/// Reads the arguments behind `sim`, and does what they say.
pub(crate) fn main(parser: lexopt::Parser) -> ExitCode {
    start(parser).unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

fn start(parser: lexopt::Parser) -> Result<ExitCode, Box<dyn Error>> {
    let Some(options) = Options::read(parser)? else {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    quiet_panics();
    if options.canaries {
        return canaries(&options);
    }
    if let Some(script) = &options.script {
        let run: Run = fs::read_to_string(script)?.parse()?;
        return Ok(replay(&run, options.trace));
    }
    if options.hash {
        println!("{:016x}", play(&generate(options.seed, options.ops)).hash);
        return Ok(ExitCode::SUCCESS);
    }
    Ok(campaign(&options))
}

/// Plays one run, and says how it went.
fn replay(run: &Run, trace: bool) -> ExitCode {
    let played = chart(run);
    if trace {
        played.chart.iter().for_each(|line| println!("{line}"));
    }
    println!("trace hash {:016x}", played.hash);
    match played.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            println!("{failure}");
            status(&failure)
        }
    }
}

fn status(failure: &Failure) -> ExitCode {
    ExitCode::from(match failure {
        Failure::Unusable(_) => 2,
        Failure::Panic(_) => 10,
        Failure::Invariant(_) => 11,
        Failure::Liveness(_) => 12,
    })
}

/// What all threads of a campaign share.
struct Shared {
    next: AtomicU64,
    done: AtomicU64,
    failed: Mutex<Option<(u64, Failure)>>,
    exercised: Mutex<Exercised>,
}

#[expect(clippy::disallowed_methods, reason = "whoever waits for a campaign waits in real time")]
fn campaign(options: &Options) -> ExitCode {
    let started = Instant::now();
    let until = options.until.map(|time| started + time);
    let last = options.seed.saturating_add(options.runs);
    println!("seeds from {}, {} operations each", options.seed, options.ops);
    let shared = Shared {
        next: AtomicU64::new(options.seed),
        done: AtomicU64::new(0),
        failed: Mutex::new(None),
        exercised: Mutex::new(Exercised::default()),
    };
    let over = || until.is_some_and(|until| Instant::now() >= until) || lock(&shared.failed).is_some();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.max(1))
            .map(|_| scope.spawn(|| work(options, last, &shared, &over)))
            .collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            show_progress(&shared, started);
            thread::park_timeout(PROGRESS);
        }
    });
    clear_progress();
    let (done, elapsed) = (shared.done.load(Ordering::Relaxed), started.elapsed());
    println!("{}", lock(&shared.exercised));
    println!("{done} runs in {:.1} s, {:.0} a second", elapsed.as_secs_f64(), rate(done, elapsed));
    let failed = lock(&shared.failed).take();
    failed.map_or(ExitCode::SUCCESS, |(seed, failure)| report(seed, options, &failure))
}

fn work(options: &Options, last: u64, shared: &Shared, over: &impl Fn() -> bool) {
    let mut exercised = Exercised::default();
    while !over() {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= last {
            break;
        }
        let run = generate(seed, options.ops);
        let played = if options.trace { chart(&run) } else { play(&run) };
        played.chart.iter().for_each(|line| println!("{line}"));
        exercised.add(&played.exercised);
        shared.done.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = played.failure {
            lock(&shared.failed).get_or_insert((seed, failure));
        }
    }
    lock(&shared.exercised).add(&exercised);
}

/// A worker catches the panics of its runs, so no lock is ever poisoned.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[expect(clippy::cast_precision_loss, reason = "it is shown rounded")]
fn rate(done: u64, elapsed: Duration) -> f64 {
    done as f64 / elapsed.as_secs_f64().max(0.001)
}

fn show_progress(shared: &Shared, started: Instant) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let (done, elapsed) = (shared.done.load(Ordering::Relaxed), started.elapsed());
        let _ = write!(
            terminal,
            "\r{done} runs, {:.0} s, {:.0} a second ",
            elapsed.as_secs_f64(),
            rate(done, elapsed)
        );
    }
}

fn clear_progress() {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[K");
    }
}

/// Says how a failure can be seen again: a script, the line that plays it, a test.
fn report(seed: u64, options: &Options, failure: &Failure) -> ExitCode {
    println!("seed {seed}: {failure}");
    println!("shrinking ...");
    let run = shrink(&generate(seed, options.ops), failure, SHRINKING);
    let shrunk = play(&run).failure.unwrap_or_else(|| failure.clone());
    let name = format!("{}_{seed}", shrunk.name());
    let text =
        format!("# Found by seed {seed} with {} operations. Then it was:\n# {shrunk}\n{run}", options.ops);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts").join(format!("{name}.txt"));
    match fs::write(&path, &text) {
        Ok(()) => {
            println!("shrunk to {} operations: {shrunk}\n", run.ops.len());
            println!(
                "    cargo run --release -p conformance -- sim --trace --script conformance/scripts/{name}.txt\n"
            );
        }
        Err(error) => println!("{}: {error}\n\n{text}", path.display()),
    }
    println!("{}", test(&name, &run));
    status(&shrunk)
}

/// A test that can be pasted where `Run` and `play` are known.
fn test(name: &str, run: &Run) -> String {
    let mut text = format!("#[test]\nfn {name}() {{\n    let run = \"\\\n");
    for line in run.to_string().lines() {
        let _ = writeln!(text, "        {line}\\n\\");
    }
    text.push_str("    \";\n    let run: Run = run.parse().expect(\"a script\");\n    assert_eq!(play(&run).failure, None);\n}");
    text
}

/// Each mistake that is built in has to be found by as many runs at most.
#[cfg(canary)]
const CANARY_RUNS: u64 = 2000;

/// Lets one mistake after the other be made, and looks how many runs it takes to find it.
#[cfg(canary)]
#[expect(clippy::disallowed_methods, reason = "how long it takes is part of the result")]
fn canaries(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    use relay_proto::canary::{Canary, release};

    let mut missed = 0;
    for canary in Canary::ALL {
        let started = Instant::now();
        release(Some(*canary));
        let found =
            (0..CANARY_RUNS).find_map(|seed| Some((seed, play(&generate(seed, options.ops)).failure?)));
        let name = format!("{canary:?}");
        match found {
            Some((seed, failure)) => {
                let time = started.elapsed().as_secs_f64();
                println!("{name:18} found by run {seed:3} in {time:.2} s: {failure:.80}");
            }
            None => {
                println!("{name:18} MISSED in {CANARY_RUNS} runs");
                missed += 1;
            }
        }
    }
    release(None);
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// They are in no program that anybody uses.
#[cfg(not(canary))]
fn canaries(_: &Options) -> Result<ExitCode, Box<dyn Error>> {
    Err("canaries are built in with RUSTFLAGS=\"--cfg canary\" only: see docs/simulation.md".into())
}
