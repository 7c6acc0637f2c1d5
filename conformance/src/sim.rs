//! The simulated host: the machine, virtual time and pipes for sockets, in one thread and without a runtime.
//!
//! It stands in for an adapter, so it does what an adapter does: it reads a head, then lets tungstenite
//! read frames; it writes what the machine encoded, and discards what tungstenite would write.

pub(crate) mod pipe;
pub(crate) mod shards;
pub(crate) mod socket;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Duration;

use relay_proto::http::Head;
use relay_proto::{Action, ConnId, Event, Notice, Now, Settings, Sink};

use crate::host::{BASELINE, Broken, Host, Link, PATIENCE, Received, Switch, Vars};
use shards::Shards;
use socket::Socket;

/// Virtual time begins here: 2033-05-18, a round number.
const UNIX_ORIGIN: Duration = Duration::from_secs(2_000_000_000);
/// As the clients of the real hosts: on the same machine.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// `RELAY_SHARDS=auto`: enough that two members of a room seldom come in where it is.
const SHARDS: NonZeroU16 = NonZeroU16::new(3).expect("it is not 0");
/// A machine that wants to be woken this often without time going on will never come to rest.
const MAX_WAKES: usize = 10_000;

/// A relay whose clock stands still unless somebody waits.
pub struct Simulated(Rc<RefCell<World>>);

impl Simulated {
    /// Starts one.
    ///
    /// # Errors
    /// What an operator would read about the settings.
    pub fn start(vars: Vars<'_>) -> Result<Box<dyn Host>, String> {
        let vars = BASELINE.iter().chain(vars).copied();
        let settings = Settings::from_vars(vars).map_err(|error| error.to_string())?;
        Ok(Box::new(Self(Rc::new(RefCell::new(World {
            now: Duration::ZERO,
            relay: Shards::new(&settings.relay, [7; 32], settings.shards(SHARDS)),
            max_message_size: settings.relay.max_message_size,
            sockets: Vec::new(),
            seats: BTreeMap::new(),
        })))))
    }
}

impl Host for Simulated {
    fn dial(&self) -> Box<dyn Link> {
        let socket = self.0.borrow_mut().accept();
        Box::new(Cable { world: Rc::clone(&self.0), socket })
    }

    fn elapsed(&self) -> Duration {
        self.0.borrow().now
    }

    fn unix(&self) -> u64 {
        self.0.borrow().clocks().unix.as_secs()
    }

    fn pass(&self, time: Duration) {
        let mut world = self.0.borrow_mut();
        let until = world.now + time;
        world.run(until, |_| None::<()>);
    }

    fn switch(&self) -> Option<&dyn Switch> {
        Some(self)
    }
}

impl Switch for Simulated {
    fn drain(&self) {
        self.0.borrow_mut().handle(Event::Drain);
    }
}

/// The client's end of a socket.
struct Cable {
    world: Rc<RefCell<World>>,
    socket: usize,
}

impl Link for Cable {
    fn send(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        let world = &mut *self.world.borrow_mut();
        let until = world.now + PATIENCE;
        let sent = world.run(until, |sockets| {
            let socket = &mut sockets[self.socket];
            if socket.is_broken() {
                return Some(Err(Broken));
            }
            bytes = &bytes[socket.inbound.push(bytes)..];
            bytes.is_empty().then_some(Ok(()))
        });
        sent.unwrap_or(Err(Broken))
    }

    fn receive(&mut self, within: Duration) -> Received {
        let world = &mut *self.world.borrow_mut();
        let until = world.now + within;
        world.run(until, |sockets| sockets[self.socket].outbound.take()).unwrap_or(Received::Nothing)
    }

    fn finish(&mut self) {
        self.world.borrow_mut().sockets[self.socket].inbound.finish();
    }

    fn reset(&mut self) {
        self.world.borrow_mut().sockets[self.socket].break_off();
    }
}

impl Drop for Cable {
    /// As a kernel does it: an end, or a reset where something was left unread.
    fn drop(&mut self) {
        // A failed case drops its peers while the world may be borrowed.
        let Ok(mut world) = self.world.try_borrow_mut() else { return };
        let socket = &mut world.sockets[self.socket];
        if socket.outbound.is_empty() { socket.hang_up() } else { socket.break_off() }
    }
}

/// All that there is.
struct World {
    now: Duration,
    relay: Shards,
    max_message_size: usize,
    sockets: Vec<Socket>,
    /// The sockets of live connections.
    seats: BTreeMap<ConnId, usize>,
}

