//! The certificate: read from PEM, judged, and replaced while the relay runs (rule D2). What a TLS library
//! makes of the two files is up to the adapter.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage};

use crate::running::StartError;

/// Between two looks at the files: a change has to be in use within 10 s.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(4);

/// What the two files hold.
#[derive(Debug)]
pub struct Pem {
    /// The certificate of the relay, then those that lead to its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
}

/// The pair in use, as the TLS library wants it, and the files that it came from.
pub struct Certificate<K> {
    cert: String,
    key: String,
    make: fn(Pem) -> Result<K, String>,
    current: RwLock<Arc<InUse<K>>>,
    /// What was last looked at, fitting or not, so that a bad pair is refused and logged once.
    seen: Mutex<Fingerprint>,
}

struct InUse<K> {
    pair: Arc<K>,
    valid_until: Option<Duration>,
}

/// Of the content of both files; nothing for one that could not be read.
type Fingerprint = [u8; 32];

impl<K> Certificate<K> {
    /// Reads both files. `make` fails, with the reason, if certificate and key do not belong together.
    pub fn load(cert: &str, key: &str, make: fn(Pem) -> Result<K, String>) -> Result<Self, StartError> {
        let seen = fingerprint(cert, key);
        let current = read(cert, key, make)?;
        Ok(Self {
            cert: cert.into(),
            key: key.into(),
            make,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(seen),
        })
    }

    /// The pair for the next handshake.
    pub fn current(&self) -> Arc<K> {
        self.in_use().pair.clone()
    }

    /// When the certificate in use expires, since the Unix epoch (`notAfter`, RFC 5280 section 4.1.2.5).
    pub fn valid_until(&self) -> Option<Duration> {
        self.in_use().valid_until
    }

    /// Puts what the files hold now into use if it fits; else the old pair stays.
    pub fn reload(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = fingerprint(&self.cert, &self.key);
        match read(&self.cert, &self.key, self.make) {
            Ok(new) => {
                let valid_until = new.valid_until.map(|time| time.as_secs());
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                tracing::info!(target: "relay", valid_until, "certificate reloaded");
            }
            Err(error) => {
                tracing::error!(target: "relay", %error, "certificate not reloaded, the old one stays");
            }
        }
    }

    /// Does so if the files have changed since the last look. Their content says so; the time of their last
    /// change would miss a link that was turned to another file.
    pub fn reload_if_changed(&self) {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if fingerprint(&self.cert, &self.key) != seen {
            self.reload();
        }
    }

    fn in_use(&self) -> Arc<InUse<K>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<K> fmt::Debug for Certificate<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).finish_non_exhaustive()
    }
}

fn read<K>(cert: &str, key: &str, make: fn(Pem) -> Result<K, String>) -> Result<InUse<K>, StartError> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| StartError::file("RELAY_TLS_CERT", cert, readable(&error)))?;
    let Some(leaf) = chain.first() else {
        return Err(StartError::file("RELAY_TLS_CERT", cert, "it holds no certificate in PEM"));
    };
    let valid_until = not_after(leaf);
    let key_der = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| StartError::file("RELAY_TLS_KEY", key, readable(&error)))?;
    let pair = make(Pem { chain, key: key_der }).map_err(|problem| StartError::pair(cert, key, problem))?;
    Ok(InUse { pair: Arc::new(pair), valid_until })
}

fn readable(error: &rustls_pki_types::pem::Error) -> String {
    use rustls_pki_types::pem::Error;
    match error {
        Error::Io(error) => format!("{error}"),
        Error::NoItemsFound => "it holds no private key in PEM".into(),
        other => format!("it is not PEM ({other})"),
    }
}

fn fingerprint(cert: &str, key: &str) -> Fingerprint {
    let digest = |path| fs::read(path).map(Sha256::digest).unwrap_or_default();
    Sha256::new().chain_update(digest(cert)).chain_update(digest(key)).finalize().into()
}

/// `notAfter`, which webpki tells to whoever asks about a time beyond it; that is judged before any question
/// of trust, so no authority is needed.
fn not_after(leaf: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = EndEntityCert::try_from(leaf).ok()?;
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let judged =
        certificate.verify_for_usage(&[], &[], &[], end_of_time, KeyUsage::server_auth(), None, None);
    match judged {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(Duration::from_secs(not_after.as_secs())),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A directory of its own, gone at the end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("relay-proto-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn write(&self, name: &str, content: &str) -> String {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            path.to_str().unwrap().into()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pem() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// Stands for a TLS library that does not like a chain of two.
    #[expect(clippy::needless_pass_by_value, reason = "the signature that a TLS library needs")]
    fn keep_leaf(pem: Pem) -> Result<Vec<u8>, String> {
        if pem.chain.len() == 1 { Ok(pem.chain[0].to_vec()) } else { Err("they differ".into()) }
    }

    #[test]
    fn the_validity_is_read() {
        let dir = Dir::new("validity");
        let (cert, key) = pem();
        let (cert, key) = (dir.write("cert", &cert), dir.write("key", &key));
        let certificate = Certificate::load(&cert, &key, keep_leaf).unwrap();
        // 4096-01-01T00:00:00Z, unless rcgen is told otherwise.
        assert_eq!(certificate.valid_until(), Some(Duration::from_secs(67_090_118_400)));
    }

    #[test]
    fn d2_a_changed_pair_is_used_and_a_bad_one_is_not() {
        let dir = Dir::new("reload");
        let (first, key) = pem();
        let (second, _) = pem();
        let (cert_file, key_file) = (dir.write("cert", &first), dir.write("key", &key));
        let certificate = Certificate::load(&cert_file, &key_file, keep_leaf).unwrap();
        let before = certificate.current();

        certificate.reload_if_changed();
        assert!(Arc::ptr_eq(&before, &certificate.current()), "nothing had changed");

        dir.write("cert", &format!("{first}{second}"));
        certificate.reload_if_changed();
        assert!(Arc::ptr_eq(&before, &certificate.current()), "a pair that does not fit");

        dir.write("cert", &second);
        certificate.reload_if_changed();
        assert_ne!(*before, *certificate.current());
    }

    #[test]
    fn c3_each_bad_file_is_named() {
        let dir = Dir::new("errors");
        let (cert, key) = pem();
        let (cert, key) = (dir.write("cert", &cert), dir.write("key", &key));
        let text = dir.write("text", "no PEM\n");
        let fail = |cert: &str, key: &str| Certificate::load(cert, key, keep_leaf).unwrap_err().to_string();
        assert_eq!(
            fail("/nonexistent", &key),
            "RELAY_TLS_CERT=\"/nonexistent\" cannot be used: No such file or directory (os error 2)"
        );
        assert!(fail(&text, &key).ends_with("it holds no certificate in PEM"));
        assert!(fail(&cert, &text).ends_with("it holds no private key in PEM"));
        assert!(fail(&cert, &cert).starts_with("RELAY_TLS_KEY="));
    }
}
