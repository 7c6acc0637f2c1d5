//! Tokens: any text, and any header and claims with a valid signature.

use std::sync::OnceLock;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use relay_proto::room::PeerId;
use relay_proto::token::{TokenError, decode_key, encode_key, sign, sign_raw, verify};

const NOW: i64 = 2_000_000_000;
const UNIX: Duration = Duration::from_secs(NOW as u64);

/// Text; or, up to the first zero byte, a header, and behind it claims.
pub fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(key) = decode_key(&text) {
        assert_eq!(encode_key(&key), text);
    }
    let key = key();
    assert!(verify(&text, &key.verifying_key(), UNIX).is_err(), "nobody else can sign");
    let (header, claims) = text.split_once('\0').unwrap_or((r#"{"alg":"EdDSA"}"#, &text));
    let signed = sign_raw(key, header, claims);
    match verify(&signed, &key.verifying_key(), UNIX) {
        Ok(claims) => {
            assert!(!claims.room_id.is_empty() && PeerId::new(&claims.peer_id).is_some());
            assert!(claims.exp.is_none_or(|exp| exp == 0 || exp >= NOW));
            assert!(claims.nbf.is_none_or(|nbf| nbf <= NOW));
            // What was understood can be said again; it may be longer, if it was not escaped before.
            match verify(&sign(key, &claims), &key.verifying_key(), UNIX) {
                Ok(again) => assert_eq!(again, claims),
                Err(error) => assert_eq!(error, TokenError::Malformed),
            }
        }
        Err(TokenError::SignatureEncoding | TokenError::Signature | TokenError::ClaimsEncoding) => {
            panic!("the signature is valid: {signed}")
        }
        Err(_) => {}
    }
}

fn key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();

    KEY.get_or_init(|| SigningKey::from_bytes(&[7; 32]))
}
