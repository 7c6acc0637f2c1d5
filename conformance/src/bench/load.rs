//! One thread of the load generator: its rooms, their members, and all that they send and receive.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use conformance::frame::{ClientFrame, opcode};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use sha2::{Digest, Sha256};

use super::clock;
use super::flight::Flight;
use super::payload::{self, Stamp, Template};
use super::plan::{Pace, Plan};
use super::tally::Tally;
use super::wire::{Wire, is_message};

const TIMER: Token = Token(usize::MAX);
const EVENTS: usize = 1024;
/// One read takes up to this much.
const READ_BYTES: usize = 256 * 1024;
/// How often time is looked at when nothing happens.
const LOOK: Duration = Duration::from_millis(50);
/// When nothing has come for so long, nothing will.
const SILENCE: Duration = Duration::from_secs(1);

/// Rooms that lie one behind the other, each with its members in order, its speakers first.
pub(crate) struct Load<'a> {
    plan: &'a Plan,
    origin: Instant,
    wires: Vec<Option<Wire>>,
    template: Template,
    /// Whose turn it is, round and round (open loop).
    turns: Vec<usize>,
    /// How many turns there were.
    turn: u64,
    seen: Seen<'a>,
}

/// What was sent and received; apart from the wires, which call back with what came.
struct Seen<'a> {
    plan: &'a Plan,
    /// The number of the first speaker, of all speakers of a run.
    first: usize,
    /// Nanoseconds since the origin; when it ends, nobody sends any more.
    measured: Range<u64>,
    /// For each member and speaker of its room, the number that comes next.
    next: Vec<u64>,
    /// By each speaker.
    sent: Vec<u64>,
    /// What is on its way from each speaker (closed loop).
    flights: Vec<Flight>,
    /// Speakers that may send again.
    ready: Vec<usize>,
    last_receipt: u64,
    tally: Tally,
}

impl<'a> Load<'a> {
    /// `first_room` of all rooms of a run is the first of these.
    pub(crate) fn new(plan: &'a Plan, origin: Instant, first_room: usize, wires: Vec<Wire>) -> Self {
        let rooms = wires.len() / plan.people;
        let speakers = rooms * plan.speakers;
        let window = match plan.pace {
            Pace::Window(window) => window,
            Pace::Rate(_) => 0,
        };
        let start = nanos(plan.warm_up);
        // People do not take turns: any order will do that is the same on every machine.
        let mut turns: Vec<_> = (0..speakers).collect();
        if !plan.together {
            turns.sort_by_key(|speaker| Sha256::digest(speaker.to_le_bytes()));
        }
        Self {
            plan,
            origin,
            template: Template::new(plan.kind),
            turns,
            turn: 0,
            seen: Seen {
                plan,
                first: first_room * plan.speakers,
                measured: start..start + nanos(plan.duration),
                next: vec![0; wires.len() * plan.speakers],
                sent: vec![0; speakers],
                flights: (0..speakers).map(|_| Flight::new(window, plan.receivers())).collect(),
                ready: (0..speakers).collect(),
                last_receipt: 0,
                tally: Tally::new(),
            },
            wires: wires.into_iter().map(Some).collect(),
        }
    }

