//! Recordings of relays that really ran: tells a machine what another one was told, and compares what the two
//! decided.

mod chart;
mod invariants;
mod stand_in;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use bytes::Bytes;
use invariants::{Violation, Watch};
use relay_proto::http::Head;
use relay_proto::record::line::{Beginning, FORMAT, Happened, Line};
use relay_proto::record::{digest, digest_open};
use relay_proto::{Action, ConnId, Event, Notice, Now, Progress, Relay, Sink};

/// What was followed to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines, but for the first.
    pub events: usize,
    /// What the machine decided.
    pub actions: usize,
    /// Connections that were opened.
    pub connections: u32,
    /// The recording breaks off inside a line, as if its relay had been killed.
    pub cut: bool,
    /// The first line, counted from 1, in which an invariant does not hold, and which one.
    pub violation: Option<(usize, String)>,
}

/// Why it could not be followed.
#[derive(Debug)]
pub enum Failure {
    /// This is no recording, or one of another format.
    Unreadable {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The machine decides otherwise.
    Differs {
        /// Counted from 1.
        line: usize,
        /// The whole of it.
        event: Box<Happened>,
        /// What was decided then.
        recorded: Vec<String>,
        /// What is decided now.
        replayed: Vec<String>,
    },
    /// The file cannot be read, or the chart not be written.
    Io(io::Error),
}

/// Runs a recording through a new machine. Each event and what follows from it is drawn on `chart`, if there
/// is one.
pub fn replay(recording: impl BufRead, mut chart: Option<&mut dyn Write>) -> Result<Summary, Failure> {
    let mut lines = recording.split(b'\n').zip(1..).peekable();
    let (first, _) = lines.next().ok_or_else(|| unreadable(1, "there is nothing"))?;
    let beginning: Beginning = serde_json::from_slice(&first?).map_err(|error| unreadable(1, error))?;
    if beginning.format != FORMAT {
        return Err(unreadable(1, format!("its format is {}, not {FORMAT}", beginning.format)));
    }
    let mut player = Player::new(beginning);
    let mut summary = Summary::default();
    while let Some((line, number)) = lines.next() {
        let line: Line = match serde_json::from_slice(&line?) {
            Ok(line) => line,
            Err(_) if lines.peek().is_none() => {
                summary.cut = true;
                break;
            }
            Err(error) => return Err(unreadable(number, error)),
        };
        let decided = player.play(&line).map_err(|what| unreadable(number, what))?;
        if let Some(chart) = &mut chart {
            chart::draw(*chart, &line, &decided)?;
        }
        if let (None, Some((invariant, what))) = (&summary.violation, &decided.violation) {
            summary.violation = Some((number, format!("{invariant}: {what}")));
        }
        summary.events += 1;
        summary.actions += decided.actions.len();
        if decided.actions != line.actions {
            let (event, recorded, replayed) = (Box::new(line.event), line.actions, decided.actions);
            return Err(Failure::Differs { line: number, event, recorded, replayed });
        }
    }
    summary.connections = u32::try_from(player.conns.len()).unwrap_or(u32::MAX);
    Ok(summary)
}

/// What follows from one event.
#[derive(Debug, Default)]
struct Decided {
    actions: Vec<String>,
    notices: Vec<String>,
    violation: Option<Violation>,
}

struct Player {
    relay: Relay,
    /// By their numbers in the recording, counted from 1.
    conns: Vec<ConnId>,
    numbers: BTreeMap<ConnId, u32>,
    watch: Watch,
}

impl Player {
    fn new(Beginning { seed, mut config, .. }: Beginning) -> Self {
        config.trusted_proxies = vec![Beginning::proxies()];
        let relay = Relay::new(config, seed);
        Self { relay, conns: Vec::new(), numbers: BTreeMap::new(), watch: Watch::default() }
    }

