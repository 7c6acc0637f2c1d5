//! What happened: as one number, to compare runs, and as a chart, to read one.

use std::time::Duration;

use bytes::Buf;
use relay_proto::frame::Batch;
use relay_proto::{Action, Event};

/// Keeps a hash over every event and action with its time; two runs with the same hash were the same. With
/// `lines`, it keeps a sequence chart too: clients to the left, the relay to the right.
pub(crate) struct Trace {
    hash: u64,
    now: Duration,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Of FNV-1a, which takes a byte at a time; this takes eight.
    const BASIS: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01B3;

    pub(crate) fn new(charted: bool) -> Self {
        Self { hash: Self::BASIS, now: Duration::ZERO, lines: charted.then(Vec::new) }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }

    /// Something that comes from neither side.
    pub(crate) fn note(&mut self, now: Duration, text: impl FnOnce() -> String) {
        self.now = now;
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10} ════ {}", milliseconds(now), text()));
        }
    }

    /// What the relay is told, about a client.
    pub(crate) fn event(&mut self, now: Duration, client: Option<usize>, event: &Event<'_>) {
        self.now = now;
        self.word(u64::try_from(now.as_nanos()).unwrap_or_default());
        self.word(client.map_or(u64::MAX, |client| client as u64));
        let (kind, bytes) = event_parts(event);
        self.bytes(kind.as_bytes());
        self.bytes(bytes);
        self.line(client, "───►", || match event {
            Event::Message { payload, .. } | Event::Ping { payload, .. } => {
                format!("{kind} {}", show(payload))
            }
            Event::PeerClose { code, .. } => {
                format!("{kind} {}", code.map_or(String::new(), |c| c.to_string()))
            }
            Event::Fault { fault, .. } => format!("{kind} {fault:?}"),
            Event::Acked { progress, .. } => {
                format!(
                    "{kind} {}, {} wait, {} received",
                    progress.acked, progress.waiting, progress.received
                )
            }
            _ => kind.to_owned(),
        });
    }

    /// A connection of a client comes to the shard that it was handed over to.
    pub(crate) fn arrival(&mut self, now: Duration, client: usize, shard: usize) {
        self.now = now;
        self.word(client as u64);
        self.word(shard as u64);
        self.line(Some(client), "───►", || format!("in shard {shard}"));
    }

    /// What the relay wants done.
    pub(crate) fn action(&mut self, client: Option<usize>, action: &Action) {
        self.word(client.map_or(u64::MAX, |client| client as u64));
        match action {
            Action::Respond { response, .. } | Action::Upgrade { response, .. } => {
                self.bytes(&response.bytes);
            }
            Action::Send { batch, .. } => self.batch(batch),
            Action::Close { code, reason, .. } => {
                self.word(code.map_or(0, u64::from));
                self.bytes(reason.as_bytes());
            }
            Action::Abort { .. } => self.bytes(b"abort"),
            Action::Probe { .. } => self.bytes(b"probe"),
            Action::Pause { .. } => self.bytes(b"pause"),
            Action::Resume { .. } => self.bytes(b"resume"),
            Action::HandOver { shard, .. } => self.word(*shard as u64),
            Action::TickOthers => self.bytes(b"tick others"),
            Action::Exit => self.bytes(b"exit"),
        }
        self.line(client, "◄───", || match action {
            Action::Respond { response, .. } => format!("answer {}", response.status),
            Action::Upgrade { .. } => "101".to_owned(),
            Action::Send { batch, .. } => format!("send {}", show(&all(batch))),
            Action::Close { code, reason, .. } => {
                format!("close {} {reason}", code.map_or(String::new(), |code| code.to_string()))
            }
            Action::Abort { .. } => "abort".to_owned(),
            Action::Probe { .. } => "probe".to_owned(),
            Action::Pause { .. } => "pause".to_owned(),
            Action::Resume { .. } => "resume".to_owned(),
            Action::HandOver { shard, .. } => format!("hand over to shard {shard}"),
            Action::TickOthers => "tick others".to_owned(),
            Action::Exit => "exit".to_owned(),
        });
    }

    fn line(&mut self, client: Option<usize>, arrow: &str, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let client = client.map_or(String::new(), |client| format!("#{client}"));
            lines.push(format!("{:>10} {client:>4} {arrow} {}", milliseconds(self.now), text()));
        }
    }

    fn word(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(Self::PRIME).rotate_left(29);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn batch(&mut self, batch: &Batch) {
        let mut batch = batch.clone();
        while batch.has_remaining() {
            self.bytes(batch.chunk());
            batch.advance(batch.chunk().len());
        }
    }
}

/// All bytes of a batch.
pub(crate) fn all(batch: &Batch) -> Vec<u8> {
    let mut batch = batch.clone();
    let mut bytes = vec![0; batch.remaining()];
    batch.copy_to_slice(&mut bytes);
    bytes
}

fn event_parts<'a>(event: &'a Event<'_>) -> (&'static str, &'a [u8]) {
    match event {
        Event::Connect { .. } => ("request", &[]),
        Event::Message { payload, .. } => ("message", payload),
        Event::Ping { payload, .. } => ("ping", payload),
        Event::Pong { .. } => ("pong", &[]),
        Event::PeerClose { .. } => ("close", &[]),
        Event::Fault { .. } => ("fault", &[]),
        Event::Sent { .. } => ("sent", &[]),
        Event::Acked { .. } => ("acked", &[]),
        Event::Disconnect { .. } => ("gone", &[]),
        Event::Tick => ("tick", &[]),
        Event::Drain => ("drain", &[]),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 60;
    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    if bytes.len() > SHOWN { format!("{shown}… ({} bytes)", bytes.len()) } else { shown.to_string() }
}