    /// Until all has been sent, and has come or will not.
    pub(crate) fn run(mut self) -> Result<Tally, String> {
        let failed = |error: std::io::Error| format!("the load generator: {error}");
        let mut poll = Poll::new().map_err(failed)?;
        for (index, wire) in self.wires.iter_mut().flatten().enumerate() {
            wire.register(poll.registry(), Token(index)).map_err(failed)?;
        }
        let mut timer = Timer::new().map_err(failed)?;
        let fd = timer.timer.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), TIMER, Interest::READABLE).map_err(failed)?;
        let (mut events, mut scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        loop {
            let now = self.now();
            // First: a turn that is late is still a turn.
            let due = self.speak(now);
            if self.seen.over(now) {
                return Ok(self.seen.finish());
            }
            timer.set(due, now).map_err(failed)?;
            let timeout = if due.is_some_and(|due| due <= now) { Duration::ZERO } else { LOOK };
            match poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                polled => polled.map_err(failed)?,
            }
            for event in &events {
                let Token(index) = event.token();
                if event.token() == TIMER {
                    continue;
                }
                if event.is_writable() {
                    self.flush(index);
                }
                if event.is_readable() {
                    self.receive(index, event.is_read_closed(), &mut scratch);
                }
            }
        }
    }

    fn now(&self) -> u64 {
        nanos(clock().saturating_duration_since(self.origin))
    }

    /// Lets everybody speak whose turn it is. When the next one's is.
    fn speak(&mut self, now: u64) -> Option<u64> {
        match self.plan.pace {
            Pace::Rate(rate) => self.speak_in_turn(now, rate),
            Pace::Window(_) => {
                self.seen.unstall(now);
                for speaker in std::mem::take(&mut self.seen.ready) {
                    while now < self.seen.measured.end && self.seen.flights[speaker].take_off() {
                        self.say(speaker, now);
                    }
                    self.flush(self.member(speaker));
                }
                None
            }
        }
    }

    /// The turns of all, or of whole rooms, are spread evenly over the time between two of one.
    fn speak_in_turn(&mut self, now: u64, rate: f64) -> Option<u64> {
        let speakers = self.turns.len();
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours fit")]
        let between = 1e9 / rate / speakers as f64;
        let at_once = if self.plan.together { self.plan.speakers as u64 } else { 1 };
        loop {
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let due = ((self.turn - self.turn % at_once) as f64 * between) as u64;
            if due >= self.seen.measured.end {
                return None;
            }
            if due > now {
                return Some(due);
            }
            #[expect(clippy::cast_possible_truncation, reason = "a remainder of a length")]
            let speaker = self.turns[(self.turn % speakers as u64) as usize];
            self.turn += 1;
            self.say(speaker, due);
            self.flush(self.member(speaker));
        }
    }

    fn member(&self, speaker: usize) -> usize {
        speaker / self.plan.speakers * self.plan.people + speaker % self.plan.speakers
    }

    /// Whoever has been closed is silent.
    fn say(&mut self, speaker: usize, intended: u64) {
        let member = self.member(speaker);
        let Some(wire) = &mut self.wires[member] else { return };
        let number = self.seen.sent[speaker];
        self.seen.sent[speaker] += 1;
        let speaker = (self.seen.first + speaker) as u64;
        self.template.write(Stamp { speaker, number, intended }, wire.output());
    }

    fn flush(&mut self, index: usize) {
        if let Some(wire) = &mut self.wires[index]
            && let Err(error) = wire.flush()
        {
            self.end(index, error.to_string());
        }
    }

    fn receive(&mut self, index: usize, ended: bool, scratch: &mut [u8]) {
        let now = self.now();
        let (seen, mut closed, mut pongs) = (&mut self.seen, None, Vec::new());
        let Some(wire) = &mut self.wires[index] else { return };
        let received = wire.receive(ended, scratch, |code, payload| match code {
            opcode::PING => pongs.extend(ClientFrame::new(opcode::PONG, payload).encode()),
            opcode::CLOSE => closed = Some(close(payload)),
            code if is_message(code) => seen.message(index, payload, now),
            _ => {}
        });
        if !pongs.is_empty() {
            wire.output().extend(pongs);
            self.flush(index);
        }
        match (closed, received) {
            (Some(why), _) => self.end(index, why),
            (None, Ok(true)) => {}
            (None, Ok(false)) => self.end(index, "the relay ended it without a close frame".to_owned()),
            (None, Err(error)) => self.end(index, error.to_string()),
        }
    }

    fn end(&mut self, index: usize, why: String) {
        if self.wires[index].take().is_some() {
            self.seen.tally.closed.push(why);
        }
    }
}

