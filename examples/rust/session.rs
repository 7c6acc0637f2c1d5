//! What the relay never sees: the room's keys, and what is said inside a message.

use std::time::{SystemTime, UNIX_EPOCH};

use base32ct::{Base32Unpadded, Encoding as _};
use base64ct::{Base64UrlUnpadded as Base64, Encoding as _};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, aead::Aead, aead::Payload};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A room as a member knows it. Whoever opens it has, besides, its id and the key that signs its tokens.
pub(crate) struct Session {
    url: String,
    name: String,
    key: [u8; 32],
    host: Option<(String, SigningKey)>,
}

impl Session {
    /// Joins with an invitation, the URL of a guest with the room's key behind `#`; opens a room with the URL of a
    /// relay.
    pub(crate) fn new(url: &str, name: &str) -> Option<Self> {
        let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (mut key, mut host) = (rand::random(), None);
        if url.contains("token=") {
            key = Base64::decode_vec(fragment).ok()?.try_into().ok()?;
        } else {
            let signer = SigningKey::from_bytes(&rand::random());
            let hash = Base32Unpadded::encode_string(&Sha256::digest(signer.verifying_key()));
            // Rule A10: nobody else can open a room of that id.
            host = Some((format!("k1.{}.{:x}", &hash[..26], rand::random::<u32>()), signer));
        }
        Some(Self { url: url.to_owned(), name: name.to_owned(), key, host })
    }

    /// Where to connect.
    pub(crate) fn url(&self) -> String {
        let Some((_, signer)) = &self.host else { return self.url.clone() };
        format!(
            "{}&pubkey={}",
            self.url_for("host"),
            Base64::encode_string(signer.verifying_key().as_bytes())
        )
    }

    /// What lets others in, if that is ours to say. What follows `#` is for no relay.
    pub(crate) fn invitation(&self) -> Option<String> {
        self.host.is_some().then(|| format!("{}#{}", self.url_for("guest"), Base64::encode_string(&self.key)))
    }

    #[expect(clippy::disallowed_methods, reason = "tokens tell the time until which they are good")]
    fn url_for(&self, role: &str) -> String {
        let Some((id, signer)) = &self.host else { return self.url.clone() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({ "room_id": id, "peer_id": role, "role": role, "exp": now + 86_400 });
        let parts = [json!({ "alg": "EdDSA", "typ": "JWT" }), claims];
        let head = parts.map(|part| Base64::encode_string(part.to_string().as_bytes())).join(".");
        let signature = Base64::encode_string(&signer.sign(head.as_bytes()).to_bytes());
        format!("{}?room={id}&token={head}.{signature}", self.url)
    }

    /// A message, its text sealed.
    pub(crate) fn message(&self, kind: &str, text: &str) -> String {
        let (nonce, about) = (rand::random::<[u8; 24]>(), format!("{kind} {}", self.name));
        let payload = Payload { msg: text.as_bytes(), aad: about.as_bytes() };
        let sealed = XChaCha20Poly1305::new(&self.key.into()).encrypt(&nonce.into(), payload);
        let sealed = [&nonce[..], &sealed.expect("it is far from too long")].concat();
        json!({ "type": kind, "from": self.name, "payload": Base64::encode_string(&sealed) }).to_string()
    }

    /// Type, sender and text of a message. None: it is not of our kind, or not sealed with our key.
    pub(crate) fn open(&self, message: &[u8]) -> Option<(String, String, String)> {
        let message: Value = serde_json::from_slice(message).ok()?;
        let (kind, from) = (message["type"].as_str()?, message["from"].as_str()?);
        let mut text = Vec::new();
        // The leave notice is the relay's own, which has no key.
        if kind != "session:leave" {
            let sealed = Base64::decode_vec(message["payload"].as_str()?).ok()?;
            let (nonce, msg) = sealed.split_first_chunk::<24>()?;
            let payload = Payload { msg, aad: &format!("{kind} {from}").into_bytes() };
            text = XChaCha20Poly1305::new(&self.key.into()).decrypt(&(*nonce).into(), payload).ok()?;
        }
        Some((kind.to_owned(), from.to_owned(), String::from_utf8(text).ok()?))
    }
}
