//! Rooms: who is in, under which name, bound to which key.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};
use core::time::Duration;

use base32ct::{Base32Unpadded, Encoding};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use crate::slab::Slab;

/// Rule A8, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// Rule A10: how a room id says that it belongs to one key.
const BOUND_PREFIX: &str = "k1.";
/// Rule A10: 130 bits of the key's hash.
const BOUND_HASH_CHARS: usize = 26;
/// What [`bound_room_id`] puts in front of a name: prefix, hash and a dot.
pub const BOUND_BYTES: usize = BOUND_PREFIX.len() + BOUND_HASH_CHARS + 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Rule A8: 1 to 128 bytes of UTF-8 without control characters.
            pub fn new(text: &str) -> Option<Self> {
                // `char::is_control` is Unicode's Cc: C0, DEL and C1.
                let valid = (1..=MAX_ID_BYTES).contains(&text.len()) && !text.contains(char::is_control);
                valid.then(|| Self(text.into()))
            }

            /// The id itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// The name of a room.
    RoomId
}
id! {
    /// The name of a peer. Not unique: two connections may share one (rule R2).
    PeerId
}

impl RoomId {
    /// Rule A10: whether a host with this key may open a room of this name.
    pub(crate) fn admits(&self, key: &VerifyingKey) -> bool {
        match self.bound_hash() {
            Some(hash) => hash == key_hash(key),
            None => true,
        }
    }

    pub(crate) fn bound_hash(&self) -> Option<&str> {
        let (hash, _) = self.0.strip_prefix(BOUND_PREFIX)?.split_once('.')?;
        let base32 = |byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7');
        (hash.len() == BOUND_HASH_CHARS && hash.bytes().all(base32)).then_some(hash)
    }
}

/// Rule A10.
pub(crate) fn key_hash(key: &VerifyingKey) -> String {
    let mut hash = Base32Unpadded::encode_string(&Sha256::digest(key.as_bytes()));
    hash.truncate(BOUND_HASH_CHARS);
    hash
}

/// Rule A10: a room id that only this key can open.
pub fn bound_room_id(key: &VerifyingKey, name: &str) -> String {
    format!("{BOUND_PREFIX}{}.{name}", key_hash(key))
}

/// A live room: it has a member.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) id: RoomId,
    /// Rule A6: the key that opened it.
    pub(crate) key: VerifyingKey,
    /// Slots of connections, in the order in which they came.
    pub(crate) members: Vec<u32>,
    /// Rule R1: when there last was a message, a join or a leave.
    pub(crate) active: Duration,
    /// When its idle timer is set for; it is moved only when it fires.
    pub(crate) armed: Option<Duration>,
}

/// All live rooms. Names are looked up at a join only; after that a room is its index.
#[derive(Debug)]
pub(crate) struct Rooms {
    rooms: Slab<Room>,
    by_id: BTreeMap<RoomId, u32>,
}

impl Rooms {
    pub(crate) const fn new() -> Self {
        Self { rooms: Slab::new(), by_id: BTreeMap::new() }
    }

    pub(crate) fn find(&self, id: &RoomId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn open(&mut self, id: &RoomId, key: VerifyingKey, now: Duration) -> u32 {
        let room = Room { id: id.to_owned(), key, members: Vec::new(), active: now, armed: None };
        let (index, _) = self.rooms.insert(room);
        self.by_id.insert(id.to_owned(), index);
        index
    }

    pub(crate) fn close(&mut self, index: u32) -> Option<Room> {
        let room = self.rooms.remove(index)?;
        self.by_id.remove(&room.id);
        Some(room)
    }

    pub(crate) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Index and generation of each, which together name it even after it is gone.
    pub(crate) fn names(&self) -> impl Iterator<Item = (u32, u32)> {
        self.rooms.indexes().map(|index| (index, self.rooms.generation(index)))
    }

    pub(crate) fn lives(&self, index: u32, generation: u32) -> bool {
        self.rooms.lives(index, generation)
    }
}

impl Index<u32> for Rooms {
    type Output = Room;

    fn index(&self, index: u32) -> &Room {
        &self.rooms[index]
    }
}

impl IndexMut<u32> for Rooms {
    fn index_mut(&mut self, index: u32) -> &mut Room {
        &mut self.rooms[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    #[test]
    fn a8_ids() {
        assert!(RoomId::new("é room").is_some());
        assert!(RoomId::new(&"x".repeat(128)).is_some());
        for bad in ["", "a\0", "a\u{7f}", "a\u{85}", "\n", &"x".repeat(129), &"é".repeat(65)] {
            assert!(RoomId::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a10_a_bound_id_admits_its_key_only() {
        let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
        let other = SigningKey::from_bytes(&[2; 32]).verifying_key();
        let bound = RoomId::new(&bound_room_id(&key, "call")).expect("valid");
        assert!(bound.admits(&key));
        assert!(!bound.admits(&other));
        let hash = &bound.as_str()[3..29];
        for ordinary in
            ["k1.", "k1.call", &format!("k1.{hash}"), &format!("k1.{}.x", hash.to_uppercase()), "k1..x"]
        {
            assert!(RoomId::new(ordinary).expect("valid").admits(&other), "{ordinary}");
        }
    }
}
