//! Real sockets: blocking, with time-outs, TLS on top where wanted.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::host::{Broken, Certificate, Host, Link, PATIENCE, Received, Switch};

/// One read takes up to this much.
const READ_BYTES: usize = 64 * 1024;
/// The shortest time-out that a socket takes.
const SHORTEST: Duration = Duration::from_millis(1);

/// A relay at an address.
pub struct Sockets {
    address: SocketAddr,
    tls: Option<Tls>,
    origin: Instant,
    pace: Duration,
}

/// How to speak TLS to it.
#[derive(Clone)]
pub struct Tls {
    /// Whom to trust.
    pub config: Arc<ClientConfig>,
    /// Whom to expect.
    pub name: ServerName<'static>,
}

impl Sockets {
    /// A relay that listens there.
    pub fn new(address: SocketAddr, tls: Option<Tls>) -> Self {
        Self { address, tls, origin: instant(), pace: Duration::ZERO }
    }

    /// Waits this long before each connection, to stay below the rate limit of a relay that is in use.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address)
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.address));
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
        stream
    }
}

/// The certificate that is shown to a client, in DER.
pub fn shown_certificate(address: SocketAddr, Tls { config, name }: &Tls) -> Vec<u8> {
    let mut stream = Sockets::new(address, None).connect();
    let mut config = ClientConfig::clone(config);
    // A session that is resumed brings along the certificate with which it began.
    config.resumption = Resumption::disabled();
    let connection = ClientConnection::new(Arc::new(config), name.clone());
    let mut connection = connection.expect("the configuration fits the name");
    connection.complete_io(&mut stream).unwrap_or_else(|error| panic!("no handshake: {error}"));
    connection.peer_certificates().and_then(<[_]>::first).expect("a server shows one").to_vec()
}

impl Host for Sockets {
    fn dial(&self) -> Box<dyn Link> {
        if !self.pace.is_zero() {
            self.pass(self.pace);
        }
        let stream = self.connect();
        match &self.tls {
            None => Box::new(Wire { stream }),
            Some(Tls { config, name }) => {
                let connection = ClientConnection::new(Arc::clone(config), name.clone())
                    .expect("the configuration fits the name");
                Box::new(Wire { stream: StreamOwned::new(connection, stream) })
            }
        }
    }

    fn elapsed(&self) -> Duration {
        instant() - self.origin
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock of the real world")]
    fn unix(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
    }

    #[expect(clippy::disallowed_methods, reason = "real time passes only by itself")]
    fn pass(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn encrypted(&self) -> bool {
        self.tls.is_some()
    }

    fn dial_beneath_tls(&self) -> Box<dyn Link> {
        Box::new(Wire { stream: self.connect() })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock of the real world")]
fn instant() -> Instant {
    Instant::now()
}

/// A relay that this process has started.
pub struct Local<S> {
    /// How to reach it.
    pub sockets: Sockets,
    /// How to steer it.
    pub switch: S,
    /// How to replace its certificate, if it has one.
    pub certificate: Option<Box<dyn Certificate>>,
}

impl<S: Switch> Host for Local<S> {
    fn dial(&self) -> Box<dyn Link> {
        self.sockets.dial()
    }

    fn elapsed(&self) -> Duration {
        self.sockets.elapsed()
    }

    fn unix(&self) -> u64 {
        self.sockets.unix()
    }

    fn pass(&self, time: Duration) {
        self.sockets.pass(time);
    }

    fn switch(&self) -> Option<&dyn Switch> {
        Some(&self.switch)
    }

    fn certificate(&self) -> Option<&dyn Certificate> {
        self.certificate.as_deref()
    }

    fn encrypted(&self) -> bool {
        self.sockets.encrypted()
    }

    fn dial_beneath_tls(&self) -> Box<dyn Link> {
        self.sockets.dial_beneath_tls()
    }
}

/// A socket, or TLS over one.
struct Wire<S> {
    stream: S,
}

trait Stream: Read + Write {
    fn socket(&self) -> &TcpStream;

    /// What TLS says before the end of its direction.
    fn farewell(&mut self) {}
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }

    fn farewell(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
    }
}

impl<S: Stream> Link for Wire<S> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).map_err(|_| Broken)
    }

    fn receive(&mut self, within: Duration) -> Received {
        let mut buffer = vec![0; READ_BYTES];
        let set = self.stream.socket().set_read_timeout(Some(within.max(SHORTEST)));
        set.expect("a socket takes a time-out");
        loop {
            return match self.stream.read(&mut buffer) {
                Ok(0) => Received::End,
                Ok(count) => {
                    buffer.truncate(count);
                    Received::Bytes(buffer)
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Received::Nothing,
                    // TLS without a close_notify.
                    ErrorKind::UnexpectedEof => Received::End,
                    _ => Received::Reset,
                },
            };
        }
    }

    fn finish(&mut self) {
        self.stream.farewell();
        // It may be closed already.
        let _ = self.stream.socket().shutdown(Shutdown::Write);
    }

    fn reset(&mut self) {
        let socket = socket2::SockRef::from(self.stream.socket());
        socket.set_linger(Some(Duration::ZERO)).expect("a socket takes SO_LINGER");
    }
}