impl World {
    fn accept(&mut self) -> usize {
        let now = self.clocks();
        let mut outcome = Outcome::default();
        let conn = self.relay.open(now, CLIENT, &mut outcome);
        let index = self.sockets.len();
        self.sockets.push(Socket::new(conn, self.max_message_size));
        if let Some(conn) = conn {
            self.seats.insert(conn, index);
        }
        self.perform(outcome);
        index
    }

    fn clocks(&self) -> Now {
        Now { monotonic: self.now, unix: UNIX_ORIGIN + self.now }
    }

    fn handle(&mut self, event: Event<'_>) {
        let mut outcome = Outcome::default();
        self.relay.handle(self.clocks(), event, &mut outcome);
        self.perform(outcome);
    }

    fn perform(&mut self, outcome: Outcome) {
        for action in outcome.0 {
            let conn = match &action {
                Action::Respond { conn, .. }
                | Action::Upgrade { conn, .. }
                | Action::Send { conn, .. }
                | Action::Close { conn, .. }
                | Action::Abort { conn }
                | Action::Probe { conn }
                | Action::Pause { conn }
                | Action::Resume { conn }
                | Action::HandOver { conn, .. } => *conn,
                Action::TickOthers | Action::Exit => continue,
            };
            let index = *self.seats.get(&conn).unwrap_or_else(|| panic!("{action:?} for a dead connection"));
            self.sockets[index].perform(action);
            if self.sockets[index].conn.is_none() {
                self.seats.remove(&conn);
            }
        }
    }

    /// Lets everything happen, and time pass, until `look` finds something or that moment has come.
    fn run<T>(&mut self, until: Duration, mut look: impl FnMut(&mut [Socket]) -> Option<T>) -> Option<T> {
        let mut wakes = 0;
        loop {
            self.settle();
            let found = look(&mut self.sockets);
            // What was put in or taken out just now may lead to more, before any time passes.
            let moved = self.settle();
            if found.is_some() {
                return found;
            }
            if moved {
                continue;
            }
            let deadline = self.relay.next_deadline().map(|(at, _)| at.max(self.now));
            match deadline.filter(|deadline| *deadline <= until) {
                Some(deadline) => {
                    wakes = if deadline == self.now { wakes + 1 } else { 0 };
                    assert!(wakes < MAX_WAKES, "the machine never comes to rest at {deadline:?}");
                    self.now = deadline;
                    self.handle(Event::Tick);
                }
                None if self.now < until => self.now = until,
                None => return None,
            }
        }
    }

    /// Moves bytes until nothing moves. Whether anything did.
    fn settle(&mut self) -> bool {
        let mut moved = false;
        loop {
            // Each socket gets its turn, so no `any` here.
            let steps = (0..self.sockets.len()).filter(|index| self.step(*index)).count();
            if steps == 0 {
                return moved;
            }
            moved = true;
        }
    }

    /// Reads and writes once on one socket.
    fn step(&mut self, index: usize) -> bool {
        let Some(conn) = self.sockets[index].conn else { return false };
        let Some(event) = self.sockets[index].next_event() else { return false };
        match event {
            socket::Happened::Head(head) => {
                self.ask(index, conn, head);
                self.move_over(index);
            }
            socket::Happened::Event(event) => {
                let gone = matches!(event, Event::Disconnect { .. });
                self.handle(event);
                if gone {
                    self.seats.remove(&conn);
                    self.sockets[index].die();
                }
            }
            socket::Happened::Moved => {}
        }
        true
    }

    fn ask(&mut self, index: usize, conn: ConnId, head: Head) {
        let request = head.request().expect("the head is whole");
        self.handle(Event::Connect { conn, request: &request });
        self.sockets[index].answered(head);
    }

    /// Carries a connection to the shard of its room, if it is not there.
    fn move_over(&mut self, index: usize) {
        let Some((shard, pass, head)) = self.sockets[index].arrive() else { return };
        let mut outcome = Outcome::default();
        match self.relay.take_over(self.clocks(), shard, pass, &mut outcome) {
            Some(conn) => {
                self.sockets[index].conn = Some(conn);
                self.seats.insert(conn, index);
                self.ask(index, conn, head);
                assert!(!self.sockets[index].is_in_transit(), "it is sent on and on");
            }
            None => self.sockets[index].die(),
        }
        self.perform(outcome);
    }
}

/// What the machine decided. Misuse would be a mistake of this file.
#[derive(Default)]
struct Outcome(Vec<Action>);

impl Sink for Outcome {
    fn action(&mut self, action: Action) {
        self.0.push(action);
    }

    fn notice(&mut self, notice: Notice<'_>) {
        assert!(!matches!(notice, Notice::Misuse { .. }), "{notice:?}");
    }
}