impl Seen<'_> {
    fn message(&mut self, member: usize, payload: &[u8], now: u64) {
        let kind = self.plan.kind;
        payload::each_message(kind, payload, |message| match payload::read(kind, message) {
            Some(stamp) => self.stamped(member, stamp, now),
            None => self.tally.other += 1,
        });
        self.last_receipt = now;
    }

    fn stamped(&mut self, member: usize, Stamp { speaker, number, intended }: Stamp, now: u64) {
        let Plan { people, speakers, .. } = *self.plan;
        let (room, place) = (member / people, member % people);
        let first = self.first + room * speakers;
        let index = usize::try_from(speaker).ok().and_then(|speaker| speaker.checked_sub(first));
        let Some(index) = index.filter(|index| *index < speakers && *index != place) else {
            self.tally.foreign += 1;
            return;
        };
        let next = &mut self.next[member * speakers + index];
        let missed = *next..number;
        if number < *next {
            self.tally.disordered += 1;
            self.tally.lost -= 1;
        } else {
            *next = number + 1;
        }
        self.tally.received += 1;
        self.tally.measured += u64::from(self.measured.contains(&now));
        if self.measured.contains(&intended) {
            self.tally.latency.saturating_record(now.saturating_sub(intended));
        }
        if !missed.is_empty() {
            self.tally.lost += i64::try_from(missed.end - missed.start).unwrap_or(i64::MAX);
        }
        if let Pace::Window(_) = self.plan.pace {
            let speaker = room * speakers + index;
            // What was overtaken will not come any more: nobody waits for it.
            let flight = &mut self.flights[speaker];
            let free = missed.chain([number]).filter(|number| flight.land(*number)).count();
            if free > 0 {
                self.ready.push(speaker);
            }
        }
    }

    /// What nobody has received for so long will not come any more.
    fn unstall(&mut self, now: u64) {
        if now < self.measured.end && now.saturating_sub(self.last_receipt) > nanos(SILENCE) {
            self.tally.stalls += 1;
            self.last_receipt = now;
            self.flights.iter_mut().for_each(Flight::forget);
            self.ready = (0..self.flights.len()).collect();
        }
    }

    fn expected(&self) -> u64 {
        self.sent.iter().sum::<u64>() * self.plan.receivers() as u64
    }

    fn over(&self, now: u64) -> bool {
        now >= self.measured.end
            && (self.tally.received >= self.expected()
                || now.saturating_sub(self.last_receipt.max(self.measured.end)) > nanos(SILENCE))
    }

    /// Whatever is still missing is lost.
    fn finish(mut self) -> Tally {
        let Plan { people, speakers, .. } = *self.plan;
        for (place, next) in self.next.iter().enumerate() {
            let (member, index) = (place / speakers, place % speakers);
            if member % people != index {
                let missing = self.sent[member / people * speakers + index] - next;
                self.tally.lost += i64::try_from(missing).unwrap_or(i64::MAX);
            }
        }
        self.tally.sent = self.sent.iter().sum();
        self.tally.expected = self.expected();
        self.tally
    }
}

/// In words.
fn close(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            format!("{} {}", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason))
        }
        _ => "a close frame without a code".to_owned(),
    }
}

/// `epoll_wait` knows milliseconds only.
struct Timer {
    timer: TimerFd,
    armed: Option<u64>,
}

impl Timer {
    fn new() -> std::io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, armed: None })
    }

    fn set(&mut self, due: Option<u64>, now: u64) -> std::io::Result<()> {
        let Some(due) = due.filter(|due| *due > now && self.armed != Some(*due)) else { return Ok(()) };
        let expiration = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(due - now)));
        self.timer.set(expiration, TimerSetTimeFlags::empty())?;
        self.armed = Some(due);
        Ok(())
    }
}

/// Of a time that a run can take.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
