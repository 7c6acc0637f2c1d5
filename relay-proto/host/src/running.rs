//! A relay on threads of its own, a shard on each.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{io, panic};

use crate::control::Control;
use crate::log;
use crate::record::FileTape;
use relay_proto::Shard;
use relay_proto::config::Settings;
use relay_proto::hub::Hub;

/// Where a relay listens; of two addresses, the first.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// `RELAY_ADDR`.
    pub clients: SocketAddr,
    /// `RELAY_METRICS_ADDR`.
    pub metrics: Option<SocketAddr>,
}

impl Addresses {
    /// Asks the sockets.
    pub fn of(clients: &[TcpListener], metrics: &[TcpListener]) -> Result<Self, StartError> {
        let first = |listeners: &[TcpListener]| listeners.first().map(TcpListener::local_addr).transpose();
        let failed = |error| StartError::system(&error);
        let clients = first(clients).map_err(failed)?.unwrap_or(SocketAddr::from(([0; 4], 0)));
        Ok(Self { clients, metrics: first(metrics).map_err(failed)? })
    }
}

/// A relay that serves. Dropping it stops it at once, without a word to its clients.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    control: Control,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Runs each of `serve` on a thread of its own, as one shard of the relay, and returns when all have said that they
    /// are ready. `reload` reads the certificate anew.
    pub fn start<F>(
        addresses: Addresses,
        reload: impl Fn() + Send + Sync + 'static,
        serve: Vec<F>,
    ) -> Result<Self, StartError>
    where
        F: FnOnce(Seat) -> io::Result<()> + Send + 'static,
    {
        let count = u16::try_from(serve.len()).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN);
        let shards = Shard::all(count, seed().map_err(|error| StartError::system(&error))?);
        let control = Control::new(count, reload);
        let mut running = Self { addresses, control, threads: Vec::new() };
        let (ready, are_ready) = channel();
        let origin = now();
        for (shard, serve) in shards.into_iter().zip(serve) {
            let seat = Seat { shard, origin, control: running.control.clone(), ready: ready.clone() };
            let name = if count.get() == 1 { "relay".to_owned() } else { format!("relay-{}", seat.index()) };
            let thread = thread::Builder::new().name(name).spawn(move || {
                let _alarm = Alarm { control: seat.control.clone(), ready: seat.ready.clone() };
                serve(seat)
            });
            running.threads.push(thread.map_err(|error| StartError::system(&error))?);
        }
        if are_ready.iter().take(running.threads.len()).all(|is_ready| is_ready) {
            return Ok(running);
        }
        running.control.stop();
        match running.join() {
            Err(error) => Err(StartError::system(&error)),
            Ok(()) => Err(StartError::system(&io::ErrorKind::Other.into())),
        }
    }

    /// Where it listens; of two addresses, the first.
    pub fn addr(&self) -> SocketAddr {
        self.addresses.clients
    }

    /// Where its metrics are, if anywhere.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.addresses.metrics
    }

    /// A hand to steer it with from any thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// As SIGTERM: stop in good order (rule D1).
    pub fn drain(&self) {
        self.control.drain();
    }

    /// As SIGHUP: when this returns, a certificate that fits is in use (rule D2).
    pub fn reload(&self) {
        self.control.reload();
    }

    /// Waits until it has ended, for instance because it was drained.
    pub fn wait(mut self) {
        // What a relay can fail with, it fails with before it serves.
        let _ = self.join();
    }

    /// The first failure of a thread, or else the first panic goes on here.
    fn join(&mut self) -> io::Result<()> {
        let ends: Vec<_> = self.threads.drain(..).map(JoinHandle::join).collect();
        let mut outcome = Ok(());
        for end in ends {
            match end {
                Ok(result) => outcome = outcome.and(result),
                Err(panic) if !thread::panicking() => panic::resume_unwind(panic),
                Err(_) => {}
            }
        }
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.stop();
        // As above.
        let _ = self.join();
    }
}

/// Says that a thread has ended.
struct Alarm {
    control: Control,
    ready: Sender<bool>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // Nobody listens any more, unless it has ended before all were ready.
        let _ = self.ready.send(false);
        // A relay that has lost a part of itself is none.
        if thread::panicking() {
            self.control.stop();
        }
    }
}

