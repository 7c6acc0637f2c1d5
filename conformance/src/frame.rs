//! WebSocket frames (RFC 6455 section 5.2) as a test needs them: what a client sends, right or wrong, and a
//! strict reading of what a relay sends. Independent of the code under test and of its libraries.

use std::fmt::Write as _;

use bytes::{Buf, BytesMut};

/// RFC 6455 section 11.8.
pub mod opcode {
    #![allow(missing_docs)] // the RFC's names
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xA;
}

const FIN: u8 = 0x80;
const MASK: u8 = 0x80;
/// Instead of a length: it follows in 16 bits.
const LENGTH_16: u8 = 126;
/// Instead of a length: it follows in 64 bits.
const LENGTH_64: u8 = 127;
/// The key of the RFC's example; a relay cannot tell it from a random one.
const MASKING_KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame to be sent by a client. By default final and masked.
#[derive(Clone, Debug)]
pub struct ClientFrame {
    first: u8,
    masked: bool,
    declared: Option<u64>,
    payload: Vec<u8>,
}

impl ClientFrame {
    /// A frame with any of the sixteen opcodes.
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self { first: FIN | opcode, masked: true, declared: None, payload: payload.as_ref().to_vec() }
    }

    /// A close frame with a code and a reason.
    pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Self {
        Self::new(opcode::CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
    }

    /// More fragments follow.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.first &= !FIN;
        self
    }

    /// With reserved bits: 1 to 7.
    #[must_use]
    pub fn reserved(mut self, bits: u8) -> Self {
        self.first |= bits << 4;
        self
    }

    /// Without a mask.
    #[must_use]
    pub fn unmasked(mut self) -> Self {
        self.masked = false;
        self
    }

    /// With a header that declares another length than the payload has.
    #[must_use]
    pub fn declaring(mut self, length: u64) -> Self {
        self.declared = Some(length);
        self
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mask = if self.masked { MASK } else { 0 };
        let length = self.declared.unwrap_or(self.payload.len() as u64);
        let mut bytes = vec![self.first];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ 0..=125), _) => bytes.push(mask | length),
            (_, Ok(length)) => {
                bytes.push(mask | LENGTH_16);
                bytes.extend(length.to_be_bytes());
            }
            _ => {
                bytes.push(mask | LENGTH_64);
                bytes.extend(length.to_be_bytes());
            }
        }
        if self.masked {
            bytes.extend(MASKING_KEY);
            bytes.extend(self.payload.iter().zip(MASKING_KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }

    /// In words, for a transcript.
    pub(crate) fn describe(&self) -> String {
        let kind = match self.first & 0x0F {
            opcode::CONTINUATION => "continuation".to_owned(),
            opcode::TEXT => "text".to_owned(),
            opcode::BINARY => "binary".to_owned(),
            opcode::CLOSE => "close".to_owned(),
            opcode::PING => "ping".to_owned(),
            opcode::PONG => "pong".to_owned(),
            other => format!("opcode {other:x}"),
        };
        let mut text = kind;
        if self.first & FIN == 0 {
            text.push_str(", unfinished");
        }
        if self.first & 0x70 != 0 {
            text.push_str(", reserved bits");
        }
        if !self.masked {
            text.push_str(", unmasked");
        }
        if let Some(length) = self.declared {
            let _ = write!(text, ", declaring {length} bytes");
        }
        format!("{text} {}", crate::transcript::show(&self.payload))
    }
}

/// A frame that a relay sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFrame {
    /// Binary, close, ping or pong.
    pub opcode: u8,
    /// Its content.
    pub payload: Vec<u8>,
}

impl ServerFrame {
    /// Takes one frame from the front of the buffer, if it is whole.
    ///
    /// # Errors
    /// What no relay may send: a mask, a fragment, reserved bits, text, a length that is not minimal.
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, String> {
        let [first, second, ..] = buffer[..] else { return Ok(None) };
        let opcode = first & 0x0F;
        if first & 0xF0 != FIN {
            return Err(format!("a frame that begins with {first:02x}: fragmented, or reserved bits"));
        }
        if !matches!(opcode, opcode::BINARY | opcode::CLOSE | opcode::PING | opcode::PONG) {
            return Err(format!("a frame with opcode {opcode:x}"));
        }
        if second & MASK != 0 {
            return Err("a masked frame".to_owned());
        }
        let Some((header, length)) = server_header(buffer)? else { return Ok(None) };
        if opcode >= opcode::CLOSE && length > 125 {
            return Err(format!("a control frame of {length} bytes"));
        }
        if buffer.len() < header + length {
            return Ok(None);
        }
        buffer.advance(header);
        Ok(Some(Self { opcode, payload: buffer.split_to(length).to_vec() }))
    }
}

/// The length of the header and of the payload of a relay's frame, if the header is whole.
///
/// # Errors
/// A length that is not minimal.
pub fn server_header(buffer: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let [_, second, ..] = buffer[..] else { return Ok(None) };
    let (header, length, least) = match second {
        LENGTH_16 => {
            let Some(bytes) = buffer.get(2..4) else { return Ok(None) };
            (4, u64::from(u16::from_be_bytes([bytes[0], bytes[1]])), 126)
        }
        LENGTH_64 => {
            let Some(bytes) = buffer.get(2..10) else { return Ok(None) };
            (10, bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)), 0x1_0000)
        }
        short => (2, u64::from(short), 0),
    };
    if length < least {
        return Err(format!("a length of {length} that is not minimally encoded"));
    }
    let length = usize::try_from(length).map_err(|_| format!("a frame of {length} bytes"))?;
    Ok(Some((header, length)))
}
