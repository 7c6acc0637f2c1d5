//! What should happen, as plainly as it can be written: lists that are searched, nothing clever or fast. It is
//! told what the relay is told, and shares no code with it. It says who is where, who may receive what, who is
//! refused and why, and what has to be done by when.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use relay_proto::{Config, ConnId, Now, Role};

use super::UNIX_ORIGIN;
use super::call::{Ask, BEHIND_PROXY, BOUND_ROOM, Call, PEERS, TOKEN_TURN};
use super::queue::{Item, Lane, Queue};
use super::state::{
    CLOSING, Conn, DRAIN_CUT, DRAIN_ECHO, DRAIN_FLUSH, Drain, LiveRoom, Member, Outcome, Phase, leave_notice,
};

pub(crate) struct Model {
    pub(crate) config: Config,
    pub(crate) now: Now,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    /// Those on their way from one shard to another, by what they were called in the first: they count as sockets, and
    /// nobody knows them.
    pub(crate) transit: BTreeMap<ConnId, Conn>,
    pub(crate) shards: usize,
    /// By the id that is asked for: the shard in which it was found, for good.
    pub(crate) homes: BTreeMap<&'static str, usize>,
    /// The key of each live room, by its number, and when something last happened in it.
    pub(crate) rooms: BTreeMap<usize, LiveRoom>,
    pub(crate) drain: Option<Drain>,
    /// By address: how much of its two seconds of requests is left, and when that was true.
    rates: BTreeMap<IpAddr, (Duration, Duration)>,
    messages: u64,
}

impl Model {
    pub(crate) fn new(config: Config, shards: usize) -> Self {
        Self {
            config,
            now: Now::default(),
            conns: BTreeMap::new(),
            transit: BTreeMap::new(),
            shards,
            homes: BTreeMap::new(),
            rooms: BTreeMap::new(),
            drain: None,
            rates: BTreeMap::new(),
            messages: 0,
        }
    }

    /// C2: whether one more socket is let in.
    pub(crate) fn admits(&self, ip: IpAddr) -> Outcome {
        if self.drain.as_ref().is_some_and(|drain| drain.closing) {
            return Outcome::Refused("draining");
        }
        let full = self.sockets() >= self.config.max_connections;
        if full || (!ip.is_loopback() && self.address_is_full(ip)) {
            return Outcome::Refused("too_many_connections");
        }
        Outcome::Joined
    }

    fn address_is_full(&self, ip: IpAddr) -> bool {
        let sockets = self.conns.values().chain(self.transit.values());
        let same = sockets.filter(|conn| conn.counted == Some(ip)).count();
        same >= self.config.max_connections_per_ip
    }

    /// Everything that is counted as one.
    pub(crate) fn sockets(&self) -> usize {
        self.conns.len() + self.transit.len()
    }

    /// D1: whether one that was handed over is let in where it goes.
    pub(crate) fn admits_from_elsewhere(&self) -> Outcome {
        let closing = self.drain.as_ref().is_some_and(|drain| drain.closing);
        if closing { Outcome::Refused("draining") } else { Outcome::Joined }
    }

    /// It has left its shard.
    pub(crate) fn hand_over(&mut self, conn: ConnId) {
        self.transit.extend(self.conns.remove(&conn).map(|entry| (conn, entry)));
    }

    /// It has come to another, where it is called otherwise, or is not let in.
    pub(crate) fn arrive(&mut self, before: ConnId, conn: Option<ConnId>) {
        let entry = self.transit.remove(&before);
        self.conns.extend(conn.zip(entry));
    }

