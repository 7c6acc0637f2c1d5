//! What the model remembers.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use relay_proto::Role;

use super::queue::Queue;

/// Rule S3: how long a client may take to let its connection end; a member of a drained room has less.
pub(crate) const CLOSING: Duration = Duration::from_secs(5);
pub(crate) const DRAIN_FLUSH: Duration = Duration::from_millis(3500);
pub(crate) const DRAIN_ECHO: Duration = Duration::from_secs(1);
/// Rule D1: when everything is dropped, counted from the end of the window.
pub(crate) const DRAIN_CUT: Duration = Duration::from_millis(4800);

pub(crate) struct LiveRoom {
    pub(crate) key: usize,
    pub(crate) active: Duration,
}

pub(crate) struct Drain {
    pub(crate) started: Duration,
    pub(crate) rooms: u32,
    /// Rooms that were closed by it.
    pub(crate) closed: u32,
    /// Every room has had its turn.
    pub(crate) closing: bool,
    /// What was said of how many there were.
    pub(crate) announced: usize,
    /// One shard has called the others.
    pub(crate) called: bool,
}

impl Drain {
    /// Rule D1: whether the last room has had its turn.
    pub(crate) fn all_had_their_turn(&self, window: Duration, now: Duration) -> bool {
        let last = window * self.rooms.saturating_sub(1) / self.rooms.max(1);
        self.started + last <= now
    }

    /// Rule D1: how many rooms have had their turn.
    pub(crate) fn turns(&self, window: Duration, now: Duration) -> usize {
        (0..self.rooms).filter(|turn| self.started + window * *turn / self.rooms <= now).count()
    }

    pub(crate) fn is_over(&self, window: Duration, now: Duration) -> bool {
        self.started + window + DRAIN_CUT <= now
    }
}

pub(crate) struct Conn {
    /// The address for which it counts, once that is known.
    pub(crate) counted: Option<IpAddr>,
    pub(crate) ip: IpAddr,
    pub(crate) phase: Phase,
    pub(crate) queue: Queue,
    pub(crate) paused: bool,
}

impl Conn {
    pub(crate) fn member(&self) -> Option<&Member> {
        match &self.phase {
            Phase::Member(member) => Some(member),
            Phase::Head { .. } | Phase::Closing { .. } => None,
        }
    }
}

pub(crate) enum Phase {
    Head { until: Option<Duration> },
    Member(Member),
    Closing { until: Duration, frame: Option<(Option<u16>, &'static str)>, drained: bool },
}

pub(crate) struct Member {
    pub(crate) room: usize,
    pub(crate) role: Role,
    pub(crate) peer: String,
    pub(crate) token_peer: &'static str,
    pub(crate) introduced: bool,
    pub(crate) heard: Duration,
    /// A ping was written since then.
    pub(crate) pinged: bool,
    pub(crate) next_ping: Option<Duration>,
    /// Bytes that came from it, as far as was asked.
    pub(crate) received: Option<u64>,
}

/// What a request should lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Page,
    Joined,
    Refused(&'static str),
}

/// Rule R6, byte for byte.
pub(crate) fn leave_notice(peer: String, unix: Duration) -> Bytes {
    let from = serde_json::Value::from(peer);
    let ts = unix.as_millis();
    let notice = format!(
        r#"{{"id":"","type":"session:leave","from":{from},"ts":{ts},"nonce":0,"payload":null,"sig":null}}"#
    );
    notice.into()
}
