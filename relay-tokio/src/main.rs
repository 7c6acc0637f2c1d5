//! The relay on tokio, as a program.

use std::process::ExitCode;

use relay_host::cli::{self, Adapter};

fn main() -> ExitCode {
    cli::main(&Adapter {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        auto_shards: relay_tokio::auto_shards,
        spawn: relay_tokio::spawn_on,
        connect_tls: relay_tokio::connect_tls,
    })
}
