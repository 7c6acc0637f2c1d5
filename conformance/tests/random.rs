//! The machine under random events. Each step is small and does nothing where it makes no sense, so that what
//! fails shrinks to a few steps.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use conformance::Room;
use conformance::http::Request;
use conformance::replay::replay;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use relay_proto::event::Progress;
use relay_proto::http::Head;
use relay_proto::record::{Recorder, Tape};
use relay_proto::{Action, ConnId, Event, Fault, Notice, Now, Relay, Settings, Sink};

const STEPS: usize = 150;
const CASES: u32 = 300;

/// Everything is scarce and short.
const NARROW: &[(&str, &str)] = &[
    ("RELAY_MAX_ROOMS", "2"),
    ("RELAY_MAX_CLIENTS_PER_ROOM", "4"),
    ("RELAY_MAX_MESSAGE_SIZE", "1000"),
    ("RELAY_DATA_QUEUE_BYTES", "1"),
    ("RELAY_MAX_QUEUED_BYTES", "6000"),
    ("RELAY_VOICE_QUEUE", "3"),
    ("RELAY_VOICE_MAX_AGE_MS", "50"),
    ("RELAY_ROOM_IDLE_TIMEOUT", "1"),
    ("RELAY_PING_INTERVAL", "0.5"),
    ("RELAY_PONG_TIMEOUT", "1"),
    ("RELAY_HANDSHAKE_TIMEOUT", "0.5"),
    ("RELAY_RATE_LIMIT_PER_IP", "20"),
    ("RELAY_MAX_CONNECTIONS", "12"),
    ("RELAY_MAX_CONNECTIONS_PER_IP", "8"),
    ("RELAY_MAX_MESSAGES_PER_SECOND", "20"),
    ("RELAY_MAX_BYTES_PER_SECOND", "5000"),
    ("RELAY_DRAIN_SECONDS", "1"),
    ("RELAY_TRUSTED_PROXIES", "192.0.2.0/31"),
];
const WIDE: &[(&str, &str)] = &[("RELAY_COALESCE_MS", "0"), ("RELAY_BATCH", "off")];

#[derive(Clone, Debug)]
enum Step {
    Open {
        ip: u8,
    },
    /// Opens, asks, and has the answer written: most of what is interesting comes after that.
    Join {
        ip: u8,
        request: usize,
    },
    Connect {
        conn: usize,
        request: usize,
    },
    Message {
        conn: usize,
        payload: usize,
        times: usize,
    },
    Ping {
        conn: usize,
        len: usize,
    },
    Pong {
        conn: usize,
    },
    PeerClose {
        conn: usize,
        code: Option<u16>,
    },
    Fault {
        conn: usize,
        fault: usize,
    },
    Sent {
        conn: usize,
    },
    Acked {
        conn: usize,
        progress: Progress,
    },
    Disconnect {
        conn: usize,
    },
    Tick,
    Drain,
    /// Time passes; the adapter may be late with its ticks.
    Pass {
        ms: u64,
    },
    /// The wall clock is set.
    Set {
        unix: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let conn = 0..64_usize;
    let (ip, request) = (0..4_u8, 0..64_usize);
    prop_oneof![
        20 => ip.clone().prop_map(|ip| Step::Open { ip }),
        // The first requests are those of the first room.
        80 => (ip.clone(), 0..4_usize).prop_map(|(ip, request)| Step::Join { ip, request }),
        20 => (ip, request.clone()).prop_map(|(ip, request)| Step::Join { ip, request }),
        20 => (conn.clone(), request).prop_map(|(conn, request)| Step::Connect { conn, request }),
        120 => (conn.clone(), 0..16_usize, 1..8_usize)
            .prop_map(|(conn, payload, times)| Step::Message { conn, payload, times }),
        20 => (conn.clone(), 0..126_usize).prop_map(|(conn, len)| Step::Ping { conn, len }),
        40 => conn.clone().prop_map(|conn| Step::Pong { conn }),
        10 => (conn.clone(), option::of(1000..5000_u16)).prop_map(|(conn, code)| Step::PeerClose { conn, code }),
        10 => (conn.clone(), 0..5_usize).prop_map(|(conn, fault)| Step::Fault { conn, fault }),
        200 => conn.clone().prop_map(|conn| Step::Sent { conn }),
        20 => (conn.clone(), 0..9000_u64, 0..2_u64, 0..9000_u64).prop_map(|(conn, acked, waiting, received)| {
            Step::Acked { conn, progress: Progress { acked, waiting, received } }
        }),
        20 => conn.prop_map(|conn| Step::Disconnect { conn }),
        40 => Just(Step::Tick),
        1 => Just(Step::Drain),
        60 => (0..100_u64).prop_map(|ms| Step::Pass { ms }),
        5 => (0..2000_u64).prop_map(|ms| Step::Pass { ms }),
        5 => any::<u32>().prop_map(|unix| Step::Set { unix: unix.into() }),
    ]
}

/// Whether the driver keeps to what an adapter may say when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    Good,
    None,
}

