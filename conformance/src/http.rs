//! HTTP/1.1 as a client speaks it (RFC 9112), by hand: requests that may be wrong, and strictly read answers.

use std::fmt::Write as _;

use bytes::{Buf, BytesMut};

/// The example of RFC 6455 section 1.3.
pub const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// Another well-known pair of `Sec-WebSocket-Key` and `Sec-WebSocket-Accept`.
pub const OTHER_KEY: (&str, &str) = ("x3JJHMbDL1EzLkh9GBhXDw==", "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");

/// A request head.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
}

impl Request {
    /// A request with a `Host` field and no other.
    pub fn new(method: &str, target: &str) -> Self {
        let host = ("Host".to_owned(), "relay.example".to_owned());
        Self { method: method.to_owned(), target: target.to_owned(), fields: vec![host] }
    }

    /// `GET`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// An opening handshake (RFC 6455 section 4.1).
    pub fn upgrade(target: &str) -> Self {
        Self::get(target)
            .with("Upgrade", "websocket")
            .with("Connection", "Upgrade")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", KEY.0)
    }

    /// With another method.
    #[must_use]
    pub fn with_method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// One more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the fields of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(n, _)| n != name);
        self
    }

    /// With another value for a field.
    #[must_use]
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    /// As many further fields as make `total` in all.
    #[must_use]
    pub fn with_fields(mut self, total: usize) -> Self {
        for number in self.fields.len()..total {
            self = self.with(&format!("X-{number}"), "1");
        }
        self
    }

    /// Padded by one field to exactly `length` bytes.
    #[must_use]
    pub fn padded_to(self, length: usize) -> Self {
        let missing = length - self.clone().with("X-Padding", "").encode().len();
        self.with("X-Padding", &"p".repeat(missing))
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.fields {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// Whether the answer has a head only (RFC 9110 section 9.3.2).
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The value of the first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names and values in order.
    pub fields: Vec<(String, String)>,
    /// The content, as far as it was sent.
    pub body: String,
}

impl Answer {
    /// Takes the head of an answer from the front of the buffer, if it is whole.
    ///
    /// # Errors
    /// What no relay may send.
    pub fn take_head(buffer: &mut BytesMut) -> Result<Option<Self>, String> {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head = String::from_utf8(buffer[..end].to_vec()).map_err(|_| "a head that is not UTF-8")?;
        buffer.advance(end + 4);
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| format!("the status line {status_line:?}"))?;
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").ok_or_else(|| format!("the field {line:?}"))?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect::<Result<_, String>>()?;
        Ok(Some(Self { status, fields, body: String::new() }))
    }

    /// The value of a field that is there once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let (_, value) = values.next()?;
        assert!(values.next().is_none(), "{name} is there twice");
        Some(value)
    }

    /// How many bytes of content were announced.
    pub fn content_length(&self) -> usize {
        self.field("Content-Length").and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}
