//! The hosts that the suite starts itself.

mod tls;

use conformance::host::{BASELINE, Start, Switch, Vars};
use conformance::net::{Local, Sockets};
use conformance::proxy::{Faults, Proxy};
use conformance::{Host, Simulated};
use relay_host::{Running, StartError};
use relay_proto::Settings;

/// A kind of host.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    pub(crate) path: Path,
}

/// What lies between clients and relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// As good as nothing.
    Plain,
    Tls,
    /// A network that cuts bytes anywhere and holds them back.
    Slow,
}

pub(crate) const ALL: [Kind; 7] = [
    Kind { name: "simulated", start: Simulated::start, path: Path::Plain },
    Kind { name: "tokio", start: |vars| plain(vars, relay_tokio::spawn), path: Path::Plain },
    Kind { name: "smol", start: |vars| plain(vars, relay_smol::spawn), path: Path::Plain },
    Kind { name: "tokio-tls", start: |vars| tls::start(vars, relay_tokio::spawn), path: Path::Tls },
    Kind { name: "smol-tls", start: |vars| tls::start(vars, relay_smol::spawn), path: Path::Tls },
    Kind { name: "tokio-slow", start: |vars| slow(vars, relay_tokio::spawn), path: Path::Slow },
    Kind { name: "smol-slow", start: |vars| slow(vars, relay_smol::spawn), path: Path::Slow },
];

type Spawn = fn(&Settings) -> Result<Running, StartError>;

fn plain(vars: Vars<'_>, spawn: Spawn) -> Result<Box<dyn Host>, String> {
    let running = spawn_with(vars, &[], spawn)?;
    let sockets = Sockets::new(running.addr(), None);
    Ok(Box::new(Local { sockets, switch: Owner(running), certificate: None }))
}

fn slow(vars: Vars<'_>, spawn: Spawn) -> Result<Box<dyn Host>, String> {
    let running = spawn_with(vars, &[], spawn)?;
    let proxy = Proxy::start(running.addr(), Faults::SLOW).map_err(|error| error.to_string())?;
    let sockets = Sockets::new(proxy.address(), None);
    Ok(Box::new(Local {
        sockets,
        switch: Distant { _proxy: proxy, owner: Owner(running) },
        certificate: None,
    }))
}

/// What the case asks for counts most, then what the host needs, then what every case may count on.
fn spawn_with(vars: Vars<'_>, own: Vars<'_>, spawn: Spawn) -> Result<Running, String> {
    let address = [("RELAY_ADDR", "127.0.0.1:0")];
    let vars = address.iter().chain(BASELINE).chain(own).chain(vars).copied();
    let settings = Settings::from_vars(vars).map_err(|error| error.to_string())?;
    spawn(&settings).map_err(|error| error.to_string())
}

/// Dropping it stops the relay.
struct Owner(Running);

impl Switch for Owner {
    fn drain(&self) {
        self.0.drain();
    }
}

/// Dropping it stops the proxy, then the relay.
struct Distant {
    _proxy: Proxy,
    owner: Owner,
}

impl Switch for Distant {
    fn drain(&self) {
        self.owner.drain();
    }
}
