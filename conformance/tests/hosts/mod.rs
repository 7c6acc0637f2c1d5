//! The hosts that the suite starts itself.

mod tls;

use conformance::host::{BASELINE, Start, Switch, Vars};
use conformance::net::{Local, Sockets};
use conformance::{Host, Simulated};
use relay_host::{Running, StartError};
use relay_proto::Settings;

/// A kind of host.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    pub(crate) encrypted: bool,
}

pub(crate) const ALL: [Kind; 5] = [
    Kind { name: "simulated", start: Simulated::start, encrypted: false },
    Kind { name: "tokio", start: |vars| plain(vars, relay_tokio::spawn), encrypted: false },
    Kind { name: "smol", start: |vars| plain(vars, relay_smol::spawn), encrypted: false },
    Kind { name: "tokio-tls", start: |vars| tls::start(vars, relay_tokio::spawn), encrypted: true },
    Kind { name: "smol-tls", start: |vars| tls::start(vars, relay_smol::spawn), encrypted: true },
];

type Spawn = fn(Settings) -> Result<Running, StartError>;

fn plain(vars: Vars<'_>, spawn: Spawn) -> Result<Box<dyn Host>, String> {
    let running = spawn_with(vars, &[], spawn)?;
    let sockets = Sockets::new(running.addr(), None);
    Ok(Box::new(Local { sockets, switch: Owner(running), certificate: None }))
}

/// What the case asks for counts most, then what the host needs, then what every case may count on.
fn spawn_with(vars: Vars<'_>, own: Vars<'_>, spawn: Spawn) -> Result<Running, String> {
    let address = [("RELAY_ADDR", "127.0.0.1:0")];
    let vars = address.iter().chain(BASELINE).chain(own).chain(vars).copied();
    let settings = Settings::from_vars(vars).map_err(|error| error.to_string())?;
    spawn(settings).map_err(|error| error.to_string())
}

/// Dropping it stops the relay.
struct Owner(Running);

impl Switch for Owner {
    fn drain(&self) {
        self.0.drain();
    }
}