    /// The connections of one shard.
    pub(crate) fn in_shard(&self, shard: usize) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter(move |(conn, _)| conn.shard() == shard).map(|(_, entry)| entry)
    }

    pub(crate) fn open(&mut self, conn: ConnId, ip: IpAddr) {
        let until = self.config.handshake_timeout.map(|timeout| self.now.monotonic + timeout);
        let counted = (!ip.is_loopback()).then_some(ip);
        let phase = Phase::Head { until };
        self.conns.insert(conn, Conn { counted, ip, phase, queue: Queue::default(), paused: false });
    }

    /// The table of refusals, from the top down. None: not even an answer.
    pub(crate) fn judge(&mut self, conn: ConnId, call: &Call) -> Option<Outcome> {
        if self.conns.get(&conn)?.counted.is_none() {
            let ip = if call.proxied { BEHIND_PROXY } else { self.conns[&conn].ip };
            if self.address_is_full(ip) {
                return None;
            }
            let entry = self.conns.get_mut(&conn)?;
            (entry.counted, entry.ip) = (Some(ip), ip);
        }
        Some(match call.ask {
            Ask::Health | Ask::StatusPage => Outcome::Page,
            Ask::UnknownPath => Outcome::Refused("not_found"),
            _ if !self.uses_up_rate(self.conns[&conn].ip) => Outcome::Refused("rate_limited"),
            Ask::Body => Outcome::Refused("bad_request"),
            Ask::WrongMethod => Outcome::Refused("method_not_allowed"),
            Ask::NoToken => Outcome::Refused("missing_parameter"),
            Ask::BadRoom => Outcome::Refused("invalid_room"),
            Ask::BadPubkey => Outcome::Refused("invalid_pubkey"),
            _ => self.judge_room(call).map_or_else(Outcome::Refused, |()| Outcome::Joined),
        })
    }

    fn judge_room(&self, call: &Call) -> Result<(), &'static str> {
        let host = call.role == Role::Host;
        let live = self.rooms.get(&call.room);
        let turn = UNIX_ORIGIN.as_secs() + TOKEN_TURN;
        let unix = self.now.unix.as_secs();
        let fails = |fails: bool, code| if fails { Err(code) } else { Ok(()) };
        fails(!host && live.is_none(), "room_not_found")?;
        fails(call.ask == Ask::NoSuchToken, "invalid_token")?;
        fails(!host && live.is_some_and(|room| room.key != call.key), "invalid_token")?;
        fails(call.ask == Ask::ExpiringToken && unix > turn, "invalid_token")?;
        fails(call.ask == Ask::FutureToken && unix < turn, "invalid_token")?;
        fails(call.ask == Ask::OtherRoomsToken, "room_mismatch")?;
        fails(host && call.ask == Ask::GuestsToken, "role_mismatch")?;
        fails(host && call.room == BOUND_ROOM && call.key != 0, "room_key_mismatch")?;
        fails(host && live.is_some_and(|room| room.key != call.key), "room_key_mismatch")?;
        fails(live.is_none() && self.drain.is_some(), "draining")?;
        fails(live.is_none() && self.rooms.len() >= self.config.max_rooms, "max_rooms")?;
        let full = self.members(call.room).len() >= self.config.max_clients_per_room;
        fails(live.is_some() && full, "room_full")?;
        fails(matches!(call.ask, Ask::NoUpgrade | Ask::OldVersion), "upgrade_required")?;
        fails(call.ask == Ask::BadKey, "bad_handshake")
    }

    /// Rule T3: two seconds' worth at once, and then so many a second.
    fn uses_up_rate(&mut self, ip: IpAddr) -> bool {
        let Some(per_second) = self.config.rate_limit_per_ip else { return true };
        let (full, now) = (Duration::from_secs(2), self.now.monotonic);
        let (left, then) = self.rates.get(&ip).copied().unwrap_or((full, now));
        let left = (left + now.saturating_sub(then)).min(full);
        let rest = left.checked_sub(Duration::from_secs(1) / per_second);
        self.rates.insert(ip, (rest.unwrap_or(left), now));
        rest.is_some()
    }

    pub(crate) fn join(&mut self, conn: ConnId, call: &Call) {
        let now = self.now.monotonic;
        self.rooms.entry(call.room).or_insert(LiveRoom { key: call.key, active: now }).active = now;
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.phase = Phase::Member(Member {
            room: call.room,
            role: call.role,
            peer: PEERS[call.peer].to_owned(),
            token_peer: PEERS[call.peer],
            introduced: false,
            heard: now,
            pinged: false,
            next_ping: self.config.ping_interval.map(|interval| now + interval),
            received: None,
        });
    }

    /// The connection is answered and will end.
    pub(crate) fn answered(&mut self, conn: ConnId) {
        let until = self.now.monotonic + CLOSING;
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.phase = Phase::Closing { until, frame: None, drained: false };
        }
    }

    pub(crate) fn member(&self, conn: ConnId) -> Option<&Member> {
        self.conns.get(&conn)?.member()
    }

    pub(crate) fn member_mut(&mut self, conn: ConnId) -> Option<&mut Member> {
        match &mut self.conns.get_mut(&conn)?.phase {
            Phase::Member(member) => Some(member),
            Phase::Head { .. } | Phase::Closing { .. } => None,
        }
    }

    pub(crate) fn members(&self, room: usize) -> Vec<ConnId> {
        let inside = |conn: &Conn| conn.member().is_some_and(|member| member.room == room);
        self.conns.iter().filter(|(_, conn)| inside(conn)).map(|(id, _)| *id).collect()
    }

    /// Rule R2: who is to receive what this member sends.
    pub(crate) fn message(&mut self, sender: ConnId, payload: &Bytes) -> Vec<ConnId> {
        self.heard(sender);
        self.introduce(sender, payload);
        let Some(room) = self.member(sender).map(|member| member.room) else { return Vec::new() };
        let mut audience = self.members(room);
        audience.retain(|conn| *conn != sender);
        self.distribute(room, &audience, payload);
        audience
    }

    fn distribute(&mut self, room: usize, audience: &[ConnId], payload: &Bytes) {
        self.messages += 1;
        let now = self.now.monotonic;
        if let Some(room) = self.rooms.get_mut(&room) {
            room.active = now;
        }
        for conn in audience {
            let item = Item { number: self.messages, payload: payload.clone(), since: now };
            let entry = self.conns.get_mut(conn).expect("it is a member");
            entry.queue.push(item, self.config.voice_queue);
        }
    }

    /// Rule T1.
    pub(crate) fn heard(&mut self, conn: ConnId) {
        let now = self.now.monotonic;
        if let Some(member) = self.member_mut(conn) {
            (member.heard, member.pinged) = (now, false);
        }
    }

    /// Rule R8.
    fn introduce(&mut self, conn: ConnId, payload: &Bytes) {
        let Some(member) = self.member(conn).filter(|_| Lane::of(payload) == Lane::Data) else { return };
        let (room, own, introduced) = (member.room, member.token_peer, member.introduced);
        let from = serde_json::from_slice::<serde_json::Value>(payload).ok();
        let from = from.as_ref().and_then(|message| message.get("from")?.as_str());
        let rivals = self.members(room).into_iter().filter(|other| *other != conn);
        let mut rivals = rivals.filter_map(|other| self.member(other));
        let free = rivals.all(|other| {
            from != Some(&other.peer) && from != Some(other.token_peer) || other.token_peer == own
        });
        let announced = from.filter(|_| free && !introduced).map(str::to_owned);
        if let Some(member) = self.member_mut(conn) {
            member.introduced = true;
            member.peer = announced.unwrap_or_else(|| member.peer.clone());
        }
    }

    /// What waits for a member that a drain closes is dropped (S4).
    pub(crate) fn let_go(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if let Phase::Closing { frame, .. } = &mut entry.phase {
            *frame = Some((Some(1013), "slow consumer"));
            entry.queue.clear();
        }
    }

    /// A member is no longer in its room. Rules R6 and R7: who is told of it, and by which words.
    pub(crate) fn leave(
        &mut self,
        conn: ConnId,
        frame: (Option<u16>, &'static str),
        whole_room: bool,
    ) -> Option<(Vec<ConnId>, Bytes)> {
        let now = self.now.monotonic;
        let member = self.member(conn)?;
        let (room, peer) = (member.room, member.peer.clone());
        let drained = frame.1 == "restart";
        let until = now + if drained { DRAIN_FLUSH } else { CLOSING };
        let entry = self.conns.get_mut(&conn)?;
        entry.phase = Phase::Closing { until, frame: Some(frame), drained };
        entry.queue.clear_unless(drained);
        let others = self.members(room);
        if others.is_empty() {
            self.rooms.remove(&room);
            if let Some(drain) = self.drain.as_mut().filter(|_| self.rooms.is_empty()) {
                drain.closing = true;
            }
            return None;
        }
        if whole_room {
            return None;
        }
        self.rooms.get_mut(&room)?.active = now;
        if others.iter().any(|other| self.member(*other).is_some_and(|other| other.peer == peer)) {
            return None;
        }
        let notice = leave_notice(peer, self.now.unix);
        self.distribute(room, &others, &notice);
        Some((others, notice))
    }

    /// What was being written has been.
    pub(crate) fn sent(&mut self, conn: ConnId) {
        let now = self.now.monotonic;
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let ping = entry.queue.sent();
        match &mut entry.phase {
            Phase::Member(member) => member.pinged |= ping,
            Phase::Closing { until, frame: None, drained: true } => *until = now + DRAIN_ECHO,
            Phase::Closing { .. } | Phase::Head { .. } => {}
        }
    }

    /// What was due has been done.
    pub(crate) fn ticked(&mut self) {
        let (now, interval) = (self.now.monotonic, self.config.ping_interval);
        if let Some(drain) = &mut self.drain {
            drain.closing |= drain.all_had_their_turn(self.config.drain, now);
        }
        for conn in self.conns.values_mut() {
            if let Phase::Member(member) = &mut conn.phase
                && member.next_ping.is_some_and(|due| due <= now)
            {
                member.next_ping = interval.map(|interval| now + interval);
            }
        }
    }

    /// What has to be done first, and by when.
    pub(crate) fn first_due(&self) -> Option<(Duration, &'static str)> {
        let idle = self.config.room_idle_timeout;
        let rooms = self.rooms.values().filter_map(|room| Some((room.active + idle?, "an idle room")));
        let drain = self.drain.as_ref().filter(|_| !self.conns.is_empty());
        let drain = drain.map(|drain| (drain.started + self.config.drain + DRAIN_CUT, "the end of a drain"));
        let conns = self.conns.values().filter_map(|conn| {
            let own = match &conn.phase {
                Phase::Head { until } => until.map(|at| (at, "a request head")),
                Phase::Closing { until, .. } => Some((*until, "the end of a connection")),
                Phase::Member(member) => member.next_ping.map(|at| (at, "a ping")),
            };
            let window = conn.queue.window(self.config.coalesce).map(|at| (at, "a coalescing window"));
            own.into_iter().chain(window).min()
        });
        rooms.chain(drain).chain(conns).min()
    }

    /// Rule S4: every byte that waits in a shard, a message for many counted once.
    pub(crate) fn held_in(&self, shard: usize) -> usize {
        let items = self.in_shard(shard).flat_map(|conn| conn.queue.items());
        let costs: BTreeMap<u64, usize> = items.map(|item| (item.number, item.cost())).collect();
        costs.values().sum()
    }

    /// Rule S4: how much that may be. Each shard has an equal part.
    pub(crate) fn bound_of_a_shard(&self) -> usize {
        match self.config.max_queued_bytes {
            usize::MAX => usize::MAX,
            bytes => (bytes / self.shards).max(1),
        }
    }
}
