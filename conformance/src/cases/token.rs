//! Tokens: their form, their claims, and each reason to refuse one (rules A1, A3, A4, A8).

use serde_json::{Value, json};

use super::{Needs, cases};
use crate::room::{HEADER, Room, encode, key, sign, sign_parts};
use crate::stage::Stage;

/// Rule A1.
const LARGEST_TOKEN_BYTES: usize = 4096;
/// Rule A8.
const LONGEST_ID_BYTES: usize = 128;

cases! {
    "token::form" ["A1" "A4"] Needs::Nothing, form;
    "token::header" ["A1" "A4"] Needs::Nothing, header;
    "token::size" ["A1"] Needs::Nothing, size;
    "token::trailing_bits" ["A1" "A4"] Needs::Nothing, trailing_bits;
    "token::claims" ["A3" "A4"] Needs::Nothing, claims;
    "token::order_of_reasons" ["A4"] Needs::Nothing, order_of_reasons;
    "token::lifetime" ["A3"] Needs::Nothing, lifetime;
    "token::last_second" ["A3"] Needs::Nothing, last_second;
    "token::peer_id" ["A8" "A4"] Needs::Nothing, peer_id;
    "token::room_id" ["A8"] Needs::Nothing, room_id;
}

/// A live room and what a guest with a given token is told there.
struct Door<'s, 'h> {
    stage: &'s Stage<'h>,
    room: Room,
}

impl Door<'_, '_> {
    #[track_caller]
    fn refuses(&self, what: &str, token: &str, reason: &str) {
        let text = format!("invalid token: {reason}");
        self.stage.refused(what, &self.room.guest_target_with(token), 401, &text);
    }

    #[track_caller]
    fn admits(&self, what: &str, token: &str) {
        self.stage.join(what, &self.room.guest_target_with(token)).leave();
    }

    /// Claims of a guest with one claim changed; null leaves it out.
    fn claims(&self, name: &str, value: Value) -> Value {
        let mut claims = self.room.claims("guest", "guest");
        claims[name] = value;
        if claims[name].is_null() {
            claims.as_object_mut().expect("claims are an object").remove(name);
        }
        claims
    }
}

/// Opens a room and plays a case at its door.
fn at_a_door(stage: &Stage<'_>, play: impl FnOnce(&Door<'_, '_>)) {
    let room = stage.room("door");
    let _host = stage.host(&room, "host");
    play(&Door { stage, room });
}

fn form(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        let token = door.room.token("guest", "guest");
        let parts: Vec<_> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else { unreachable!("a token has three parts") };
        let malformed = "malformed JWT";
        door.refuses("a word", "token", malformed);
        door.refuses("two parts", &format!("{header}.{claims}"), malformed);
        door.refuses("four parts", &format!("{token}."), malformed);
        door.refuses("empty parts", "..", malformed);
        door.refuses("white space before", &format!(" {token}"), malformed);
        door.refuses("white space in the header", &token.replacen("ey", "e y", 1), malformed);
        door.refuses("a padded header", &format!("{header}=.{claims}.{signature}"), malformed);
        door.refuses("a header that is no base64url", &format!("{header}!.{claims}.{signature}"), malformed);
        let no_signature = "invalid signature encoding";
        door.refuses("an empty signature", &format!("{header}.{claims}."), no_signature);
        door.refuses("a padded signature", &format!("{token}=="), no_signature);
        door.refuses("white space behind", &format!("{token} "), no_signature);
        door.refuses("a line break behind", &format!("{token}\n"), no_signature);
        door.refuses("a short signature", &token[..token.len() - 2], no_signature);
        door.refuses("a long signature", &format!("{token}AA"), no_signature);
        let standard = format!("{header}.{claims}.{}", "+/".repeat(43));
        door.refuses("a signature in the other alphabet", &standard, no_signature);
        let zeros = format!("{header}.{claims}.{}", encode(&[0; 64]));
        door.refuses("another signature", &zeros, "invalid signature");
        let other = sign(&key("other"), HEADER, &door.room.claims("guest", "guest").to_string());
        door.refuses("another signer", &other, "invalid signature");
        let longer = format!("{header}.{claims}A.{signature}");
        door.refuses("claims that were not signed", &longer, "invalid signature");
        let claims = sign_parts(&door.room.key, header, "claims!");
        door.refuses("claims that are no base64url", &claims, "invalid claims encoding");
        door.admits("guest", &token);
    });
}

