//! HTTP/1.1 as far as a relay needs it (RFC 9112): read a head, pick a route, write an answer.
//!
//! What a request to `/ws` is worth is decided in `admit.rs`; here is only what can be said of a head
//! without knowing any room.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use crate::event::Fault;
use crate::refusal::Refusal;

/// Rule H9.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Rule H9.
const MAX_FIELDS: usize = 64;

/// Collects the bytes of a request head until it is whole.
#[derive(Debug, Default)]
pub struct Head {
    bytes: Vec<u8>,
    /// Where the head ends and what the client sent ahead of time begins; zero while it is not whole.
    end: usize,
}

impl Head {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes from the socket, however they were cut. `Ok(true)`: the head is whole.
    ///
    /// # Errors
    /// [`Fault::BadHead`] or [`Fault::HeadTooLarge`], as soon as it is certain.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        self.bytes.extend_from_slice(bytes);
        // A head can only end, or go wrong in a way worth an answer, with a line. So it is parsed once per
        // line at most, and a client that sends byte by byte buys no work with it.
        if bytes.contains(&b'\n') {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            match httparse::Request::new(&mut fields).parse(&self.bytes) {
                Ok(httparse::Status::Complete(end)) if end <= MAX_HEAD_BYTES => {
                    self.end = end;
                    return Ok(true);
                }
                Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
                    return Err(Fault::HeadTooLarge);
                }
                Ok(httparse::Status::Partial) => {}
                Err(_) => return Err(Fault::BadHead),
            }
        }
        if self.bytes.len() > MAX_HEAD_BYTES { Err(Fault::HeadTooLarge) } else { Ok(false) }
    }

    /// The request, once [`push`](Self::push) has said that it is whole.
    pub fn request(&self) -> Option<Request<'_>> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(_)) = parsed.parse(self.bytes.get(..self.end)?) else {
            return None;
        };
        Some(Request {
            method: parsed.method?,
            target: parsed.path?,
            version: parsed.version?,
            fields: parsed.headers.iter().map(|field| (field.name, field.value)).collect(),
        })
    }

    /// What the client sent behind its head, ahead of the answer.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.end)
    }
}

/// A parsed request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Case-sensitive (RFC 9110 section 9.1).
    pub method: &'a str,
    /// The request target as sent.
    pub target: &'a str,
    /// The minor version: 0 or 1.
    pub version: u8,
    /// Names and values as sent.
    pub fields: Vec<(&'a str, &'a [u8])>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Status,
    Health,
    WebSocket,
    Unknown,
}

impl<'a> Request<'a> {
    /// Every value of a field, in order; names ignore case.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The members of a comma-separated list that may be spread over several fields (RFC 9110 section 5.6.1).
    pub(crate) fn list(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.values(name)
            .filter_map(|value| core::str::from_utf8(value).ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|member| !member.is_empty())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|member| member.eq_ignore_ascii_case(token))
    }

    /// Path and query; a target in absolute form (RFC 9112 section 3.2.2) loses scheme and authority.
    pub(crate) fn origin_form(&self) -> (&'a str, &'a str) {
        let after_authority = |rest: &'a str| rest.find(['/', '?']).map_or("", |at| &rest[at..]);
        let target = match self.target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => after_authority(rest),
            _ => self.target,
        };
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        (if path.is_empty() { "/" } else { path }, query)
    }

    pub(crate) fn route(&self) -> Route {
        match self.origin_form().0 {
            "/" => Route::Status,
            "/health" => Route::Health,
            "/ws" => Route::WebSocket,
            _ => Route::Unknown,
        }
    }

    /// Rules H7 and H9, and RFC 9112 section 3.2: one `Host`, no body. `Err` is the refusal.
    pub(crate) fn judge(&self, route: Route) -> Result<(), Refusal> {
        let hosts = self.values("Host").count();
        let no_body = |length: &[u8]| !length.is_empty() && length.iter().all(|digit| *digit == b'0');
        if !self.values("Content-Length").all(no_body)
            || self.values("Transfer-Encoding").next().is_some()
            || hosts > 1
        {
            return Err(Refusal::BadRequest);
        }
        if hosts == 0 && self.version > 0 {
            return Err(Refusal::BadRequest);
        }
        match (route, self.method) {
            (Route::Unknown, _) => Err(Refusal::NotFound),
            (Route::Status | Route::Health, "GET" | "HEAD") | (Route::WebSocket, "GET") => Ok(()),
            (Route::Status | Route::Health, _) => Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" }),
            (Route::WebSocket, _) => Err(Refusal::MethodNotAllowed { allow: "GET" }),
        }
    }

    /// The first value of a query parameter, decoded; absent is empty (rule H4).
    pub(crate) fn parameter(&self, name: &str) -> Result<String, Refusal> {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8().map(Cow::into_owned)
        };
        for pair in self.origin_form().1.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if decode(key).is_ok_and(|key| key == name) {
                return decode(value).map_err(|_| Refusal::BadRequest);
            }
        }
        Ok(String::new())
    }

    /// Rule H10.
    pub(crate) fn wants_json(&self) -> bool {
        self.list("Accept").any(|range| {
            let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
            let refused = parameters.split(';').any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|q| q <= 0.0)
            });
            kind.trim().eq_ignore_ascii_case("application/json") && !refused
        })
    }

    /// The server's side of the opening handshake (RFC 6455 section 4.2); `Ok` is `Sec-WebSocket-Accept`.
    pub(crate) fn judge_handshake(&self) -> Result<String, Refusal> {
        // RFC 9110 section 7.8: an Upgrade field in an HTTP/1.0 request is to be ignored.
        let upgrade = self.version > 0
            && self.has_token("Connection", "upgrade")
            && self.has_token("Upgrade", "websocket");
        if !upgrade {
            return Err(Refusal::UpgradeRequired);
        }
        if !self.values("Sec-WebSocket-Version").eq([b"13".as_slice()]) {
            return Err(Refusal::VersionRequired);
        }
        let mut keys = self.values("Sec-WebSocket-Key");
        match (keys.next(), keys.next()) {
            (Some(key), None) => accept_key(key).ok_or(Refusal::BadHandshake),
            _ => Err(Refusal::BadHandshake),
        }
    }
}

