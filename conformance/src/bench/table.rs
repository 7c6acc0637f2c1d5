//! `bench --table`: both adapters and the floor, side by side, as in `docs/performance.md`.

use std::fs;
use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::time::Duration;

use super::idle;
use super::machine::{self, Cores};
use super::options::Table;
use super::payload::Kind;
use super::plan::{Pace, Plan};
use super::report::millis;
use super::run::{Outcome, run};
use super::server::{Certificate, SETTINGS, Server};

/// Their names, for `--only`.
pub(crate) const ROWS: [&str; 17] = [
    "talk",
    "talk-together",
    "talk-now",
    "talk-shards",
    "pairs",
    "pairs-together",
    "flood-voice",
    "flood-data",
    "rooms-data",
    "large",
    "memory",
    "memory-tls",
    "connect",
    "connect-tls",
    "connect-tls-again",
    "size",
    "start",
];
const ADAPTERS: [&str; 2] = ["tokio", "smol"];
const KIB: f64 = 1024.0;
/// A floor that is later than that shares its processor with somebody else.
const BUSY_MS: f64 = 1.0;
/// Connections whose memory is measured, and members of each of their rooms.
const CROWD: (usize, usize) = (10_000, 20);
/// Connections whose setting up is measured.
const VISITORS: usize = 1000;

/// How a client comes whose setting up is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Plain,
    Tls,
    /// With the tickets that those before it got.
    TlsAgain,
}

/// A row with load: what is compared is the CPU of a delivery.
struct Load {
    row: &'static str,
    what: &'static str,
    floor: &'static str,
    settings: &'static [(&'static str, &'static str)],
    kind: Kind,
    /// Rooms, members of each, speakers of each.
    crowd: (usize, usize, usize),
    pace: Pace,
    together: bool,
    /// At most so many times what the floor needs.
    ratio: f64,
    /// At most so many milliseconds more than the floor, p50 and p99.
    latency: Option<(f64, f64)>,
}

const VOICE: Pace = Pace::Rate(50.0);
const LOADS: [Load; 10] = [
    Load {
        row: "talk",
        what: "5 rooms × 20, all talk",
        floor: "single",
        settings: &[],
        kind: Kind::Voice,
        crowd: (5, 20, 20),
        pace: VOICE,
        together: false,
        ratio: 0.30,
        latency: Some((2.5, 5.0)),
    },
    Load {
        row: "talk-together",
        what: "the same, the 20 of a room at the same moment",
        floor: "single",
        settings: &[],
        kind: Kind::Voice,
        crowd: (5, 20, 20),
        pace: VOICE,
        together: true,
        ratio: 0.30,
        latency: None,
    },
    Load {
        row: "talk-now",
        what: "the same with `RELAY_COALESCE_MS=0`",
        floor: "single",
        settings: &[("RELAY_COALESCE_MS", "0")],
        kind: Kind::Voice,
        crowd: (5, 20, 20),
        pace: VOICE,
        together: false,
        ratio: 1.15,
        latency: Some((0.05, 1.0)),
    },
    Load {
        row: "talk-shards",
        what: "the same with `RELAY_SHARDS=2`",
        floor: "single",
        settings: &[("RELAY_SHARDS", "2")],
        kind: Kind::Voice,
        crowd: (5, 20, 20),
        pace: VOICE,
        together: false,
        ratio: 0.30,
        latency: None,
    },
    Load {
        row: "pairs",
        what: "50 rooms × 4, two talk",
        floor: "single",
        settings: &[],
        kind: Kind::Voice,
        crowd: (50, 4, 2),
        pace: VOICE,
        together: false,
        ratio: 0.65,
        latency: None,
    },
    Load {
        row: "pairs-together",
        what: "the same, the two of a room at the same moment",
        floor: "single",
        settings: &[],
        kind: Kind::Voice,
        crowd: (50, 4, 2),
        pace: VOICE,
        together: true,
        ratio: 0.65,
        latency: None,
    },
    Load {
        row: "flood-voice",
        what: "one floods 19 with voice, 64 in flight",
        floor: "coalesce",
        settings: &[],
        kind: Kind::Voice,
        crowd: (1, 20, 1),
        pace: Pace::Window(64),
        together: false,
        ratio: 1.6,
        latency: None,
    },
    Load {
        row: "flood-data",
        what: "one floods 19 with 1 KiB, 64 in flight",
        floor: "coalesce",
        settings: &[],
        kind: Kind::Data,
        crowd: (1, 20, 1),
        pace: Pace::Window(64),
        together: false,
        ratio: 1.6,
        latency: None,
    },
    Load {
        row: "rooms-data",
        what: "100 rooms × 5, one sends 1 KiB, 8 in flight",
        floor: "coalesce",
        settings: &[],
        kind: Kind::Data,
        crowd: (100, 5, 1),
        pace: Pace::Window(8),
        together: false,
        ratio: 1.2,
        latency: None,
    },
    Load {
        row: "large",
        what: "one sends 256 KiB to 19, 4 in flight",
        floor: "single",
        settings: &[],
        kind: Kind::Large,
        crowd: (1, 20, 1),
        pace: Pace::Window(4),
        together: false,
        ratio: 1.05,
        latency: None,
    },
];

