//! One direction of a socket.

use std::collections::VecDeque;
use std::io;
use std::io::{Read, Write};

use relay_proto::Progress;

use crate::host::Received;

/// What the kernels on both sides hold together. Real ones hold more, so a case about a reader that stalls
/// sends as much as fills those.
const CAPACITY_BYTES: usize = 128 * 1024;

/// Bytes in flight, and how they end.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    finished: bool,
    broken: bool,
    /// How many bytes were ever taken out.
    taken: u64,
}

/// What a kernel would know of its two directions.
pub(super) fn progress(inbound: &Pipe, outbound: &Pipe) -> Progress {
    let (acked, waiting) = outbound.moved();
    let (read, unread) = inbound.moved();
    Progress { acked, waiting, received: read + unread }
}

impl Pipe {
    /// Takes in what there is room for, and says how much that was.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        let room = CAPACITY_BYTES.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend(&bytes[..room]);
        room
    }

    /// All that is there, or how it ended.
    pub(super) fn take(&mut self) -> Option<Received> {
        if !self.bytes.is_empty() {
            self.taken += self.bytes.len() as u64;
            return Some(Received::Bytes(self.bytes.drain(..).collect()));
        }
        if self.broken {
            return Some(Received::Reset);
        }
        self.finished.then_some(Received::End)
    }

    /// Bytes that were taken out, and that wait.
    fn moved(&self) -> (u64, u64) {
        (self.taken, self.bytes.len() as u64)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// What was in flight is lost.
    pub(super) fn break_off(&mut self) {
        self.bytes.clear();
        self.broken = true;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}

/// As tungstenite wants it: its reads come from the pipe, its writes go nowhere.
pub(super) struct Inlet<'a>(pub(super) &'a mut Pipe);

impl Read for Inlet<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.bytes.is_empty() && !self.0.finished {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = self.0.bytes.read(buffer)?;
        self.0.taken += len as u64;
        Ok(len)
    }
}

impl Write for Inlet<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
