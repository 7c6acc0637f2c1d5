//! Who may come in at all: the address of a client, requests per second, sockets in all and per address, and rooms.
//!
//! Everything here is global to a process. What knows a room is in its shard.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use ipnet::IpNet;

use crate::config::Config;
use crate::http::Request;
use crate::rates::Rates;
use crate::refusal::Refusal;

/// An address as it is counted (rule T4): IPv4 alone, also when mapped into IPv6; IPv6 by its /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin(IpAddr);

impl Origin {
    pub(crate) fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

/// Rule T4: the address of whoever is behind the proxies that are trusted.
pub(crate) fn client_address(socket: IpAddr, request: &Request<'_>, trusted: &[IpNet]) -> IpAddr {
    let socket = socket.to_canonical();
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    if !is_trusted(&socket) {
        return socket;
    }
    // Bytes that are no text are an entry too: without it, what the client forged would count.
    let fields = request.values("X-Forwarded-For").flat_map(|value| value.split(|byte| *byte == b','));
    let mut hops: Vec<_> = fields.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()).collect();
    if hops.is_empty() {
        let real = request.list("X-Real-IP").next().and_then(parse_address);
        return real.unwrap_or(socket);
    }
    let mut client = socket;
    while let Some(hop) = hops.pop() {
        // A proxy that writes nonsense is known by its own address.
        let Some(ip) = core::str::from_utf8(hop).ok().and_then(parse_address) else { return socket };
        client = ip;
        if !is_trusted(&ip) {
            break;
        }
    }
    client
}

/// An address with or without a port, with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

/// Where all shards of a relay count what is limited for all of them together. Clones are handles to one gate.
///
/// It is passed by a connection when its socket is accepted, when its request head is whole, and at its end; and
/// when a room opens or closes. Never by a message.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Shared<Counters>);

#[derive(Debug)]
struct Counters {
    sockets: usize,
    sockets_by_origin: BTreeMap<Origin, usize>,
    rates: Rates,
    /// Live rooms, in all shards.
    rooms: usize,
    drain: Option<Turns>,
}

/// The order in which the rooms of a drain are closed (rule D1).
#[derive(Debug)]
struct Turns {
    total: usize,
    drawn: usize,
}

/// The part of one shard in a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    /// The turn of its first room.
    pub(crate) first: usize,
    /// Of all shards together.
    pub(crate) total: usize,
    /// Whether no shard has drawn before.
    pub(crate) begins: bool,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Shared::new(Counters {
            sockets: 0,
            sockets_by_origin: BTreeMap::new(),
            rates: Rates::new(),
            rooms: 0,
            drain: None,
        }))
    }

    /// Counts a socket, unless that would be one too many; for its address too, if that is known.
    #[must_use]
    pub(crate) fn enter(&self, origin: Option<Origin>, config: &Config) -> bool {
        self.0.with(|counters| {
            let free = counters.sockets < config.max_connections
                && origin.is_none_or(|origin| counters.enter_from(origin, config));
            counters.sockets += usize::from(free);
            free
        })
    }

    /// Counts a socket for its address, which was not known before, unless that would be one too many.
    #[must_use]
    pub(crate) fn enter_from(&self, origin: Origin, config: &Config) -> bool {
        self.0.with(|counters| counters.enter_from(origin, config))
    }

    /// Takes a socket back, with the address for which it was counted, if any.
    pub(crate) fn leave(&self, origin: Option<Origin>) {
        self.0.with(|counters| {
            // A pass that was used twice counts once only.
            counters.sockets = counters.sockets.saturating_sub(1);
            let Some(origin) = origin else { return };
            if let Some(count) = counters.sockets_by_origin.get_mut(&origin) {
                *count -= 1;
                if *count == 0 {
                    counters.sockets_by_origin.remove(&origin);
                }
            }
        });
    }

    /// Whether it decides as a new one from now on.
    pub(crate) fn is_as_new(&self, now: Duration) -> bool {
        self.0.with(|counters| counters.sockets == 0 && counters.rates.is_as_new(now))
    }

    /// Rule T3: uses up one request; `Err` says after how long there will be one again.
    pub(crate) fn request(&self, origin: Origin, now: Duration, config: &Config) -> Result<(), Duration> {
        match config.rate_limit_per_ip {
            Some(per_second) => self.0.with(|counters| counters.rates.request(origin, now, per_second)),
            None => Ok(()),
        }
    }

    /// Whether a room may open now.
    pub(crate) fn may_open_room(&self, config: &Config) -> Result<(), Refusal> {
        self.0.with(|counters| counters.may_open_room(config))
    }

    /// Counts a room that opens. Asked before, it may have become one too many meanwhile, in another shard.
    pub(crate) fn open_room(&self, config: &Config) -> Result<(), Refusal> {
        self.0.with(|counters| {
            counters.may_open_room(config)?;
            counters.rooms += 1;
            Ok(())
        })
    }

    pub(crate) fn close_room(&self) {
        self.0.with(|counters| counters.rooms -= 1);
    }

    /// Rule D1: whether rooms still open.
    pub(crate) fn opens_rooms(&self) -> bool {
        self.0.with(|counters| counters.drain.is_none())
    }

    /// From now on no room opens. A shard with so many rooms is told which turn the first of them has: its others follow
    /// one by one, and then those of the next shard.
    pub(crate) fn draw_turns(&self, rooms: usize) -> Draw {
        self.0.with(|counters| {
            let (total, begins) = (counters.rooms, counters.drain.is_none());
            let turns = counters.drain.get_or_insert(Turns { total, drawn: 0 });
            let first = turns.drawn;
            turns.drawn += rooms;
            Draw { first, total: turns.total, begins }
        })
    }

    /// Whether a drain has begun, and no room is left in any shard.
    pub(crate) fn is_drained(&self) -> bool {
        self.0.with(|counters| counters.drain.is_some() && counters.rooms == 0)
    }
}