/// A line of the table, with a value of each run and adapter.
struct Line {
    row: &'static str,
    what: String,
    unit: &'static str,
    /// For relay-tokio and relay-smol.
    target: [f64; 2],
    /// What the floor took, in words of its own.
    floor: Vec<f64>,
    floor_unit: &'static str,
    values: [Vec<f64>; 2],
}

/// Measures, run by run and row by row, and prints the medians.
pub(crate) fn table(options: &Table) -> Result<(), String> {
    let cores = Cores::allowed()?;
    let session = Session { options, certificate: Certificate::new()?, cores, lines: Vec::new() };
    println!("{}\n", machine::describe(&session.cores));
    let settings = SETTINGS.map(|(name, value)| format!("{name}={value}")).join(" ");
    println!("Relays are started with {settings}, otherwise with their defaults. {}", session.depth());
    println!("Bold: the target was missed.\n");
    session.measure()
}

struct Session<'a> {
    options: &'a Table,
    certificate: Certificate,
    cores: Cores,
    lines: Vec<Line>,
}

impl Session<'_> {
    fn depth(&self) -> String {
        let Table { runs, tls, .. } = self.options;
        let tls = if *tls { ", over TLS (the floor without)" } else { "" };
        format!("Medians of {runs} alternating runs of {} s each{tls}.", self.seconds())
    }

    fn seconds(&self) -> f64 {
        if self.options.quick { 1.0 } else { 4.0 }
    }

    fn wanted(&self, row: &str) -> bool {
        row.starts_with(&self.options.only)
    }

    fn measure(mut self) -> Result<(), String> {
        for turn in 0..self.options.runs {
            for load in LOADS.iter().filter(|load| load.row.starts_with(&self.options.only)) {
                self.load(load, turn)?;
            }
            let plain = if self.options.tls { Visit::Tls } else { Visit::Plain };
            let visits =
                [("connect", plain), ("connect-tls", Visit::Tls), ("connect-tls-again", Visit::TlsAgain)];
            for (row, visit) in visits {
                if self.wanted(row) {
                    self.connect(row, visit, turn)?;
                }
            }
            if self.wanted("start") {
                self.start(turn)?;
            }
            if turn == 0 {
                self.once()?;
            }
        }
        let mut stderr = stderr();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K");
        }
        self.lines.sort_by_key(|line| ROWS.iter().position(|row| *row == line.row));
        self.print();
        Ok(())
    }

    /// What does not differ from run to run.
    fn once(&mut self) -> Result<(), String> {
        for (row, tls) in [("memory", self.options.tls), ("memory-tls", true)] {
            if self.wanted(row) {
                self.memory(row, tls)?;
            }
        }
        if self.wanted("size") {
            for adapter in 0..ADAPTERS.len() {
                let path = &self.options.adapters[adapter];
                let bytes = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
                let mb = super::report::mib(bytes) * 1.048_576;
                self.note("size", "the program", "MB", [4.0, 2.4], adapter, mb);
            }
        }
        Ok(())
    }

    fn load(&mut self, load: &Load, turn: usize) -> Result<(), String> {
        let (rooms, people, speakers) = load.crowd;
        let plan = Plan {
            kind: load.kind,
            rooms,
            people,
            speakers,
            pace: load.pace,
            together: load.together,
            warm_up: Duration::from_millis(500),
            duration: Duration::from_secs_f64(self.seconds()),
            threads: 1,
        };
        self.say(load.row, "floor", turn);
        let floor = Server::floor(&self.options.floor, load.floor, &self.cores)?;
        let floor = checked(&plan, &floor, load.row, "floor", turn)?;
        let late = millis(&floor.tally.latency, 0.5);
        if plan.pace == VOICE && late > BUSY_MS {
            eprintln!("{}, floor, run {}: p50 is {late:.1} ms: this machine is busy", load.row, turn + 1);
        }
        let least = floor.cpu_per_delivery().unwrap_or(f64::NAN);
        for (adapter, name) in ADAPTERS.iter().enumerate() {
            self.say(load.row, name, turn);
            let server = self.relay(adapter, load.settings, self.options.tls)?;
            let outcome = checked(&plan, &server, load.row, name, turn)?;
            let ratio = outcome.cpu_per_delivery().unwrap_or(f64::NAN) / least;
            let what = format!("CPU per delivery: {}; against floor {}", load.what, load.floor);
            self.note(load.row, &what, "×", [load.ratio; 2], adapter, ratio);
            if let Some((p50, p99)) = load.latency {
                for (name, quantile, target) in [("p50", 0.5, p50), ("p99", 0.99, p99)] {
                    let added = |outcome: &Outcome| millis(&outcome.tally.latency, quantile);
                    let what = format!("latency added by it, {name}");
                    let more = added(&outcome) - added(&floor);
                    self.note(load.row, &what, "ms", [target; 2], adapter, more);
                    self.note_floor(load.row, &what, "ms", adapter, added(&floor));
                }
            }
            self.note_floor(load.row, &what, "µs", adapter, least / 1000.0);
        }
        Ok(())
    }

    fn connect(&mut self, row: &'static str, visit: Visit, turn: usize) -> Result<(), String> {
        // The target is for plain text; over TLS the handshake's own price comes on top.
        let (limit, how) = match visit {
            Visit::Plain => (90.0, ""),
            Visit::Tls => (f64::INFINITY, ", TLS"),
            Visit::TlsAgain => (f64::INFINITY, ", TLS, most sessions resumed"),
        };
        for (adapter, name) in ADAPTERS.iter().enumerate() {
            self.say(row, name, turn);
            let server = self.relay(adapter, &[], visit != Visit::Plain)?;
            let target = match visit {
                Visit::Plain | Visit::Tls => server.target.clone().without_resumption(),
                Visit::TlsAgain => server.target.clone(),
            };
            let done = idle::connect(&target, VISITORS, CROWD.1, server.pid())?;
            let what = format!("CPU per connection that is set up with a token{how}");
            self.note(row, &what, "µs", [limit; 2], adapter, done.per_connection());
        }
        Ok(())
    }

    fn start(&mut self, turn: usize) -> Result<(), String> {
        for (adapter, name) in ADAPTERS.iter().enumerate() {
            self.say("start", name, turn);
            let start = self.relay(adapter, &[], self.options.tls)?.start.as_secs_f64() * 1000.0;
            self.note("start", "from start to the first answer", "ms", [15.0; 2], adapter, start);
        }
        Ok(())
    }

    fn memory(&mut self, row: &'static str, tls: bool) -> Result<(), String> {
        let (connections, people) = if self.options.quick { (1000, CROWD.1) } else { CROWD };
        for (adapter, name) in ADAPTERS.iter().enumerate() {
            self.say(row, name, 0);
            let server = self.relay(adapter, &[], tls)?;
            let idle = idle::idle(&server.target, connections, people, server.pid())?;
            let (plain, used) = idle.per_connection();
            let by = if tls { ", TLS" } else { "" };
            let what = format!("memory per idle connection, {connections} of them{by}");
            let targets = if tls { [12.0, 12.0] } else { [2.5, 3.0] };
            self.note(row, &what, "KiB", [targets[0]; 2], adapter, plain / KIB);
            let what = format!("the same after 1 KiB each way{by}");
            self.note(row, &what, "KiB", [targets[1]; 2], adapter, used / KIB);
        }
        Ok(())
    }

    fn relay(&self, adapter: usize, settings: &[(&str, &str)], tls: bool) -> Result<Server, String> {
        let program: &Path = &self.options.adapters[adapter];
        Server::relay(program, settings, tls.then_some(&self.certificate), &self.cores)
    }

    /// What is being done, on a terminal.
    fn say(&self, row: &str, who: &str, turn: usize) {
        let mut stderr = stderr();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[Krun {} of {}: {row}, {who} ", turn + 1, self.options.runs);
        }
    }

    fn line(&mut self, row: &'static str, what: &str) -> &mut Line {
        let place = self.lines.iter().position(|line| line.row == row && line.what == what);
        let place = place.unwrap_or_else(|| {
            self.lines.push(Line {
                row,
                what: what.to_owned(),
                unit: "",
                target: [0.0; 2],
                floor: Vec::new(),
                floor_unit: "",
                values: [Vec::new(), Vec::new()],
            });
            self.lines.len() - 1
        });
        &mut self.lines[place]
    }

    fn note(
        &mut self,
        row: &'static str,
        what: &str,
        unit: &'static str,
        target: [f64; 2],
        adapter: usize,
        value: f64,
    ) {
        let line = self.line(row, what);
        (line.unit, line.target) = (unit, target);
        line.values[adapter].push(value);
    }

    /// Once for each run, though both adapters are compared with it.
    fn note_floor(&mut self, row: &'static str, what: &str, unit: &'static str, adapter: usize, value: f64) {
        if adapter == 0 {
            let line = self.line(row, what);
            line.floor_unit = unit;
            line.floor.push(value);
        }
    }

    fn print(&self) {
        println!("| row | what | target | relay-tokio | relay-smol | floor |");
        println!("|---|---|---|---|---|---|");
        for line in &self.lines {
            println!("{}", line.cells());
        }
    }
}

