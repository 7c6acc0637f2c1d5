//! The relay on smol, as a program.

use std::process::ExitCode;

use relay_host::cli::{self, Adapter};

fn main() -> ExitCode {
    cli::main(&Adapter {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        auto_shards: relay_smol::auto_shards,
        spawn: relay_smol::spawn_on,
        connect_tls: relay_smol::connect_tls,
    })
}
