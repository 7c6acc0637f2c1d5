//! Keys: whose signature counts, to whom a room belongs (rules A2, A5, A6, A7, A10).

use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha256, Sha512};

use super::{Needs, cases};
use crate::room::{HEADER, Room, encode, key, sign, target};
use crate::stage::Stage;

cases! {
    "key::public_key_form" ["H5" "A2"] Needs::Nothing, public_key_form;
    "key::weak_keys" ["A2" "H5"] Needs::Nothing, weak_keys;
    "key::loose_signatures" ["A2"] Needs::Nothing, loose_signatures;
    "key::guests_by_the_key_of_the_room" ["A5"] Needs::Nothing, guests_by_the_key_of_the_room;
    "key::hosts_by_their_own_key" ["A5" "A6"] Needs::Nothing, hosts_by_their_own_key;
    "key::bound_for_life" ["A6" "R3"] Needs::Nothing, bound_for_life;
    "key::guest_with_public_key" ["A7" "R4"] Needs::Nothing, guest_with_public_key;
    "key::bound_room_id" ["A10"] Needs::Nothing, bound_room_id;
    "key::bound_room_id_lookalikes" ["A10"] Needs::Nothing, bound_room_id_lookalikes;
}

fn public_key_form(stage: &Stage<'_>) {
    let room = stage.room("key form");
    let token = room.token("host", "host");
    let good = room.pubkey();
    let bytes = room.key.verifying_key().to_bytes();
    let last = good.as_bytes()[good.len() - 1];
    let trailing_bits = format!("{}{}", &good[..good.len() - 1], char::from(last + 1));
    for (what, pubkey) in [
        ("padded", format!("{good}=")),
        ("a space", " ".to_owned()),
        ("a space behind", format!("{good} ")),
        ("31 bytes", encode(&bytes[..31])),
        ("33 bytes", encode(&[&bytes[..], &[0]].concat())),
        ("standard alphabet", "+/".repeat(21) + "A"),
        ("hexadecimal", "ab".repeat(32)),
        ("trailing bits", trailing_bits),
        ("not on the curve", encode(&not_on_the_curve())),
    ] {
        let target = target(&[("room", &room.id), ("token", &token), ("pubkey", &pubkey)]);
        stage.refused(what, &target, 400, "invalid pubkey");
    }
    let _host = stage.host(&room, "host");
}

fn not_on_the_curve() -> [u8; 32] {
    let candidates = (2..=u8::MAX).map(|y| {
        let mut bytes = [0; 32];
        bytes[0] = y;
        bytes
    });
    candidates
        .into_iter()
        .find(|bytes| CompressedEdwardsY(*bytes).decompress().is_none())
        .expect("half of all numbers are on no curve")
}

/// With such a key, a signature can be made that holds for any message.
fn weak_keys(stage: &Stage<'_>) {
    let room = stage.room("weak");
    let mut encodings: Vec<[u8; 32]> =
        EIGHT_TORSION.iter().map(|point| point.compress().to_bytes()).collect();
    // RFC 8032 section 5.1.3: the same points with a y of p, p + 1, and a sign where x is zero.
    let p = |low: u8, high: u8| {
        let mut bytes = [0xFF; 32];
        (bytes[0], bytes[31]) = (low, high);
        bytes
    };
    encodings.extend([p(0xED, 0x7F), p(0xED, 0xFF), p(0xEE, 0x7F), p(0xEE, 0xFF)]);
    let mut minus_zero = [0; 32];
    (minus_zero[0], minus_zero[31]) = (1, 0x80);
    encodings.push(minus_zero);
    // Not weak, but y is p + 3 instead of 3: not canonical.
    encodings.push(p(0xF0, 0x7F));
    for bytes in encodings {
        let pubkey = encode(&bytes);
        let target = target(&[("room", &room.id), ("token", &room.token("x", "host")), ("pubkey", &pubkey)]);
        stage.refused(&pubkey, &target, 400, "invalid pubkey");
    }
}

fn loose_signatures(stage: &Stage<'_>) {
    let room = stage.room("loose");
    let _host = stage.host(&room, "host");
    let claims = room.claims("guest", "guest").to_string();
    let token = sign(&room.key, HEADER, &claims);
    let (signed, _) = token.rsplit_once('.').expect("a token has three parts");
    let with = |signature: [u8; 64]| room.guest_target_with(&format!("{signed}.{}", encode(&signature)));

    let refused = "invalid token: invalid signature";
    stage.refused("S not reduced", &with(with_large_s(&room.key, signed)), 401, refused);
    stage.refused("R of small order", &with(with_small_r(&room.key, signed)), 401, refused);
    stage.join("guest", &room.guest_target_with(&token)).leave();
}

/// A valid signature whose S is larger than the order of the group (RFC 8032 section 5.1.7 forbids it).
fn with_large_s(key: &SigningKey, message: &str) -> [u8; 64] {
    use ed25519_dalek::Signer;

    // RFC 8032 section 5.1: L, in little-endian order.
    let mut order = [0; 32];
    order[..16].copy_from_slice(&(27_742_317_777_372_353_535_851_937_790_883_648_493_u128).to_le_bytes());
    order[31] = 0x10;
    let mut signature = key.sign(message.as_bytes()).to_bytes();
    let mut carry = 0;
    for (byte, addend) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(addend) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    signature
}

