//! The same as `tls.rs` with async-tls 0.13, and so with rustls 0.21.
//!
//! async-tls was written for streams that one task uses. Here two do, which [`TlsStream`] makes good.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use async_tls::TlsAcceptor;
use relay_host::cli::Duplex;
use relay_host::{Certificate, Pem, StartError};
use relay_proto::Settings;
use rustls_021::client::{ServerCertVerified, ServerCertVerifier};
use rustls_021::server::{ClientHello, ResolvesServerCert};
use rustls_021::sign::{CertifiedKey, SigningKey, any_supported_type};
use rustls_021::version::TLS13;
use rustls_021::{
    ClientConfig, ClientConnection, PrivateKey, ServerConfig, ServerName, SignatureScheme, StreamOwned,
};
use smol::io::{AsyncRead, AsyncWrite};

/// RFC 8446 section 5.1: no record holds more.
const RECORD_BYTES: usize = 16 * 1024;

/// Accepts TLS with the certificate that is in use at that moment.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate<CertifiedKey>>,
}

impl Tls {
    /// Nothing, if TLS is not wanted.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Option<Self>, StartError> {
        let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key) else { return Ok(None) };
        let certificate = Arc::new(Certificate::load(cert, key, certified)?);
        let config = ServerConfig::builder()
            .with_safe_default_cipher_suites()
            .with_safe_default_kx_groups()
            .with_protocol_versions(&[&TLS13])
            .expect("ring knows TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(InUse(certificate.clone())));
        Ok(Some(Self { acceptor: Arc::new(config).into(), certificate }))
    }

    /// The server's side of a handshake.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Clone + Unpin>(
        &self,
        socket: S,
    ) -> io::Result<TlsStream<S>> {
        let moved = Arc::<Moved>::default();
        let noted = Noted { socket: socket.clone(), moved: moved.clone() };
        Ok(TlsStream::new(self.acceptor.accept(noted).await?, moved, socket))
    }

    /// Of the certificate in use, since the Unix epoch.
    pub(crate) fn valid_until(&self) -> Option<Duration> {
        self.certificate.valid_until()
    }

    pub(crate) fn reload(&self) {
        self.certificate.reload();
    }

    pub(crate) fn reload_if_changed(&self) {
        self.certificate.reload_if_changed();
    }
}

/// Checks that certificate and key belong together, which rustls 0.21 does not: what the key signs has to be
/// valid for the certificate.
fn certified(Pem { chain, key }: Pem) -> Result<CertifiedKey, String> {
    let key =
        any_supported_type(&PrivateKey(key.secret_der().to_vec())).map_err(|error| error.to_string())?;
    let leaf = chain.first().ok_or("no certificate")?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    let message = b"do they belong together?";
    let signature = sign(&*key, message)?;
    let fits = |algorithm| leaf.verify_signature(algorithm, message, &signature).is_ok();
    if !webpki::ALL_VERIFICATION_ALGS.iter().copied().any(fits) {
        return Err("the key is not the certificate's".into());
    }
    let chain = chain.iter().map(|der| rustls_021::Certificate(der.to_vec())).collect();
    Ok(CertifiedKey::new(chain, key))
}

fn sign(key: &dyn SigningKey, message: &[u8]) -> Result<Vec<u8>, String> {
    const SCHEMES: &[SignatureScheme] = &[
        SignatureScheme::ED25519,
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::RSA_PSS_SHA256,
    ];
    let signer = key.choose_scheme(SCHEMES).ok_or("a key that TLS 1.3 has no use for")?;
    signer.sign(message).map_err(|error| error.to_string())
}

struct InUse(Arc<Certificate<CertifiedKey>>);

