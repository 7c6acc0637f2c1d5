//! A request head: which answer it gets, and how a member comes into its room.

use alloc::string::String;
use core::time::Duration;

use ed25519_dalek::VerifyingKey;

use crate::canary::{Canary, sings};
use crate::connection::{CLOSING, Closing, Member, Phase, Pulse};
use crate::event::{Action, Fault, Notice, Role, Sink};
use crate::gate::{Origin, client_address};
use crate::http::{Content, Form, HTML, HeadOnly, JSON, Request, Response, Route};
use crate::refusal::Refusal;
use crate::relay::Relay;
use crate::room::{PeerId, RoomId};
use crate::status;
use crate::timers::{Key, Wake};
use crate::token;

/// Rule H8: when a guest that came before its host should try again.
const GUEST_RETRY: Duration = Duration::from_secs(2);
/// Rule H8: when a place may have become free.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// Where a caller that has passed every check will be.
struct Place {
    room: Result<u32, Opening>,
    role: Role,
    peer: PeerId,
    accept: String,
}

/// A room that does not exist yet.
struct Opening {
    id: RoomId,
    key: VerifyingKey,
}

impl Relay {
    pub(crate) fn connect(&mut self, slot: u32, request: &Request<'_>, sink: &mut impl Sink) {
        let Phase::Handshake { .. } = self.connections[slot].phase else {
            return Self::misuse("a second request head", sink);
        };
        if self.hands_over(slot, request, sink) {
            return;
        }
        let ip = client_address(self.connections[slot].ip, request, &self.config.trusted_proxies);
        self.connections[slot].ip = ip;
        if !self.count_behind_proxy(slot, sink) {
            return;
        }
        let route = request.route();
        let head_only = if request.method == "HEAD" { HeadOnly::Yes } else { HeadOnly::No };
        let outcome = match route {
            Route::WebSocket => {
                let rate = self.shard.gate().request(Origin::of(ip), self.now.monotonic, &self.config);
                rate.map_err(|wait| (Refusal::RateLimited, Some(wait)))
                    .and_then(|()| request.judge(route).map_err(|refusal| (refusal, None)))
                    .and_then(|()| {
                        let joined = self.judge(request).and_then(|place| self.join(slot, place, sink));
                        joined.map_err(|refusal| (refusal, self.retry(refusal)))
                    })
            }
            Route::Status | Route::Health | Route::Unknown => {
                request.judge(route).map_err(|refusal| (refusal, None)).map(|()| {
                    let response = self.page(route, head_only);
                    self.respond(slot, response, sink);
                })
            }
        };
        if let Err((refusal, retry)) = outcome {
            let form = if request.wants_json() { Form::Json } else { Form::Plain };
            let response = Response::refusal(refusal, form, head_only, retry.map(whole_seconds));
            self.refuse(slot, refusal, response, sink);
        }
    }

    /// A head that cannot be read (rule H9).
    pub(crate) fn bad_head(&mut self, slot: u32, fault: Fault, sink: &mut impl Sink) {
        let refusal = if fault == Fault::HeadTooLarge { Refusal::HeadTooLarge } else { Refusal::BadRequest };
        self.refuse(slot, refusal, Response::refusal(refusal, Form::Plain, HeadOnly::No, None), sink);
    }

    /// The socket of a trusted proxy is counted for the address behind it.
    fn count_behind_proxy(&mut self, slot: u32, sink: &mut impl Sink) -> bool {
        let connection = &mut self.connections[slot];
        if connection.counted.is_some() {
            return true;
        }
        let (origin, ip) = (Origin::of(connection.ip), connection.ip);
        if self.shard.gate().enter_from(origin, &self.config) {
            connection.counted = Some(origin);
            return true;
        }
        self.ledger.stats.refused[Refusal::TooManyConnections.index()] += 1;
        sink.notice(Notice::Refused { ip, refusal: Refusal::TooManyConnections });
        self.abort(slot, sink);
        false
    }

    /// Rules H5 and H6, in their order. Nothing changes before all have passed.
    fn judge(&self, request: &Request<'_>) -> Result<Place, Refusal> {
        let room = request.parameter("room")?;
        let token = request.parameter("token")?;
        let pubkey = request.parameter("pubkey")?;
        if room.is_empty() || token.is_empty() {
            return Err(Refusal::MissingParameter);
        }
        let id = RoomId::new(&room).ok_or(Refusal::InvalidRoom)?;
        let live = self.rooms.find(&id);
        let (key, role) = if pubkey.is_empty() {
            (self.rooms[live.ok_or(Refusal::RoomNotFound)?].key, Role::Guest)
        } else {
            (token::decode_key(&pubkey).ok_or(Refusal::InvalidPubkey)?, Role::Host)
        };
        let claims = token::verify(&token, &key, self.now.unix).map_err(Refusal::InvalidToken)?;
        if claims.room_id != room {
            return Err(Refusal::RoomMismatch);
        }
        if role == Role::Host {
            if claims.role != Role::Host && !sings(Canary::GuestsAsHosts) {
                return Err(Refusal::RoleMismatch);
            }
            let foreign = live.is_some_and(|live| self.rooms[live].key != key);
            if !id.admits(&key) || (foreign && !sings(Canary::ForeignKey)) {
                return Err(Refusal::RoomKeyMismatch);
            }
        }
        match live {
            None => self.shard.gate().may_open_room(&self.config)?,
            Some(live)
                if self.rooms[live].members.len()
                    >= self.config.max_clients_per_room.saturating_add(sings(Canary::OneTooMany).into()) =>
            {
                return Err(Refusal::RoomFull);
            }
            Some(_) => {}
        }
        let accept = request.judge_handshake()?;
        let peer =
            PeerId::new(&claims.peer_id).ok_or(Refusal::InvalidToken(token::TokenError::InvalidPeer))?;
        Ok(Place { room: live.ok_or(Opening { id, key }), role, peer, accept })
    }

