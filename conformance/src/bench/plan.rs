//! What a run of the load generator consists of.

use std::fmt;
use std::time::Duration;

use super::payload::Kind;

/// Who says what to whom, and for how long. Every room is alike.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) rooms: usize,
    /// Members of a room, its host included.
    pub(crate) people: usize,
    /// Those of them who send.
    pub(crate) speakers: usize,
    pub(crate) pace: Pace,
    /// The speakers of a room send at the same moment. Otherwise all are spread over the time between two messages.
    pub(crate) together: bool,
    /// What happens in it is checked, but not measured.
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Threads of the generator; each has rooms of its own.
    pub(crate) threads: usize,
}

/// When a sender sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// So many times a second, whatever comes of it (open loop).
    Rate(f64),
    /// As soon as fewer than so many of its messages are on their way to anybody (closed loop).
    Window(usize),
}

impl Plan {
    /// How many receive what one member sends.
    pub(crate) fn receivers(&self) -> usize {
        self.people - 1
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, rooms, people, speakers, .. } = self;
        let kind = match kind {
            Kind::Voice => "voice of 120 B",
            Kind::Data => "data of 1 KiB",
            Kind::Large => "messages of 256 KiB",
        };
        let count = |count: &usize, one: &str, many: &str| {
            format!("{count} {}", if *count == 1 { one } else { many })
        };
        let (rooms, people) = (count(rooms, "room", "rooms"), count(people, "member", "members"));
        write!(f, "{kind}, {rooms} of {people}, {} of each, ", count(speakers, "speaker", "speakers"))?;
        match self.pace {
            Pace::Rate(rate) if self.together => write!(f, "{rate}/s each, at the same moment")?,
            Pace::Rate(rate) => write!(f, "{rate}/s each")?,
            Pace::Window(window) => write!(f, "{window} in flight each")?,
        }
        write!(f, ", {} s", self.duration.as_secs_f64())
    }
}
