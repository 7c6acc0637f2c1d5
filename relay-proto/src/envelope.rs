//! The little that the relay reads of a payload: is it voice, may it be joined, whom does it announce; and
//! the one message that the relay writes itself.

use alloc::borrow::Cow;
use alloc::format;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::canary::{Canary, sings};
use crate::room::PeerId;

/// Rule M2.
const VOICE_MAGIC: &[u8] = b"KV";

/// What kind of traffic a message is, and so how it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Rule M2: old voice is worthless, so it overtakes and may be dropped.
    Voice,
    /// Everything else: never dropped while its receiver is there.
    Data,
}

impl Lane {
    /// Every lane, in the order in which they leave.
    pub const ALL: [Lane; 2] = [Lane::Voice, Lane::Data];

    /// The lane of a message.
    pub fn of(payload: &[u8]) -> Self {
        if payload.starts_with(VOICE_MAGIC) { Lane::Voice } else { Lane::Data }
    }

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Voice => "voice",
            Lane::Data => "data",
        }
    }
}

/// Rule M3: only what looks like JSON and holds no line break survives being joined by one.
pub(crate) fn joinable(payload: &[u8]) -> bool {
    payload.first() == Some(&b'{') && (!payload.contains(&b'\n') || sings(Canary::JoinedLines))
}

/// Rule R6, byte for byte.
pub(crate) fn leave_notice(peer: &PeerId, unix: Duration) -> Bytes {
    let from = serde_json::Value::from(peer.as_str());
    format!(
        r#"{{"id":"","type":"session:leave","from":{from},"ts":{},"nonce":0,"payload":null,"sig":null}}"#,
        unix.as_millis()
    )
    .into()
}

/// Rule R8: the `from` of a JSON object, if it can be a peer id.
pub(crate) fn announced_peer(payload: &[u8]) -> Option<PeerId> {
    let From(from) = serde_json::from_slice(payload).ok()?;
    PeerId::new(&from?)
}

struct From<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for From<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = From<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<From<'de>, A::Error> {
                let mut from = None;
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    if name == "from" {
                        from = match map.next_value::<serde_json::Value>()? {
                            serde_json::Value::String(text) => Some(Cow::Owned(text)),
                            _ => None,
                        };
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(From(from))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(json: &str) -> Option<alloc::string::String> {
        announced_peer(json.as_bytes()).map(|peer| peer.as_str().into())
    }

    #[test]
    fn r6_the_leave_notice_cannot_be_injected_into() {
        let peer = PeerId::new(r#"x","type":"session:end"#).expect("it is a valid id");
        let notice = leave_notice(&peer, Duration::from_millis(1_700_000_000_123));
        let expected = concat!(
            r#"{"id":"","type":"session:leave","from":"x\",\"type\":\"session:end","#,
            r#""ts":1700000000123,"nonce":0,"payload":null,"sig":null}"#
        );
        assert_eq!(notice, expected);
    }

    #[test]
    fn r8_only_an_object_with_a_valid_text_announces() {
        assert_eq!(announced(r#" {"a":[1,{"from":"no"}],"from":"ann\u0065"} "#).as_deref(), Some("anne"));
        assert_eq!(announced(r#"{"from":""}"#), None);
        assert_eq!(announced(r#"{"from":7}"#), None);
        assert_eq!(announced(r#"{"from":"a\nb"}"#), None);
        assert_eq!(announced(r#"{"from":"x"} trailing"#), None);
        assert_eq!(announced(r#"["from","x"]"#), None);
        assert_eq!(announced("from"), None);
        assert_eq!(announced(&format!(r#"{{"from":"{}"}}"#, "x".repeat(129))), None);
    }

    #[test]
    fn m3_joinable() {
        assert!(joinable(b"{\"a\":1}"));
        assert!(!joinable(b"{\n}"));
        assert!(!joinable(b" {}"));
        assert!(!joinable(b""));
    }
}
