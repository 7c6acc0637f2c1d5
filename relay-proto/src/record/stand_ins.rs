//! Who is called what in a recording: for each name another one that serves as well.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use ed25519_dalek::VerifyingKey;

use super::line::{PROXIES, Room};
use crate::config::Config;
use crate::gate::Origin;
use crate::room::{PeerId, RoomId, key_hash};

/// What a peer id may consist of in one byte without being escaped in JSON.
const PLAIN: &[u8] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ -_.,:;!?@#$%&*+=/~^'`|<>()[]{}";
/// What is escaped in JSON, and allowed in a peer id.
const ESCAPED: &[u8] = b"\"\\";

/// The names that have been seen since the recording began. It is as bounded as the recording is.
#[derive(Default)]
pub(super) struct StandIns {
    /// By what limits count, and whether it is a proxy that is trusted.
    origins: BTreeMap<(Origin, bool), u32>,
    rooms: BTreeMap<RoomId, u32>,
    /// By hash, as in the ids of rooms that are bound to a key that may not have been seen (rule A10).
    keys: BTreeMap<String, u32>,
    peers: BTreeMap<PeerId, String>,
    /// Peers by length, and by how many of their bytes are escaped in a leave notice.
    alike: BTreeMap<(usize, usize), usize>,
}

impl StandIns {
    /// Addresses that count as one have one stand-in (rule T4). A trusted proxy and a client whose IPv6
    /// addresses count as one have two.
    pub(super) fn address(&mut self, ip: IpAddr, config: &Config) -> IpAddr {
        let ip = ip.to_canonical();
        let trusted = config.trusted_proxies.iter().any(|network| network.contains(&ip));
        let number = number(&mut self.origins, (Origin::of(ip), trusted));
        let [high, low] = [number >> 16, number & 0xFFFF].map(|part| u16::try_from(part).unwrap_or_default());
        let block = if trusted { PROXIES } else { PROXIES + 1 };
        Ipv6Addr::new(block, high, low, 0, 0, 0, 0, 1).into()
    }

    pub(super) fn room(&mut self, id: &RoomId) -> Room {
        let bound = id.bound_hash().map(|hash| number(&mut self.keys, hash.to_string()));
        Room::Is { number: number(&mut self.rooms, id.clone()), bound }
    }

    pub(super) fn key(&mut self, key: &VerifyingKey) -> u32 {
        number(&mut self.keys, key_hash(key))
    }

    /// As long as the peer id, also when it is escaped, and like no other; for two bytes that holds up to
    /// eight thousand of them.
    pub(super) fn peer(&mut self, peer: &PeerId) -> String {
        if let Some(known) = self.peers.get(peer) {
            return known.clone();
        }
        let (bytes, escaped) = (peer.as_str().len(), peer.as_str().matches(['"', '\\']).count());
        let alike = self.alike.entry((bytes, escaped)).or_default();
        let mut number = *alike;
        *alike += 1;
        let digits = (0..bytes).map(|place| if place < bytes - escaped { PLAIN } else { ESCAPED });
        let mut text: Vec<char> = digits
            .map(|alphabet| {
                let digit = alphabet[number % alphabet.len()];
                number /= alphabet.len();
                char::from(digit)
            })
            .collect();
        text.reverse();
        let stand_in: String = text.into_iter().collect();
        self.peers.insert(peer.clone(), stand_in.clone());
        stand_in
    }

    /// Of a peer id that has been found valid.
    pub(super) fn peer_text(&mut self, text: &str) -> String {
        PeerId::new(text).map(|peer| self.peer(&peer)).unwrap_or_default()
    }
}

/// Counted from 0, in the order in which they are first seen.
fn number<K: Ord>(known: &mut BTreeMap<K, u32>, key: K) -> u32 {
    let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
    *known.entry(key).or_insert(next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::format;

    use super::super::line::Beginning;
    use super::*;

    #[test]
    fn a_stand_in_is_as_long_and_like_no_other() {
        let mut names = StandIns::default();
        let mut seen = BTreeSet::new();
        let printable = (' '..='~').map(|c| c.to_string());
        let others = ["é", "ann", "bob", "a\"b", "\\\"", "\"\"", "日本", "a b c"].map(str::to_string);
        for text in printable.chain(others).chain((0..500).map(|n| format!("peer {n}"))) {
            let peer = PeerId::new(&text).unwrap();
            let stand_in = names.peer(&peer);
            let escaped = |text: &str| serde_json::Value::from(text).to_string().len();
            assert_eq!((stand_in.len(), escaped(&stand_in)), (text.len(), escaped(&text)), "{text:?}");
            assert!(PeerId::new(&stand_in).is_some());
            assert_eq!(names.peer(&peer), stand_in);
            assert!(seen.insert(stand_in), "{text:?}");
        }
    }

    #[test]
    fn addresses_that_count_as_one_have_one_stand_in() {
        let config = Config::default();
        let mut names = StandIns::default();
        let mut address = |text: &str| names.address(text.parse().unwrap(), &config);
        let one = address("2001:db8:0:1::1");
        assert_eq!(address("2001:db8:0:1::2"), one);
        assert_ne!(address("2001:db8:0:2::1"), one);
        assert_eq!(address("192.0.2.1"), address("::ffff:192.0.2.1"));
        let trusted = Beginning::proxies();
        assert!(trusted.contains(&address("127.0.0.1")) && !trusted.contains(&one));
    }
}
