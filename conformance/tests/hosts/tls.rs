//! Relays with a certificate of their own, and clients that trust whoever signed it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use conformance::Host;
use conformance::host::{Certificate, Vars};
use conformance::net::{Local, Sockets, Tls, shown_certificate};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use relay_host::Control;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::{Owner, Spawn, spawn_with};

const NAME: &str = "localhost";

pub(super) fn start(vars: Vars<'_>, spawn: Spawn) -> Result<Box<dyn Host>, String> {
    let files = Files::new();
    files.write_pair();
    let paths = [("RELAY_TLS_CERT", text(&files.cert)), ("RELAY_TLS_KEY", text(&files.key))];
    let running = spawn_with(vars, &paths, spawn)?;
    let (address, control) = (running.addr(), running.control());
    let tls = Tls { config: trusting(authority()), name: ServerName::try_from(NAME).expect("it is a name") };
    let sockets = Sockets::new(address, Some(tls.clone()));
    let certificate = Some(Box::new(Served { files, address, tls, control }) as Box<dyn Certificate>);
    Ok(Box::new(Local { sockets, switch: Owner(running), certificate }))
}

/// The certificate of a running relay.
struct Served {
    files: Files,
    address: SocketAddr,
    tls: Tls,
    control: Control,
}

impl Certificate for Served {
    fn renew(&self) {
        self.files.write_pair();
        self.control.reload();
    }

    fn spoil(&self) {
        self.files.write_other_key();
        self.control.reload();
    }

    fn shown(&self) -> Vec<u8> {
        shown_certificate(self.address, &self.tls)
    }
}

/// Where an operator would have put them.
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    /// Two names that no other relay of this or another run uses.
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", process::id()));
        fs::create_dir_all(&directory).expect("the target directory can be written to");
        Self { cert: directory.join("cert.pem"), key: directory.join("key.pem") }
    }

    fn write_pair(&self) {
        let key = KeyPair::generate().expect("rcgen can do it");
        let params = CertificateParams::new([NAME.to_owned()]).expect("it is a name");
        let cert = params.signed_by(&key, authority()).expect("the authority can sign");
        fs::write(&self.cert, cert.pem()).expect("the file can be written");
        fs::write(&self.key, key.serialize_pem()).expect("the file can be written");
    }

    fn write_other_key(&self) {
        let key = KeyPair::generate().expect("rcgen can do it");
        fs::write(&self.key, key.serialize_pem()).expect("the file can be written");
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let directory = self.cert.parent().expect("the files are in a directory");
        // Left behind, it would only take room.
        let _ = fs::remove_dir_all(directory);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the target directory has a name in UTF-8")
}

/// Who signs all certificates of this run.
fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();

    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("rcgen can do it");
        CertifiedIssuer::self_signed(params, key).expect("rcgen can do it")
    })
}

fn trusting(authority: &CertifiedIssuer<'_, KeyPair>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("the authority has a certificate");
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
