//! What is sent: messages that carry who sent them, as which of theirs, and when they were meant to be sent.

use conformance::frame::{ClientFrame, opcode};

/// In front of a message's stamp.
const VOICE: &[u8] = b"KV";
const DATA: &[u8] = b"{\"bench\":\"";
const LARGE: &[u8] = b"LG";
/// Sender, number and time, as 16 hexadecimal digits each: text, since data is JSON.
const STAMP_BYTES: usize = 3 * 16;
/// Where the masking key begins, from the end of a client frame's header.
const KEY_BYTES: usize = 4;

/// A kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 120 bytes of voice (rule M2).
    Voice,
    /// 1 KiB of JSON.
    Data,
    /// 256 KiB of anything.
    Large,
}

impl Kind {
    /// The length of a message.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Voice => 120,
            Self::Data => 1024,
            Self::Large => 256 * 1024,
        }
    }

    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Voice => VOICE,
            Self::Data => DATA,
            Self::Large => LARGE,
        }
    }

    /// A message without a stamp.
    fn blank(self) -> Vec<u8> {
        let mut payload = self.prefix().to_vec();
        payload.resize(payload.len() + STAMP_BYTES, b'0');
        let end: &[u8] = if self == Self::Data { b"\"}" } else { b"" };
        if self == Self::Data {
            payload.extend(b"\",\"pad\":\"");
        }
        payload.resize(self.bytes() - end.len(), b'x');
        payload.extend(end);
        payload
    }
}

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Its sender, of all senders of a run.
    pub(crate) speaker: u64,
    /// Its number among those of its sender.
    pub(crate) number: u64,
    /// When it was meant to be sent, in nanoseconds since the run began.
    pub(crate) intended: u64,
}

/// A frame that is masked once; only its stamp changes from message to message.
pub(crate) struct Template {
    frame: Vec<u8>,
    key: [u8; KEY_BYTES],
    /// Where the stamp stands in the frame, and where in the payload.
    stamp: (usize, usize),
}

impl Template {
    pub(crate) fn new(kind: Kind) -> Self {
        let opcode = if kind == Kind::Data { opcode::TEXT } else { opcode::BINARY };
        let frame = ClientFrame::new(opcode, kind.blank()).encode();
        let header = frame.len() - kind.bytes();
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&frame[header - KEY_BYTES..header]);
        let prefix = kind.prefix().len();
        Self { frame, key, stamp: (header + prefix, prefix) }
    }

    /// Appends a frame with this stamp.
    pub(crate) fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let (in_frame, in_payload) = self.stamp;
        let field = &mut out[start + in_frame..][..STAMP_BYTES];
        for (digits, value) in field.chunks_exact_mut(16).zip([stamp.speaker, stamp.number, stamp.intended]) {
            for (place, digit) in digits.iter_mut().rev().enumerate() {
                *digit = b"0123456789abcdef"[(value >> (4 * place) & 0xF) as usize];
            }
        }
        for (place, byte) in field.iter_mut().enumerate() {
            *byte ^= self.key[(in_payload + place) % KEY_BYTES];
        }
    }
}

/// The stamp of a message of this kind; None: it is something else.
pub(crate) fn read(kind: Kind, message: &[u8]) -> Option<Stamp> {
    let stamp = message.strip_prefix(kind.prefix())?.get(..STAMP_BYTES)?;
    if message.len() != kind.bytes() {
        return None;
    }
    let number = |place: usize| {
        stamp[place * 16..][..16].iter().try_fold(0, |number, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some(number << 4 | u64::from(digit))
        })
    };
    Some(Stamp { speaker: number(0)?, number: number(1)?, intended: number(2)? })
}

/// Calls back with each message of a payload: several of JSON may have been joined (rule M3).
pub(crate) fn each_message<'a>(kind: Kind, payload: &'a [u8], mut message: impl FnMut(&'a [u8])) {
    let bytes = kind.bytes();
    let mut rest = payload;
    if kind == Kind::Data {
        while rest.len() > bytes {
            // Ours have one length, so that nobody has to search for where most of them end.
            let length = if rest[bytes] == b'\n' {
                bytes
            } else {
                rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
            };
            message(&rest[..length]);
            rest = rest.get(length + 1..).unwrap_or_default();
        }
    }
    message(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmasked(frame: &[u8], kind: Kind) -> Vec<u8> {
        let header = frame.len() - kind.bytes();
        let key = &frame[header - KEY_BYTES..header];
        frame[header..].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { speaker: 7, number: 0x1234_5678_9abc, intended: u64::MAX };
        for kind in [Kind::Voice, Kind::Data, Kind::Large] {
            let (template, mut out) = (Template::new(kind), b"before".to_vec());
            template.write(stamp, &mut out);
            let payload = unmasked(&out[6..], kind);
            assert_eq!(payload.len(), kind.bytes());
            assert_eq!(read(kind, &payload), Some(stamp), "{kind:?}");
            assert_eq!(read(kind, &payload[1..]), None, "{kind:?}");
        }
    }

    #[test]
    fn data_is_json_without_a_line_break() {
        let payload = Kind::Data.blank();
        assert!(!payload.contains(&b'\n'));
        let json: serde_json::Value = serde_json::from_slice(&payload).expect("it is JSON");
        // A `from` would change the peer's id (rule R8).
        assert!(json.get("from").is_none());
    }

    #[test]
    fn what_was_joined_comes_apart() {
        let (one, other) = (Kind::Data.blank(), b"{\"type\":\"session:leave\"}".to_vec());
        let joined = [&one[..], &other, &one, &one, &other].join(&b'\n');
        let mut seen = Vec::new();
        each_message(Kind::Data, &joined, |message| seen.push(message.to_vec()));
        assert_eq!(seen, [one.clone(), other.clone(), one.clone(), one, other]);
    }
}
