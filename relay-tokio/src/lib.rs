//! The relay on tokio: one thread, one machine, and a task or two for each connection.
//!
//! What a relay does is decided in [`relay_proto`]. Here is only how bytes come in and go out.

mod connection;
mod metrics;
mod server;
mod shared;
mod tls;

use std::net::TcpListener;

use relay_host::{Addresses, Running, StartError, net};
use relay_proto::Settings;

pub use tls::connect as connect_tls;

use crate::tls::Tls;

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
