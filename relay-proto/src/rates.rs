//! Requests per second and address (rule T3).

use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;

use crate::gate::Origin;

/// Addresses whose rate is remembered at once. An address is forgotten two seconds after its last request at
/// the latest; above this number the one that came first is forgotten early.
const MAX_TRACKED: usize = 1 << 16;

/// Rule T3: the burst is this many seconds' worth.
const BURST_SECONDS: u64 = 2;

/// A bucket per address in the form of the generic cell rate algorithm: one time stamp, which says when the
/// bucket will be full again.
#[derive(Debug)]
pub(crate) struct Rates {
    full_at: BTreeMap<Origin, Duration>,
    /// In the order in which they were first seen, to find those that can be forgotten.
    order: VecDeque<Origin>,
}

impl Rates {
    pub(crate) const fn new() -> Self {
        Self { full_at: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Uses up one request; `Err` says after how long there will be one again.
    pub(crate) fn request(&mut self, origin: Origin, now: Duration, per_second: u32) -> Result<(), Duration> {
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

    /// Whether it decides as a new one from now on.
    pub(crate) fn is_as_new(&self, now: Duration) -> bool {
        self.full_at.values().all(|full_at| *full_at <= now)
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
    use core::net::IpAddr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
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
