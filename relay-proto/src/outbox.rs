//! What waits for one receiver, and in which order it leaves.
//!
//! At most one write is outstanding per connection. Until the adapter reports that it reached the kernel,
//! everything else waits here, so whatever has to be decided about waiting is decided at the last moment,
//! with everything known: voice before data, old voice let go, small messages joined, slow receivers closed.
//!
//! ```text
//!              ┌ control   one pong, one ping
//!   push ───►  │ voice     bounded by number and age: the oldest goes          ───►  take: one batch
//!              └ data      bounded by bytes: past the bound, the receiver goes        until sent
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::canary::{Canary, sings};
use crate::config::Config;
use crate::envelope::Lane;
use crate::frame::{Batch, Frame, Opcode};
use crate::ledger::{Fate, Ledger, Waiting};
use crate::stats::DropReason;

/// How much data leaves in one batch, unless one message alone is larger: so much can lie in front of a voice
/// packet that comes a moment later (rule M4). What is joined out of it is smaller than rule M3 allows.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// A queue that once was long gives its memory back down to this many places.
const KEPT_PLACES: usize = 32;

/// Whether something should leave, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Nothing waits, or something is being written.
    No,
    Now,
    /// Rule M7.
    At(Duration),
}

/// A write that the adapter has been given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outstanding {
    pub(crate) since: Duration,
    /// Whether it carries a ping.
    pub(crate) ping: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pong: Option<Bytes>,
    ping: bool,
    voice: VecDeque<Waiting>,
    data: VecDeque<Waiting>,
    /// What the outstanding write carries.
    in_flight: Vec<Waiting>,
    outstanding: Option<Outstanding>,
    /// When the last batch left (rule M7).
    left_at: Option<Duration>,
    /// Bytes of all that is in `voice`, `data` and `in_flight`.
    held: usize,
    /// Bytes of data among them.
    held_data: usize,
}

