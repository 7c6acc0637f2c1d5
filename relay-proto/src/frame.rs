//! Frames from the relay to a client (RFC 6455 section 5.2): unmasked, never fragmented, and the same bytes
//! for every receiver, so each is encoded once.

use alloc::collections::VecDeque;
#[cfg(test)]
use alloc::vec::Vec;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use core::mem;

/// Up to this size a payload is copied behind its header: one contiguous chunk to write, and no small slice
/// keeps the large read buffer alive from which it came.
const COPY_BYTES: usize = 4096;

/// What is reserved at most for small frames that leave together. They may grow beyond it.
const MAX_RUN_RESERVED_BYTES: usize = 64 * 1024;

/// The longest header of an unmasked frame: 2 bytes, and 8 of extended length.
pub(crate) const MAX_HEADER_BYTES: usize = 10;

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
    pub fn encode(opcode: Opcode, payload: Bytes) -> Self {
        let mut head = BytesMut::with_capacity(MAX_HEADER_BYTES + small(payload.len()));
        let header_len = put_header(&mut head, opcode, payload.len());
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
    pub fn payload(&self) -> &[u8] {
        if self.tail.is_empty() { &self.head[usize::from(self.header_len)..] } else { &self.tail }
    }

    /// Header and payload, in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// The payload alone, in bytes.
    pub fn payload_len(&self) -> usize {
        self.len() - usize::from(self.header_len)
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

/// Returns how long it is.
#[allow(clippy::cast_possible_truncation)] // each cast stands behind the comparison that makes it exact
fn put_header(into: &mut BytesMut, opcode: Opcode, len: usize) -> u8 {
    into.put_u8(0x80 | opcode as u8);
    match len {
        0..=125 => {
            into.put_u8(len as u8);
            2
        }
        126..=0xFFFF => {
            into.put_u8(126);
            into.put_u16(len as u16);
            4
        }
        _ => {
            into.put_u8(127);
            into.put_u64(len as u64);
            10
        }
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
    rest: VecDeque<Bytes>,
    remaining: usize,
}

impl Batch {
    /// One chunk of bytes that are encoded already.
    pub fn single(bytes: Bytes) -> Self {
        Self { remaining: bytes.len(), first: bytes, rest: VecDeque::new() }
    }

    /// Puts a frame behind the others.
    pub fn append(&mut self, frame: &Frame) {
        self.push(&frame.head);
        self.push(&frame.tail);
    }

    /// Puts another batch behind this one.
    pub(crate) fn extend(&mut self, behind: Batch) {
        if self.remaining == 0 {
            *self = behind;
            return;
        }
        self.remaining += behind.remaining;
        self.rest.extend([behind.first].into_iter().chain(behind.rest).filter(|chunk| !chunk.is_empty()));
    }

    fn push(&mut self, chunk: &Bytes) {
        self.remaining += chunk.len();
        if self.first.is_empty() {
            self.first = chunk.clone();
        } else if !chunk.is_empty() {
            self.rest.push_back(chunk.clone());
        }
    }
}

/// Puts frames behind each other, to leave together. Small ones that follow each other are copied into one chunk:
/// that costs less than a chunk each, here and in the kernel. One that is alone is not copied.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    batch: Batch,
    alone: Bytes,
    run: BytesMut,
    /// About how much will come.
    expected: usize,
}

impl Gather {
    /// `bytes`: of all frames that will come.
    pub(crate) fn expecting(bytes: usize) -> Self {
        Self { expected: bytes.min(MAX_RUN_RESERVED_BYTES) + MAX_HEADER_BYTES, ..Self::default() }
    }

    pub(crate) fn append(&mut self, frame: &Frame) {
        if !frame.tail.is_empty() {
            self.end_run();
            self.batch.append(frame);
        } else if self.alone.is_empty() && self.run.is_empty() {
            self.alone = frame.head.clone();
        } else {
            self.begin_run();
            self.run.extend_from_slice(&frame.head);
        }
    }

    /// Several messages as one, a line break between each two (rule M3).
    pub(crate) fn append_joined<'a>(&mut self, payloads: impl Iterator<Item = &'a [u8]> + Clone) {
        self.begin_run();
        let len: usize = payloads.clone().map(|payload| payload.len() + 1).sum();
        put_header(&mut self.run, Opcode::Binary, len - 1);
        for (position, payload) in payloads.enumerate() {
            if position > 0 {
                self.run.put_u8(b'\n');
            }
            self.run.extend_from_slice(payload);
        }
    }

    fn begin_run(&mut self) {
        if self.run.is_empty() {
            self.run.reserve(self.expected);
            self.run.extend_from_slice(&mem::take(&mut self.alone));
        }
    }

    pub(crate) fn finish(mut self) -> Batch {
        self.end_run();
        self.batch
    }

    fn end_run(&mut self) {
        self.batch.push(&mem::take(&mut self.alone));
        if !self.run.is_empty() {
            self.batch.push(&self.run.split().freeze());
        }
    }
}

impl From<Frame> for Batch {
    fn from(frame: Frame) -> Self {
        let mut batch = Self::default();
        batch.append(&frame);
        batch
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
            self.first = self.rest.pop_front().unwrap_or_default();
        }
        self.first.advance(count);
    }

    #[cfg(feature = "std")]
    fn chunks_vectored<'a>(&'a self, into: &mut [std::io::IoSlice<'a>]) -> usize {
        let chunks = core::iter::once(&self.first).chain(&self.rest).filter(|chunk| !chunk.is_empty());
        let mut filled = 0;
        for (slot, chunk) in into.iter_mut().zip(chunks) {
            *slot = std::io::IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(mut batch: Batch) -> Vec<u8> {
        let mut bytes = alloc::vec![0; batch.remaining()];
        batch.copy_to_slice(&mut bytes);
        assert_eq!(batch, Batch::default());
        bytes
    }

    #[test]
    fn lengths_are_encoded_as_rfc_6455_section_5_2_says() {
        for (len, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xFF, 0xFF]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = Bytes::from(alloc::vec![7; len]);
            let frame = Frame::encode(Opcode::Binary, payload.clone());
            assert_eq!(frame.payload(), &payload);
            assert_eq!(frame.len(), header.len() + len);
            let encoded = bytes_of(frame.into());
            assert_eq!(&encoded[..header.len()], header);
            assert_eq!(&encoded[header.len()..], payload);
        }
    }

    #[test]
    fn a_batch_is_its_frames_however_it_is_consumed() {
        let frames = [0, 10, 5000, 1].map(|len| Frame::encode(Opcode::Binary, alloc::vec![7; len].into()));
        let mut batch = Batch::default();
        for frame in &frames {
            batch.append(frame);
        }
        let whole = bytes_of(batch.clone());
        for step in [1, 2, 3, 4999, 5000] {
            let mut batch = batch.clone();
            let mut seen = Vec::new();
            while batch.has_remaining() {
                let part = batch.chunk()[..step.min(batch.chunk().len())].to_vec();
                batch.advance(part.len());
                seen.extend(part);
            }
            assert_eq!(seen, whole);
        }
        batch.advance(whole.len());
        assert!(!batch.has_remaining());
    }

    #[test]
    fn frames_that_leave_together_are_chunks_only_where_they_are_large() {
        let frame = |len: usize| Frame::encode(Opcode::Binary, alloc::vec![7; len].into());
        let chunks = |lens: &[usize]| {
            let mut gather = Gather::default();
            for len in lens {
                gather.append(&frame(*len));
            }
            let batch = gather.finish();
            let plain: Vec<u8> = lens.iter().flat_map(|len| bytes_of(frame(*len).into())).collect();
            assert_eq!(bytes_of(batch.clone()), plain, "{lens:?}");
            1 + batch.rest.len()
        };
        assert_eq!(chunks(&[10]), 1);
        assert_eq!(chunks(&[10, 4096, 0, 1000]), 1);
        // A large one is two: its header, and its payload as it came.
        assert_eq!(chunks(&[5000]), 2);
        assert_eq!(chunks(&[10, 20, 5000, 6000, 30, 40]), 6);
        let alone = frame(10);
        let mut gather = Gather::default();
        gather.append(&alone);
        assert_eq!(gather.finish().chunk().as_ptr(), alone.head.as_ptr(), "it is not copied");
    }

    #[test]
    fn a_close_frame_without_a_code_is_empty() {
        assert_eq!(bytes_of(Frame::close(None, "ignored").into()), [0x88, 0]);
        assert_eq!(bytes_of(Frame::close(Some(1012), "restart").into()), b"\x88\x09\x03\xf4restart");
    }
}
