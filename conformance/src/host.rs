//! What a case is played on: something that can be dialled and told to let time pass.

use std::time::Duration;

/// How long a case waits for what has to come. Virtual on the simulated host.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A relay under test.
pub trait Host {
    /// Opens a connection. Panics if nothing listens.
    fn dial(&self) -> Box<dyn Link>;

    /// Time since a fixed point.
    fn elapsed(&self) -> Duration;

    /// The second of the clock by which the relay judges tokens.
    fn unix(&self) -> u64;

    /// Lets time pass, for rules that are about time. Nothing else may wait like this.
    fn pass(&self, time: Duration);

    /// What only the owner of a relay can do.
    fn switch(&self) -> Option<&dyn Switch> {
        None
    }

    /// The certificate, where it can be handled.
    fn certificate(&self) -> Option<&dyn Certificate> {
        None
    }

    /// Whether connections are encrypted.
    fn encrypted(&self) -> bool {
        false
    }

    /// Opens a connection without the encryption that [`dial`](Self::dial) would put on top.
    fn dial_beneath_tls(&self) -> Box<dyn Link> {
        self.dial()
    }
}

/// A hand on the switch of a relay.
pub trait Switch {
    /// Stop in good order (rule D1).
    fn drain(&self);
}

/// The certificate of a relay, as its operator handles it.
pub trait Certificate {
    /// Replaces certificate and key by a new pair, and has the relay read them (rule D2).
    fn renew(&self);

    /// Replaces the key by one that does not fit, and has the relay read both.
    fn spoil(&self);

    /// What the relay shows to a new client, in DER.
    fn shown(&self) -> Vec<u8>;
}

/// A connection as the client's kernel shows it: bytes there, bytes back, and how it ends.
pub trait Link {
    /// Hands all bytes over, waiting for room if it must.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Broken>;

    /// Waits for bytes or for the end of them.
    fn receive(&mut self, within: Duration) -> Received;

    /// Ends the client's direction (FIN) and keeps listening.
    fn finish(&mut self);

    /// Breaks the connection off (RST).
    fn reset(&mut self);
}

/// What was there to be received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// At least one byte.
    Bytes(Vec<u8>),
    /// The relay has finished sending.
    End,
    /// The connection is broken.
    Reset,
    /// Not a byte in the time given.
    Nothing,
}

/// The bytes could not be sent: the connection is broken, or nobody takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Settings of a relay as names and values of environment variables.
pub type Vars<'a> = &'a [(&'a str, &'a str)];

/// A way to start relays of one kind. An error is what the operator would read.
pub type Start = fn(Vars<'_>) -> Result<Box<dyn Host>, String>;

/// What every case may count on where the suite starts the relay itself: the rate limit does not get in the
/// way of a client that opens hundreds of connections, unless the case says so.
pub const BASELINE: Vars<'static> = &[("RELAY_RATE_LIMIT_PER_IP", "0")];
