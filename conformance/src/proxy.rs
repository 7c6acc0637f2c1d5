//! A network between clients and a relay, on loopback: it cuts bytes anywhere, holds them back, stalls, and
//! breaks connections off. What it does follows from a number, as far as the kernel leaves it a choice.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// What happens to the bytes of each direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Where all that is random comes from.
    pub seed: u64,
    /// One portion of so many is held back for some milliseconds.
    pub delayed: u64,
    /// One portion of so many waits for 60 ms.
    pub stalled: u64,
    /// At one portion of so many the connection is reset; none is.
    pub reset: Option<u64>,
}

impl Faults {
    /// Everything arrives, in pieces and late: nothing that an endpoint may not take for granted is missing.
    pub const SLOW: Self = Self { seed: 7, delayed: 10, stalled: 200, reset: None };
    /// The same, and connections break off.
    pub const BROKEN: Self = Self { reset: Some(40), ..Self::SLOW };
}

/// Longer than any coalescing, shorter than any patience.
const STALL: Duration = Duration::from_millis(60);
/// The beginning of a direction, in bytes, which comes in crumbs: heads and first frames are cut everywhere.
const CRUMBLED: usize = 200;
/// One portion is at most this long.
const PORTION_BYTES: usize = 16 * 1024;

/// A running one. Dropping it ends it for connections that come later; those that are there go on.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens on a port of its own, for clients of `relay`.
    pub fn start(relay: SocketAddr, faults: Faults) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stopped);
        thread::spawn(move || {
            for (client, number) in listener.incoming().zip(0..) {
                if is_stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A relay that is gone is a network that breaks.
                let _ = client.and_then(|client| connect(client, relay, faults, number));
            }
        });
        Ok(Self { address, stopped })
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // The listener waits for one more.
        let _ = TcpStream::connect(self.address);
    }
}

fn connect(client: TcpStream, relay: SocketAddr, faults: Faults, number: u64) -> io::Result<()> {
    let server = TcpStream::connect(relay)?;
    let broken = Arc::new(AtomicBool::new(false));
    for (direction, from, to) in [(0, client.try_clone()?, server.try_clone()?), (1, server, client)] {
        from.set_nodelay(true)?;
        let random = Random(faults.seed ^ (number * 2 + direction).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let broken = Arc::clone(&broken);
        thread::spawn(move || {
            if pump(&from, &to, faults, random).is_err() {
                broken.store(true, Ordering::Relaxed);
                [&from, &to].into_iter().for_each(break_off);
            } else if !broken.load(Ordering::Relaxed) {
                // Whoever has finished may still listen.
                let _ = to.shutdown(Shutdown::Write);
            }
        });
    }
    Ok(())
}

/// Carries bytes until they end.
fn pump(mut from: &TcpStream, mut to: &TcpStream, faults: Faults, mut random: Random) -> io::Result<()> {
    let mut buffer = vec![0; PORTION_BYTES];
    let mut carried = 0;
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            let most = if carried < CRUMBLED || random.one_in(8) { 7 } else { PORTION_BYTES };
            let (portion, later) = rest.split_at(random.up_to(most).min(rest.len()));
            if faults.reset.is_some_and(|among| carried > CRUMBLED && random.one_in(among)) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if random.one_in(faults.stalled) {
                pass(STALL);
            } else if random.one_in(faults.delayed) {
                pass(Duration::from_millis(random.up_to(3) as u64));
            }
            to.write_all(portion)?;
            carried += portion.len();
            rest = later;
        }
    }
}

/// When the other direction has noticed, both sockets are closed: by a reset, and whatever is in flight is lost.
fn break_off(stream: &TcpStream) {
    // What cannot be done any more has been done by the peer.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Read);
}

#[expect(clippy::disallowed_methods, reason = "this is what a slow network does")]
fn pass(time: Duration) {
    thread::sleep(time);
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn one_in(&mut self, among: u64) -> bool {
        self.next().is_multiple_of(among)
    }

    /// From 1.
    fn up_to(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap_or_default() + 1
    }
}