/// A connection as its adapter sees it.
#[derive(Debug)]
struct Conn {
    id: ConnId,
    phase: Phase,
    outstanding: bool,
    paused: bool,
    probed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Frames,
    /// Nothing that is read is reported, but its end.
    Deaf,
    Dead,
}

struct World {
    relay: Relay,
    now: Now,
    manners: Manners,
    conns: Vec<Conn>,
    actions: Vec<Action>,
    recorder: Recorder,
    recordings: Recordings,
}

/// A tape for every moment at which a recording can begin.
#[derive(Clone, Default)]
struct Recordings(Rc<RefCell<Vec<Vec<u8>>>>);

impl Tape for Recordings {
    fn is_due(&self) -> bool {
        true
    }

    fn begin(&mut self, line: &[u8]) {
        self.0.borrow_mut().push(line.to_vec());
    }

    fn push(&mut self, line: Vec<u8>) -> bool {
        self.0.borrow_mut().last_mut().expect("it has begun").extend(line);
        true
    }
}

#[derive(Default)]
struct Outcome {
    actions: Vec<Action>,
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
    }
}

impl World {
    fn new(manners: Manners, vars: &[(&str, &str)]) -> Self {
        let config = Settings::from_vars(vars.iter().copied()).expect("the settings are valid").relay;
        let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(2_000_000_000) };
        let (seed, recordings) = ([7; 32], Recordings::default());
        Self {
            recorder: Recorder::new(&config, seed, Box::new(recordings.clone())),
            relay: Relay::new(config, seed),
            now,
            manners,
            conns: Vec::new(),
            actions: Vec::new(),
            recordings,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Open { ip } => self.open(ip),
            Step::Join { ip, request } => {
                let before = self.conns.len();
                self.open(ip);
                if self.conns.len() > before {
                    let last = self.living().len() - 1;
                    self.connect(last, request);
                    self.sent(last);
                }
            }
            Step::Connect { conn, request } => self.connect(conn, request),
            Step::Message { conn, payload, times } => {
                for _ in 0..times {
                    if self.conn(conn).is_some_and(|conn| !conn.paused) {
                        self.tell(conn, Phase::Frames, |conn| Event::Message {
                            conn,
                            payload: payload_of(payload),
                        });
                    }
                }
            }
            Step::Ping { conn, len } => {
                self.tell(conn, Phase::Frames, |conn| Event::Ping { conn, payload: vec![b'p'; len].into() });
            }
            Step::Pong { conn } => self.tell(conn, Phase::Frames, |conn| Event::Pong { conn }),
            Step::PeerClose { conn, code } => {
                self.last_word(conn, Phase::Frames, |conn| Event::PeerClose { conn, code });
            }
            Step::Fault { conn, fault } => {
                let (fault, phase) = [
                    (Fault::BadHead, Phase::Head),
                    (Fault::HeadTooLarge, Phase::Head),
                    (Fault::TooBig, Phase::Frames),
                    (Fault::Protocol, Phase::Frames),
                    (Fault::InvalidUtf8, Phase::Frames),
                ][fault];
                self.last_word(conn, phase, |conn| Event::Fault { conn, fault });
            }
            Step::Sent { conn } => self.sent(conn),
            Step::Acked { conn, progress } => {
                let polite = self.conn(conn).is_some_and(|conn| std::mem::take(&mut conn.probed));
                if polite || self.manners == Manners::None {
                    self.tell_any(conn, |conn| Event::Acked { conn, progress });
                }
            }
            Step::Disconnect { conn } => self.disconnect(conn),
            Step::Tick => self.tick(),
            Step::Drain => self.handle(Event::Drain),
            Step::Pass { ms } => {
                self.now.monotonic += Duration::from_millis(ms);
                self.now.unix += Duration::from_millis(ms);
            }
            Step::Set { unix } => self.now.unix = Duration::from_secs(unix),
        }
        self.check_accounts();
    }

    fn open(&mut self, ip: u8) {
        let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, ip));
        let mut outcome = Outcome::default();
        if let Some(id) = self.recorder.open(&mut self.relay, self.now, ip, &mut outcome) {
            assert!(self.conns.iter().all(|conn| conn.id != id), "{id} was given out twice");
            let conn = Conn { id, phase: Phase::Head, outstanding: false, paused: false, probed: false };
            self.conns.push(conn);
        }
        self.carry_out(outcome);
    }

    fn connect(&mut self, index: usize, request: usize) {
        let mut head = Head::new();
        assert_eq!(head.push(&requests()[request % requests().len()]), Ok(true));
        let request = head.request().expect("the head is whole");
        self.last_word(index, Phase::Head, |conn| Event::Connect { conn, request: &request });
    }

    fn sent(&mut self, index: usize) {
        let polite = self.conn(index).is_some_and(|conn| std::mem::take(&mut conn.outstanding));
        if polite || self.manners == Manners::None {
            self.tell_any(index, |conn| Event::Sent { conn });
        }
    }

    fn disconnect(&mut self, index: usize) {
        let Some(conn) = self.conn(index) else { return };
        conn.phase = Phase::Dead;
        let id = conn.id;
        self.handle(Event::Disconnect { conn: id });
    }

    fn tick(&mut self) {
        self.handle(Event::Tick);
        let next = self.relay.next_deadline();
        assert!(next.is_none_or(|(at, _)| at > self.now.monotonic), "{next:?} is still due: {:?}", self.now);
    }

    /// The connections that a step can be about.
    fn living(&self) -> Vec<usize> {
        let counts = |conn: &Conn| conn.phase != Phase::Dead || self.manners == Manners::None;
        (0..self.conns.len()).filter(|index| counts(&self.conns[*index])).collect()
    }

    /// The connection that a step is about.
    fn conn(&mut self, index: usize) -> Option<&mut Conn> {
        let living = self.living();
        let index = *living.get(index.checked_rem(living.len())?)?;
        Some(&mut self.conns[index])
    }

    /// Tells of something that can only happen in this phase.
    fn tell<'a>(&mut self, index: usize, phase: Phase, event: impl FnOnce(ConnId) -> Event<'a>) {
        let manners = self.manners;
        if self.conn(index).is_some_and(|conn| conn.phase == phase || manners == Manners::None) {
            self.tell_any(index, event);
        }
    }

    /// The same, and nothing that this connection sends will be reported after it.
    fn last_word<'a>(&mut self, index: usize, phase: Phase, event: impl FnOnce(ConnId) -> Event<'a>) {
        let manners = self.manners;
        let Some(conn) = self.conn(index) else { return };
        if conn.phase == phase || manners == Manners::None {
            conn.phase = Phase::Deaf;
            self.tell_any(index, event);
        }
    }

    fn tell_any<'a>(&mut self, index: usize, event: impl FnOnce(ConnId) -> Event<'a>) {
        if let Some(id) = self.conn(index).map(|conn| conn.id) {
            self.handle(event(id));
        }
    }

    fn handle(&mut self, event: Event<'_>) {
        let mut outcome = Outcome::default();
        self.recorder.handle(&mut self.relay, self.now, event, &mut outcome);
        self.carry_out(outcome);
    }

    fn carry_out(&mut self, outcome: Outcome) {
        if self.manners == Manners::Good {
            assert_eq!(outcome.misuse, None);
        }
        for action in &outcome.actions {
            self.check(action);
        }
        self.actions.extend(outcome.actions);
    }

    /// What the machine may want of an adapter, and when.
    fn check(&mut self, action: &Action) {
        let (id, write, next) = match *action {
            Action::Respond { conn, .. } => (conn, true, Some(Phase::Deaf)),
            Action::Upgrade { conn, .. } => (conn, true, Some(Phase::Frames)),
            // After a close, what the peer has sent in the meantime is still told of.
            Action::Send { conn, .. } | Action::Close { conn, .. } => (conn, true, None),
            Action::Abort { conn } => (conn, false, Some(Phase::Dead)),
            Action::Probe { conn } | Action::Pause { conn } | Action::Resume { conn } => (conn, false, None),
            Action::HandOver { .. } | Action::TickOthers => unreachable!("there is one shard"),
            Action::Exit => return,
        };
        let conn = self.conns.iter_mut().find(|conn| conn.id == id).expect("an id that was given out");
        if self.manners == Manners::Good {
            assert!(conn.phase != Phase::Dead, "{action:?} for a connection that has ended");
            assert!(!write || !conn.outstanding, "a second write is outstanding: {action:?}");
        }
        conn.outstanding |= write;
        conn.phase = next.unwrap_or(conn.phase);
        match action {
            Action::Probe { .. } => conn.probed = true,
            Action::Pause { .. } => conn.paused = true,
            Action::Resume { .. } => conn.paused = false,
            _ => {}
        }
    }

    fn check_accounts(&self) {
        for lane in &self.relay.stats().lanes {
            let dropped: u64 = lane.dropped.iter().map(|flow| flow.bytes).sum();
            assert_eq!(lane.enqueued.bytes, lane.delivered.bytes + dropped + lane.waiting.bytes);
            let dropped: u64 = lane.dropped.iter().map(|flow| flow.messages).sum();
            assert_eq!(lane.enqueued.messages, lane.delivered.messages + dropped + lane.waiting.messages);
        }
    }

    /// Everybody leaves: nothing may be left behind, and nothing be due for ever.
    fn come_to_rest(&mut self) {
        for conn in self.conns.iter().map(|conn| conn.id).collect::<Vec<_>>() {
            self.handle(Event::Disconnect { conn });
        }
        let stats = self.relay.stats();
        assert_eq!((stats.connections, stats.hosts, stats.guests, stats.rooms), (0, 0, 0, 0));
        assert!(stats.lanes.iter().all(|lane| lane.waiting.messages == 0 && lane.waiting.bytes == 0));
        for _ in 0..100 {
            let Some((at, _)) = self.relay.next_deadline() else { return };
            self.now.monotonic = self.now.monotonic.max(at);
            self.tick();
        }
        panic!("still due: {:?}", self.relay.next_deadline());
    }
}

