//! The command line.

use std::error::Error;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use conformance::net::Tls;
use lexopt::prelude::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

const HELP: &str = "\
Plays the conformance suite against a running relay, or replays what a relay has recorded.

    conformance check URL [--filter TEXT] [--has NAME=VALUE]... [--ca FILE | --insecure]
    conformance replay FILE [--trace]

FILE            what a relay wrote to RELAY_RECORD; exit status 0: the same was decided again,
                1: not, 11: it was, and broke an invariant
--trace         prints what happened, event by event

URL             ws://HOST:PORT/ws or wss://HOST:PORT/ws
--filter TEXT   only cases whose name contains it
--has           a setting that the relay was started with; cases that need it are played too
--ca FILE       PEM of the certificates to trust for wss
--insecure      trust any certificate

    conformance sim [--help]

Breaks the world around a simulated relay.

    conformance bench [--help]

Puts load on a relay, and measures what it does and costs.

    conformance doctor URL [--help]

Looks at a relay from here, and says what to do where something is wrong.
";

/// What was asked for.
pub(crate) enum Command {
    Check(Options),
    Replay { file: String, trace: bool },
}

/// How to play the suite.
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
    pub(crate) filter: String,
    has: Vec<String>,
}

impl Command {
    /// Reads the arguments. None: help was all that was wanted.
    pub(crate) fn from_args() -> Result<Option<Self>, Box<dyn Error>> {
        let mut parser = lexopt::Parser::from_env();
        let (mut words, mut has) = (Vec::new(), Vec::new());
        let (mut filter, mut trust, mut trace) = (String::new(), None, false);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("filter") => filter = parser.value()?.string()?,
                Long("has") => has.push(parser.value()?.string()?),
                Long("ca") => trust = Some(Trust::File(parser.value()?.string()?)),
                Long("insecure") => trust = Some(Trust::Anybody),
                Long("trace") => trace = true,
                Long("help") | Short('h') => {
                    println!("{HELP}");
                    return Ok(None);
                }
                Value(word) => words.push(word.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        let [command, object] = &words[..] else { return Err(HELP.into()) };
        Ok(Some(match command.as_str() {
            "check" => {
                let (address, tls) = target(object, trust)?;
                Self::Check(Options { address, tls, filter, has })
            }
            "replay" => Self::Replay { file: object.clone(), trace },
            _ => return Err(HELP.into()),
        }))
    }
}

impl Options {
    /// Whether the relay is known to have this setting.
    pub(crate) fn has(&self, (name, value): &(&str, &str)) -> bool {
        self.has.iter().any(|has| *has == format!("{name}={value}"))
    }
}

/// Whose certificates are good.
pub(crate) enum Trust {
    File(String),
    Anybody,
}

/// Where a URL leads.
pub(crate) fn target(url: &str, trust: Option<Trust>) -> Result<(SocketAddr, Option<Tls>), Box<dyn Error>> {
    let (scheme, rest) = url.split_once("://").ok_or("the URL begins with ws:// or wss://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, "ws"));
    if path != "ws" {
        return Err("the path of the URL is /ws".into());
    }
    let (host, port) = authority.rsplit_once(':').ok_or("the URL names a port")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = (host, port.parse()?).to_socket_addrs()?.next().ok_or("the host has no address")?;
    let tls = match scheme {
        "ws" => None,
        "wss" => {
            let trust = trust.ok_or("wss needs --ca FILE or --insecure")?;
            Some(Tls {
                config: Arc::new(client_config(&trust)?),
                name: ServerName::try_from(host.to_owned())?,
            })
        }
        other => return Err(format!("{other}:// is neither ws:// nor wss://").into()),
    };
    Ok((address, tls))
}

pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig, Box<dyn Error>> {
    let builder = ClientConfig::builder();
    Ok(match trust {
        Trust::File(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&fs::read(path)?) {
                roots.add(certificate?)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Anybody => {
            let provider = builder.crypto_provider().clone();
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth()
        }
    })
}

/// Accepts any certificate whose key is really there.
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
        Err(rustls::Error::General("rule C7: TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
