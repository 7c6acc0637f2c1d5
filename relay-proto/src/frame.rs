//! Frames from the relay to a client (RFC 6455 section 5.2): unmasked, never fragmented, and the same bytes
//! for every receiver, so each is encoded once.

use alloc::vec::Vec;
use core::mem;

use bytes::{Buf, Bytes, BytesMut};

/// Up to this size a payload is copied behind its header: one contiguous chunk to write, and no small slice
/// keeps the large read buffer alive from which it came.
const COPY_BYTES: usize = 4096;

/// The longest header of an unmasked frame: 2 bytes, and 8 of extended length.
const MAX_HEADER_BYTES: usize = 10;

/// RFC 6455 section 5.5: the payload of a control frame.
pub const MAX_CONTROL_BYTES: usize = 125;

/// RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A binary message; the relay sends no text (rule M1).
    Binary = 0x2,
    /// A close frame.
    Close = 0x8,
    /// A ping.
    Ping = 0x9,
    /// A pong.
    Pong = 0xA,
}

/// One encoded frame: its header, and its payload behind it or beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The header alone, or the whole frame if that is small.
    head: Bytes,
    /// The payload, unless `head` holds it.
    tail: Bytes,
    header_len: u8,
}

impl Frame {
    /// Encodes one final, unmasked frame.
    #[allow(clippy::cast_possible_truncation)] // each cast stands behind the comparison that makes it exact
    pub fn encode(opcode: Opcode, payload: Bytes) -> Self {
        let mut head = BytesMut::with_capacity(MAX_HEADER_BYTES + small(payload.len()));
        head.extend_from_slice(&[0x80 | opcode as u8]);
        match payload.len() {
            len @ 0..=125 => head.extend_from_slice(&[len as u8]),
            len @ 126..=0xFFFF => {
                head.extend_from_slice(&[126]);
                head.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                head.extend_from_slice(&[127]);
                head.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let header_len = head.len() as u8;
        if payload.len() <= COPY_BYTES {
            head.extend_from_slice(&payload);
            return Self { head: head.freeze(), tail: Bytes::new(), header_len };
        }
        Self { head: head.freeze(), tail: payload, header_len }
    }

    /// The close frame of RFC 6455 section 5.5.1.
    pub fn close(code: Option<u16>, reason: &str) -> Self {
        let mut payload = BytesMut::with_capacity(2 + reason.len());
        if let Some(code) = code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(reason.as_bytes());
        }
        payload.truncate(MAX_CONTROL_BYTES);
        Self::encode(Opcode::Close, payload.freeze())
    }

    /// The payload alone.
    pub fn payload(&self) -> Bytes {
        if self.tail.is_empty() { self.head.slice(usize::from(self.header_len)..) } else { self.tail.clone() }
    }

    /// Header and payload, in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Never: a frame has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The opcode bits of the header.
    pub fn opcode(&self) -> u8 {
        self.head.first().map_or(0, |byte| byte & 0x0F)
    }
}

fn small(len: usize) -> usize {
    if len <= COPY_BYTES { len } else { 0 }
}

/// Encoded bytes that leave together: a [`Buf`] whose chunks are meant for one vectored write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The chunk being written; a batch of one small frame needs no allocation.
    first: Bytes,
    /// Those behind it, last one first.
    rest: Vec<Bytes>,
    remaining: usize,
}

impl Batch {
    /// One chunk of bytes that are encoded already.
    pub fn single(bytes: Bytes) -> Self {
        Self { remaining: bytes.len(), first: bytes, rest: Vec::new() }
    }

    /// Gathers frames, in the order in which they leave.
    pub fn gather(frames: impl IntoIterator<Item = Frame>) -> Self {
        let mut batch = Self::default();
        for frame in frames {
            batch.push(frame.head);
            batch.push(frame.tail);
        }
        batch.rest.reverse();
        batch
    }

    fn push(&mut self, chunk: Bytes) {
        self.remaining += chunk.len();
        if self.first.is_empty() {
            self.first = chunk;
        } else if !chunk.is_empty() {
            self.rest.push(chunk);
        }
    }

    fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        core::iter::once(&self.first).chain(self.rest.iter().rev())
    }
}

impl From<Frame> for Batch {
    fn from(frame: Frame) -> Self {
        Self::gather([frame])
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "more was written than there was");
        self.remaining -= count;
        while count >= self.first.len() && !self.first.is_empty() {
            count -= self.first.len();
            self.first = self.rest.pop().unwrap_or_default();
        }
        self.first.advance(count);
    }

    #[cfg(feature = "std")]
    fn chunks_vectored<'a>(&'a self, into: &mut [std::io::IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, chunk) in into.iter_mut().zip(self.chunks().filter(|chunk| !chunk.is_empty())) {
            *slot = std::io::IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        if len == self.first.len() && self.rest.is_empty() {
            self.remaining = 0;
            return mem::take(&mut self.first);
        }
        let mut copy = BytesMut::with_capacity(len);
        bytes::BufMut::put(&mut copy, self.take(len));
        copy.freeze()
    }
}
