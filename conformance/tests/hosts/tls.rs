//! Relays with a certificate of their own, and clients that trust it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fs, process};

use conformance::Host;
use conformance::host::Vars;
use conformance::net::{Local, Sockets, Tls};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::{Owner, Spawn, spawn_with};

pub(super) fn start(vars: Vars<'_>, spawn: Spawn) -> Result<Box<dyn Host>, String> {
    let identity = identity();
    let files = [("RELAY_TLS_CERT", identity.cert.as_str()), ("RELAY_TLS_KEY", identity.key.as_str())];
    let running = spawn_with(vars, &files, spawn)?;
    let sockets = Sockets::new(running.addr(), Some(identity.tls.clone()));
    Ok(Box::new(Local { sockets, switch: Owner(running) }))
}

/// A self-signed certificate in files, as an operator has it, and how a client trusts it.
struct Identity {
    cert: String,
    key: String,
    tls: Tls,
}

/// One for all relays of this process.
fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();

    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("rcgen can do it");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", process::id()));
        fs::create_dir_all(&directory).expect("the target directory can be written to");
        let write = |name: &str, pem: String| {
            let path: PathBuf = directory.join(name);
            fs::write(&path, pem).expect("the target directory can be written to");
            path.into_os_string().into_string().expect("the target directory has a name in UTF-8")
        };
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("the certificate is one");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Identity {
            cert: write("cert.pem", made.cert.pem()),
            key: write("key.pem", made.signing_key.serialize_pem()),
            tls: Tls { config: Arc::new(config), name: ServerName::try_from("localhost").expect("a name") },
        }
    })
}
