//! Those invariants of `docs/simulation.md` that show in a recording, where nobody knows what clients saw.

use std::collections::BTreeMap;

use relay_proto::{Action, ConnId, Event, Now, Relay};

/// The number of an invariant, and how it does not hold.
pub(super) type Violation = (&'static str, String);

/// What the actions so far have left behind, by connection that lives.
#[derive(Default)]
pub(super) struct Watch {
    living: BTreeMap<ConnId, Conn>,
}

#[derive(Default)]
struct Conn {
    writing: bool,
    paused: bool,
}

impl Watch {
    /// A socket was let in.
    pub(super) fn enter(&mut self, conn: ConnId) {
        self.living.insert(conn, Conn::default());
    }

    /// This is about to be told.
    pub(super) fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Sent { conn } => {
                self.living.entry(*conn).and_modify(|conn| conn.writing = false);
            }
            Event::Disconnect { conn } => _ = self.living.remove(conn),
            Event::Connect { .. }
            | Event::Message { .. }
            | Event::Ping { .. }
            | Event::Pong { .. }
            | Event::PeerClose { .. }
            | Event::Fault { .. }
            | Event::Acked { .. }
            | Event::Tick
            | Event::Drain => {}
        }
    }

    /// I9, I14: this was decided.
    pub(super) fn decided(&mut self, action: &Action) -> Result<(), Violation> {
        let (Action::Respond { conn, .. }
        | Action::Upgrade { conn, .. }
        | Action::Send { conn, .. }
        | Action::Close { conn, .. }
        | Action::Abort { conn }
        | Action::Probe { conn }
        | Action::Pause { conn }
        | Action::Resume { conn }) = action
        else {
            let (left, exit) = (self.living.len(), *action == Action::Exit);
            hold(exit, "I24", || format!("{action:?}, and a recording is of one shard"))?;
            return hold(left == 0, "I21", || format!("the drain ends with {left} connections"));
        };
        let Some(state) = self.living.get_mut(conn) else {
            return Err(("I9", format!("{action:?}, which has ended")));
        };
        let (flag, before) = match action {
            Action::Probe { .. } | Action::HandOver { .. } | Action::TickOthers | Action::Exit => {
                return Ok(());
            }
            Action::Abort { .. } => {
                self.living.remove(conn);
                return Ok(());
            }
            Action::Pause { .. } => (&mut state.paused, false),
            Action::Resume { .. } => (&mut state.paused, true),
            Action::Respond { .. } | Action::Upgrade { .. } | Action::Send { .. } | Action::Close { .. } => {
                let second = std::mem::replace(&mut state.writing, true);
                return hold(!second, "I9", || format!("a second write is outstanding: {action:?}"));
            }
        };
        let as_expected = std::mem::replace(flag, !before) == before;
        hold(as_expected, "I14", || format!("{action:?} changes nothing"))
    }

    /// I8, I13, I20: nothing is left of the event but this.
    pub(super) fn settled(&self, relay: &Relay, now: Now, ticked: bool) -> Result<(), Violation> {
        let stats = relay.stats();
        let (counted, living) = (stats.connections, self.living.len());
        hold(counted == living as u64, "I8", || format!("{living} connections, counted {counted}"))?;
        for lane in &stats.lanes {
            let dropped: u64 = lane.dropped.iter().map(|flow| flow.bytes).sum();
            let sum = lane.delivered.bytes + dropped + lane.waiting.bytes;
            hold(lane.enqueued.bytes == sum, "I13", || format!("{lane:?}"))?;
        }
        let next = relay.next_deadline();
        let overdue = ticked && next.is_some_and(|(at, _)| at <= now.monotonic);
        hold(!overdue, "I20", || format!("{next:?} is overdue"))
    }
}

fn hold(condition: bool, invariant: &'static str, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if condition { Ok(()) } else { Err((invariant, what())) }
}