impl Outbox {
    /// Bytes that wait for this receiver or are being written to it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn outstanding(&self) -> Option<Outstanding> {
        self.outstanding
    }

    /// Whether everything has left and arrived.
    pub(crate) fn is_done(&self) -> bool {
        self.outstanding.is_none() && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.has_control() && self.voice.is_empty() && self.data.is_empty()
    }

    fn has_control(&self) -> bool {
        self.ping || self.pong.is_some()
    }

    /// A ping is to leave.
    pub(crate) fn ping(&mut self) {
        self.ping = true;
    }

    /// Whether a ping waits or is being written.
    pub(crate) fn ping_pending(&self) -> bool {
        self.ping || self.outstanding.is_some_and(|outstanding| outstanding.ping)
    }

    /// A pong is to leave. Only the latest ping needs an answer (RFC 6455 section 5.5.3), so a flood of them
    /// takes no more room than one (rule T2).
    pub(crate) fn pong(&mut self, payload: Bytes) {
        self.pong = Some(payload);
    }

    /// Puts a message in its lane. `false`: the receiver is too slow for it (rule S3).
    #[must_use]
    pub(crate) fn push(
        &mut self,
        lane: Lane,
        waiting: Waiting,
        config: &Config,
        ledger: &mut Ledger,
    ) -> bool {
        self.held += waiting.cost as usize;
        match lane {
            Lane::Voice => {
                if self.voice.len() >= config.voice_queue {
                    self.drop_oldest_voice(DropReason::QueueFull, ledger);
                }
                self.voice.push_back(waiting);
                true
            }
            Lane::Data => {
                self.held_data += waiting.cost as usize;
                if sings(Canary::DroppedData)
                    && self.data.len() > 4
                    && let Some(last) = self.data.pop_back()
                {
                    self.held -= last.cost as usize;
                    self.held_data -= last.cost as usize;
                    ledger.settle([last], Fate::Dropped(DropReason::Gone));
                }
                self.data.push_back(waiting);
                if sings(Canary::Reordered) && self.data.len() > 2 {
                    self.data.swap(0, 1);
                }
                self.held_data <= config.data_bound() || sings(Canary::Patience)
            }
        }
    }

    /// Whether a batch should leave now.
    pub(crate) fn ready(&self, now: Duration, coalesce: Option<Duration>) -> Ready {
        let busy = self.outstanding.is_some() && !sings(Canary::TwoWrites);
        if busy || self.is_empty() {
            return Ready::No;
        }
        match (self.left_at, coalesce) {
            (Some(left_at), Some(window)) if now < left_at + window && !self.has_control() => {
                Ready::At(left_at + window)
            }
            _ => Ready::Now,
        }
    }

    /// Something other than a batch is being written: the 101, an answer, a close frame.
    pub(crate) fn occupy(&mut self, now: Duration) {
        self.outstanding = Some(Outstanding { since: now, ping: false });
    }

    /// The next batch, which then is outstanding. None if all that waited was stale.
    pub(crate) fn take(&mut self, now: Duration, config: &Config, ledger: &mut Ledger) -> Option<Batch> {
        self.drop_stale_voice(now, config, ledger);
        let mut batch = Batch::default();
        if let Some(payload) = self.pong.take() {
            batch.append(&Frame::encode(Opcode::Pong, payload));
        }
        let ping = core::mem::take(&mut self.ping);
        if ping {
            batch.append(&Frame::encode(Opcode::Ping, Bytes::new()));
        }
        let from = self.in_flight.len();
        if sings(Canary::VoiceLast) {
            self.take_data(now, ledger);
        }
        for waiting in self.voice.drain(..) {
            ledger.waited(Lane::Voice, now.saturating_sub(waiting.since));
            self.in_flight.push(waiting);
        }
        self.take_data(now, ledger);
        batch.extend(ledger.gather(&self.in_flight[from..], config.batch));
        if batch == Batch::default() {
            return None;
        }
        self.outstanding = Some(Outstanding { since: now, ping });
        self.left_at = Some(now);
        Some(batch)
    }

    fn take_data(&mut self, now: Duration, ledger: &mut Ledger) {
        let mut taken = 0;
        while let Some(next) = self.data.front().copied() {
            if taken > 0 && taken + next.cost as usize > MAX_BATCH_BYTES {
                break;
            }
            taken += next.cost as usize;
            ledger.waited(Lane::Data, now.saturating_sub(next.since));
            self.in_flight.push(next);
            self.data.pop_front();
        }
    }

    /// What was outstanding has reached the kernel.
    pub(crate) fn sent(&mut self, ledger: &mut Ledger) -> Option<Outstanding> {
        let outstanding = self.outstanding.take()?;
        self.settle_in_flight(Fate::Delivered, ledger);
        if self.in_flight.capacity() > KEPT_PLACES {
            self.in_flight.shrink_to(KEPT_PLACES);
        }
        for queue in [&mut self.voice, &mut self.data] {
            if queue.capacity() > KEPT_PLACES && queue.len() < KEPT_PLACES / 2 {
                queue.shrink_to(KEPT_PLACES);
            }
        }
        Some(outstanding)
    }

    /// Lets go of everything. What is being written is the adapter's now; it stays outstanding, but is no
    /// longer counted: a receiver that is being closed must not keep others from being served.
    pub(crate) fn clear(&mut self, reason: DropReason, ledger: &mut Ledger) {
        self.ping = false;
        self.pong = None;
        self.settle_in_flight(Fate::Dropped(reason), ledger);
        ledger.settle(self.voice.drain(..).chain(self.data.drain(..)), Fate::Dropped(reason));
        (self.held, self.held_data) = (0, 0);
    }

    fn settle_in_flight(&mut self, fate: Fate, ledger: &mut Ledger) {
        let [voice, data] = ledger.settle(self.in_flight.drain(..), fate);
        self.held -= voice + data;
        self.held_data -= data;
    }

    /// Rule S2. Voice waits in the order in which it came, so the oldest is in front.
    fn drop_stale_voice(&mut self, now: Duration, config: &Config, ledger: &mut Ledger) {
        let Some(max_age) = config.voice_max_age.filter(|_| !sings(Canary::StaleVoice)) else { return };
        while self.voice.front().is_some_and(|oldest| now.saturating_sub(oldest.since) > max_age) {
            self.drop_oldest_voice(DropReason::Stale, ledger);
        }
    }

    fn drop_oldest_voice(&mut self, reason: DropReason, ledger: &mut Ledger) {
        if let Some(oldest) = self.voice.pop_front() {
            self.held -= oldest.cost as usize;
            ledger.settle([oldest], Fate::Dropped(reason));
        }
    }
}