/// A signature for which `[S]B = R + [k]A` holds although R is the neutral element: no strict check takes it.
fn with_small_r(key: &SigningKey, message: &str) -> [u8; 64] {
    let r = EIGHT_TORSION[0].compress().to_bytes();
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(key.verifying_key().as_bytes())
        .chain_update(message.as_bytes())
        .finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let s = k * key.to_scalar();
    debug_assert_eq!(
        ED25519_BASEPOINT_TABLE * &s,
        k * key.verifying_key().to_edwards(),
        "a check that is not strict would take it"
    );
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(s.as_bytes());
    signature
}

fn guests_by_the_key_of_the_room(stage: &Stage<'_>) {
    let room = stage.room("guests");
    let mut host = stage.host(&room, "host");
    // Without a public key everybody is a guest, whatever the token says.
    let mut co_host = stage.join("co-host", &room.guest_target_with(&room.token("co-host", "host")));
    stage.fence(&mut co_host, &mut [&mut host]);
    let stranger = Room { key: key("stranger"), ..room.clone() };
    for role in ["guest", "host"] {
        let target = stranger.guest_target_with(&stranger.token("x", role));
        stage.refused(&format!("a stranger's {role}"), &target, 401, "invalid token: invalid signature");
    }
    // And cannot open a room.
    let other = stage.room("other");
    let target = other.guest_target_with(&other.token("x", "host"));
    stage.refused("a host without a key", &target, 404, "room not found");
}

fn hosts_by_their_own_key(stage: &Stage<'_>) {
    let room = stage.room("hosts");
    let mut host = stage.host(&room, "host");
    // The token of the room's key, presented with another key, and the other way round.
    let other = key("other");
    let pubkey = encode(other.verifying_key().as_bytes());
    let refused = "invalid token: invalid signature";
    let mismatched = target(&[("room", &room.id), ("token", &room.token("x", "host")), ("pubkey", &pubkey)]);
    stage.refused("the key of another", &mismatched, 401, refused);
    let claims = room.claims("x", "host").to_string();
    let mismatched = room.host_target_with(&sign(&other, HEADER, &claims));
    stage.refused("the token of another", &mismatched, 401, refused);
    // The same key again is a second host.
    let mut second = stage.host(&room, "second host");
    stage.fence(&mut second, &mut [&mut host]);
}

/// The first server let any key replace that of a live room.
fn bound_for_life(stage: &Stage<'_>) {
    let room = stage.room("bound");
    let host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    let stranger = Room { key: key("stranger"), ..room.clone() };
    stage.refused("a stranger", &stranger.host_target("x"), 403, "room key mismatch");
    host.leave();
    guest.expect_leave("host");
    stage.refused("a stranger, the host away", &stranger.host_target("x"), 403, "room key mismatch");
    let mut late = stage.guest(&room, "late guest");
    let mut host = stage.host(&room, "host");
    stage.fence(&mut host, &mut [&mut guest, &mut late]);
    host.leave();
    guest.expect_leave("host");
    late.expect_leave("host");
    guest.leave();
    late.expect_leave("guest");
    late.leave();
    // A room that has ended is free.
    let _stranger = stage.host(&stranger, "stranger");
}

/// On the first server, a public key that nobody checked lifted the cap of the room.
fn guest_with_public_key(stage: &Stage<'_>) {
    let room = stage.room("guest with key");
    let target = room.host_target_with(&room.token("guest", "guest"));
    stage.refused("no room yet", &target, 403, "role mismatch");
    stage.refused("still none", &room.guest_target("guest"), 404, "room not found");
    let _host = stage.host(&room, "host");
    stage.refused("a live room", &target, 403, "role mismatch");
}

/// `k1.<hash>.<anything>`.
fn bound_id(stage: &Stage<'_>, key: &SigningKey) -> String {
    format!("k1.{}.{}", fingerprint(key), stage.room("bound id").id)
}

/// The first 26 characters of the lower-case unpadded base32 (RFC 4648 section 6) of the SHA-256 of the key.
fn fingerprint(key: &SigningKey) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

    let hash = Sha256::digest(key.verifying_key().as_bytes());
    let bit = |index: usize| hash[index / 8] >> (7 - index % 8) & 1;
    (0..26)
        .map(|character| (0..5).fold(0, |value, at| value << 1 | bit(character * 5 + at)))
        .map(|value| char::from(ALPHABET[usize::from(value)]))
        .collect()
}

fn bound_room_id(stage: &Stage<'_>) {
    let (owner, stranger) = (key("owner"), key("stranger"));
    let room = Room { id: bound_id(stage, &owner), key: owner };
    let squatter = Room { key: stranger, ..room.clone() };
    stage.refused("a squatter", &squatter.host_target("x"), 403, "room key mismatch");
    stage.refused("a guest of nobody", &room.guest_target("guest"), 404, "room not found");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    stage.fence(&mut host, &mut [&mut guest]);
}

fn bound_room_id_lookalikes(stage: &Stage<'_>) {
    let owner = key("owner");
    let hash = fingerprint(&owner);
    let run = stage.room("lookalike").id;
    for id in [
        format!("k1.{}.{run}", &hash[..25]),
        format!("k1.{hash}a.{run}"),
        format!("k1.{hash}-{run}"),
        format!("k1.{}.{run}", hash.to_uppercase()),
        format!("k1.{}0.{run}", &hash[..25]),
        format!("K1.{hash}.{run}"),
        format!("k2.{hash}.{run}"),
        format!("k1..{run}"),
    ] {
        let squatter = Room { id, key: key("stranger") };
        stage.host(&squatter, "stranger").leave();
    }
}
