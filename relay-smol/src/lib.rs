//! The relay on smol: one thread, one machine, and a task or two for each connection.
//!
//! What a relay does is decided in [`relay_proto`]. Here is only how bytes come in and go out.

mod connection;
mod metrics;
mod server;
mod shared;
// The seam between the two ways to TLS: each of these files has a `Tls`, its `TlsStream` and `connect`.
#[cfg_attr(feature = "async-tls", path = "tls_async.rs")]
mod tls;

use std::net::TcpListener;

use relay_host::{Addresses, Running, StartError, net};
use relay_proto::Settings;

pub use tls::connect as connect_tls;

use crate::tls::Tls;

#[cfg(not(any(feature = "futures-rustls", feature = "async-tls")))]
compile_error!("relay-smol needs one of its features `futures-rustls` and `async-tls`");

/// Starts a relay on a thread of its own. It handles no signals and sets up no log: that is for a program.
pub fn spawn(settings: Settings) -> Result<Running, StartError> {
    let listeners = net::listen("RELAY_ADDR", &settings.addr)?;
    spawn_on(settings, listeners)
}

/// The same on sockets that listen already, whatever [`Settings::addr`] says.
pub fn spawn_on(settings: Settings, listeners: Vec<TcpListener>) -> Result<Running, StartError> {
    let tls = Tls::from_settings(&settings)?;
    let metrics = match &settings.metrics_addr {
        Some(addr) => net::listen("RELAY_METRICS_ADDR", addr)?,
        None => Vec::new(),
    };
    let addresses = Addresses::of(&listeners, &metrics)?;
    let reload = {
        let tls = tls.clone();
        move || tls.iter().for_each(Tls::reload)
    };
    Running::start(addresses, reload, move |control, ready| {
        server::run(&settings, [listeners, metrics], tls, &control, ready)
    })
}
