//! All rooms as seen from outside: who is in, and who heard whom.

use std::collections::BTreeMap;
use std::mem;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use conformance::http::Request;
use conformance::net::Sockets;
use conformance::{Host, Room, Stage};

use crate::member::{Event, Member, What};
use crate::node::Node;

/// More than a client waits between attempts, a few times over.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether a process has ended.
const GLANCE: Duration = Duration::from_millis(20);

pub(crate) struct Calls {
    balancers: Vec<SocketAddr>,
    rooms: BTreeMap<usize, Call>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    clock: Sockets,
}

/// One room. In a round, everybody says its number and has to be heard by everybody else.
#[derive(Default)]
struct Call {
    members: Vec<Member>,
    joined: Vec<bool>,
    round: u32,
    /// The last round that a seat has heard from a seat.
    heard: BTreeMap<(usize, usize), u32>,
    /// How connections ended since somebody last asked.
    endings: Vec<Option<u16>>,
}

impl Call {
    fn is_whole(&self) -> bool {
        let seats = self.members.len();
        self.joined.iter().all(|joined| *joined)
            && self.heard.values().filter(|round| **round == self.round).count() == seats * (seats - 1)
    }

    fn next_round(&mut self) {
        self.round += 1;
        self.members.iter().for_each(|member| member.speak(self.round));
    }

    fn take(&mut self, seat: usize, what: &What) {
        match *what {
            What::Joined => {
                self.joined[seat] = true;
                if self.joined.iter().all(|joined| *joined) {
                    self.next_round();
                }
            }
            What::Left(code) => {
                self.joined[seat] = false;
                self.endings.push(code);
            }
            What::Heard { from, round } => {
                let last = self.heard.insert((seat, from), round).unwrap_or(round - 1);
                // Whoever was not disturbed misses nothing.
                let next = round == last + 1;
                assert!(
                    next || !self.endings.is_empty(),
                    "seat {seat} heard {last}, then {round}, of {from}"
                );
            }
        }
    }
}

impl Calls {
    pub(crate) fn new(balancers: Vec<SocketAddr>) -> Self {
        let (sender, events) = channel();
        let clock = Sockets::new(balancers[0], None);
        Self { balancers, rooms: BTreeMap::new(), sender, events, clock }
    }

    /// Sends somebody to a room, by one balancer or the other.
    pub(crate) fn add(&mut self, room: usize, seat: usize) {
        let balancer = self.balancers[(room + seat) % self.balancers.len()];
        let call = self.rooms.entry(room).or_default();
        assert_eq!(call.members.len(), seat);
        call.members.push(Member::new(room, seat, balancer, self.sender.clone()));
        call.joined.push(false);
    }

    /// Waits until it is over and then every room is whole; those that are undisturbed go on all the time.
    pub(crate) fn settle(&mut self, what: &str, mut is_over: impl FnMut(&Self) -> bool) {
        let start = self.clock.elapsed();
        let passed = |calls: &Self| calls.clock.elapsed().saturating_sub(start);
        let mut over = false;
        loop {
            if !over && is_over(self) {
                over = true;
                self.rooms.values_mut().for_each(Call::next_round);
            }
            if over && self.rooms.values().all(Call::is_whole) {
                break;
            }
            match self.events.recv_timeout(GLANCE) {
                Ok(Event { room, seat, what }) => {
                    let disturbs = matches!(what, What::Joined | What::Left(_));
                    self.rooms.get_mut(&room).expect("it was added").take(seat, &what);
                    if disturbs {
                        let whole = self.rooms.values_mut().filter(|call| call.is_whole());
                        whole.for_each(Call::next_round);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is kept here"),
            }
            let broken: Vec<_> =
                self.rooms.iter().filter(|(_, call)| !call.is_whole()).map(|(room, _)| room).collect();
            assert!(passed(self) < PATIENCE, "{what}: rooms {broken:?} are not whole");
        }
        println!("{what}: every room is whole after {:.1?}", passed(self));
    }

    /// The one relay on which each room is. A request without an upgrade tells, and changes nothing (rule H6).
    pub(crate) fn places(&self, nodes: &BTreeMap<u32, Node>) -> BTreeMap<usize, u32> {
        let place = |room: &usize| {
            let target = Room::new(format!("call {room}")).guest_target("nobody");
            let is_there = |node: &Node| {
                let sockets = Sockets::new(node.address, None);
                let status = Stage::new(&sockets, None, "").ask(&Request::get(&target)).status;
                assert!([404, 426].contains(&status), "{status}");
                status == 426
            };
            let found: Vec<_> = nodes.iter().filter(|(_, node)| is_there(node)).map(|(id, _)| *id).collect();
            let [id] = found[..] else { panic!("room {room} is on {found:?}") };
            (*room, id)
        };
        self.rooms.keys().map(place).collect()
    }

    /// Rooms that were on `gone` are elsewhere, and all their members were let go with `code`. All others are
    /// where they were, and nobody there was disturbed.
    pub(crate) fn moved(
        &mut self,
        before: &BTreeMap<usize, u32>,
        after: &BTreeMap<usize, u32>,
        gone: u32,
        code: Option<u16>,
    ) {
        for (room, old) in before {
            let call = self.rooms.get_mut(room).expect("it was added");
            let endings = mem::take(&mut call.endings);
            if *old == gone {
                assert_eq!(endings, vec![code; call.members.len()], "room {room}");
                assert_ne!(after[room], gone);
            } else {
                assert!(endings.is_empty(), "room {room} was disturbed: {endings:?}");
                assert_eq!(after[room], *old, "room {room}");
            }
        }
    }
}
