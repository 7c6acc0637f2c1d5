//! The command line behind `bench`.

use std::error::Error;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;

use super::payload::Kind;
use super::plan::{Pace, Plan};
use super::table::ROWS;
use super::wire::Target;
use crate::options::{Trust, target};

pub(crate) const HELP: &str = "\
Puts load on a relay, and measures what it does and costs.

    conformance bench URL [--profile NAME] [option]...
    conformance bench --table [--runs N] [--quick] [--only ROW] [--tls] [--tokio FILE] [--smol FILE]

URL             ws://HOST:PORT/ws or wss://HOST:PORT/ws
--profile       voice    120 bytes of voice, 50 a second from each speaker (default)
                data     1 KiB of JSON, 50 a second
                large    256 KiB, 10 a second
                idle     10000 connections that say nothing; needs --pid
                connect  1000 connections, set up with tokens; needs --pid
--rooms N       rooms (5)
--people N      members of each, its host included (20; idle and connect: 20)
--speakers N    how many of them speak (all)
--rate N        messages a second and speaker (open loop): latency counts from when each was to be sent
--together      the speakers of a room send at the same moment, and are not spread over the time between
--window N      in place of a rate, so many messages in flight per speaker (closed loop)
--connections N for idle and connect
--seconds S     how long to measure (10)
--warm-up S     how long to wait before (1)
--threads N     threads of the load generator (1)
--pid PID       the relay's process on this machine: its CPU time, context switches, memory
--json          print JSON
--plot FILE     draw the latencies, as SVG
--ca FILE       PEM of the certificates to trust for wss
--insecure      trust any certificate

--table         starts both adapters and the floor that they are compared with, and prints every row of
                docs/performance.md, medians of all runs
--runs N        how often everything is measured, in turns (5)
--quick         once, and shorter: for a look, not for a figure
--only ROW      only rows whose name begins so
--tls           the adapters speak TLS, the floor does not
--tokio, --smol the programs; by default those beside this one, where `floor` has to be, too

Many connections from one address need a relay with RELAY_RATE_LIMIT_PER_IP=0, many rooms one with a higher
RELAY_MAX_ROOMS. Exit status: 0; 1 if a message was lost that must not be, or something failed; 2 wrong arguments.
";

/// Why there is no result, on one line.
pub(crate) struct Failure(pub(crate) String);

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What was asked for.
pub(crate) enum Command {
    Help,
    Url(Box<Options>),
    Table(Table),
}

/// What to compare, and how thoroughly.
pub(crate) struct Table {
    pub(crate) runs: usize,
    pub(crate) quick: bool,
    pub(crate) only: String,
    pub(crate) tls: bool,
    pub(crate) floor: PathBuf,
    /// relay-tokio and relay-smol.
    pub(crate) adapters: [PathBuf; 2],
}

/// A relay, and what to do with it.
pub(crate) struct Options {
    pub(crate) target: Target,
    pub(crate) job: Job,
    pub(crate) pid: Option<u32>,
    pub(crate) json: bool,
    pub(crate) plot: Option<PathBuf>,
}

/// What to measure.
pub(crate) enum Job {
    Load(Plan),
    Idle { connections: usize, people: usize, pid: u32 },
    Connect { connections: usize, people: usize, pid: u32 },
}

/// As they were given.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch")]
struct Given {
    url: Option<String>,
    profile: Option<String>,
    rooms: Option<usize>,
    people: Option<usize>,
    speakers: Option<usize>,
    rate: Option<f64>,
    together: bool,
    window: Option<usize>,
    connections: Option<usize>,
    seconds: Option<f64>,
    warm_up: Option<f64>,
    threads: Option<usize>,
    pid: Option<u32>,
    json: bool,
    plot: Option<PathBuf>,
    trust: Option<Trust>,
    table: bool,
    runs: Option<usize>,
    quick: bool,
    only: Option<String>,
    tls: bool,
    tokio: Option<PathBuf>,
    smol: Option<PathBuf>,
}

const MANY: RangeInclusive<usize> = 1..=100_000;
/// Long enough to count something, short enough to end.
const SECONDS: RangeInclusive<f64> = 0.1..=86400.0;

