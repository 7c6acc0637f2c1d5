//! Rooms on many relays behind `deploy/haproxy/cluster.cfg`, with `HAProxy` twice: a relay drains, another is
//! killed, one comes back and one is added. Needs `haproxy` 2.6, so it is run by `.ci/cluster` only.

#![expect(clippy::print_stdout, reason = "how long it took is worth a line")]

#[path = "cluster/balancer.rs"]
mod balancer;
#[path = "cluster/calls.rs"]
mod calls;
#[path = "cluster/member.rs"]
mod member;
#[path = "cluster/node.rs"]
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::process::{self, ExitCode};

use balancer::Balancer;
use calls::Calls;
use libtest_mimic::{Arguments, Trial};
use node::Node;

/// Rooms from the beginning.
const OLD: Range<usize> = 0..60;
/// Rooms that are opened when the last relay has come.
const NEW: Range<usize> = 60..80;
/// The one who comes to a room last.
const LATE: usize = 3;

fn main() -> ExitCode {
    if let Ok(adapter) = env::var(node::ADAPTER) {
        return node::serve(&adapter);
    }
    let trial = Trial::test("rooms_are_whole_again", || {
        rooms_are_whole_again();
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_ignored_flag(true)]).exit_code()
}

fn rooms_are_whole_again() {
    let address = own_address();
    let mut nodes: BTreeMap<u32, Node> =
        [1, 2, 3].into_iter().map(|id| (id, Node::start(id, (address, 0).into()))).collect();
    let mut balancers = Balancer::pair(address, &nodes);
    balancers.iter_mut().for_each(Balancer::wait_until_ready);

    let mut calls = Calls::new(balancers.iter().map(Balancer::address).collect());
    for room in OLD {
        (0..LATE).for_each(|seat| calls.add(room, seat));
    }
    calls.settle("at first", |_| true);
    let places = calls.places(&nodes);
    println!("at first: {}", count(&places));
    assert_eq!(places.values().collect::<BTreeSet<_>>().len(), 3, "no node is empty");

    let drained = nodes.get_mut(&1).expect("it runs");
    drained.signal("TERM");
    calls.settle("one drains", |_| drained.has_ended());
    assert_eq!(drained.exit_status(), Some(0));
    let first = nodes.remove(&1).expect("it ran").address;
    let after_drain = calls.places(&nodes);
    calls.moved(&places, &after_drain, 1, Some(1012));
    println!("one has drained: {}", count(&after_drain));

    let killed = nodes.get_mut(&2).expect("it runs");
    killed.signal("KILL");
    calls.settle("one is killed", |_| killed.has_ended());
    nodes.remove(&2);
    let after_kill = calls.places(&nodes);
    calls.moved(&after_drain, &after_kill, 2, None);
    println!("one was killed: {}", count(&after_kill));

    // The first one comes back, as after an upgrade; a fourth is new.
    nodes.insert(1, Node::start(1, first));
    nodes.insert(4, Node::start(4, (address, 0).into()));
    for balancer in &mut balancers {
        balancer.add(4, nodes[&4].address);
        balancer.wait_until(&[(1, true), (2, false), (3, true), (4, true)]);
    }
    OLD.for_each(|room| calls.add(room, LATE));
    calls.settle("late guests come", |_| true);
    let after_growth = calls.places(&nodes);
    calls.moved(&after_kill, &after_growth, 0, None);

    for room in NEW {
        (0..LATE).for_each(|seat| calls.add(room, seat));
    }
    calls.settle("new rooms open", |_| true);
    let at_last = calls.places(&nodes);
    println!("two came: {}", count(&at_last));
    for id in [1, 3, 4] {
        assert!(NEW.clone().any(|room| at_last[&room] == id), "no new room went to relay {id}");
    }
    calls.moved(&after_growth, &at_last, 0, None);
}

/// A loopback address that no other process takes its ports from.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 0x3F), middle, low)
}

fn count(places: &BTreeMap<usize, u32>) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for id in places.values() {
        *counts.entry(id).or_default() += 1;
    }
    counts.iter().map(|(id, rooms)| format!("relay{id} {rooms} ")).collect()
}
