//! Is somebody still there? Pings, signs of life, what the kernel knows; and senders that are too fast.

use core::time::Duration;

use bytes::Bytes;

use crate::canary::{Canary, sings};
use crate::config::Config;
use crate::connection::{Connection, Phase};
use crate::depart::Departure;
use crate::event::{Action, Progress, Sink};
use crate::relay::Relay;
use crate::stats::Histogram;

/// How long an adapter may take to answer a probe.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// How much a sender may be ahead of its receive limit: what it may send in this time.
const INTAKE_BURST: Duration = Duration::from_secs(1);

impl Connection {
    /// When this member will have been silent, or will have taken nothing, for too long.
    ///
    /// Silence counts only once a ping was really written (rule T1): before that the peer owes nothing, be
    /// it because its socket took nothing or because this machine slept. A write that stays outstanding is
    /// judged by whether bytes move, whatever the peer sends (rule S5).
    pub(crate) fn silence_deadline(&self, config: &Config) -> Option<Duration> {
        let timeout = config.pong_timeout?;
        let pulse = &self.pulse;
        if pulse.judged_by.is_some() {
            return pulse.judged_by;
        }
        let grace = timeout.saturating_sub(config.ping_interval.unwrap_or_default());
        // A sender that is paused cannot be heard.
        let unanswered = pulse.unanswered.filter(|_| self.intake.paused_until.is_none());
        let silence = unanswered.map(|ping| (pulse.heard.max(pulse.moved) + timeout).max(ping + grace));
        let stall = self.outbox.outstanding().map(|write| write.since.max(pulse.moved) + timeout);
        let soonest = silence.into_iter().chain(stall).min().filter(|_| !sings(Canary::Immortal));
        // Nothing to judge yet: a look from time to time finds a write that began since.
        Some(soonest.unwrap_or(pulse.patrolled + timeout))
    }
}

impl Relay {
    /// Rule T1: any frame is a sign of life.
    pub(crate) fn heard(&mut self, slot: u32) {
        let pulse = &mut self.connections[slot].pulse;
        pulse.heard = self.now.monotonic;
        pulse.unanswered = None;
    }

    /// Rule T2.
    pub(crate) fn pinged(&mut self, slot: u32, payload: Bytes, sink: &mut impl Sink) {
        match self.connections[slot].phase {
            Phase::Member(_) => {}
            Phase::Closing(_) => return,
            Phase::Handshake { .. } => return Self::misuse("a ping before the handshake", sink),
        }
        self.heard(slot);
        self.meter(slot, payload.len(), sink);
        self.connections[slot].outbox.pong(payload);
        self.flush(slot, sink);
    }

    pub(crate) fn ponged(&mut self, slot: u32, sink: &mut impl Sink) {
        if let Phase::Handshake { .. } = self.connections[slot].phase {
            return Self::misuse("a pong before the handshake", sink);
        }
        self.heard(slot);
        if let Some(pinged) = self.connections[slot].pulse.pinged.take() {
            let micros = self.now.monotonic.saturating_sub(pinged).as_micros();
            let histogram = &mut self.ledger.stats.ping_round_trip;
            histogram.observe(Histogram::WAIT, u64::try_from(micros).unwrap_or(u64::MAX));
        }
    }

    /// The answer to a probe. The one at the time of a ping is what later ones are compared with.
    pub(crate) fn acked(&mut self, slot: u32, progress: Progress, sink: &mut impl Sink) {
        let now = self.now.monotonic;
        let connection = &mut self.connections[slot];
        let pulse = &mut connection.pulse;
        // Also if nobody is being judged: what moved before a ping must not be missed by the judgement that
        // may follow right behind it.
        if progress.waiting > 0 && pulse.acked.is_some_and(|acked| progress.acked > acked) {
            pulse.moved = now;
        }
        pulse.acked = Some(progress.acked);
        // A message that takes a minute to come is no silence, though no frame is whole yet.
        if pulse.received.replace(progress.received).is_some_and(|received| progress.received > received) {
            pulse.heard = now;
        }
        if pulse.judged_by.take().is_none() || connection.member().is_none() {
            return;
        }
        let connection = &mut self.connections[slot];
        // It may have spoken since it was asked.
        if connection.silence_deadline(&self.config).is_some_and(|deadline| deadline <= now) {
            self.close(slot, Departure::Silent, sink);
        } else {
            self.arm(slot);
        }
    }