impl Command {
    pub(crate) fn read(mut parser: lexopt::Parser) -> Result<Self, Box<dyn Error>> {
        let mut given = Given::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("profile") => given.profile = Some(parser.value()?.string()?),
                Long("rooms") => given.rooms = Some(number(&mut parser, "--rooms", MANY)?),
                Long("people") => given.people = Some(number(&mut parser, "--people", 2..=10_000)?),
                Long("speakers") => given.speakers = Some(number(&mut parser, "--speakers", MANY)?),
                Long("rate") => given.rate = Some(number(&mut parser, "--rate", 0.01..=1e6)?),
                Long("together") => given.together = true,
                Long("window") => given.window = Some(number(&mut parser, "--window", MANY)?),
                Long("connections") => {
                    given.connections = Some(number(&mut parser, "--connections", 2..=1_000_000)?);
                }
                Long("seconds") => given.seconds = Some(number(&mut parser, "--seconds", SECONDS)?),
                Long("warm-up") => given.warm_up = Some(number(&mut parser, "--warm-up", 0.0..=3600.0)?),
                Long("threads") => given.threads = Some(number(&mut parser, "--threads", 1..=256)?),
                Long("pid") => given.pid = Some(number(&mut parser, "--pid", 1..=u32::MAX)?),
                Long("json") => given.json = true,
                Long("plot") => given.plot = Some(parser.value()?.into()),
                Long("ca") => given.trust = Some(Trust::File(parser.value()?.string()?)),
                Long("insecure") => given.trust = Some(Trust::Anybody),
                Long("table") => given.table = true,
                Long("runs") => given.runs = Some(number(&mut parser, "--runs", 1..=1000)?),
                Long("quick") => given.quick = true,
                Long("only") => given.only = Some(parser.value()?.string()?),
                Long("tls") => given.tls = true,
                Long("tokio") => given.tokio = Some(parser.value()?.into()),
                Long("smol") => given.smol = Some(parser.value()?.into()),
                Long("help") | Short('h') => return Ok(Self::Help),
                Value(word) if given.url.is_none() => given.url = Some(word.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        if given.table { given.table() } else { given.understood() }
    }
}

impl Given {
    fn table(self) -> Result<Command, Box<dyn Error>> {
        if let Some(url) = self.url {
            return Err(format!("{url}: --table starts relays of its own and takes no URL").into());
        }
        let only = self.only.unwrap_or_default();
        if !ROWS.iter().any(|row| row.starts_with(&only)) {
            return Err(format!("--only {only}: one of {}", ROWS.join(", ")).into());
        }
        let beside = std::env::current_exe()?;
        let program = |option: &str, given: Option<PathBuf>, name: &str| {
            let path = given.unwrap_or_else(|| beside.with_file_name(name));
            let built = "build it with: cargo build --release -p relay-tokio -p relay-smol -p conformance";
            if path.is_file() {
                Ok(path)
            } else {
                Err(format!("{option} {}: no file; {built}", path.display()))
            }
        };
        Ok(Command::Table(Table {
            runs: self.runs.unwrap_or(if self.quick { 1 } else { 5 }),
            quick: self.quick,
            only,
            tls: self.tls,
            floor: program("floor", None, "floor")?,
            adapters: [
                program("--tokio", self.tokio, "relay-tokio")?,
                program("--smol", self.smol, "relay-smol")?,
            ],
        }))
    }

    fn understood(mut self) -> Result<Command, Box<dyn Error>> {
        let url = self.url.take().ok_or("bench needs the URL of a relay, or --table: see --help")?;
        let (address, tls) = target(&url, self.trust.take()).map_err(|error| format!("{url}: {error}"))?;
        let job = self.job()?;
        if !matches!(job, Job::Load(_)) && self.plot.is_some() {
            return Err("--plot: only voice, data and large have latencies to draw".into());
        }
        let target = Target { address, tls };
        let Self { pid, json, plot, .. } = self;
        Ok(Command::Url(Box::new(Options { target, job, pid, json, plot })))
    }

    fn job(&self) -> Result<Job, Box<dyn Error>> {
        let profile = self.profile.as_deref().unwrap_or("voice");
        let (kind, rate) = match profile {
            "voice" => (Kind::Voice, 50.0),
            "data" => (Kind::Data, 50.0),
            "large" => (Kind::Large, 10.0),
            "idle" | "connect" => return self.crowd(profile),
            _ => {
                let error = format!("--profile {profile}: one of voice, data, large, idle, connect");
                return Err(error.into());
            }
        };
        if self.connections.is_some() {
            return Err("--connections: only for idle and connect; voice, data and large have --rooms".into());
        }
        let pace = match (self.rate, self.window) {
            (Some(_), Some(_)) => return Err("--rate and --window: one of them, open loop or closed".into()),
            (_, Some(window)) => Pace::Window(window),
            (given, None) => Pace::Rate(given.unwrap_or(rate)),
        };
        if self.together && matches!(pace, Pace::Window(_)) {
            return Err("--together: not with --window, where each sends as soon as it can".into());
        }
        let people = self.people.unwrap_or(20);
        let speakers = self.speakers.unwrap_or(people);
        if speakers > people {
            return Err(format!("--speakers {speakers}: a room has {people} members").into());
        }
        Ok(Job::Load(Plan {
            kind,
            rooms: self.rooms.unwrap_or(5),
            people,
            speakers,
            pace,
            together: self.together,
            warm_up: Duration::from_secs_f64(self.warm_up.unwrap_or(1.0)),
            duration: Duration::from_secs_f64(self.seconds.unwrap_or(10.0)),
            threads: self.threads.unwrap_or(1),
        }))
    }

    fn crowd(&self, profile: &str) -> Result<Job, Box<dyn Error>> {
        let pid =
            self.pid.ok_or_else(|| format!("--profile {profile} needs --pid: it looks at the process"))?;
        let others = [
            ("--rooms", self.rooms.is_some()),
            ("--speakers", self.speakers.is_some()),
            ("--rate", self.rate.is_some()),
            ("--together", self.together),
            ("--window", self.window.is_some()),
            ("--seconds", self.seconds.is_some()),
            ("--warm-up", self.warm_up.is_some()),
            ("--threads", self.threads.is_some()),
        ];
        if let Some((name, _)) = others.iter().find(|(_, given)| *given) {
            return Err(format!("{name}: not for {profile}, which has --connections and --people").into());
        }
        let people = self.people.unwrap_or(20);
        Ok(if profile == "idle" {
            Job::Idle { connections: self.connections.unwrap_or(10_000), people, pid }
        } else {
            Job::Connect { connections: self.connections.unwrap_or(1000), people, pid }
        })
    }
}

fn number<T: FromStr + PartialOrd + Display>(
    parser: &mut lexopt::Parser,
    name: &str,
    allowed: RangeInclusive<T>,
) -> Result<T, Box<dyn Error>> {
    let text = parser.value()?.string()?;
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| {
        format!("{name} {text}: a number from {} to {}", allowed.start(), allowed.end()).into()
    })
}
