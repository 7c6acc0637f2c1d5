//! One connection, from accept to close.

use core::net::IpAddr;
use core::time::Duration;

use crate::event::Role;
use crate::gate::Origin;
use crate::outbox::Outbox;
use crate::room::PeerId;
use crate::timers::Wake;

/// How long a client may take to let its connection end (rule S3).
pub(crate) const CLOSING: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Connection {
    /// The address of the socket, and of the client once its head was read (rule T4).
    pub(crate) ip: IpAddr,
    /// The address for which the gate counts it.
    pub(crate) counted: Option<Origin>,
    pub(crate) phase: Phase,
    pub(crate) outbox: Outbox,
    pub(crate) pulse: Pulse,
    pub(crate) intake: Intake,
    /// When its one timer is set for; traffic does not move it.
    pub(crate) armed: Option<Duration>,
    /// When it leaves a coalescing window (rule M7).
    pub(crate) flush: Option<Duration>,
    /// Its place among the heaviest receivers (rule S4).
    pub(crate) weight: usize,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// No whole request head yet.
    Handshake {
        until: Option<Duration>,
    },
    Member(Member),
    /// An answer or a close frame is on its way or written; all that is left is the peer's end.
    Closing(Closing),
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) room: u32,
    pub(crate) role: Role,
    /// The peer id in its token.
    pub(crate) token_peer: PeerId,
    /// The one it announced (rule R8).
    pub(crate) announced_peer: Option<PeerId>,
    /// Whether its first message that is not voice has come.
    pub(crate) introduced: bool,
}

impl Member {
    /// Rule R8.
    pub(crate) fn peer(&self) -> &PeerId {
        self.announced_peer.as_ref().unwrap_or(&self.token_peer)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) until: Duration,
    /// The close frame, while it cannot be written yet.
    pub(crate) frame: Option<CloseFrame>,
    /// How long to wait for the peer's end once the close frame is written, if that is not to be `until`.
    pub(crate) echo: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CloseFrame {
    pub(crate) code: Option<u16>,
    pub(crate) reason: &'static str,
}

/// Signs of life (rules T1, S5).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulse {
    /// When a frame was read.
    pub(crate) heard: Duration,
    /// When bytes were seen to move towards the peer.
    pub(crate) moved: Duration,
    pub(crate) next_ping: Option<Duration>,
    /// When the last ping was written, until its pong.
    pub(crate) pinged: Option<Duration>,
    /// When the oldest ping was written since something was heard.
    pub(crate) unanswered: Option<Duration>,
    /// What the peer had acknowledged when it was last asked for.
    pub(crate) acked: Option<u64>,
    /// What had come from the peer then.
    pub(crate) received: Option<u64>,
    /// A probe was sent that decides over life and death, and is to be answered until then.
    pub(crate) judged_by: Option<Duration>,
    /// When its silence was last looked at.
    pub(crate) patrolled: Duration,
}

/// Receive limits, in the form of the generic cell rate algorithm: when each allowance will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Intake {
    pub(crate) bytes_full: Duration,
    pub(crate) messages_full: Duration,
    pub(crate) paused_until: Option<Duration>,
}

impl Connection {
    pub(crate) fn member(&self) -> Option<&Member> {
        match &self.phase {
            Phase::Member(member) => Some(member),
            Phase::Handshake { .. } | Phase::Closing(_) => None,
        }
    }

    pub(crate) fn member_mut(&mut self) -> Option<&mut Member> {
        match &mut self.phase {
            Phase::Member(member) => Some(member),
            Phase::Handshake { .. } | Phase::Closing(_) => None,
        }
    }

    /// The one deadline of this connection: the earliest of those that its phase has.
    pub(crate) fn deadline(&self, silence: Option<Duration>) -> Option<(Duration, Wake)> {
        let pulse = &self.pulse;
        match &self.phase {
            Phase::Handshake { until } => until.map(|at| (at, Wake::Handshake)),
            Phase::Closing(closing) => Some((closing.until, Wake::Closing)),
            Phase::Member(_) => [
                pulse.next_ping.map(|at| (at, Wake::Ping)),
                silence.map(|at| (at, Wake::Silence)),
                self.intake.paused_until.map(|at| (at, Wake::Resume)),
            ]
            .into_iter()
            .flatten()
            .min(),
        }
    }
}