impl Counters {
    fn enter_from(&mut self, origin: Origin, config: &Config) -> bool {
        let count = self.sockets_by_origin.entry(origin).or_default();
        let free = *count < config.max_connections_per_ip;
        *count += usize::from(free);
        free
    }

    fn may_open_room(&self, config: &Config) -> Result<(), Refusal> {
        if self.drain.is_some() {
            return Err(Refusal::Draining);
        }
        if self.rooms >= config.max_rooms { Err(Refusal::MaxRooms) } else { Ok(()) }
    }
}

/// One value, however many hold it. With `std` they may be on several threads.
#[cfg(feature = "std")]
#[derive(Debug)]
struct Shared<T>(std::sync::Arc<std::sync::Mutex<T>>);

/// One value, however many hold it.
#[cfg(not(feature = "std"))]
#[derive(Debug)]
struct Shared<T>(alloc::rc::Rc<core::cell::RefCell<T>>);

#[cfg(feature = "std")]
impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(std::sync::Arc::new(std::sync::Mutex::new(value)))
    }

    fn with<R>(&self, visit: impl FnOnce(&mut T) -> R) -> R {
        // Nothing that is done under the lock can panic half way.
        visit(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(not(feature = "std"))]
impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(alloc::rc::Rc::new(core::cell::RefCell::new(value)))
    }

    fn with<R>(&self, visit: impl FnOnce(&mut T) -> R) -> R {
        visit(&mut self.0.borrow_mut())
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn behind(socket: &str, fields: &[(&'static str, &'static str)]) -> IpAddr {
        behind_bytes(socket, fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect())
    }

    fn behind_bytes(socket: &str, fields: Vec<(&'static str, &'static [u8])>) -> IpAddr {
        let request = Request { method: "GET", target: "/ws", version: 1, fields };
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        client_address(ip(socket), &request, &trusted)
    }

    #[test]
    fn t4_only_a_trusted_socket_is_believed() {
        let forged = [("X-Forwarded-For", "1.1.1.1"), ("X-Real-IP", "2.2.2.2")];
        assert_eq!(behind("9.9.9.9", &forged), ip("9.9.9.9"));
        assert_eq!(behind("10.0.0.1", &forged), ip("1.1.1.1"));
        assert_eq!(behind("::ffff:10.0.0.1", &forged), ip("1.1.1.1"));
        assert_eq!(behind("10.0.0.1", &[("x-real-ip", "2.2.2.2")]), ip("2.2.2.2"));
        assert_eq!(behind("10.0.0.1", &[]), ip("10.0.0.1"));
    }

    #[test]
    fn t4_the_right_most_untrusted_hop_counts() {
        let hops = |value: &'static str| behind("::1", &[("X-Forwarded-For", value)]);
        assert_eq!(hops("6.6.6.6, 1.1.1.1, 10.1.1.1"), ip("1.1.1.1"));
        assert_eq!(hops("10.2.2.2, 10.1.1.1"), ip("10.2.2.2"));
        assert_eq!(hops("1.1.1.1:5555"), ip("1.1.1.1"));
        assert_eq!(hops("[2001:db8::7]:443"), ip("2001:db8::7"));
        assert_eq!(hops("[2001:db8::7]"), ip("2001:db8::7"));
        assert_eq!(hops("1.1.1.1, unknown"), ip("::1"));
        let two = behind("::1", &[("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "10.1.1.1")]);
        assert_eq!(two, ip("1.1.1.1"));
    }

    #[test]
    fn t4_bytes_that_are_no_text_hide_no_hop() {
        // A proxy appends to what the client sent, and lets a field pass that it does not set.
        let appended: &[u8] = b"\xff, 1.1.1.1";
        assert_eq!(behind_bytes("::1", vec![("X-Forwarded-For", appended)]), ip("1.1.1.1"));
        let forged: (_, &[u8]) = ("X-Real-IP", b"6.6.6.6");
        assert_eq!(behind_bytes("::1", vec![("X-Forwarded-For", appended), forged]), ip("1.1.1.1"));
        assert_eq!(behind_bytes("::1", vec![("X-Forwarded-For", b"\xff"), forged]), ip("::1"));
    }

    #[test]
    fn r4_of_two_shards_that_may_open_the_last_room_one_does() {
        let config = Config { max_rooms: 1, ..Config::default() };
        let one = Gate::new();
        let other = one.clone();
        // Both have judged a request, and neither has opened its room.
        assert_eq!([one.may_open_room(&config), other.may_open_room(&config)], [Ok(()), Ok(())]);
        assert_eq!([one.open_room(&config), other.open_room(&config)], [Ok(()), Err(Refusal::MaxRooms)]);
        one.close_room();
        assert_eq!(other.may_open_room(&config), Ok(()));
        // Nor does one after a drain has begun.
        assert_eq!(one.draw_turns(0), Draw { first: 0, total: 0, begins: true });
        assert_eq!(other.open_room(&config), Err(Refusal::Draining));
    }

    #[test]
    fn t4_ipv6_counts_by_its_64() {
        assert_eq!(Origin::of(ip("2001:db8:1:2:3::4")), Origin::of(ip("2001:db8:1:2::9")));
        assert_ne!(Origin::of(ip("2001:db8:1:2::")), Origin::of(ip("2001:db8:1:3::")));
        assert_eq!(Origin::of(ip("::ffff:1.2.3.4")), Origin::of(ip("1.2.3.4")));
        assert_ne!(Origin::of(ip("1.2.3.4")), Origin::of(ip("1.2.3.5")));
    }
}
