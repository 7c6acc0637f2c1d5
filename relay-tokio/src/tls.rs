//! TLS 1.3 (rule C7) and the certificate that it shows.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use relay_host::cli::Duplex;
use relay_host::{Certificate, Pem, StartError};
use relay_proto::Settings;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, SignatureScheme, StreamOwned,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
pub(crate) use tokio_rustls::server::TlsStream;

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
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("ring knows TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(InUse(certificate.clone())));
        Ok(Some(Self { acceptor: Arc::new(config).into(), certificate }))
    }

    /// The server's side of a handshake.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        self.acceptor.accept(stream).await
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

/// Checks that certificate and key belong together.
fn certified(pem: Pem) -> Result<CertifiedKey, String> {
    CertifiedKey::from_der(pem.chain, pem.key, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".into(),
        other => other.to_string(),
    })
}

#[derive(Debug)]
struct InUse(Arc<Certificate<CertifiedKey>>);

impl ResolvesServerCert for InUse {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// Speaks TLS to a relay on this machine, for its health check: whose certificate it is does not matter.
pub fn connect(socket: TcpStream) -> io::Result<Box<dyn Duplex>> {
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::from(socket.peer_addr()?.ip());
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(Box::new(StreamOwned::new(session, socket)))
}

/// Accepts every certificate whose key the peer has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