/// RFC 6455 section 4.2.2, for a key that is the base64 of 16 bytes.
fn accept_key(key: &[u8]) -> Option<String> {
    use base64ct::{Base64, Encoding};
    use sha1::{Digest, Sha1};

    let mut nonce = [0; 16];
    if Base64::decode(key, &mut nonce).ok()?.len() != nonce.len() {
        return None;
    }
    let digest =
        Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    Some(Base64::encode_string(&digest))
}

/// A whole answer, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Status line, fields, empty line, content.
    pub bytes: Bytes,
}

/// What an answer consists of besides its status.
pub(crate) struct Content<'a> {
    pub(crate) media_type: &'static str,
    /// Whole lines of further fields, each ending in CRLF.
    pub(crate) fields: &'a str,
    pub(crate) body: &'a str,
}

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

impl Response {
    /// An answer after which the connection ends. `HEAD` gets everything but the body.
    pub(crate) fn new(status: u16, head_only: HeadOnly, content: &Content<'_>) -> Self {
        let Content { media_type, fields, body } = content;
        let shown = match head_only {
            HeadOnly::Yes => "",
            HeadOnly::No => body,
        };
        let connection = if status == 426 { "upgrade, close" } else { "close" };
        let bytes = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\
             X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n{fields}Connection: {connection}\r\n\r\n{shown}",
            reason_phrase(status),
            body.len(),
        );
        Self { status, bytes: bytes.into() }
    }

    /// Rule H11: these three fields and no other.
    pub(crate) fn switching_protocols(accept: &str) -> Self {
        let bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        Self { status: 101, bytes: bytes.into() }
    }

    /// A refusal in the form that the client asked for (rules H5, H8, H10).
    pub(crate) fn refusal(
        refusal: Refusal,
        form: Form,
        head_only: HeadOnly,
        retry_after: Option<u64>,
    ) -> Self {
        let mut fields = match refusal {
            Refusal::MethodNotAllowed { allow } => format!("Allow: {allow}\r\n"),
            Refusal::UpgradeRequired => String::from("Upgrade: websocket\r\n"),
            Refusal::VersionRequired => String::from("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            _ => String::new(),
        };
        if let Some(seconds) = retry_after {
            let _ = write!(fields, "Retry-After: {seconds}\r\n");
        }
        let (what, reason) = refusal.text();
        let (media_type, body) = match form {
            Form::Plain => (PLAIN, format!("{what}{reason}\n")),
            // Neither codes nor texts hold anything that JSON would escape; a test says so.
            Form::Json => {
                (JSON, format!("{{\"error\":\"{}\",\"message\":\"{what}{reason}\"}}", refusal.code()))
            }
        };
        Self::new(refusal.status(), head_only, &Content { media_type, fields: &fields, body: &body })
    }
}

/// How refusals are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Json,
}

/// Whether the body is left out, as for `HEAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadOnly {
    Yes,
    No,
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "",
    }
}