    /// Contract 7: in the room first, then the 101. Refused only if another shard has just taken the last room.
    fn join(&mut self, slot: u32, place: Place, sink: &mut impl Sink) -> Result<(), Refusal> {
        let now = self.now.monotonic;
        let room = match place.room {
            Ok(live) => live,
            Err(opening) => {
                self.shard.gate().open_room(&self.config)?;
                self.ledger.stats.rooms += 1;
                self.rooms.open(&opening.id, opening.key, now)
            }
        };
        self.rooms[room].members.push(slot);
        self.touch_room(room);
        let stats = &mut self.ledger.stats;
        stats.accepted += 1;
        match place.role {
            Role::Host => stats.hosts += 1,
            Role::Guest => stats.guests += 1,
        }
        let conn = self.id(slot);
        let connection = &mut self.connections[slot];
        let (room_id, peer, ip) = (self.rooms[room].id.as_str(), place.peer.as_str(), connection.ip);
        sink.notice(Notice::Joined { conn, ip, room: room_id, peer, role: place.role });
        connection.phase = Phase::Member(Member {
            room,
            role: place.role,
            token_peer: place.peer,
            announced_peer: None,
            introduced: false,
        });
        let next_ping = self.config.ping_interval.map(|interval| now + interval);
        connection.pulse = Pulse { heard: now, patrolled: now, next_ping, ..Pulse::default() };
        connection.outbox.occupy(now);
        self.arm(slot);
        sink.action(Action::Upgrade { conn, response: Response::switching_protocols(&place.accept) });
        Ok(())
    }

    /// Rule R1: the idle time of a room starts anew. Its timer stays where it is and looks again later.
    pub(crate) fn touch_room(&mut self, index: u32) {
        let room = &mut self.rooms[index];
        room.active = self.now.monotonic;
        if let (None, Some(timeout)) = (room.armed, self.config.room_idle_timeout) {
            let at = self.now.monotonic + timeout;
            self.timers.set(Key::Room(index), &mut room.armed, Some((at, Wake::RoomIdle)));
        }
    }

    fn page(&self, route: Route, head_only: HeadOnly) -> Response {
        if route == Route::Status {
            let state = if self.shard.gate().opens_rooms() { status::SERVING } else { status::DRAINING };
            let body = &status::page(&self.config, &state);
            return Response::new(
                200,
                head_only,
                &Content { media_type: HTML, fields: status::POLICY, body },
            );
        }
        if self.shard.gate().opens_rooms() {
            let body = r#"{"status":"ok"}"#;
            return Response::new(200, head_only, &Content { media_type: JSON, fields: "", body });
        }
        let retry = alloc::format!("Retry-After: {}\r\n", whole_seconds(self.drain_retry()));
        let body = r#"{"status":"draining"}"#;
        Response::new(503, head_only, &Content { media_type: JSON, fields: &retry, body })
    }

    /// Rule H8.
    fn retry(&self, refusal: Refusal) -> Option<Duration> {
        match refusal {
            Refusal::RoomNotFound => Some(GUEST_RETRY),
            Refusal::MaxRooms | Refusal::RoomFull => Some(FULL_RETRY),
            Refusal::Draining => Some(self.drain_retry()),
            _ => None,
        }
    }

    fn refuse(&mut self, slot: u32, refusal: Refusal, response: Response, sink: &mut impl Sink) {
        self.ledger.stats.refused[refusal.index()] += 1;
        sink.notice(Notice::Refused { ip: self.connections[slot].ip, refusal });
        self.respond(slot, response, sink);
    }

    fn respond(&mut self, slot: u32, response: Response, sink: &mut impl Sink) {
        let now = self.now.monotonic;
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closing(Closing { until: now + CLOSING, frame: None, echo: None });
        connection.outbox.occupy(now);
        self.arm(slot);
        sink.action(Action::Respond { conn: self.id(slot), response });
    }
}

/// Rule H8: never sooner than it makes sense, so rounded up.
fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}