    fn play(&mut self, line: &Line) -> Result<Decided, String> {
        let now = Now { monotonic: Duration::from_nanos(line.at), unix: Duration::from_nanos(line.unix) };
        let mut outcome = Outcome::default();
        let actions = if let Happened::Open { from } = &line.event {
            let number = self.relay.open(now, *from, &mut outcome).map(|conn| self.enter(conn));
            vec![digest_open(number)]
        } else {
            self.tell(now, &line.event, &mut outcome)?;
            let number = |conn| self.numbers.get(&conn).copied();
            outcome.actions.iter().map(|action| digest(action, number)).collect()
        };
        let decided = outcome.actions.iter().try_for_each(|action| self.watch.decided(action));
        let ticked = line.event == Happened::Tick;
        let violation = decided
            .and_then(|()| outcome.misuse.map_or(Ok(()), |what| Err(("I22", what.to_owned()))))
            .and_then(|()| self.watch.settled(&self.relay, now, ticked))
            .err();
        Ok(Decided { actions, notices: outcome.notices, violation })
    }

    fn enter(&mut self, conn: ConnId) -> u32 {
        self.conns.push(conn);
        let number = u32::try_from(self.conns.len()).unwrap_or(u32::MAX);
        self.numbers.insert(conn, number);
        self.watch.enter(conn);
        number
    }

    fn tell(&mut self, now: Now, happened: &Happened, outcome: &mut Outcome) -> Result<(), String> {
        let known = |number: &u32| {
            let index = (*number as usize).checked_sub(1);
            index.and_then(|index| self.conns.get(index)).copied().ok_or("no such connection")
        };
        let event = match happened {
            Happened::Open { .. } => return Err("not here".to_owned()),
            Happened::Connect { conn, request } => {
                let mut head = Head::new();
                let whole = head.push(stand_in::request(request).as_bytes());
                let request =
                    head.request().ok_or_else(|| format!("the stand-in is no request: {whole:?}"))?;
                let conn = known(conn)?;
                self.relay.handle(now, Event::Connect { conn, request: &request }, outcome);
                return Ok(());
            }
            Happened::Message { conn, bytes, content } => {
                Event::Message { conn: known(conn)?, payload: stand_in::payload(*bytes, content).into() }
            }
            Happened::Ping { conn, bytes } => {
                Event::Ping { conn: known(conn)?, payload: Bytes::from(vec![0; *bytes]) }
            }
            Happened::Pong { conn } => Event::Pong { conn: known(conn)? },
            Happened::PeerClose { conn, code } => Event::PeerClose { conn: known(conn)?, code: *code },
            Happened::Fault { conn, fault } => Event::Fault { conn: known(conn)?, fault: *fault },
            Happened::Sent { conn } => Event::Sent { conn: known(conn)? },
            Happened::Acked { conn, acked, waiting, received } => Event::Acked {
                conn: known(conn)?,
                progress: Progress { acked: *acked, waiting: *waiting, received: *received },
            },
            Happened::Disconnect { conn } => Event::Disconnect { conn: known(conn)? },
            Happened::Tick => Event::Tick,
            Happened::Drain => Event::Drain,
        };
        self.watch.tell(&event);
        self.relay.handle(now, event, outcome);
        Ok(())
    }
}

#[derive(Default)]
struct Outcome {
    actions: Vec<Action>,
    notices: Vec<String>,
    misuse: Option<&'static str>,
}

impl Sink for Outcome {
    fn action(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn notice(&mut self, notice: Notice<'_>) {
        if let Notice::Misuse { what } = notice {
            self.misuse = Some(what);
        }
        self.notices.push(chart::describe(&notice));
    }
}

fn unreadable(line: usize, what: impl fmt::Display) -> Failure {
    Failure::Unreadable { line, what: what.to_string() }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreadable { line, what } => write!(f, "line {line} cannot be replayed: {what}"),
            Failure::Differs { line, event, recorded, replayed } => {
                let shared = recorded.iter().zip(replayed).take_while(|(a, b)| a == b).count();
                let from = |actions: &[String]| {
                    actions.get(shared).map_or_else(|| "nothing more".to_owned(), Clone::clone)
                };
                write!(
                    f,
                    "line {line} differs: {event:?}\n  action {}\n  recorded: {}\n  replayed: {}",
                    shared + 1,
                    from(recorded),
                    from(replayed)
                )
            }
            Failure::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Failure {}