fn header(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        let claims = door.room.claims("guest", "guest").to_string();
        let with = |header: &str| sign(&door.room.key, header, &claims);
        for header in [
            HEADER,
            r#"{"typ":"JWT","alg":"EdDSA"}"#,
            r#"{"alg":"EdDSA"}"#,
            r#" { "alg" : "EdDSA", "kid": "1", "x": {"alg": "none"}, "y": [null] } "#,
            r#"{"\u0061lg":"EdDSA"}"#,
        ] {
            door.admits(header, &with(header));
        }
        for header in [
            "{}",
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"eddsa"}"#,
            r#"{"alg":"EdDSA "}"#,
            r#"{"alg":["EdDSA"]}"#,
            r#"{"alg":null}"#,
            r#"{"ALG":"EdDSA"}"#,
            r#"{"alg":"EdDSA","crit":["exp"]}"#,
            r#"{"alg":"EdDSA","crit":[]}"#,
            r#"{"alg":"EdDSA","alg":"EdDSA"}"#,
            r#"{"alg":"none","alg":"EdDSA"}"#,
            r#"{"alg":"EdDSA","\u0061lg":"none"}"#,
        ] {
            door.refuses(header, &with(header), "unsupported JWT algorithm");
        }
        for header in ["", "EdDSA", r#"{"alg":"EdDSA""#, r#"{"alg":"EdDSA"}{}"#] {
            door.refuses(header, &with(header), "malformed JWT");
        }
    });
}

fn size(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        // Three letters become four: some lengths cannot be met exactly, so the header helps.
        let of = |length: usize| {
            (0..LARGEST_TOKEN_BYTES)
                .flat_map(|pad| ["", " ", "  "].map(|space| (pad, space)))
                .skip_while(|(pad, _)| *pad < 2500)
                .map(|(pad, space)| {
                    let claims = door.claims("name", "n".repeat(pad).into());
                    sign(&door.room.key, &format!("{HEADER}{space}"), &claims.to_string())
                })
                .find(|token| token.len() == length)
                .expect("some padding gives that length")
        };
        door.admits("guest with 4096 bytes", &of(LARGEST_TOKEN_BYTES));
        door.refuses("4097 bytes", &of(LARGEST_TOKEN_BYTES + 1), "malformed JWT");
    });
}

/// The last character of a part has bits that say nothing; only zeros are accepted there.
fn trailing_bits(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        let token = door.room.token("guest", "guest");
        let (signed, signature) = token.rsplit_once('.').expect("a token has three parts");
        let (header, _) = signed.split_once('.').expect("a token has three parts");
        let changed = next_character(signature);
        door.refuses("in the signature", &format!("{signed}.{changed}"), "invalid signature encoding");

        // 26 bytes leave four bits, 27 none.
        let header_26 = r#"{"alg":"EdDSA","typ":"JW"}"#;
        assert_eq!(header_26.len() % 3, 2);
        let changed = next_character(&encode(header_26.as_bytes()));
        let claims = encode(door.room.claims("guest", "guest").to_string().as_bytes());
        door.refuses("in the header", &sign_parts(&door.room.key, &changed, &claims), "malformed JWT");

        let mut text = door.room.claims("guest", "guest").to_string();
        while text.len() % 3 == 0 {
            text.push(' ');
        }
        let changed = next_character(&encode(text.as_bytes()));
        let token = sign_parts(&door.room.key, header, &changed);
        door.refuses("in the claims", &token, "invalid claims encoding");
    });
}

/// The same text with the last bit of its last character set.
fn next_character(text: &str) -> String {
    let (rest, last) = text.split_at(text.len() - 1);
    let last = last.as_bytes()[0];
    format!("{rest}{}", char::from(last + 1))
}

fn claims(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        for (name, value) in [
            ("name", json!("Gäste")),
            ("name", json!(null)),
            ("iat", json!(9_999_999_999_u64)),
            ("iat", json!(-1)),
            ("exp", json!(9_223_372_036_854_775_807_i64)),
            ("nbf", json!(0)),
            ("other", json!({ "exp": 1 })),
        ] {
            let claims = door.claims(name, value.clone());
            door.admits(&format!("guest with {name} {value}"), &door.room.sign(&claims));
        }
        for (name, value, reason) in [
            ("exp", json!(1.5), "invalid claims JSON"),
            ("exp", json!(2e10), "invalid claims JSON"),
            ("exp", json!("2000"), "invalid claims JSON"),
            ("exp", json!(true), "invalid claims JSON"),
            ("nbf", json!(0.5), "invalid claims JSON"),
            ("iat", json!("now"), "invalid claims JSON"),
            ("room_id", json!(7), "invalid claims JSON"),
            ("peer_id", json!(["guest"]), "invalid claims JSON"),
            ("role", json!(1), "invalid claims JSON"),
            ("exp", json!(-1), "token expired"),
            ("exp", json!(1), "token expired"),
            ("nbf", json!(9_999_999_999_u64), "token not yet valid"),
            ("room_id", json!(null), "missing room_id"),
            ("room_id", json!(""), "missing room_id"),
            ("peer_id", json!(null), "missing peer_id"),
            ("peer_id", json!(""), "missing peer_id"),
            ("role", json!(null), "invalid role"),
            ("role", json!(""), "invalid role"),
            ("role", json!("admin"), "invalid role"),
            ("role", json!("Guest"), "invalid role"),
        ] {
            let claims = door.claims(name, value.clone());
            door.refuses(&format!("{name} {value}"), &door.room.sign(&claims), reason);
        }
        for text in ["", "null", "[]", "\"claims\"", "{", r#"{"room_id":"r"}}"#, r#"{"exp":1,}"#] {
            door.refuses(text, &sign(&door.room.key, HEADER, text), "invalid claims JSON");
        }
    });
}

