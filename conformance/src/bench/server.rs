//! Servers that are started to be measured.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, process};

use super::clock;
use super::machine::Cores;
use super::run::wait;
use super::wire::{Target, is_well};
use crate::options::{Trust, target};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_micros(200);

/// What all relays are started with, and nothing else but what a row asks for: otherwise the defaults count.
pub(crate) const SETTINGS: [(&str, &str); 2] = [("RELAY_RATE_LIMIT_PER_IP", "0"), ("RELAY_MAX_ROOMS", "0")];

/// It ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) target: Target,
    /// Until it answered for the first time.
    pub(crate) start: Duration,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The floor, in one of its modes.
    pub(crate) fn floor(program: &Path, mode: &str, cores: &Cores) -> Result<Self, String> {
        let begin = clock();
        let mut child = spawn(Command::new(program).arg(mode).stdout(Stdio::piped()), cores)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("addr=")?.parse().ok());
        let start = begin.elapsed();
        let Some(address) = address else {
            return Err(format!("{}: it did not say where it listens: {line:?}", program.display()));
        };
        Ok(Self { child, target: Target { address, tls: None }, start })
    }

    /// A relay.
    pub(crate) fn relay(
        program: &Path,
        settings: &[(&str, &str)],
        certificate: Option<&Certificate>,
        cores: &Cores,
    ) -> Result<Self, String> {
        let address = free_address()?;
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("RELAY_") {
                command.env_remove(name);
            }
        }
        command.env("RELAY_ADDR", address.to_string()).envs(SETTINGS).envs(settings.iter().copied());
        let mut scheme = "ws";
        if let Some(certificate) = certificate {
            command.env("RELAY_TLS_CERT", certificate.chain()).env("RELAY_TLS_KEY", certificate.key());
            scheme = "wss";
        }
        // Its log is written as it is in production; nobody reads it here.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (address, tls) = target(&format!("{scheme}://{address}/ws"), Some(Trust::Anybody))
            .map_err(|error| error.to_string())?;
        let target = Target { address, tls };
        let begin = clock();
        let mut child = spawn(&mut command, cores)?;
        while !is_well(&target) {
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || begin.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                let how = ended.map_or("it does not answer".to_owned(), |status| status.to_string());
                return Err(format!("{} did not start: {how}", program.display()));
            }
            wait(LOOK);
        }
        Ok(Self { child, target, start: begin.elapsed() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is ours, and nothing in it is worth saving.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child runs where its parent did when it was started.
fn spawn(command: &mut Command, cores: &Cores) -> Result<Child, String> {
    cores.as_server()?;
    let child = command.spawn();
    cores.as_generator()?;
    child.map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))
}

/// Nobody else takes it in the time that a relay needs to start, or that relay says so.
fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map_err(|error| error.to_string())
}

/// A self-signed certificate in two files, which go when this is dropped.
pub(crate) struct Certificate(PathBuf);

impl Certificate {
    pub(crate) fn new() -> Result<Self, String> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]);
        let made = made.map_err(|error| error.to_string())?;
        let this = Self(env::temp_dir().join(format!("conformance-bench-{}", process::id())));
        let written = fs::create_dir_all(&this.0)
            .and_then(|()| fs::write(this.chain(), made.cert.pem()))
            .and_then(|()| fs::write(this.key(), made.signing_key.serialize_pem()));
        written.map_err(|error| format!("{}: {error}", this.0.display()))?;
        Ok(this)
    }

    fn chain(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // Left behind, it would only take room.
        let _ = fs::remove_dir_all(&self.0);
    }
}