fn payload_of(number: usize) -> Bytes {
    let large = vec![b'x'; 900];
    let payloads: [&[u8]; 11] = [
        b"",
        b"{\"n\":1}",
        b"{\"from\":\"p\"}",
        b"{\"from\":\"q\"}",
        b"{\n}",
        b"KV",
        b"KV voice",
        &large,
        b"{\"a\":1,\n\"from\":\"\\\"\\u005c\"}",
        b" {\"from\":\"\\u0070\"}",
        "{\"from\":\"\u{e9}\",\"from\":\"\u{65e5}\"}".as_bytes(),
    ];
    Bytes::copy_from_slice(payloads[number % payloads.len()])
}

/// Requests of every kind, good and bad. Keys take time, so they are made once.
fn requests() -> &'static [Vec<u8>] {
    static REQUESTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();

    REQUESTS.get_or_init(|| {
        let rooms = ["one", "two", "three"].map(Room::new);
        let stranger = Room { key: conformance::room::key("stranger"), ..rooms[0].clone() };
        let mut targets: Vec<_> = rooms
            .iter()
            .flat_map(|room| {
                ["p", "q"].map(|peer| [room.host_target(peer), room.guest_target(peer)]).into_iter().flatten()
            })
            .collect();
        targets.push(stranger.host_target("p"));
        targets.push(rooms[0].host_target_with(&rooms[0].token("p", "guest")));
        targets.push(rooms[0].guest_target_with("no token"));
        targets.push("/ws".to_owned());
        let mut requests: Vec<_> = targets.iter().map(|target| Request::upgrade(target)).collect();
        requests
            .extend(targets.iter().map(|target| Request::upgrade(target).with("X-Real-IP", "198.51.100.7")));
        requests.extend(targets.iter().map(|target| Request::get(target)));
        requests.extend([Request::get("/"), Request::new("HEAD", "/health"), Request::new("POST", "/ws")]);
        requests.iter().map(Request::encode).collect()
    })
}

