//! Deadlines, each with its reason, in one ordered set.

use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;

/// Why the machine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// A request head is due (rule H9).
    Handshake,
    /// A ping is due (rule T1).
    Ping,
    /// A peer has been silent, or has taken nothing, for too long (rules T1, S5).
    Silence,
    /// A connection that is being closed has had its time (rule S3).
    Closing,
    /// A sender may be read again.
    Resume,
    /// A room may have been idle for too long (rule R1).
    RoomIdle,
    /// Receivers are to be written to: a turn is over, or a coalescing window ends (rule M7).
    Flush,
    /// The next room of a drain, or its end (rule D1).
    Drain,
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Connection(u32),
    Room(u32),
    Flush(u32),
    Drain,
}

/// At most one entry per key, whose time its owner remembers: so it can be moved without a search.
#[derive(Debug)]
pub(crate) struct Timers {
    queue: BTreeMap<(Duration, Key), Wake>,
    /// Receivers that are due at once, since when: the end of the adapter's turn.
    turn: VecDeque<(Duration, u32)>,
}

impl Timers {
    pub(crate) const fn new() -> Self {
        Self { queue: BTreeMap::new(), turn: VecDeque::new() }
    }

    /// Sets, moves or (`None`) removes the entry of a key. `armed` is where its owner remembers the time.
    pub(crate) fn set(&mut self, key: Key, armed: &mut Option<Duration>, next: Option<(Duration, Wake)>) {
        if let Some(old) = armed.take() {
            self.queue.remove(&(old, key));
        }
        if let Some((at, wake)) = next {
            self.queue.insert((at, key), wake);
            *armed = Some(at);
        }
    }

    /// Flushes a receiver at the end of this turn, behind whatever else the turn still has for it. An entry of
    /// the turn is never taken back: its owner sees when it is due whether it still wants it.
    pub(crate) fn this_turn(&mut self, receiver: u32, armed: &mut Option<Duration>, now: Duration) {
        self.turn.push_back((now, receiver));
        *armed = Some(now);
    }

    /// What is due at once, or the left-most leaf of a tree that is at most five levels deep for a million entries.
    pub(crate) fn next(&self) -> Option<(Duration, Wake)> {
        let turn = self.turn.front().map(|(since, _)| (*since, Wake::Flush));
        turn.or_else(|| self.queue.first_key_value().map(|((at, _), wake)| (*at, *wake)))
    }

    /// Takes out the first entry that is due. Its owner has to set it again, or forget it.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Key> {
        if let Some((_, receiver)) = self.turn.pop_front() {
            return Some(Key::Flush(receiver));
        }
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove_entry().0.1)
    }
}
