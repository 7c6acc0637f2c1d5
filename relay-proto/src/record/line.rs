//! How a recording is written down: lines of JSON, one for its beginning and one for each event.
//!
//! ```json
//! {"format":1,"relay":"0.1.0","seed":[…],"config":{…}}
//! {"at":812400,"unix":1767225600000812400,"event":{"open":{"from":"fd00::1"}},"actions":["accept c1"]}
//! {"at":934100,"unix":…,"event":{"connect":{"conn":1,"request":{…}}},"actions":["upgrade c1 129"]}
//! {"at":981500,"unix":…,"event":{"message":{"conn":2,"bytes":84,"content":"voice"}},"actions":["send c1 voice:84"]}
//! ```
//!
//! Times are in nanoseconds; connections, rooms and keys are numbers, in the order in which they came.

use core::net::{IpAddr, Ipv6Addr};
use std::string::String;
use std::vec::Vec;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::event::{Fault, Role};
use crate::token::TokenError;

/// The number of this format.
pub const FORMAT: u32 = 1;

/// The first 16 bits of the stand-ins of trusted proxies; those of other addresses have the next number.
pub(super) const PROXIES: u16 = 0xFD00;

/// The first line: how to make a machine that does the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the relay: another one may decide otherwise.
    pub relay: String,
    /// As given to [`Relay::new`](crate::Relay::new).
    pub seed: [u8; 32],
    /// As given to [`Relay::new`](crate::Relay::new), but for the addresses in it.
    pub config: Config,
}

impl Beginning {
    /// Where the stand-ins of trusted proxies are.
    pub fn proxies() -> IpNet {
        let address = Ipv6Addr::new(PROXIES, 0, 0, 0, 0, 0, 0, 0);
        IpNet::V6(Ipv6Net::new_assert(address, 16))
    }
}

/// Any other line: an event, and what the machine decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The monotonic clock, in nanoseconds.
    pub at: u64,
    /// The wall clock, in nanoseconds since 1970.
    pub unix: u64,
    /// What happened.
    pub event: Happened,
    /// The [`digest`](super::digest) of each action.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}

/// A call of [`Relay::open`](crate::Relay::open), or an [`Event`](crate::Event).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // as in `Event`
pub enum Happened {
    Open { from: IpAddr },
    Connect { conn: u32, request: Asked },
    Message { conn: u32, bytes: usize, content: Content },
    Ping { conn: u32, bytes: usize },
    Pong { conn: u32 },
    PeerClose { conn: u32, code: Option<u16> },
    Fault { conn: u32, fault: Fault },
    Sent { conn: u32 },
    Acked { conn: u32, acked: u64, waiting: u64, received: u64 },
    Disconnect { conn: u32 },
    Tick,
    Drain,
}

/// What decides of a message besides its length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Rule M2.
    Voice,
    /// Data that may be joined (rule M3).
    Joinable,
    /// Other data.
    Data,
    /// The first data of a member, with a `from` that can be a peer id (rule R8).
    Named {
        /// Its stand-in.
        from: String,
        /// Rule M3.
        joinable: bool,
    },
}

/// What decides of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// What it is about.
    pub path: Path,
    /// Whether it passes rule H9.
    pub well_formed: bool,
    /// Rule H10.
    pub json: bool,
    /// The client's address, if that is not the socket's (rule T4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Of a request to `/ws`: its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<Query>,
    /// Rule H6.
    pub handshake: Handshake,
}

/// Rule H7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Other,
}

/// Rules H1 to H4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Path {
    Status,
    Health,
    Ws,
    Unknown,
}

/// How the opening handshake is judged (rule H6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Handshake {
    Valid,
    NoUpgrade,
    OtherVersion,
    BadKey,
}

/// The parameters of a request to `/ws` (rule H4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// One of them is not UTF-8.
    Undecodable,
    /// All are.
    Readable {
        /// The room.
        room: Room,
        /// The public key of a host.
        pubkey: Pubkey,
        /// The token.
        token: Token,
    },
}

/// A room id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Room {
    /// Absent or empty.
    Missing,
    /// Rule A8.
    Invalid,
    /// A valid one.
    Is {
        /// Which one.
        number: u32,
        /// The key that it is bound to (rule A10).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bound: Option<u32>,
    },
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pubkey {
    /// Absent or empty: a guest.
    Missing,
    /// Rule A2.
    Invalid,
    /// A valid one.
    Key(u32),
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Token {
    /// Absent or empty.
    Missing,
    /// There is no key to judge it by.
    Unread,
    /// There is one.
    Judged {
        /// The key: the host's own, or that of the room.
        key: u32,
        /// How it was judged.
        verdict: Verdict,
    },
}

/// What a token is worth at its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Rule A4.
    Refused(TokenError),
    /// It is valid.
    Holds {
        /// Whether it is for the room that was asked for.
        for_room: bool,
        /// Its role.
        role: Role,
        /// The stand-in of its peer id.
        peer: String,
    },
}
