//! Every way to be turned away, in one table: status, code and text for the client, label and field for the
//! operator (rules H3, H5, H7, H9, H10).

use crate::token::TokenError;

/// Why a request, or a connection, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// T3: too many requests to `/ws` from one address.
    RateLimited,
    /// `room` or `token` is absent or empty.
    MissingParameter,
    /// A8.
    InvalidRoom,
    /// Not the unpadded base64url of 32 bytes, or a weak key.
    InvalidPubkey,
    /// A guest, and no such room.
    RoomNotFound,
    /// A4.
    InvalidToken(TokenError),
    /// The token is for another room.
    RoomMismatch,
    /// A7: a caller with a public key whose token says guest.
    RoleMismatch,
    /// A6, A10: the room belongs to another key.
    RoomKeyMismatch,
    /// D1: no new room while stopping.
    Draining,
    /// R4: no new room above `RELAY_MAX_ROOMS`.
    MaxRooms,
    /// R4: `RELAY_MAX_CLIENTS_PER_ROOM` are in.
    RoomFull,
    /// H6: not an upgrade to WebSocket.
    UpgradeRequired,
    /// H6: an upgrade to another version than 13.
    VersionRequired,
    /// H6: no valid `Sec-WebSocket-Key`.
    BadHandshake,
    /// H9: malformed, or with a body.
    BadRequest,
    /// H3.
    NotFound,
    /// H7; with what is allowed.
    MethodNotAllowed {
        /// The `Allow` field.
        allow: &'static str,
    },
    /// H9.
    HeadTooLarge,
    /// At accept: `RELAY_MAX_CONNECTIONS` or `RELAY_MAX_CONNECTIONS_PER_IP`. Never answered.
    TooManyConnections,
}

impl Refusal {
    /// The closed set of codes (rule H10), in the order in which they are checked.
    pub const CODES: [&'static str; 19] = [
        "rate_limited",
        "missing_parameter",
        "invalid_room",
        "invalid_pubkey",
        "room_not_found",
        "invalid_token",
        "room_mismatch",
        "role_mismatch",
        "room_key_mismatch",
        "draining",
        "max_rooms",
        "room_full",
        "upgrade_required",
        "bad_handshake",
        "bad_request",
        "not_found",
        "method_not_allowed",
        "head_too_large",
        "too_many_connections",
    ];

    /// Status, code and text.
    fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Refusal::RateLimited => (429, "rate_limited", "rate limit exceeded"),
            Refusal::MissingParameter => (400, "missing_parameter", "missing room or token"),
            Refusal::InvalidRoom => (400, "invalid_room", "invalid room"),
            Refusal::InvalidPubkey => (400, "invalid_pubkey", "invalid pubkey"),
            Refusal::RoomNotFound => (404, "room_not_found", "room not found"),
            Refusal::InvalidToken(_) => (401, "invalid_token", "invalid token: "),
            Refusal::RoomMismatch => (403, "room_mismatch", "room mismatch"),
            Refusal::RoleMismatch => (403, "role_mismatch", "role mismatch"),
            Refusal::RoomKeyMismatch => (403, "room_key_mismatch", "room key mismatch"),
            Refusal::Draining => (503, "draining", "draining"),
            Refusal::MaxRooms => (503, "max_rooms", "max rooms reached"),
            Refusal::RoomFull => (503, "room_full", "room full"),
            Refusal::UpgradeRequired | Refusal::VersionRequired => {
                (426, "upgrade_required", "upgrade required")
            }
            Refusal::BadHandshake => (400, "bad_handshake", "bad websocket handshake"),
            Refusal::BadRequest => (400, "bad_request", "bad request"),
            Refusal::NotFound => (404, "not_found", "404 page not found"),
            Refusal::MethodNotAllowed { .. } => (405, "method_not_allowed", "method not allowed"),
            Refusal::HeadTooLarge => (431, "head_too_large", "request head too large"),
            Refusal::TooManyConnections => (503, "too_many_connections", "too many connections"),
        }
    }

    /// The HTTP status (RFC 9110 section 15, RFC 6585).
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// One of [`CODES`](Self::CODES).
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// The text of the body in two parts: what is refused, and for a token the reason.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Refusal::InvalidToken(reason) => (self.row().2, reason.as_str()),
            _ => (self.row().2, ""),
        }
    }

    /// Where [`code`](Self::code) stands in [`CODES`](Self::CODES).
    pub fn index(self) -> usize {
        Self::CODES.iter().position(|code| *code == self.code()).unwrap_or(0)
    }
}
