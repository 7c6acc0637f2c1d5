//! Who asks for what: the requests of a run, and their bytes. Signatures take time, so each is made once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::OnceLock;

use ed25519_dalek::SigningKey;
use relay_proto::Role;
use relay_proto::room::bound_room_id;
use serde_json::Value;

use crate::http::Request;
use crate::room::{Room, key, target};

use super::UNIX_ORIGIN;

/// How long after the start of a run the tokens end, or begin, of those that do.
pub(crate) const TOKEN_TURN: u64 = 30;

/// Some have to be escaped in JSON.
pub(crate) const PEERS: [&str; 5] = ["ann", "bob", "c\"y", "dora", "é\\"];

/// The room that may be opened with the first key only (rule A10).
pub(crate) const BOUND_ROOM: usize = 3;

/// No room may be called like this.
const BAD_ROOM: &str = "a\u{7f}";

/// The address that is a proxy's.
const PROXY: u16 = 3;

/// A request and whatever the relay may judge it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) room: usize,
    pub(crate) peer: usize,
    pub(crate) role: Role,
    /// Which of the two keys signs, and is shown by a host.
    pub(crate) key: usize,
    pub(crate) ask: Ask,
    /// Whether it comes through a proxy that says for whom.
    pub(crate) proxied: bool,
}

/// What a request is, or what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ask {
    Room,
    NoToken,
    BadRoom,
    BadPubkey,
    NoSuchToken,
    ExpiringToken,
    FutureToken,
    OtherRoomsToken,
    GuestsToken,
    NoUpgrade,
    OldVersion,
    BadKey,
    Body,
    UnknownPath,
    Health,
    StatusPage,
    WrongMethod,
    Malformed,
    TooLarge,
}

impl Ask {
    /// By the operand of an operation.
    pub(crate) fn number(what: u16) -> Self {
        const ALL: [Ask; 18] = [
            Ask::NoToken,
            Ask::BadRoom,
            Ask::BadPubkey,
            Ask::NoSuchToken,
            Ask::ExpiringToken,
            Ask::FutureToken,
            Ask::OtherRoomsToken,
            Ask::GuestsToken,
            Ask::NoUpgrade,
            Ask::OldVersion,
            Ask::BadKey,
            Ask::Body,
            Ask::UnknownPath,
            Ask::Health,
            Ask::StatusPage,
            Ask::WrongMethod,
            Ask::Malformed,
            Ask::TooLarge,
        ];
        ALL[usize::from(what) % ALL.len()]
    }
}

/// The address of the socket that belongs to an operand, and whether a proxy stands there.
pub(crate) fn address(ip: u16) -> (IpAddr, bool) {
    if ip % 4 == PROXY {
        return (IpAddr::V4(Ipv4Addr::LOCALHOST), true);
    }
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(ip % 4).unwrap_or_default())), false)
}

/// The client behind the proxy.
pub(crate) const BEHIND_PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// Both keys.
fn keys() -> &'static [SigningKey; 2] {
    static KEYS: OnceLock<[SigningKey; 2]> = OnceLock::new();
    KEYS.get_or_init(|| [key("the host"), key("a stranger")])
}

/// The ids of the rooms.
pub(crate) fn room_ids() -> &'static [String; 4] {
    static IDS: OnceLock<[String; 4]> = OnceLock::new();
    IDS.get_or_init(|| {
        let bound = bound_room_id(&keys()[0].verifying_key(), "call");
        ["one".to_owned(), "two".to_owned(), "thr\"ee".to_owned(), bound]
    })
}

/// How they are told apart.
pub(crate) fn room_number(id: &str) -> Option<usize> {
    room_ids().iter().position(|known| known == id)
}

impl Call {
    /// As it goes over the wire.
    pub(crate) fn bytes(self) -> Rc<[u8]> {
        thread_local! {
            static KNOWN: RefCell<BTreeMap<Call, Rc<[u8]>>> = const { RefCell::new(BTreeMap::new()) };
        }
        KNOWN.with_borrow_mut(|known| Rc::clone(known.entry(self).or_insert_with(|| self.encode().into())))
    }

    fn encode(self) -> Vec<u8> {
        match self.ask {
            Ask::Malformed => return b"GET / HTTP/1.1\r\nno field\r\n\r\n".to_vec(),
            Ask::TooLarge => return Request::get("/").padded_to(16 * 1024 + 1).encode(),
            _ => {}
        }
        let request = match self.ask {
            Ask::NoUpgrade => Request::get(&self.target()),
            Ask::OldVersion => Request::upgrade(&self.target()).set("Sec-WebSocket-Version", "8"),
            Ask::BadKey => Request::upgrade(&self.target()).set("Sec-WebSocket-Key", "short"),
            Ask::Body => Request::upgrade(&self.target()).with("Content-Length", "7"),
            Ask::UnknownPath => Request::get("/favicon.ico"),
            Ask::Health => Request::get("/health"),
            Ask::StatusPage => Request::get("/"),
            Ask::WrongMethod => Request::new("POST", "/ws"),
            _ => Request::upgrade(&self.target()),
        };
        let request =
            if self.proxied { request.with("X-Forwarded-For", &BEHIND_PROXY.to_string()) } else { request };
        request.encode()
    }

    fn target(self) -> String {
        let room = Room { id: room_ids()[self.room].clone(), key: keys()[self.key].clone() };
        let role = if self.ask == Ask::GuestsToken { Role::Guest } else { self.role };
        let mut claims = room.claims(PEERS[self.peer], role.as_str());
        let turn = Value::from(UNIX_ORIGIN.as_secs() + TOKEN_TURN);
        match self.ask {
            Ask::ExpiringToken => claims["exp"] = turn,
            Ask::FutureToken => claims["nbf"] = turn,
            Ask::OtherRoomsToken => claims["room_id"] = "elsewhere".into(),
            _ => {}
        }
        let token = match self.ask {
            Ask::NoToken => String::new(),
            Ask::NoSuchToken => "a.b.c".to_owned(),
            _ => room.sign(&claims),
        };
        let id = if self.ask == Ask::BadRoom { BAD_ROOM } else { &room.id };
        let mut parameters = vec![("room", id), ("token", &token)];
        let pubkey = if self.ask == Ask::BadPubkey { "AAAA".to_owned() } else { room.pubkey() };
        if self.role == Role::Host || self.ask == Ask::BadPubkey {
            parameters.push(("pubkey", &pubkey));
        }
        target(&parameters)
    }

    /// The room for which it is a request, whatever else is wrong with it.
    pub(crate) fn room_asked_for(&self) -> Option<&'static str> {
        match self.ask {
            Ask::Room
            | Ask::NoToken
            | Ask::BadPubkey
            | Ask::NoSuchToken
            | Ask::ExpiringToken
            | Ask::FutureToken
            | Ask::OtherRoomsToken
            | Ask::GuestsToken
            | Ask::NoUpgrade
            | Ask::OldVersion
            | Ask::BadKey
            | Ask::Body => Some(&room_ids()[self.room]),
            Ask::BadRoom => Some(BAD_ROOM),
            Ask::UnknownPath
            | Ask::Health
            | Ask::StatusPage
            | Ask::WrongMethod
            | Ask::Malformed
            | Ask::TooLarge => None,
        }
    }
}
