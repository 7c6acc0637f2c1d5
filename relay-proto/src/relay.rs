//! stub
use crate::{config::Config, event::*, stats::Stats, time::Now};
use core::time::Duration;
/// The relay.
pub struct Relay {
    stats: Stats,
}
/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// x
    Handshake,
}
impl Relay {
    /// new
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let _ = (config, seed);
        Self { stats: Stats {} }
    }
    /// open
    pub fn open(&mut self, now: Now, ip: core::net::IpAddr, sink: &mut impl Sink) -> Option<ConnId> {
        let _ = (now, ip, sink);
        None
    }
    /// handle
    pub fn handle(&mut self, now: Now, event: Event<'_>, sink: &mut impl Sink) {
        let _ = (now, event, sink);
    }
    /// next
    pub fn next_deadline(&self) -> Option<(Duration, Wake)> {
        None
    }
    /// stats
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