/// Each token is wrong in one way and in all later ones.
fn order_of_reasons(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        let worst = json!({ "exp": 1, "nbf": 9_999_999_999_u64, "role": "x", "peer_id": "\n" });
        let mut claims = worst.clone();
        let text = worst.to_string();
        let (header, key) = (encode(HEADER.as_bytes()), &door.room.key);
        door.refuses("malformed", "a.b.c", "malformed JWT");
        let none = encode(br#"{"alg":"none"}"#);
        door.refuses("algorithm", &format!("{none}.!.!"), "unsupported JWT algorithm");
        door.refuses("signature encoding", &format!("{header}.!.!"), "invalid signature encoding");
        let unsigned = format!("{header}.!.{}", encode(&[0; 64]));
        door.refuses("signature", &unsigned, "invalid signature");
        door.refuses("claims encoding", &sign_parts(key, &header, "!"), "invalid claims encoding");
        door.refuses("claims JSON", &sign(key, HEADER, &text[1..]), "invalid claims JSON");
        door.refuses("expired", &sign(key, HEADER, &text), "token expired");
        claims["exp"] = json!(0);
        door.refuses("not yet valid", &door.room.sign(&claims), "token not yet valid");
        claims["nbf"] = json!(0);
        door.refuses("no room", &door.room.sign(&claims), "missing room_id");
        claims["room_id"] = json!("another room");
        claims["peer_id"] = json!("");
        door.refuses("no peer", &door.room.sign(&claims), "missing peer_id");
        claims["peer_id"] = json!("\n");
        door.refuses("bad peer", &door.room.sign(&claims), "invalid peer_id");
        claims["peer_id"] = json!("guest");
        door.refuses("bad role", &door.room.sign(&claims), "invalid role");
        claims["role"] = json!("guest");
        let target = door.room.guest_target_with(&door.room.sign(&claims));
        stage.refused("another room", &target, 403, "room mismatch");
        claims["room_id"] = json!(door.room.id);
        door.admits("guest", &door.room.sign(&claims));
    });
}

fn lifetime(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        let now = stage.host.unix();
        for (what, name, time) in [
            ("guest without an end", "exp", 0),
            ("guest for an hour", "exp", now + 3600),
            ("guest since an hour", "nbf", now - 3600),
            ("guest since this second", "nbf", now),
            ("guest from tomorrow's mint", "iat", now + 86_400),
        ] {
            door.admits(what, &door.room.sign(&door.claims(name, time.into())));
        }
        let claims = |name: &str, time: u64| door.room.sign(&door.claims(name, time.into()));
        door.refuses("until a minute ago", &claims("exp", now - 60), "token expired");
        door.refuses("from in a minute", &claims("nbf", now + 60), "token not yet valid");
    });
}

/// A token is valid through the second that it names, and not a second longer.
fn last_second(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        let ask = |exp: u64| {
            let token = door.room.sign(&door.claims("exp", exp.into()));
            // Without a handshake: 426 says that the token is good.
            stage.ask(&crate::http::Request::get(&door.room.guest_target_with(&token))).status
        };
        // A real clock may go on between the look at it and the answer; then the answer says nothing.
        let statuses = (0..100).find_map(|_| {
            let now = stage.host.unix();
            let statuses = (ask(now), ask(now - 1));
            (stage.host.unix() == now).then_some(statuses)
        });
        assert_eq!(statuses, Some((426, 401)), "in its last second, and one later");
        stage.transcript.note("in its last second: 426; one later: 401");
    });
}

fn peer_id(stage: &Stage<'_>) {
    at_a_door(stage, |door| {
        let longest = "p".repeat(LONGEST_ID_BYTES);
        for id in ["p", " ", "ä ö", "\u{a0}", "\u{200b}", "../\\\"<>", &longest] {
            door.admits("guest", &door.room.token(id, "guest"));
        }
        let too_long = format!("{longest}p");
        let too_long_in_bytes = "ä".repeat(LONGEST_ID_BYTES / 2 + 1);
        for id in
            ["\0", "a\nb", "\r", "\t", "\u{1f}", "\u{7f}", "\u{80}", "\u{9f}", &too_long, &too_long_in_bytes]
        {
            door.refuses(&format!("{id:?}"), &door.room.token(id, "guest"), "invalid peer_id");
        }
    });
}

fn room_id(stage: &Stage<'_>) {
    let longest = stage.room_of(LONGEST_ID_BYTES);
    let mut host = stage.host(&longest, "host");
    let mut guest = stage.guest(&longest, "guest");
    stage.fence(&mut guest, &mut [&mut host]);
    let too_long = stage.room_of(LONGEST_ID_BYTES + 1);
    stage.refused("129 bytes", &too_long.host_target("host"), 400, "invalid room");
    for id in ["\0", "a\nb", "\u{1b}[0m", "\u{7f}", "\u{85}", "\u{9f}"] {
        stage.refused(&format!("{id:?}"), &Room::new(id).host_target("host"), 400, "invalid room");
    }
}
