//! Rooms full of members.

use std::time::{SystemTime, UNIX_EPOCH};

use conformance::Room;

use super::wire::{self, Target, Wire};

/// Opens so many rooms with so many members each. What comes is ordered by room, the host of each first.
pub(crate) fn fill(target: &Target, rooms: usize, people: usize) -> Result<Vec<Wire>, String> {
    let requests = invite(rooms, people);
    enter(target, &requests, people)
}

/// What each member asks for, in the same order. Signing takes its time: who measures does it before.
pub(crate) fn invite(rooms: usize, people: usize) -> Vec<String> {
    let run = run_id();
    let members = |number| {
        let room = Room::new(format!("bench-{run}-{number}"));
        let guests =
            (1..people).map(|guest| room.guest_target(&format!("guest-{guest}"))).collect::<Vec<_>>();
        [room.host_target("host")].into_iter().chain(guests)
    };
    (0..rooms).flat_map(members).collect()
}

/// All hosts, then all guests: a guest finds its room open.
pub(crate) fn enter(target: &Target, requests: &[String], people: usize) -> Result<Vec<Wire>, String> {
    let places = (0..requests.len()).partition::<Vec<_>, _>(|place| place % people == 0);
    let mut wires: Vec<_> = requests.iter().map(|_| None).collect();
    for places in [places.0, places.1] {
        let asked: Vec<_> = places.iter().map(|place| requests[*place].clone()).collect();
        for (place, wire) in places.into_iter().zip(wire::join(target, &asked)?) {
            wires[place] = Some(wire);
        }
    }
    Ok(wires.into_iter().flatten().collect())
}

/// So that a second run on the same relay finds no room of the first.
#[expect(clippy::disallowed_methods, reason = "no two runs begin at one time")]
fn run_id() -> String {
    format!("{:x}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos())
}
