//! Stopping in good order (rule D1): running, draining, closing, done.

use alloc::vec::Vec;
use core::time::Duration;

use crate::canary::{Canary, sings};
use crate::connection::Phase;
use crate::depart::Departure;
use crate::event::{Action, Notice, Sink};
use crate::gate::Draw;
use crate::relay::Relay;
use crate::timers::{Key, Wake};

/// How long what waits for a member of a drained room may take to be written.
pub(crate) const FLUSH: Duration = Duration::from_millis(3500);

/// How long to wait for the peer's end once the close frame is written.
pub(crate) const ECHO: Duration = Duration::from_secs(1);

/// When everything that still lives is dropped, counted from the end of the window.
const CUT: Duration = Duration::from_millis(4800);

#[derive(Debug)]
pub(crate) struct Drain {
    stage: Stage,
    armed: Option<Duration>,
}

#[derive(Debug)]
enum Stage {
    Running,
    /// Rooms are closed one after the other. Those that remain, last one first, each by index and generation.
    Draining {
        rooms: Vec<(u32, u32)>,
        /// Of the next one, among the rooms of all shards.
        turn: usize,
        turns: usize,
        started: Duration,
    },
    /// All rooms are closed, in every shard; connections come to their end.
    Closing {
        until: Duration,
    },
    Done,
}

impl Drain {
    pub(crate) const fn new() -> Self {
        Self { stage: Stage::Running, armed: None }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    pub(crate) fn accepts(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Draining { .. })
    }
}

impl Relay {
    /// Fixes the order in which rooms will be closed: a random one, so that the clients of one host do not
    /// all come back at the same moment.
    pub(crate) fn start_drain(&mut self, sink: &mut impl Sink) {
        let Stage::Running = self.drain.stage else { return };
        let mut rooms: Vec<_> = self.rooms.names().collect();
        self.rng.shuffle(&mut rooms);
        self.ledger.stats.draining = true;
        let Draw { first, total, begins } = self.shard.gate().draw_turns(rooms.len());
        if begins {
            sink.notice(Notice::Draining { rooms: total });
        }
        self.drain.stage = Stage::Draining { rooms, turn: first, turns: total, started: self.now.monotonic };
        self.drain_due(sink);
    }

    /// Closes the rooms whose turn has come.
    pub(crate) fn drain_due(&mut self, sink: &mut impl Sink) {
        let now = self.now.monotonic;
        self.timers.set(Key::Drain, &mut self.drain.armed, None);
        loop {
            match &mut self.drain.stage {
                Stage::Draining { rooms, turn, turns, started } => {
                    // Without any left, it is up to the other shards: see `exit_when_done`.
                    let Some(&(index, generation)) = rooms.last() else { return };
                    let due = *started + share(self.config.drain, *turn, *turns);
                    if due > now {
                        return self.timers.set(Key::Drain, &mut self.drain.armed, Some((due, Wake::Drain)));
                    }
                    rooms.pop();
                    *turn += 1;
                    if self.rooms.lives(index, generation) {
                        self.close_room(index, Departure::Restart, sink);
                    }
                }
                Stage::Closing { until } => {
                    let until = *until;
                    if until > now {
                        return self.timers.set(
                            Key::Drain,
                            &mut self.drain.armed,
                            Some((until, Wake::Drain)),
                        );
                    }
                    self.abort_all(|_| true, sink);
                    return;
                }
                Stage::Running | Stage::Done => return,
            }
        }
    }

    /// Rule H8: when a host may hope for a relay again.
    pub(crate) fn drain_retry(&self) -> Duration {
        match &self.drain.stage {
            Stage::Draining { started, .. } => {
                (*started + self.config.drain).saturating_sub(self.now.monotonic)
            }
            Stage::Running | Stage::Closing { .. } | Stage::Done => Duration::ZERO,
        }
    }

    pub(crate) fn exit_when_done(&mut self, sink: &mut impl Sink) {
        if let Stage::Draining { started, .. } = self.drain.stage
            && self.rooms.len() == 0
            && self.shard.gate().is_drained()
        {
            // Those whose turn was to come have ended by themselves, and no other opens.
            self.begin_closing(started + self.config.drain + CUT, sink);
        }
        if matches!(self.drain.stage, Stage::Closing { .. }) && self.connections.len() == 0 {
            self.drain.stage = Stage::Done;
            self.timers.set(Key::Drain, &mut self.drain.armed, None);
            sink.action(Action::Exit);
        }
    }

    /// Whoever has asked for nothing yet is not waited for.
    fn begin_closing(&mut self, until: Duration, sink: &mut impl Sink) {
        self.drain.stage = Stage::Closing { until };
        self.abort_all(|phase| matches!(phase, Phase::Handshake { .. }), sink);
        // A machine that slept for long may be past the end already.
        self.drain_due(sink);
    }

    /// A room of this shard is no more. If it was the last one of all, the other shards wait for it.
    pub(crate) fn room_closed(&mut self, sink: &mut impl Sink) {
        let gate = self.shard.gate();
        gate.close_room();
        if self.shard.has_others() && gate.is_drained() && !sings(Canary::SilentEnd) {
            sink.action(Action::TickOthers);
        }
    }

    fn abort_all(&mut self, which: impl Fn(&Phase) -> bool, sink: &mut impl Sink) {
        let all: Vec<u32> = self.connections.indexes().collect();
        for slot in all {
            if which(&self.connections[slot].phase) {
                self.abort(slot, sink);
            }
        }
    }
}

/// So many parts of a time that is divided evenly.
fn share(time: Duration, parts: usize, of: usize) -> Duration {
    let nanos = time.as_nanos() * parts as u128 / (of as u128).max(1);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
