//! Connections as the doctor makes them: each step can fail, and says how.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message, WebSocket};

/// How long one step may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// Where the relay is.
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// What TLS came to.
pub(super) struct Shown {
    pub(super) version: String,
    pub(super) not_after: Option<u64>,
}

impl Place {
    pub(super) fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// A connection for bytes, TLS on top if there is any.
    pub(super) fn dial(&self) -> io::Result<(Box<dyn Stream>, TcpStream)> {
        let socket = self.tcp()?;
        let other = socket.try_clone()?;
        Ok(match &self.tls {
            None => (Box::new(socket), other),
            Some((config, name)) => {
                let connection = ClientConnection::new(Arc::clone(config), name.clone());
                let connection = connection.map_err(io::Error::other)?;
                (Box::new(StreamOwned::new(connection, socket)), other)
            }
        })
    }

    pub(super) fn handshake(
        &self,
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
    ) -> io::Result<Shown> {
        let mut socket = self.tcp()?;
        let connection = ClientConnection::new(Arc::clone(config), name.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let version =
            connection.protocol_version().map_or_else(String::new, |version| format!("{version:?}"));
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        Ok(Shown { version, not_after: leaf.and_then(not_after) })
    }

    /// Joins a room. An error says what the relay answered, or why it did not.
    pub(super) fn join(&self, url: &str) -> Result<Member, String> {
        let mut request = url.into_client_request().map_err(text)?;
        request.headers_mut().insert("Accept", HeaderValue::from_static("application/json"));
        let (stream, socket) = self.dial().map_err(text)?;
        match tungstenite::client::client(request, stream) {
            Ok((member, _)) => Ok(Member { member, socket }),
            Err(HandshakeError::Failure(Error::Http(answer))) => {
                let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                Err(format!("{} {}", answer.status().as_u16(), body.trim()))
            }
            Err(HandshakeError::Failure(error)) => Err(error.to_string()),
            Err(HandshakeError::Interrupted(_)) => Err(format!("no answer within {PATIENCE:?}")),
        }
    }
}

/// rustls has no reader of certificates; what one says that is judged at the end of time does as well.
fn not_after(leaf: &CertificateDer<'_>) -> Option<u64> {
    let certificate = webpki::EndEntityCert::try_from(leaf).ok()?;
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX / 4));
    let usage = webpki::KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], end_of_time, usage, None, None).err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(not_after.as_secs()),
        _ => None,
    }
}

/// A member of a room.
pub(super) struct Member {
    member: WebSocket<Box<dyn Stream>>,
    socket: TcpStream,
}

impl Member {
    pub(super) fn send(&mut self, message: Message) -> Result<(), String> {
        self.member.send(message).map_err(text)
    }

    /// The next message or pong; none if nothing has come until then.
    pub(super) fn next(&mut self, until: Instant) -> Result<Option<Message>, String> {
        loop {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left)).map_err(text)?;
            match self.member.read() {
                Ok(Message::Ping(_)) => self.member.flush().map_err(text)?,
                Ok(Message::Close(Some(frame))) => {
                    return Err(format!("closed with {} {}", frame.code, frame.reason).trim_end().to_owned());
                }
                Ok(message) => return Ok(Some(message)),
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(text(error)),
            }
        }
    }

    /// Takes leave, as far as anybody listens.
    pub(super) fn leave(mut self) {
        let _ = self.member.close(None);
        while self.member.read().is_ok() {}
    }
}

pub(super) fn text(error: impl Display) -> String {
    error.to_string()
}

#[expect(clippy::disallowed_methods, reason = "this is the clock of the real world")]
pub(super) fn now() -> Instant {
    Instant::now()
}
