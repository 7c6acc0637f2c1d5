//! A relay on a thread of its own, and the hand that steers it from another.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};
use std::{io, panic};

use crate::log;
use crate::record::FileTape;
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
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Runs `serve` on a new thread and returns when it has said that it is [`Ready`]. `reload` reads the
    /// certificate anew.
    pub fn start(
        addresses: Addresses,
        reload: impl Fn() + Send + Sync + 'static,
        serve: impl FnOnce(Control, Ready) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, StartError> {
        let (ready, is_ready) = sync_channel(1);
        let control = Control { orders: Arc::default(), reload: Arc::new(reload) };
        let thread = thread::Builder::new().name("relay".into()).spawn({
            let control = control.clone();
            move || serve(control, Ready(ready))
        });
        let thread = thread.map_err(|error| StartError::system(&error))?;
        match is_ready.recv() {
            Ok(()) => Ok(Self { addresses, control, thread: Some(thread) }),
            Err(_) => Err(match thread.join() {
                Ok(result) => StartError::system(&result.err().unwrap_or(io::ErrorKind::Other.into())),
                Err(panic) => panic::resume_unwind(panic),
            }),
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
        self.join();
    }

    fn join(&mut self) {
        // What a relay can fail with, it fails with before it serves.
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            panic::resume_unwind(panic);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.give(|orders| orders.stop = true);
        self.join();
    }
}

/// To be said by the thread of a relay as soon as clients can come. Dropped instead, the start has failed.
#[derive(Debug)]
pub struct Ready(SyncSender<()>);

impl Ready {
    /// Everything is in place.
    pub fn say(self) {
        // The starting thread waits for this and for nothing else.
        let _ = self.0.send(());
    }
}

/// Carries orders to the thread of a relay.
#[derive(Clone)]
pub struct Control {
    orders: Arc<Mutex<Orders>>,
    reload: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Orders {
    drain: bool,
    stop: bool,
    waker: Option<Waker>,
}

impl Control {
    /// Stop in good order.
    pub fn drain(&self) {
        self.give(|orders| orders.drain = true);
    }

    /// Read the certificate anew.
    pub fn reload(&self) {
        (self.reload)();
    }

    /// For the thread of the relay: hands orders to the machine until it is time to end.
    pub async fn obey(&self, hub: &Hub) {
        let mut drained = pin!(hub.drained());
        poll_fn(|cx| {
            let mut orders = self.orders();
            orders.waker = Some(cx.waker().clone());
            let (drain, stop) = (mem::take(&mut orders.drain), orders.stop);
            drop(orders);
            if drain {
                hub.drain();
            }
            if stop { Poll::Ready(()) } else { drained.as_mut().poll(cx) }
        })
        .await;
    }

    fn give(&self, order: impl FnOnce(&mut Orders)) {
        let mut orders = self.orders();
        order(&mut orders);
        if let Some(waker) = orders.waker.take() {
            waker.wake();
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Each field is whole on its own, so a panic elsewhere leaves nothing half done.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// The machine as the settings want it.
pub fn new_hub(settings: &Settings) -> io::Result<Hub> {
    let mut seed = [0; 32];
    #[expect(clippy::disallowed_methods, reason = "this is where the machine's seed comes from")]
    getrandom::getrandom(&mut seed)?;
    let (config, notices) = (settings.relay.clone(), log::notices(settings.log_addresses));
    let Some(path) = &settings.record else { return Ok(Hub::new(config, seed, notices)) };
    let tape = FileTape::create(path)
        .map_err(|error| io::Error::other(StartError::file("RELAY_RECORD", path, error)))?;
    Ok(Hub::recorded(config, seed, Box::new(tape), notices))
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
