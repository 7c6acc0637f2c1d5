//! Tokens: JWT (RFC 7519) in compact form, signed with Ed25519 (RFC 8037), for rules A1 to A4.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Value, json};

use crate::event::Role;
use crate::room::PeerId;

/// Rule A1.
const MAX_TOKEN_BYTES: usize = 4096;

/// Why a token is not accepted: the reasons of rule A4, in the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "std", serde(rename_all = "snake_case"))]
#[allow(missing_docs)] // each is its own text
pub enum TokenError {
    Malformed,
    UnsupportedAlgorithm,
    SignatureEncoding,
    Signature,
    ClaimsEncoding,
    ClaimsJson,
    Expired,
    NotYetValid,
    MissingRoom,
    MissingPeer,
    InvalidPeer,
    InvalidRole,
}

impl TokenError {
    /// The reason as clients know it.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenError::Malformed => "malformed JWT",
            TokenError::UnsupportedAlgorithm => "unsupported JWT algorithm",
            TokenError::SignatureEncoding => "invalid signature encoding",
            TokenError::Signature => "invalid signature",
            TokenError::ClaimsEncoding => "invalid claims encoding",
            TokenError::ClaimsJson => "invalid claims JSON",
            TokenError::Expired => "token expired",
            TokenError::NotYetValid => "token not yet valid",
            TokenError::MissingRoom => "missing room_id",
            TokenError::MissingPeer => "missing peer_id",
            TokenError::InvalidPeer => "invalid peer_id",
            TokenError::InvalidRole => "invalid role",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for TokenError {}

/// What a token says (rule A3). Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The room that it opens.
    pub room_id: String,
    /// Who presents it.
    pub peer_id: String,
    /// As what.
    pub role: Role,
    /// A name for people; the relay does not use it.
    pub name: Option<String>,
    /// Issued at.
    pub iat: Option<i64>,
    /// Not before.
    pub nbf: Option<i64>,
    /// Valid through this second; none, and zero, never expire.
    pub exp: Option<i64>,
}

/// Signs claims as the clients do: a token in compact form.
pub fn sign(key: &SigningKey, claims: &Claims) -> String {
    let mut members = json!({
        "room_id": claims.room_id,
        "peer_id": claims.peer_id,
        "role": claims.role.as_str(),
    });
    let times = [("iat", claims.iat), ("nbf", claims.nbf), ("exp", claims.exp)];
    for (name, time) in times {
        if let Some(time) = time {
            members[name] = time.into();
        }
    }
    if let Some(name) = &claims.name {
        members["name"] = name.as_str().into();
    }
    sign_raw(key, r#"{"alg":"EdDSA","typ":"JWT"}"#, &alloc::format!("{members}"))
}

/// Signs any header and claims, valid or not, for tests.
pub fn sign_raw(key: &SigningKey, header: &str, claims: &str) -> String {
    let mut token = Base64UrlUnpadded::encode_string(header.as_bytes());
    token.push('.');
    token.push_str(&Base64UrlUnpadded::encode_string(claims.as_bytes()));
    let signature = key.sign(token.as_bytes());
    token.push('.');
    token.push_str(&Base64UrlUnpadded::encode_string(&signature.to_bytes()));
    token
}

/// The form of a public key in the query.
pub fn encode_key(key: &VerifyingKey) -> String {
    Base64UrlUnpadded::encode_string(key.as_bytes())
}

/// Reads the public key of a host: unpadded base64url of 32 bytes, canonical, not of small order (rule A2).
pub fn decode_key(text: &str) -> Option<VerifyingKey> {
    let mut bytes = [0; 32];
    if Base64UrlUnpadded::decode(text, &mut bytes).ok()?.len() != bytes.len() {
        return None;
    }
    let key = VerifyingKey::from_bytes(&bytes).ok()?;
    let canonical = key.to_edwards().compress().to_bytes() == bytes;
    (canonical && !key.is_weak()).then_some(key)
}

/// Checks a token in the order of rule A4.
///
/// # Errors
/// The first reason that applies.
pub fn verify(token: &str, key: &VerifyingKey, unix: Duration) -> Result<Claims, TokenError> {
    let (header, claims, signature) = split(token).ok_or(TokenError::Malformed)?;
    judge_header(header)?;
    let mut bytes = [0; Signature::BYTE_SIZE];
    let decoded = Base64UrlUnpadded::decode(signature, &mut bytes).map(<[u8]>::len);
    if decoded != Ok(bytes.len()) {
        return Err(TokenError::SignatureEncoding);
    }
    let signed = &token.as_bytes()[..header.len() + 1 + claims.len()];
    key.verify_strict(signed, &Signature::from_bytes(&bytes)).map_err(|_| TokenError::Signature)?;
    let claims = Base64UrlUnpadded::decode_vec(claims).map_err(|_| TokenError::ClaimsEncoding)?;
    judge_claims(&claims, unix)
}

fn split(token: &str) -> Option<(&str, &str, &str)> {
    let mut parts = token.split('.');
    let three = (parts.next()?, parts.next()?, parts.next()?);
    (token.len() <= MAX_TOKEN_BYTES && parts.next().is_none()).then_some(three)
}

fn judge_header(part: &str) -> Result<(), TokenError> {
    let bytes = Base64UrlUnpadded::decode_vec(part).map_err(|_| TokenError::Malformed)?;
    let header: Members = serde_json::from_slice(&bytes).map_err(|error| {
        // Well-formed JSON that repeats a member is no header that may be believed (rule A1).
        if error.is_data() { TokenError::UnsupportedAlgorithm } else { TokenError::Malformed }
    })?;
    let eddsa = matches!(header.get("alg"), Some(Value::String(alg)) if alg == "EdDSA");
    if eddsa && header.get("crit").is_none() { Ok(()) } else { Err(TokenError::UnsupportedAlgorithm) }
}

fn judge_claims(json: &[u8], unix: Duration) -> Result<Claims, TokenError> {
    let members: Members = serde_json::from_slice(json).map_err(|_| TokenError::ClaimsJson)?;
    let room_id = members.text("room_id")?;
    let peer_id = members.text("peer_id")?;
    let role = members.text("role")?;
    let name = members.text("name")?;
    let (iat, nbf, exp) = (members.time("iat")?, members.time("nbf")?, members.time("exp")?);

    let now = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
    if exp.is_some_and(|exp| exp != 0 && exp < now) {
        return Err(TokenError::Expired);
    }
    if nbf.is_some_and(|nbf| nbf > now) {
        return Err(TokenError::NotYetValid);
    }
    let room_id = room_id.filter(|id| !id.is_empty()).ok_or(TokenError::MissingRoom)?;
    let peer_id = peer_id.filter(|id| !id.is_empty()).ok_or(TokenError::MissingPeer)?;
    if PeerId::new(&peer_id).is_none() {
        return Err(TokenError::InvalidPeer);
    }
    let role = match role.as_deref() {
        Some("host") => Role::Host,
        Some("guest") => Role::Guest,
        Some(_) | None => return Err(TokenError::InvalidRole),
    };
    Ok(Claims { room_id, peer_id, role, name, iat, nbf, exp })
}

/// The members of a JSON object, none of them named twice.
struct Members(Vec<(String, Value)>);

impl Members {
    /// A member, even if it is null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Result<Option<String>, TokenError> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(TokenError::ClaimsJson),
        }
    }

    fn time(&self, name: &str) -> Result<Option<i64>, TokenError> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or(TokenError::ClaimsJson),
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a member is repeated"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Once)
    }
}