    /// The one timer of a connection has fired: does whatever is due, and sets it again.
    pub(crate) fn connection_due(&mut self, slot: u32, sink: &mut impl Sink) {
        let now = self.now.monotonic;
        match &self.connections[slot].phase {
            Phase::Handshake { until: Some(until) } if *until <= now => return self.abort(slot, sink),
            Phase::Closing(closing) if closing.until <= now => return self.abort(slot, sink),
            Phase::Handshake { .. } | Phase::Closing(_) => {}
            Phase::Member(_) => {
                self.resume_when_due(slot, sink);
                self.ping_when_due(slot, sink);
                if self.judge_when_due(slot, sink) {
                    return;
                }
            }
        }
        self.arm(slot);
    }

    fn ping_when_due(&mut self, slot: u32, sink: &mut impl Sink) {
        let now = self.now.monotonic;
        let connection = &mut self.connections[slot];
        let (Some(due), Some(interval)) = (connection.pulse.next_ping, self.config.ping_interval) else {
            return;
        };
        if due > now {
            return;
        }
        // Counted from now: after a long sleep one ping is due, not all that were missed.
        connection.pulse.next_ping = Some(now + interval);
        if !connection.outbox.ping_pending() {
            connection.outbox.ping();
        }
        if connection.pulse.judged_by.is_none() {
            sink.action(Action::Probe { conn: self.id(slot) });
        }
        self.flush(slot, sink);
    }

    /// `true`: it was found dead, and is being closed.
    fn judge_when_due(&mut self, slot: u32, sink: &mut impl Sink) -> bool {
        let now = self.now.monotonic;
        let connection = &mut self.connections[slot];
        if connection.silence_deadline(&self.config).is_none_or(|deadline| deadline > now) {
            return false;
        }
        let probed = connection.pulse.judged_by.take().is_some();
        connection.pulse.patrolled = now;
        let overdue = connection.silence_deadline(&self.config).is_some_and(|deadline| deadline <= now);
        if overdue && probed {
            // Nobody answered the probe; what is known is that the time is over.
            self.close(slot, Departure::Silent, sink);
        } else if overdue {
            connection.pulse.judged_by = Some(now + PROBE_PATIENCE);
            sink.action(Action::Probe { conn: self.id(slot) });
        }
        overdue && probed
    }

    /// The optional receive limits: a sender that is ahead of them is read again when it no longer is.
    pub(crate) fn meter(&mut self, slot: u32, bytes: usize, sink: &mut impl Sink) {
        let now = self.now.monotonic;
        let intake = &mut self.connections[slot].intake;
        let mut resume = now;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let limits = [
            (self.config.max_bytes_per_second, &mut intake.bytes_full, bytes),
            (self.config.max_messages_per_second, &mut intake.messages_full, 1),
        ];
        for (limit, full_at, cost) in limits {
            if let Some(per_second) = limit {
                *full_at = (*full_at).max(now) + Duration::from_secs(1) * cost / per_second;
                resume = resume.max(full_at.saturating_sub(INTAKE_BURST));
            }
        }
        if resume > now {
            let pausing = intake.paused_until.replace(resume).is_none();
            if pausing {
                self.ledger.stats.paused += 1;
                self.arm(slot);
                sink.action(Action::Pause { conn: self.id(slot) });
            }
        }
    }

    fn resume_when_due(&mut self, slot: u32, sink: &mut impl Sink) {
        let intake = &mut self.connections[slot].intake;
        if intake.paused_until.is_some_and(|until| until <= self.now.monotonic) {
            intake.paused_until = None;
            // While it was not read it could not be heard.
            self.heard(slot);
            if !sings(Canary::PausedForGood) {
                sink.action(Action::Resume { conn: self.id(slot) });
            }
        }
    }
}
