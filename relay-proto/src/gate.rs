//! Who may come in at all: the address of a client, requests per second, sockets in all and per address.
//!
//! Everything here is global to a process and knows no room.

use alloc::collections::{BTreeMap, VecDeque};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use ipnet::IpNet;

use crate::config::Config;
use crate::http::Request;

/// Addresses whose rate is remembered at once. An address is forgotten two seconds after its last request at
/// the latest; above this number the one that came first is forgotten early.
const MAX_TRACKED: usize = 1 << 16;

/// Rule T3: the burst is this many seconds' worth.
const BURST_SECONDS: u64 = 2;

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
    let mut hops: alloc::vec::Vec<_> = fields.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()).collect();
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

/// Counts sockets and requests.
#[derive(Debug)]
pub(crate) struct Gate {
    sockets: usize,
    sockets_by_origin: BTreeMap<Origin, usize>,
    rates: Rates,
}

impl Gate {
    pub(crate) const fn new() -> Self {
        Self { sockets: 0, sockets_by_origin: BTreeMap::new(), rates: Rates::new() }
    }

    /// Counts a socket, unless that would be one too many.
    #[must_use]
    pub(crate) fn enter(&mut self, config: &Config) -> bool {
        let free = self.sockets < config.max_connections;
        self.sockets += usize::from(free);
        free
    }

    /// Counts it for its address too, unless that would be one too many.
    #[must_use]
    pub(crate) fn enter_from(&mut self, origin: Origin, config: &Config) -> bool {
        let count = self.sockets_by_origin.entry(origin).or_default();
        let free = *count < config.max_connections_per_ip;
        *count += usize::from(free);
        free
    }

    /// Takes a socket back, with the address for which it was counted, if any.
    pub(crate) fn leave(&mut self, origin: Option<Origin>) {
        self.sockets -= 1;
        let Some(origin) = origin else { return };
        if let Some(count) = self.sockets_by_origin.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.sockets_by_origin.remove(&origin);
            }
        }
    }

    /// Whether it decides as a new one from now on.
    pub(crate) fn is_as_new(&self, now: Duration) -> bool {
        self.sockets == 0 && self.rates.full_at.values().all(|full_at| *full_at <= now)
    }

    /// Rule T3: uses up one request; `Err` says after how long there will be one again.
    pub(crate) fn request(&mut self, origin: Origin, now: Duration, config: &Config) -> Result<(), Duration> {
        match config.rate_limit_per_ip {
            Some(per_second) => self.rates.request(origin, now, per_second),
            None => Ok(()),
        }
    }
}

/// A bucket per address in the form of the generic cell rate algorithm: one time stamp, which says when the
/// bucket will be full again.
#[derive(Debug)]
struct Rates {
    full_at: BTreeMap<Origin, Duration>,
    /// In the order in which they were first seen, to find those that can be forgotten.
    order: VecDeque<Origin>,
}

impl Rates {
    const fn new() -> Self {
        Self { full_at: BTreeMap::new(), order: VecDeque::new() }
    }

    fn request(&mut self, origin: Origin, now: Duration, per_second: u32) -> Result<(), Duration> {
        self.forget(now);
        let each = Duration::from_secs(1) / per_second;
        let burst = Duration::from_secs(BURST_SECONDS);
        let known = self.full_at.get(&origin);
        let full_at = known.copied().unwrap_or(now).max(now) + each;
        let excess = full_at.saturating_sub(now + burst);
        if !excess.is_zero() {
            return Err(excess);
        }
        if self.full_at.insert(origin, full_at).is_none() {
            self.order.push_back(origin);
        }
        Ok(())
    }

    /// Two steps per request are enough to keep up: each request adds one entry at most.
    fn forget(&mut self, now: Duration) {
        for _ in 0..2 {
            let Some(oldest) = self.order.pop_front() else { return };
            let full = self.full_at.get(&oldest).is_none_or(|full_at| *full_at <= now);
            if full || self.order.len() >= MAX_TRACKED {
                self.full_at.remove(&oldest);
            } else {
                self.order.push_back(oldest);
            }
        }
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
    fn t4_ipv6_counts_by_its_64() {
        assert_eq!(Origin::of(ip("2001:db8:1:2:3::4")), Origin::of(ip("2001:db8:1:2::9")));
        assert_ne!(Origin::of(ip("2001:db8:1:2::")), Origin::of(ip("2001:db8:1:3::")));
        assert_eq!(Origin::of(ip("::ffff:1.2.3.4")), Origin::of(ip("1.2.3.4")));
        assert_ne!(Origin::of(ip("1.2.3.4")), Origin::of(ip("1.2.3.5")));
    }

    #[test]
    fn t3_twice_the_rate_at_once_and_then_the_rate() {
        let mut rates = Rates::new();
        let me = Origin::of(ip("1.2.3.4"));
        let start = Duration::from_secs(5);
        let granted =
            |rates: &mut Rates, now| (0..100).filter(|_| rates.request(me, now, 10).is_ok()).count();
        assert_eq!(granted(&mut rates, start), 20);
        assert_eq!(rates.request(me, start, 10), Err(Duration::from_millis(100)));
        assert_eq!(granted(&mut rates, start + Duration::from_millis(500)), 5);
        assert_eq!(granted(&mut rates, start + Duration::from_secs(60)), 20);
    }

    #[test]
    fn t3_the_table_of_addresses_is_bounded_and_empties() {
        let mut rates = Rates::new();
        let origin = |n: usize| Origin::of(IpAddr::from(u32::try_from(n).unwrap().to_be_bytes()));
        for n in 0..MAX_TRACKED + 1000 {
            assert!(rates.request(origin(n), Duration::ZERO, 1).is_ok());
            assert!(rates.full_at.len() <= MAX_TRACKED + 1);
            assert_eq!(rates.full_at.len(), rates.order.len());
        }
        for n in 0..MAX_TRACKED {
            assert!(rates.request(origin(0), Duration::from_secs(10 + n as u64), 1).is_ok());
        }
        assert_eq!(rates.full_at.len(), 1);
    }
}