impl ResolvesServerCert for InUse {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// A stream that one task may read and another write.
///
/// async-tls writes while it reads and reads while it writes, so what one task waits for may come to pass in
/// the hands of the other. Here the socket wakes both, and each wakes the other after it moved bytes that way.
///
/// Nor does async-tls know vectored writes: small chunks are put together here, or each would become a record
/// and a call of its own.
pub(crate) struct TlsStream<S> {
    stream: async_tls::server::TlsStream<Noted<S>>,
    /// The same one as below.
    socket: S,
    moved: Arc<Moved>,
    wakers: Arc<Wakers>,
    both: Waker,
}

impl<S> TlsStream<S> {
    fn new(stream: async_tls::server::TlsStream<Noted<S>>, moved: Arc<Moved>, socket: S) -> Self {
        let wakers = Arc::<Wakers>::default();
        let both = Waker::from(wakers.clone());
        Self { stream, socket, moved, wakers, both }
    }

    /// As that of rustls's streams, which also give their session.
    pub(crate) fn get_mut(&mut self) -> (&mut S, ()) {
        (&mut self.socket, ())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        remember(&this.wakers.reader, cx);
        let result = Pin::new(&mut this.stream).poll_read(&mut Context::from_waker(&this.both), into);
        if this.moved.out.swap(false, Relaxed) {
            wake(&this.wakers.writer);
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.outward(cx, |stream, cx| stream.poll_write(cx, from))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match from {
            [] => Poll::Ready(Ok(0)),
            [first, ..] if from.len() == 1 || first.len() >= RECORD_BYTES => self.poll_write(cx, first),
            _ => {
                let mut record = Vec::with_capacity(RECORD_BYTES);
                for slice in from {
                    let room = RECORD_BYTES - record.len();
                    record.extend_from_slice(&slice[..slice.len().min(room)]);
                }
                self.poll_write(cx, &record)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outward(cx, AsyncWrite::poll_flush)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outward(cx, AsyncWrite::poll_close)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    fn outward<T>(
        mut self: Pin<&mut Self>,
        cx: &Context<'_>,
        poll: impl FnOnce(Pin<&mut async_tls::server::TlsStream<Noted<S>>>, &mut Context<'_>) -> T,
    ) -> T {
        let this = &mut *self;
        remember(&this.wakers.writer, cx);
        let result = poll(Pin::new(&mut this.stream), &mut Context::from_waker(&this.both));
        if this.moved.inward.swap(false, Relaxed) {
            wake(&this.wakers.reader);
        }
        result
    }
}

#[derive(Default)]
struct Wakers {
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        wake(&self.reader);
        wake(&self.writer);
    }
}

fn remember(slot: &Mutex<Option<Waker>>, cx: &Context<'_>) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
}

fn wake(slot: &Mutex<Option<Waker>>) {
    if let Some(waker) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
        waker.wake();
    }
}

/// The socket below, which notes what async-tls does with it.
struct Noted<S> {
    socket: S,
    moved: Arc<Moved>,
}

/// Whether bytes have come or gone since the last look.
#[derive(Default)]
struct Moved {
    inward: AtomicBool,
    out: AtomicBool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_read(cx, into);
        self.moved.inward.fetch_or(result.is_ready(), Relaxed);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, from);
        self.moved.out.fetch_or(result.is_ready(), Relaxed);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// Speaks TLS to a relay on this machine, for its health check: whose certificate it is does not matter.
pub fn connect(socket: TcpStream) -> io::Result<Box<dyn Duplex>> {
    let config = ClientConfig::builder()
        .with_safe_default_cipher_suites()
        .with_safe_default_kx_groups()
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let name = ServerName::IpAddress(socket.peer_addr()?.ip());
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(Box::new(StreamOwned::new(session, socket)))
}

/// Accepts every certificate whose key the peer has.
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls_021::Certificate,
        _: &[rustls_021::Certificate],
        _: &ServerName,
        _: &mut dyn Iterator<Item = &[u8]>,
        _: &[u8],
        _: SystemTime,
    ) -> Result<ServerCertVerified, rustls_021::Error> {
        Ok(ServerCertVerified::assertion())
    }
}
