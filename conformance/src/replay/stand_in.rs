//! Requests and payloads that decide like those that were recorded.

use ed25519_dalek::SigningKey;
use relay_proto::record::line::{
    Asked, Content, Handshake, Method, Path, Pubkey, Query, Room, Token, Verdict,
};
use relay_proto::room::bound_room_id;
use relay_proto::token::{Claims, TokenError, encode_key, sign, sign_raw};

use crate::http;
use crate::room::{encode, sign_parts, target};

const HEADER: &str = r#"{"alg":"EdDSA"}"#;

pub(super) fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Other => "PUT",
    }
}

pub(super) fn path(path: Path) -> &'static str {
    match path {
        Path::Status => "/",
        Path::Health => "/health",
        Path::Ws => "/ws",
        Path::Unknown => "/elsewhere",
    }
}

/// A request head.
pub(super) fn request(asked: &Asked) -> String {
    let target = match (asked.path, &asked.query) {
        (Path::Ws, Some(Query::Readable { room, pubkey, token })) => query(*room, *pubkey, token),
        (Path::Ws, Some(Query::Undecodable)) => "/ws?room=%FF".to_owned(),
        (other, _) => path(other).to_owned(),
    };
    let handshake = http::Request::upgrade(&target);
    let mut request = match asked.handshake {
        Handshake::Valid => handshake,
        Handshake::NoUpgrade => handshake.without("Upgrade"),
        Handshake::OtherVersion => handshake.set("Sec-WebSocket-Version", "12"),
        Handshake::BadKey => handshake.without("Sec-WebSocket-Key"),
    };
    request = request.with_method(method(asked.method));
    if !asked.well_formed {
        request = request.with("Content-Length", "1");
    }
    if asked.json {
        request = request.with("Accept", "application/json");
    }
    if let Some(client) = asked.client {
        request = request.with("X-Forwarded-For", &client.to_string());
    }
    String::from_utf8_lossy(&request.encode()).into_owned()
}

fn query(room: Room, pubkey: Pubkey, token: &Token) -> String {
    let room = match room {
        Room::Missing => String::new(),
        Room::Invalid => "\u{1}".to_owned(),
        Room::Is { number, bound: None } => format!("r{number}"),
        Room::Is { number, bound: Some(owner) } => {
            bound_room_id(&key(owner).verifying_key(), &format!("r{number}"))
        }
    };
    let pubkey = match pubkey {
        Pubkey::Missing => String::new(),
        Pubkey::Invalid => "-".to_owned(),
        Pubkey::Key(number) => encode_key(&key(number).verifying_key()),
    };
    let token = match token {
        Token::Missing => String::new(),
        Token::Unread => "-".to_owned(),
        Token::Judged { key: number, verdict } => {
            let key = key(*number);
            match verdict {
                Verdict::Refused(reason) => refused(&key, *reason),
                Verdict::Holds { for_room, role, peer } => {
                    let room_id = if *for_room { room.clone() } else { format!("not {room}") };
                    let (peer_id, role) = (peer.clone(), *role);
                    sign(
                        &key,
                        &Claims { room_id, peer_id, role, name: None, iat: None, nbf: None, exp: None },
                    )
                }
            }
        }
    };
    target(&[("room", &room), ("token", &token), ("pubkey", &pubkey)])
}

/// The key that stands in for the one of that number.
fn key(number: u32) -> SigningKey {
    let mut secret = *b"a stand-in for the key number ..";
    secret[28..].copy_from_slice(&number.to_le_bytes());
    SigningKey::from_bytes(&secret)
}

/// A token that is refused for this reason, whenever it comes.
fn refused(key: &SigningKey, reason: TokenError) -> String {
    match reason {
        TokenError::Malformed => "-".to_owned(),
        TokenError::UnsupportedAlgorithm => sign_raw(key, "{}", "{}"),
        TokenError::SignatureEncoding => {
            let token = sign_raw(key, HEADER, "{}");
            token[..=token.rfind('.').expect("a token has three parts")].to_owned()
        }
        // Signed by a key that has no number.
        TokenError::Signature => sign_raw(&SigningKey::from_bytes(&[0; 32]), HEADER, "{}"),
        TokenError::ClaimsEncoding => sign_parts(key, &encode(HEADER.as_bytes()), "="),
        TokenError::ClaimsJson => sign_raw(key, HEADER, "[]"),
        TokenError::Expired => sign_raw(key, HEADER, r#"{"exp":-1}"#),
        TokenError::NotYetValid => sign_raw(key, HEADER, r#"{"nbf":9223372036854775807}"#),
        TokenError::MissingRoom => sign_raw(key, HEADER, "{}"),
        TokenError::MissingPeer => sign_raw(key, HEADER, r#"{"room_id":"r"}"#),
        TokenError::InvalidPeer => sign_raw(key, HEADER, r#"{"room_id":"r","peer_id":"\u0001"}"#),
        TokenError::InvalidRole => sign_raw(key, HEADER, r#"{"room_id":"r","peer_id":"p"}"#),
    }
}

/// A message of that length. A stand-in for a peer id is no longer than the id was, also in JSON, so it fits.
pub(super) fn payload(bytes: usize, content: &Content) -> Vec<u8> {
    let (start, end) = match content {
        Content::Voice => ("KV".to_owned(), ""),
        Content::Joinable => ("{".to_owned(), ""),
        Content::Data => (String::new(), ""),
        Content::Named { from, joinable } => {
            let from = serde_json::Value::from(from.as_str());
            (format!(r#"{}{{"from":{from}"#, if *joinable { "" } else { "\n" }), "}")
        }
    };
    let mut payload = start.into_bytes();
    payload.resize(bytes.saturating_sub(end.len()).max(payload.len()), b' ');
    payload.extend_from_slice(end.as_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relay_proto::token::verify;

    use super::*;

    #[test]
    fn a_refused_token_stays_refused_for_its_reason() {
        let key = key(7);
        for reason in [
            TokenError::Malformed,
            TokenError::UnsupportedAlgorithm,
            TokenError::SignatureEncoding,
            TokenError::Signature,
            TokenError::ClaimsEncoding,
            TokenError::ClaimsJson,
            TokenError::Expired,
            TokenError::NotYetValid,
            TokenError::MissingRoom,
            TokenError::MissingPeer,
            TokenError::InvalidPeer,
            TokenError::InvalidRole,
        ] {
            for unix in [0, 2_000_000_000] {
                let verdict = verify(&refused(&key, reason), &key.verifying_key(), Duration::from_secs(unix));
                assert_eq!(verdict.err(), Some(reason));
            }
        }
    }

    #[test]
    fn a_payload_is_as_long_as_it_was() {
        let named = |joinable| Content::Named { from: "0\"1".to_owned(), joinable };
        for (bytes, content) in [
            (2, Content::Voice),
            (200, Content::Voice),
            (1, Content::Joinable),
            (0, Content::Data),
            (r#"{"from":"a\"b"}"#.len(), named(true)),
            (r#" {"from":"a\"b"}"#.len(), named(false)),
            (1000, named(true)),
        ] {
            let payload = payload(bytes, &content);
            assert_eq!(payload.len(), bytes, "{content:?}");
            let expected = matches!(content, Content::Named { .. }).then_some("0\"1");
            let json = serde_json::from_slice::<serde_json::Value>(&payload).unwrap_or_default();
            assert_eq!(json["from"].as_str(), expected);
        }
    }
}
