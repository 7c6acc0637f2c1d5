//! One connection of the load generator: joined with blocking calls, used without.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use conformance::frame::{opcode, server_header};
use conformance::http::{Answer, Request};
use conformance::net::Tls;
use mio::{Interest, Registry, Token};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, Stream};

/// So many connections are opened before the first of them is waited for.
const WAVE: usize = 32;
/// How long a relay may take for a handshake.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the relay is.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
}

impl Target {
    /// Every handshake over TLS is a whole one (RFC 8446 section 2.2).
    pub(crate) fn without_resumption(mut self) -> Self {
        if let Some(tls) = &mut self.tls {
            let mut config = ClientConfig::clone(&tls.config);
            config.resumption = Resumption::disabled();
            tls.config = Arc::new(config);
        }
        self
    }
}

/// A member of a room.
pub(crate) struct Wire {
    stream: mio::net::TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// A frame that is not whole yet.
    input: Vec<u8>,
    /// What the socket did not take yet.
    output: Vec<u8>,
}

/// A connection before its 101.
struct Caller {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    input: BytesMut,
}

/// Joins with each of these targets of requests, in their order.
pub(crate) fn join(target: &Target, requests: &[String]) -> Result<Vec<Wire>, String> {
    let mut wires = Vec::with_capacity(requests.len());
    for wave in requests.chunks(WAVE) {
        let callers = wave.iter().map(|_| Caller::dial(target)).collect::<Result<Vec<_>, _>>()?;
        let asked: Result<Vec<_>, _> =
            callers.into_iter().zip(wave).map(|(caller, request)| caller.ask(request)).collect();
        for caller in asked? {
            wires.push(caller.joined()?);
        }
    }
    Ok(wires)
}

/// Whether a relay is there and says that it is well.
pub(crate) fn is_well(target: &Target) -> bool {
    let asked = Caller::dial(target).and_then(|caller| caller.send(&Request::get("/health").encode()));
    asked.is_ok_and(|mut caller| {
        while caller.read().is_ok_and(|count| count > 0) {
            if let Ok(Some(answer)) = Answer::take_head(&mut caller.input) {
                return answer.status == 200;
            }
        }
        false
    })
}

impl Caller {
    fn dial(Target { address, tls }: &Target) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(address, PATIENCE)
            .map_err(|error| format!("cannot connect to {address}: {error}"))?;
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        set.map_err(|error| error.to_string())?;
        let tls = match tls {
            None => None,
            Some(Tls { config, name }) => {
                let connection = ClientConnection::new(Arc::clone(config), name.clone());
                let mut connection = connection.map_err(|error| error.to_string())?;
                connection.set_buffer_limit(None);
                Some(Box::new(connection))
            }
        };
        Ok(Self { stream, tls, input: BytesMut::new() })
    }

    fn ask(self, request: &str) -> Result<Self, String> {
        self.send(&Request::upgrade(request).encode())
    }

    fn send(mut self, request: &[u8]) -> Result<Self, String> {
        let written = match &mut self.tls {
            None => self.stream.write_all(request),
            Some(tls) => {
                let mut stream = Stream::new(tls.as_mut(), &mut self.stream);
                stream.write_all(request).and_then(|()| stream.flush())
            }
        };
        written.map_err(|error| format!("the handshake failed: {error}"))?;
        Ok(self)
    }

    fn joined(mut self) -> Result<Wire, String> {
        let answer = loop {
            if let Some(answer) = Answer::take_head(&mut self.input)? {
                break answer;
            }
            if self.read()? == 0 {
                return Err("the handshake failed: the relay closed the connection".to_owned());
            }
        };
        if answer.status != 101 {
            while self.input.len() < answer.content_length() && self.read()? > 0 {}
            let (status, reason) = (answer.status, String::from_utf8_lossy(&self.input));
            let reason = reason.trim();
            return Err(format!("refused with {status} {reason}{}", remedy(status, reason)));
        }
        self.stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        let stream = mio::net::TcpStream::from_std(self.stream);
        Ok(Wire { stream, tls: self.tls, input: self.input.to_vec(), output: Vec::new() })
    }

    fn read(&mut self) -> Result<usize, String> {
        let mut chunk = [0; 2048];
        let read = match &mut self.tls {
            None => self.stream.read(&mut chunk),
            Some(tls) => Stream::new(tls.as_mut(), &mut self.stream).read(&mut chunk),
        };
        let count = read.map_err(|error| format!("the handshake failed: {error}"))?;
        self.input.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

/// What the operator of the relay can do about a refusal.
fn remedy(status: u16, reason: &str) -> &'static str {
    match (status, reason) {
        (429, _) => ": start the relay with RELAY_RATE_LIMIT_PER_IP=0",
        (503, "max rooms reached") => ": give the relay a higher RELAY_MAX_ROOMS, or ask for less --rooms",
        (503, "room full") => {
            ": give the relay a higher RELAY_MAX_CLIENTS_PER_ROOM, or ask for less --people"
        }
        _ => "",
    }
}

impl Wire {
    /// All that happens to it will come under this token.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// What will be sent by the next [`flush`](Self::flush).
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends as much as the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&self.output)?;
            self.output.clear();
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    written => _ = written?,
                }
            }
            return Ok(());
        }
        let mut taken = 0;
        while taken < self.output.len() {
            match self.stream.write(&self.output[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..taken);
        Ok(())
    }

    /// Calls back with opcode and payload of each frame that has come. False: the relay has finished.
    pub(crate) fn receive(
        &mut self,
        ended: bool,
        scratch: &mut [u8],
        mut frame: impl FnMut(u8, &[u8]),
    ) -> io::Result<bool> {
        loop {
            let read = match &mut self.tls {
                None => self.stream.read(scratch),
                Some(tls) => read_tls(tls, &mut self.stream, scratch),
            };
            let count = match read {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                // TLS without a close_notify.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            };
            self.take(&scratch[..count], &mut frame).map_err(io::Error::other)?;
            // A short read has emptied the socket; what comes later is a new event (epoll(7)).
            if self.tls.is_none() && count < scratch.len() && !ended {
                return Ok(true);
            }
        }
    }

    fn take(&mut self, chunk: &[u8], frame: &mut impl FnMut(u8, &[u8])) -> Result<(), String> {
        if self.input.is_empty() {
            let used = frames(chunk, frame)?;
            self.input.extend_from_slice(&chunk[used..]);
        } else {
            self.input.extend_from_slice(chunk);
            let used = frames(&self.input, frame)?;
            self.input.drain(..used);
        }
        if self.input.is_empty() {
            // Ten thousand of them are held at a time.
            self.input = Vec::new();
        }
        Ok(())
    }
}

/// Decrypted bytes; what waits in TLS is given out before the socket is asked.
fn read_tls(tls: &mut ClientConnection, stream: &mut impl Read, scratch: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(scratch) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
        if tls.read_tls(stream)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(io::Error::other)?;
    }
}

/// Calls back with each whole frame; how many bytes they were.
fn frames(bytes: &[u8], frame: &mut impl FnMut(u8, &[u8])) -> Result<usize, String> {
    let mut used = 0;
    while let Some((header, length)) = server_header(&bytes[used..])? {
        let Some(payload) = bytes[used..].get(header..header + length) else { break };
        frame(bytes[used] & 0x0F, payload);
        used += header + length;
    }
    Ok(used)
}

/// Whether it is a message.
pub(crate) fn is_message(code: u8) -> bool {
    matches!(code, opcode::TEXT | opcode::BINARY)
}