/// A run that counts only if nothing was lost that must not be.
fn checked(plan: &Plan, server: &Server, row: &str, who: &str, turn: usize) -> Result<Outcome, String> {
    let at = |error: String| format!("{row}, {who}, run {}: {error}", turn + 1);
    let outcome = run(plan, &server.target, Some(server.pid())).map_err(at)?;
    outcome.verdict(plan).map_err(at)?;
    let tally = &outcome.tally;
    if tally.lost != 0 || tally.stalls != 0 {
        eprintln!("{row}, {who}, run {}: {} lost, {} stalls", turn + 1, tally.lost, tally.stalls);
    }
    Ok(outcome)
}

impl Line {
    fn cells(&self) -> String {
        let Self { row, what, unit, target, .. } = self;
        let [tokio, smol] = [0, 1].map(|adapter| {
            let value = median(&self.values[adapter]);
            let text = format!("{value:.*} {unit}", digits(value));
            if value > target[adapter] { format!("**{text}**") } else { text }
        });
        let target = match target {
            [one, other] if one.is_infinite() && other.is_infinite() => "–".to_owned(),
            [one, other] if one.to_bits() == other.to_bits() => format!("≤ {one} {unit}"),
            [one, other] => format!("≤ {one}; {other} {unit}"),
        };
        let floor = median(&self.floor);
        let floor = if self.floor.is_empty() {
            String::new()
        } else {
            format!("{floor:.*} {}", digits(floor), self.floor_unit)
        };
        format!("| {row} | {what} | {target} | {tokio} | {smol} | {floor} |")
    }
}

/// Three that count, for most figures.
fn digits(value: f64) -> usize {
    match value.abs() {
        0.0..1.0 => 3,
        1.0..10.0 => 2,
        _ => 1,
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[9.0, 1.0, 2.0, 4.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn every_row_with_load_can_be_asked_for() {
        assert!(LOADS.iter().all(|load| ROWS.contains(&load.row)));
    }
}