/// What the thread of a shard is given: its place in the relay, and how it hears from the others.
#[derive(Debug)]
pub struct Seat {
    shard: Shard,
    origin: Instant,
    control: Control,
    ready: Sender<bool>,
}

impl Seat {
    /// Counted from 0.
    pub fn index(&self) -> usize {
        self.shard.index()
    }

    /// The machine of this shard, as the settings want it.
    pub fn hub(&self, settings: &Settings) -> io::Result<Hub> {
        if settings.record.is_some() {
            return new_hub(settings);
        }
        let (config, notices) = (settings.relay.clone(), log::notices(settings.log_addresses));
        Ok(Hub::of_shard(config, seed()?, self.shard.clone(), self.origin, notices))
    }

    /// To be said as soon as clients can come. If a thread ends without, the start has failed.
    pub fn say_ready(&self) {
        // The starting thread waits for this and for nothing else.
        let _ = self.ready.send(true);
    }

    /// Hands orders to the machine until the whole relay is to end.
    pub async fn obey(&self, hub: &Hub) {
        self.control.obey(self.index(), hub).await;
    }

    /// A hand on all shards.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

/// The machine of a relay that is one, as the settings want it.
pub fn new_hub(settings: &Settings) -> io::Result<Hub> {
    let (config, notices) = (settings.relay.clone(), log::notices(settings.log_addresses));
    let Some(path) = &settings.record else { return Ok(Hub::new(config, seed()?, notices)) };
    let tape = FileTape::create(path)
        .map_err(|error| io::Error::other(StartError::file("RELAY_RECORD", path, error)))?;
    Ok(Hub::recorded(config, seed()?, Box::new(tape), notices))
}

#[expect(clippy::disallowed_methods, reason = "this is where the machines' seeds come from")]
fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::getrandom(&mut seed)?;
    Ok(seed)
}

#[expect(clippy::disallowed_methods, reason = "from here on, all shards count time alike")]
fn now() -> Instant {
    Instant::now()
}

/// Why a relay did not start, in one line that says what to do about it (rule C3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(String);

impl StartError {
    /// A file that cannot be used.
    pub(super) fn file(variable: &str, path: &str, problem: impl fmt::Display) -> Self {
        Self(format!("{variable}={path:?} cannot be used: {problem}"))
    }

    /// Two files of which each is in order.
    pub(super) fn pair(cert: &str, key: &str, problem: impl fmt::Display) -> Self {
        Self(format!("RELAY_TLS_CERT={cert:?} and RELAY_TLS_KEY={key:?} cannot be used together: {problem}"))
    }

    /// An address that cannot be listened on.
    pub(super) fn occupied(variable: &str, address: SocketAddr, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("stop the process that listens there, or set {variable} to another port")
            }
            io::ErrorKind::PermissionDenied => {
                format!("set {variable} to a port above 1023, or grant CAP_NET_BIND_SERVICE")
            }
            _ => format!("set {variable} to an address of this machine"),
        };
        Self(format!("cannot listen on {address}: {error}; {remedy}"))
    }

    /// Something that the operating system refused.
    pub fn system(error: &io::Error) -> Self {
        Self(format!("cannot start: {error}"))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    type Serve = Box<dyn FnOnce(Seat) -> io::Result<()> + Send>;

    /// Serves until it is told to end. It has no runtime, so it asks now and then.
    fn well() -> Serve {
        Box::new(|seat| {
            seat.say_ready();
            while !seat.control.is_stopped() {
                thread::yield_now();
            }
            Ok(())
        })
    }

    fn start(serve: Vec<Serve>) -> Result<Running, StartError> {
        let addresses = Addresses { clients: ([127, 0, 0, 1], 0).into(), metrics: None };
        Running::start(addresses, || {}, serve)
    }

    #[test]
    fn a_relay_of_which_one_thread_cannot_start_does_not() {
        let ill: Serve = Box::new(|_| Err(io::Error::other("no more of it")));
        let error = start(vec![well(), ill, well()]).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "cannot start: no more of it");
    }

    #[test]
    fn a_thread_that_panics_takes_the_others_along() {
        let ill: Serve = Box::new(|seat| {
            seat.say_ready();
            panic!("on purpose");
        });
        let running = start(vec![well(), ill]).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| running.wait())).is_err());
    }
}
