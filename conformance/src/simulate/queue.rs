//! What waits for one receiver, as the model sees it: everything that was put in and has not come out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::frame::{ServerFrame, opcode};

/// "How bytes are counted" of `docs/protocol.md`.
const OVERHEAD_BYTES: usize = 64;

/// Rule M3.
const MAX_JOINED_BYTES: usize = 64 * 1024;

/// "Order within a batch": 64 KiB of data, and a run of joined messages that began below that.
const MAX_BATCH_BYTES: usize = 128 * 1024;

/// Rule M2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Voice,
    Data,
}

impl Lane {
    pub(crate) fn of(payload: &[u8]) -> Self {
        if payload.starts_with(b"KV") { Lane::Voice } else { Lane::Data }
    }
}

/// A message for one receiver.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The same for all receivers of a message.
    pub(crate) number: u64,
    pub(crate) payload: Bytes,
    pub(crate) since: Duration,
}

impl Item {
    pub(crate) fn cost(&self) -> usize {
        let header = match self.payload.len() {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        };
        header + self.payload.len() + OVERHEAD_BYTES
    }
}

/// Messages: put in, written, let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) enqueued: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
}

#[derive(Default)]
pub(crate) struct Queue {
    voice: VecDeque<Item>,
    data: VecDeque<Item>,
    in_flight: Vec<Item>,
    /// Since when something is being written, and whether a ping is.
    pub(crate) outstanding: Option<(Duration, bool)>,
    left_at: Option<Duration>,
    /// By lane.
    pub(crate) counts: [Count; 2],
}

impl Queue {
    pub(crate) fn push(&mut self, item: Item, voice_queue: usize) {
        let lane = Lane::of(&item.payload);
        self.counts[lane as usize].enqueued += 1;
        match lane {
            Lane::Data => self.data.push_back(item),
            Lane::Voice => {
                if self.voice.len() >= voice_queue {
                    self.voice.pop_front();
                    self.counts[lane as usize].dropped += 1;
                }
                self.voice.push_back(item);
            }
        }
    }

    /// Everything that waits or is being written.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.voice.iter().chain(&self.data).chain(&self.in_flight)
    }

    pub(crate) fn waiting(&self, lane: Lane) -> u64 {
        let in_flight = self.in_flight.iter().filter(|item| Lane::of(&item.payload) == lane).count();
        let queued = if lane == Lane::Voice { self.voice.len() } else { self.data.len() };
        (queued + in_flight) as u64
    }

    pub(crate) fn held(&self) -> usize {
        self.items().map(Item::cost).sum()
    }

    /// Rule S3.
    pub(crate) fn held_data(&self) -> usize {
        self.items().filter(|item| Lane::of(&item.payload) == Lane::Data).map(Item::cost).sum()
    }

    pub(crate) fn voice_waiting(&self) -> usize {
        self.voice.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.voice.is_empty() && self.data.is_empty() && self.outstanding.is_none()
    }

    /// Rule M7: when what waits may leave, if only the window keeps it back.
    pub(crate) fn window(&self, coalesce: Option<Duration>) -> Option<Duration> {
        let waits = !self.voice.is_empty() || !self.data.is_empty();
        (waits && self.outstanding.is_none())
            .then(|| self.left_at.map_or(Duration::ZERO, |left_at| left_at + coalesce.unwrap_or_default()))
    }

    /// What was being written has been; whether a ping was.
    pub(crate) fn sent(&mut self) -> bool {
        for item in self.in_flight.drain(..) {
            self.counts[Lane::of(&item.payload) as usize].delivered += 1;
        }
        self.outstanding.take().is_some_and(|(_, ping)| ping)
    }

    /// Its receiver is closed: nothing of it counts any more.
    pub(crate) fn clear(&mut self) {
        for item in self.voice.drain(..).chain(self.data.drain(..)).chain(self.in_flight.drain(..)) {
            self.counts[Lane::of(&item.payload) as usize].dropped += 1;
        }
    }

    /// The same, but what waits for a member of a drained room is written first (rule D1).
    pub(crate) fn clear_unless(&mut self, drained: bool) {
        if !drained {
            self.clear();
        }
    }

    /// Rule S2: what no longer leaves.
    pub(crate) fn drop_stale(&mut self, now: Duration, max_age: Option<Duration>) {
        let Some(max_age) = max_age else { return };
        while self.voice.front().is_some_and(|oldest| now.saturating_sub(oldest.since) > max_age) {
            self.voice.pop_front();
            self.counts[Lane::Voice as usize].dropped += 1;
        }
    }

    /// Takes out what a batch carries; says what is wrong with the batch.
    pub(crate) fn take(&mut self, batch: &[u8], now: Duration, batching: bool) -> Result<(), String> {
        let mut bytes = BytesMut::from(batch);
        let mut ping = false;
        let mut carried = 0;
        while let Some(frame) = ServerFrame::take(&mut bytes)? {
            match frame.opcode {
                opcode::PING | opcode::PONG if carried > 0 => {
                    return Err("a control frame behind data".into());
                }
                opcode::PING => ping = true,
                opcode::PONG => {}
                opcode::BINARY => carried += self.take_message(&frame.payload, batching)?,
                other => return Err(format!("a frame with opcode {other}")),
            }
        }
        if !bytes.is_empty() {
            return Err("half a frame".into());
        }
        if !self.voice.is_empty() {
            return Err("voice was left behind (M4)".into());
        }
        if carried > MAX_BATCH_BYTES && self.data_in_flight() > 1 {
            return Err(format!("{carried} bytes of data in one batch (M4)"));
        }
        self.outstanding = Some((now, ping));
        self.left_at = Some(now);
        Ok(())
    }

    fn data_in_flight(&self) -> usize {
        self.in_flight.iter().filter(|item| Lane::of(&item.payload) == Lane::Data).count()
    }

    /// One WebSocket message; how many bytes of data it is.
    fn take_message(&mut self, payload: &[u8], batching: bool) -> Result<usize, String> {
        if Lane::of(payload) == Lane::Voice {
            let item = self.voice.pop_front().filter(|item| item.payload == payload);
            self.in_flight.push(item.ok_or("voice that is not next (M4, S2)")?);
            return Ok(0);
        }
        if !self.voice.is_empty() {
            return Err("data before voice that waits (M4)".into());
        }
        let alone = self.data.front().is_some_and(|next| next.payload == payload);
        let parts: Vec<&[u8]> =
            if alone { vec![payload] } else { payload.split(|byte| *byte == b'\n').collect() };
        if !alone && (!batching || payload.len() >= MAX_JOINED_BYTES) {
            return Err("data that is not next (M4), or was joined and must not be (M3)".into());
        }
        for part in &parts {
            let next = self.data.pop_front().filter(|next| next.payload == *part);
            let next = next
                .ok_or_else(|| format!("data that is not next (M4): {:?}", String::from_utf8_lossy(part)))?;
            if !alone && !part.starts_with(b"{") {
                return Err("what is no JSON was joined (M3)".into());
            }
            self.in_flight.push(next);
        }
        Ok(payload.len())
    }
}
