//! Rules A1 to A4, reason by reason.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use relay_proto::Role;
use relay_proto::token::{Claims, TokenError, decode_key, encode_key, sign, sign_raw, verify};

const NOW: i64 = 1_800_000_000;
const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;
const CLAIMS: &str = r#"{"room_id":"r","peer_id":"p","role":"host"}"#;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn check(token: &str) -> Result<Claims, TokenError> {
    verify(token, &key().verifying_key(), Duration::from_secs(NOW.unsigned_abs()))
}

fn with_claims(claims: &str) -> Result<Claims, TokenError> {
    check(&sign_raw(&key(), HEADER, claims))
}

fn with_header(header: &str) -> Result<Claims, TokenError> {
    check(&sign_raw(&key(), header, CLAIMS))
}

/// Signs parts that are already encoded, however badly.
fn signed(parts: &str) -> String {
    let signature = sign_raw(&key(), "", "");
    let bytes = key().sign(parts.as_bytes()).to_bytes();
    let encoded = base64(&bytes);
    assert_eq!(encoded.len(), signature.len() - 2);
    format!("{parts}.{encoded}")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |chunk: &[u8]| {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len())
            .map(move |n| char::from(ALPHABET[(word >> (18 - 6 * n)) as usize & 63]))
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[test]
fn a_signed_token_is_read_back() {
    let claims = Claims {
        room_id: "r \"1\"".into(),
        peer_id: "é".into(),
        role: Role::Guest,
        name: Some("Ann".into()),
        iat: Some(NOW),
        nbf: Some(NOW),
        exp: Some(NOW),
    };
    assert_eq!(check(&sign(&key(), &claims)), Ok(claims));
}

#[test]
fn a1_headers() {
    assert!(with_header(HEADER).is_ok());
    assert!(with_header(r#"{"typ":"JWT","kid":"x","alg":"EdDSA"}"#).is_ok());
    for unsupported in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"eddsa"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"EdDSA","crit":["b64"]}"#,
        r#"{"alg":"EdDSA","crit":null}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA"}"#,
        r#"{"alg":["EdDSA"]}"#,
        r#"["EdDSA"]"#,
    ] {
        assert_eq!(with_header(unsupported), Err(TokenError::UnsupportedAlgorithm), "{unsupported}");
    }
    for malformed in ["", "{", "nonsense", r#"{"alg":"EdDSA"} x"#] {
        assert_eq!(with_header(malformed), Err(TokenError::Malformed), "{malformed}");
    }
}

#[test]
fn a1_the_compact_form() {
    let good = sign_raw(&key(), HEADER, CLAIMS);
    assert!(check(&good).is_ok());
    for malformed in ["", "a", "a.b", "a.b.c.d", &format!("{good}.x"), &format!(" {good}"), &"a".repeat(5000)]
    {
        assert_eq!(check(malformed), Err(TokenError::Malformed), "{malformed}");
    }
    let large = format!(r#"{{"room_id":"r","peer_id":"p","role":"host","name":"{}"}}"#, "x".repeat(4000));
    assert_eq!(with_claims(&large), Err(TokenError::Malformed), "more than 4 KiB");
    for bad_signature in [format!("{good} "), format!("{good}="), good[..good.len() - 2].into()] {
        assert_eq!(check(&bad_signature), Err(TokenError::SignatureEncoding), "{bad_signature}");
    }
    // 64 bytes leave four bits over in the last character, which have to be zero.
    let last = good.chars().last().expect("it is long");
    let next = char::from_u32(u32::from(last) + 1).expect("the next letter");
    let trailing = format!("{}{next}", &good[..good.len() - 1]);
    assert_eq!(check(&trailing), Err(TokenError::SignatureEncoding));
}

#[test]
fn a2_a_signature_by_another_key_or_of_something_else() {
    let other = SigningKey::from_bytes(&[2; 32]);
    assert_eq!(check(&sign_raw(&other, HEADER, CLAIMS)), Err(TokenError::Signature));
    let good = sign_raw(&key(), HEADER, CLAIMS);
    let (signed, signature) = good.rsplit_once('.').expect("it has three parts");
    let (header, _) = signed.split_once('.').expect("it has three parts");
    let moved = format!("{header}.{}.{signature}", base64(br#"{"room_id":"other"}"#));
    assert_eq!(check(&moved), Err(TokenError::Signature));
}

#[test]
fn a2_a_signature_whose_scalar_is_not_reduced_is_refused() {
    // The order of the base point, little-endian (RFC 8032 section 5.1).
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let parts = format!("{}.{}", base64(HEADER.as_bytes()), base64(CLAIMS.as_bytes()));
    let mut signature = key().sign(parts.as_bytes()).to_bytes();
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(check(&format!("{parts}.{}", base64(&signature))), Err(TokenError::Signature));
}

#[test]
fn a2_weak_and_non_canonical_keys() {
    let good = encode_key(&key().verifying_key());
    assert!(decode_key(&good).is_some());
    let mut identity = [0; 32];
    identity[0] = 1;
    // p + 3 encodes the same point as 3 does, if 3 is on the curve; y = p + 1 is the identity again.
    let mut beyond = [0xff; 32];
    (beyond[0], beyond[31]) = (0xee, 0x7f);
    let mut not_reduced = beyond;
    not_reduced[0] = 0xf0;
    for bad in [identity, [0; 32], beyond, not_reduced] {
        assert_eq!(decode_key(&base64(&bad)), None, "{bad:?}");
    }
    for bad in ["", "AAAA", &format!("{good}="), &format!("{good} "), &good.replace(['-', '_'], "+")[..42]] {
        assert_eq!(decode_key(bad), None, "{bad}");
    }
}

#[test]
fn a3_a4_claims() {
    let parts = format!("{}.{}", base64(HEADER.as_bytes()), "a");
    assert_eq!(check(&signed(&parts)), Err(TokenError::ClaimsEncoding));
    for json in [
        "",
        "[]",
        "{",
        r#"{"room_id":1,"peer_id":"p","role":"host"}"#,
        r#"{"room_id":"r","room_id":"r","peer_id":"p","role":"host"}"#,
        r#"{"room_id":"r","peer_id":"p","role":"host","exp":1.5}"#,
        r#"{"room_id":"r","peer_id":"p","role":"host","exp":"1"}"#,
        r#"{"room_id":"r","peer_id":"p","role":"host","exp":1e400}"#,
        r#"{"room_id":"r","peer_id":"p","role":"host","iat":0.1}"#,
        r#"{"room_id":"r","peer_id":"p","role":"host","name":7}"#,
    ] {
        assert_eq!(with_claims(json), Err(TokenError::ClaimsJson), "{json}");
    }
    for (json, reason) in [
        (r#"{"peer_id":"p","role":"host"}"#, TokenError::MissingRoom),
        (r#"{"room_id":"","peer_id":"p","role":"host"}"#, TokenError::MissingRoom),
        (r#"{"room_id":"r","role":"host"}"#, TokenError::MissingPeer),
        (r#"{"room_id":"r","peer_id":null,"role":"host"}"#, TokenError::MissingPeer),
        (r#"{"room_id":"r","peer_id":"a\u0000","role":"host"}"#, TokenError::InvalidPeer),
        (r#"{"room_id":"r","peer_id":"p"}"#, TokenError::InvalidRole),
        (r#"{"room_id":"r","peer_id":"p","role":"admin"}"#, TokenError::InvalidRole),
        // The order of A4: time before names.
        (r#"{"exp":1}"#, TokenError::Expired),
        (r#"{"nbf":9999999999}"#, TokenError::NotYetValid),
        (r#"{"exp":1,"nbf":9999999999}"#, TokenError::Expired),
    ] {
        assert_eq!(with_claims(json), Err(reason), "{json}");
    }
}

#[test]
fn a3_times() {
    let at = |name: &str, time: i64| {
        with_claims(&format!(r#"{{"room_id":"r","peer_id":"p","role":"host","{name}":{time}}}"#)).err()
    };
    assert_eq!(at("exp", 0), None);
    assert_eq!(at("exp", NOW), None, "valid through that second");
    assert_eq!(at("exp", NOW - 1), Some(TokenError::Expired));
    assert_eq!(at("exp", -1), Some(TokenError::Expired));
    assert_eq!(at("exp", i64::MAX), None);
    assert_eq!(at("nbf", NOW), None);
    assert_eq!(at("nbf", NOW + 1), Some(TokenError::NotYetValid));
    assert_eq!(at("nbf", -1), None);
}
