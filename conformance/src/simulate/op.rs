//! What can happen to a relay. Each operation is small, and does nothing where it makes no sense, so any list
//! of them is a run, and so is what is left of it when some are taken out.

use std::fmt;
use std::str::FromStr;

use super::rng::Rng;

/// Rooms that are asked for; see [`super::call`].
const ROOMS: u16 = 4;
/// Peer ids.
const PEERS: u16 = 5;
/// Addresses; the last is that of a proxy.
const IPS: u16 = 4;
/// Clients are meant by their place among those that are there, counted from the youngest.
const CLIENTS: u16 = 12;

macro_rules! ops {
    ($($(#[doc = $doc:literal])* $name:ident $word:literal { $($field:ident < $bound:expr),* } $weight:literal;)*) => {
        /// One thing that happens.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op {
            $($(#[doc = $doc])* #[allow(missing_docs)] $name { $($field: u16),* },)*
        }

        impl Op {
            /// How each begins as a line of a script.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// How often each is drawn where nothing is switched off.
            pub(super) const WEIGHTS: &'static [u16] = &[$($weight),*];

            /// The operation at this place of [`Self::WORDS`], with random operands.
            pub(super) fn draw(index: usize, rng: &mut Rng) -> Self {
                let draws: &[fn(&mut Rng) -> Op] =
                    &[$(|_rng| Op::$name { $($field: _rng.below($bound)),* }),*];
                draws[index](rng)
            }

            fn parse(word: &str, mut operands: impl Iterator<Item = u16>) -> Option<Self> {
                let op = match word {
                    $($word => Op::$name { $($field: operands.next()?),* },)*
                    _ => return None,
                };
                operands.next().is_none().then_some(op)
            }
        }

        impl fmt::Display for Op {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Op::$name { $($field),* } => {
                        f.write_str($word)?;
                        $(write!(f, " {}", $field)?;)*
                    })*
                }
                Ok(())
            }
        }
    };
}

ops! {
    /// Dials and asks for a room as its host.
    Host "host" { ip < IPS, room < ROOMS, peer < PEERS } 40;
    /// Dials and asks for a room as a guest.
    Guest "guest" { ip < IPS, room < ROOMS, peer < PEERS } 70;
    /// Dials and asks for a room as its host, with another key.
    Stranger "stranger" { ip < IPS, room < ROOMS, peer < PEERS } 8;
    /// Dials and asks for something else, or in a wrong way.
    Ask "ask" { ip < IPS, room < ROOMS, what < 18 } 14;
    /// Dials and sends so many 16ths of the head of a guest.
    Half "half" { ip < IPS, room < ROOMS, part < 16 } 4;
    /// Dials as a guest, and does not wait for the 101 before it sends.
    Early "early" { ip < IPS, room < ROOMS, peer < PEERS } 6;
    /// Dials once more as the same peer, while the first connection is still there.
    Again "again" { who < CLIENTS } 10;
    /// Sends voice.
    Voice "voice" { who < CLIENTS, size < 16, times < 8 } 50;
    /// Sends data: one line of JSON, several, text, bytes, or in fragments.
    Data "data" { who < CLIENTS, kind < 5, size < 16, times < 8 } 90;
    /// Sends data that names its sender.
    Announce "announce" { who < CLIENTS, peer < PEERS } 12;
    /// Sends what no client may send.
    Garbage "garbage" { who < CLIENTS, kind < 9 } 5;
    /// Sends a ping.
    Ping "ping" { who < CLIENTS, len < 126 } 8;
    /// Sends a pong that nobody asked for.
    Pong "pong" { who < CLIENTS } 3;
    /// Stops reading.
    Stall "stall" { who < CLIENTS } 16;
    /// Reads and writes slowly.
    Slow "slow" { who < CLIENTS, pace < 6 } 8;
    /// Reads and writes as fast as it can.
    Resume "resume" { who < CLIENTS } 16;
    /// Reads, and answers neither pings nor close frames any more.
    Mute "mute" { who < CLIENTS } 4;
    /// What is sent from now on, either way, takes longer.
    Delay "delay" { who < CLIENTS, time < 12 } 6;
    /// Ends its own direction.
    Finish "finish" { who < CLIENTS } 3;
    /// Says goodbye.
    Bye "bye" { who < CLIENTS, code < 5 } 10;
    /// Closes its socket without a word.
    HangUp "hangup" { who < CLIENTS } 4;
    /// Breaks the connection.
    Reset "reset" { who < CLIENTS } 4;
    /// Is gone, and nobody says so: nothing arrives any more, either way.
    Die "die" { who < CLIENTS } 4;
    /// Time passes.
    Pass "pass" { time < 16 } 90;
    /// The machine sleeps for so many seconds.
    Suspend "suspend" { seconds < 120 } 2;
    /// The wall clock is set, by so many minutes less an hour.
    Wall "wall" { minutes < 120 } 3;
    /// The timer of the adapter fires that much late from now on.
    Late "late" { time < 10 } 4;
    /// What happens at one moment happens in another order from now on.
    Order "order" { how < 64 } 8;
    /// The next operations come before anything else happens.
    Together "together" { count < 8 } 12;
    /// The relay is told to stop.
    Drain "drain" { } 1;
}

impl Op {
    /// Where it stands in [`Self::WORDS`].
    pub(super) fn index(self) -> usize {
        let text = self.to_string();
        let word = text.split(' ').next();
        Self::WORDS.iter().position(|known| Some(*known) == word).unwrap_or_default()
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let word = words.next().unwrap_or_default();
        let operands: Result<Vec<u16>, _> = words.map(str::parse).collect();
        let op = operands.ok().and_then(|operands| Self::parse(word, operands.into_iter()));
        op.ok_or_else(|| format!("{line:?} is no operation"))
    }
}
