//! The relay on tokio: on each thread one machine, and a task or two for each connection.
//!
//! What a relay does is decided in [`relay_proto`]. Here is only how bytes come in and go out.

mod connection;
mod metrics;
mod server;
mod stream;
mod tls;

use std::mem;
use std::net::TcpListener;
use std::num::NonZeroU16;
use std::thread::available_parallelism;

use relay_host::{Addresses, Running, StartError, net};
use relay_proto::Settings;
use tokio::sync::mpsc::unbounded_channel;

pub use tls::connect as connect_tls;

use crate::server::Setup;
use crate::tls::Tls;

/// `RELAY_SHARDS=auto`: a thread for each processor that this process may use.
pub fn auto_shards() -> NonZeroU16 {
    available_parallelism().ok().and_then(|count| count.try_into().ok()).unwrap_or(NonZeroU16::MIN)
}

/// Starts a relay on threads of its own. It handles no signals and sets up no log: that is for a program.
pub fn spawn(settings: &Settings) -> Result<Running, StartError> {
    let listeners = net::listen("RELAY_ADDR", &settings.addr)?;
    spawn_on(settings, &listeners)
}

/// The same on sockets that listen already, whatever [`Settings::addr`] says.
pub fn spawn_on(settings: &Settings, listeners: &[TcpListener]) -> Result<Running, StartError> {
    let tls = Tls::from_settings(settings)?;
    let mut metrics = match &settings.metrics_addr {
        Some(addr) => net::listen("RELAY_METRICS_ADDR", addr)?,
        None => Vec::new(),
    };
    let addresses = Addresses::of(listeners, &metrics)?;
    let reload = {
        let tls = tls.clone();
        move || tls.iter().for_each(Tls::reload)
    };
    // Unbounded: what is on the way is sockets, and RELAY_MAX_CONNECTIONS counts them.
    let ways = (0..settings.shards(auto_shards()).get()).map(|_| unbounded_channel());
    let (doors, arrivals): (Vec<_>, Vec<_>) = ways.unzip();
    let mut serve = Vec::new();
    for arrivals in arrivals {
        let setup = Setup {
            settings: settings.clone(),
            // Every shard accepts, from one queue of the kernel's.
            clients: net::share(listeners)?,
            // There is one page for all, and the first shard has it.
            metrics: mem::take(&mut metrics),
            tls: tls.clone(),
            doors: doors.clone(),
            arrivals,
        };
        serve.push(|seat| server::run(setup, &seat));
    }
    Running::start(addresses, reload, serve)
}
