//! Keys, tokens and the targets of requests, minted here so that the relay's own code is not its witness.

use base64ct::{Base64UrlUnpadded, Encoding};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The header that all clients send.
pub const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

/// A room that may or may not exist, and the key of its host.
#[derive(Clone, Debug)]
pub struct Room {
    /// Its id, as a client would put it into a token.
    pub id: String,
    /// The key of its host.
    pub key: SigningKey,
}

impl Room {
    /// A room with a key that follows from its id.
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        Self { key: key(&id), id }
    }

    /// The claims of a token for this room.
    pub fn claims(&self, peer: &str, role: &str) -> Value {
        json!({ "room_id": self.id, "peer_id": peer, "role": role })
    }

    /// A token with any claims, signed by the host of this room.
    pub fn sign(&self, claims: &Value) -> String {
        sign(&self.key, HEADER, &claims.to_string())
    }

    /// A valid token.
    pub fn token(&self, peer: &str, role: &str) -> String {
        self.sign(&self.claims(peer, role))
    }

    /// The public key, as it stands in a query.
    pub fn pubkey(&self) -> String {
        encode(self.key.verifying_key().as_bytes())
    }

    /// The target of a host's request.
    pub fn host_target(&self, peer: &str) -> String {
        self.host_target_with(&self.token(peer, "host"))
    }

    /// The target of a host's request with a given token.
    pub fn host_target_with(&self, token: &str) -> String {
        target(&[("room", &self.id), ("token", token), ("pubkey", &self.pubkey())])
    }

    /// The target of a guest's request.
    pub fn guest_target(&self, peer: &str) -> String {
        self.guest_target_with(&self.token(peer, "guest"))
    }

    /// The target of a guest's request with a given token.
    pub fn guest_target_with(&self, token: &str) -> String {
        target(&[("room", &self.id), ("token", token)])
    }
}

/// The key that belongs to a name.
pub fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(name).into())
}

/// A token in compact form (RFC 7515 section 3.1) with any header and any claims.
pub fn sign(key: &SigningKey, header: &str, claims: &str) -> String {
    sign_parts(key, &encode(header.as_bytes()), &encode(claims.as_bytes()))
}

/// A token of two parts that need not be base64url at all, and a valid signature of them.
pub fn sign_parts(key: &SigningKey, header: &str, claims: &str) -> String {
    let signed = format!("{header}.{claims}");
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", encode(&signature.to_bytes()))
}

/// Unpadded base64url (RFC 4648 section 5).
pub fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// `/ws` with a query.
pub fn target(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
    format!("/ws?{}", pairs.join("&"))
}

/// Percent-encodes everything but the unreserved characters (RFC 3986 section 2.3).
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