fn play(manners: Manners, vars: &[(&str, &str)], steps: &[Step]) -> World {
    let mut world = World::new(manners, vars);
    for step in steps {
        world.take(step);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_good_adapter_never_misuses_it(steps in vec(step(), 0..STEPS)) {
        play(Manners::Good, NARROW, &steps).come_to_rest();
        play(Manners::Good, WIDE, &steps).come_to_rest();
    }

    #[test]
    fn a_bad_adapter_cannot_break_it(steps in vec(step(), 0..STEPS)) {
        play(Manners::None, NARROW, &steps).come_to_rest();
        play(Manners::None, WIDE, &steps).come_to_rest();
    }

    #[test]
    fn the_same_events_give_the_same_actions(steps in vec(step(), 0..STEPS)) {
        let (first, second) = (play(Manners::Good, NARROW, &steps), play(Manners::Good, NARROW, &steps));
        prop_assert_eq!(&first.actions, &second.actions);
        prop_assert_eq!(first.relay.stats(), second.relay.stats());
    }

    #[test]
    fn what_was_recorded_is_decided_again(
        steps in vec(step(), 0..STEPS),
        more in vec(step(), 0..STEPS),
        good in any::<bool>(),
        narrow in any::<bool>(),
    ) {
        let manners = if good { Manners::Good } else { Manners::None };
        let mut world = play(manners, if narrow { NARROW } else { WIDE }, &steps);
        // Where nobody is connected, another recording begins.
        world.come_to_rest();
        for step in &more {
            world.take(step);
        }
        for recording in world.recordings.0.take() {
            match replay(&recording[..], None) {
                // Who has no manners breaks some by misuse.
                Ok(summary) => prop_assert!(!good || summary.violation.is_none(), "{summary:?}"),
                Err(failure) => prop_assert!(false, "{failure}"),
            }
        }
    }
}
