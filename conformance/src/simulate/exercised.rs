//! What has happened in runs, and how often: a run that finds nothing is worth what it has tried.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use relay_proto::stats::DropReason;
use relay_proto::{Action, Event, Initiator, Stats, Wake};

use super::client::Seen;
use super::op::Op;
use super::referee::Output;

/// Counts by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exercised(BTreeMap<(&'static str, &'static str), u64>);

impl Exercised {
    /// How often this was seen; kinds are `op`, `event`, `action`, `wake`, `refused`, `dropped` (messages), `closed` (by the relay, for
    /// that reason), `left` (by the client) and `client` (what it saw).
    pub fn count(&self, kind: &str, name: &str) -> u64 {
        self.0.iter().filter(|((k, n), _)| *k == kind && *n == name).map(|(_, count)| count).sum()
    }

    /// Takes in what another run has tried.
    pub fn add(&mut self, other: &Exercised) {
        for (key, count) in &other.0 {
            *self.0.entry(*key).or_default() += count;
        }
    }

    fn one(&mut self, kind: &'static str, name: &'static str) {
        *self.0.entry((kind, name)).or_default() += 1;
    }

    pub(crate) fn op(&mut self, op: Op) {
        self.one("op", Op::WORDS[op.index()]);
    }

    pub(crate) fn event(&mut self, event: &Event<'_>) {
        self.one(
            "event",
            match event {
                Event::Connect { .. } => "Connect",
                Event::Message { .. } => "Message",
                Event::Ping { .. } => "Ping",
                Event::Pong { .. } => "Pong",
                Event::PeerClose { .. } => "PeerClose",
                Event::Fault { .. } => "Fault",
                Event::Sent { .. } => "Sent",
                Event::Acked { .. } => "Acked",
                Event::Disconnect { .. } => "Disconnect",
                Event::Tick => "Tick",
                Event::Drain => "Drain",
            },
        );
    }

    pub(crate) fn wake(&mut self, due: Option<(Duration, Wake)>) {
        let Some((_, wake)) = due else { return };
        self.one(
            "wake",
            match wake {
                Wake::Handshake => "Handshake",
                Wake::Ping => "Ping",
                Wake::Silence => "Silence",
                Wake::Closing => "Closing",
                Wake::Resume => "Resume",
                Wake::RoomIdle => "RoomIdle",
                Wake::Flush => "Flush",
                Wake::Drain => "Drain",
            },
        );
    }

    pub(crate) fn outputs(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Action(action) => self.action(action),
                Output::Left { initiator: Initiator::Relay, reason, .. } => self.one("closed", reason),
                Output::Left { code, .. } => {
                    self.one("left", if *code == 1006 { "without a word" } else { "by a close frame" });
                }
                Output::Refused(refusal) => self.one("refused", refusal.code()),
                Output::LetGo(_) => self.one("closed", "let go while draining"),
                Output::Joined { .. } | Output::Draining(_) | Output::Misuse(_) => {}
            }
        }
    }

    fn action(&mut self, action: &Action) {
        self.one(
            "action",
            match action {
                Action::Respond { .. } => "Respond",
                Action::Upgrade { .. } => "Upgrade",
                Action::Send { .. } => "Send",
                Action::Close { .. } => "Close",
                Action::Abort { .. } => "Abort",
                Action::Probe { .. } => "Probe",
                Action::Pause { .. } => "Pause",
                Action::Resume { .. } => "Resume",
                Action::HandOver { .. } => "HandOver",
                Action::TickOthers => "TickOthers",
                Action::Exit => "Exit",
            },
        );
    }

    /// Why messages were let go, at the end of a run.
    pub(crate) fn dropped(&mut self, stats: &Stats) {
        for lane in &stats.lanes {
            for (reason, flow) in DropReason::ALL.into_iter().zip(lane.dropped) {
                *self.0.entry(("dropped", reason.as_str())).or_default() += flow.messages;
            }
        }
    }

    pub(crate) fn seen(&mut self, seen: &Seen) {
        self.one(
            "client",
            match seen {
                Seen::Answer(_) => "answer",
                Seen::Message(_) => "message",
                Seen::Pong(_) => "pong",
                Seen::Ping => "ping",
                Seen::Close(..) => "close",
                Seen::End => "end",
                Seen::CutShort => "cut short",
                Seen::Nonsense(_) => "nonsense",
            },
        );
    }
}

impl fmt::Display for Exercised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for ((kind, name), count) in &self.0 {
            if *kind != last {
                write!(f, "{}{kind:8}", if last.is_empty() { "" } else { "\n" })?;
                last = kind;
            }
            write!(f, "  {name} {count}")?;
        }
        Ok(())
    }
}
