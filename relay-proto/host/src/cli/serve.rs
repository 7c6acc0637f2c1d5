//! `serve`: a relay, and the signals that steer it.

use std::{process, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Adapter, Environment, Failure};
use crate::log;
use crate::systemd::{self, State};
use crate::{Control, net};

pub(super) fn serve(adapter: &Adapter) -> Result<(), Failure> {
    let environment = Environment::read();
    let settings = environment.settings()?;
    log::init(&settings);
    for (name, nearest) in environment.unknown() {
        tracing::warn!(target: "relay", name, "not known and without effect; did you mean {nearest}?");
    }
    net::raise_file_limit();

    // Before anything listens: a signal that comes early is obeyed as soon as there is a relay to stop.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(Failure::here_and_now)?;
    let mut listeners = systemd::listeners().map_err(Failure::here_and_now)?;
    if listeners.is_empty() {
        listeners = net::listen("RELAY_ADDR", &settings.addr)?;
    }
    let tls = settings.tls_cert.is_some();
    let shards = settings.shards((adapter.auto_shards)());
    let running = (adapter.spawn)(&settings, &listeners)?;
    let (addr, metrics) = (running.addr(), running.metrics_addr().map(tracing::field::display));
    tracing::info!(target: "relay", %addr, metrics, tls, shards, version = adapter.version, "listening");
    systemd::notify(State::Ready);

    let control = running.control();
    thread::spawn(move || obey(signals, &control));
    running.wait();
    tracing::info!(target: "relay", "drained");
    Ok(())
}

/// Rules D1 and D2.
fn obey(mut signals: Signals, control: &Control) {
    let mut stopping = false;
    for signal in signals.forever() {
        if signal == SIGHUP {
            systemd::notify(State::Reloading);
            control.reload();
            systemd::notify(State::Ready);
        } else if stopping {
            // As a shell shows a process that the signal ended.
            process::exit(128 + signal);
        } else {
            stopping = true;
            systemd::notify(State::Stopping);
            control.drain();
        }
    }
}
