//! One relay, as a process of its own: this test program, when it is told to be one.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use relay_host::cli::{self, Adapter};

/// The variable that tells.
pub(crate) const ADAPTER: &str = "CLUSTER_ADAPTER";

pub(crate) fn serve(adapter: &str) -> ExitCode {
    let (name, version) = ("node", env!("CARGO_PKG_VERSION"));
    cli::main(&match adapter {
        "tokio" => Adapter {
            name,
            version,
            auto_shards: relay_tokio::auto_shards,
            spawn: relay_tokio::spawn_on,
            connect_tls: relay_tokio::connect_tls,
        },
        _ => Adapter {
            name,
            version,
            auto_shards: relay_smol::auto_shards,
            spawn: relay_smol::spawn_on,
            connect_tls: relay_smol::connect_tls,
        },
    })
}

pub(crate) struct Node {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Node {
    /// Odd ones run on tokio, even ones on smol: rooms move between the two.
    pub(crate) fn start(id: u32, address: SocketAddr) -> Self {
        let mut process = Command::new(env::current_exe().expect("this program has a file"))
            .env(ADAPTER, if id % 2 == 1 { "tokio" } else { "smol" })
            .arg("serve")
            .env("RELAY_ADDR", address.to_string())
            .env("RELAY_DRAIN_SECONDS", "4")
            // All clients have one address here.
            .env("RELAY_RATE_LIMIT_PER_IP", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let mut log = BufReader::new(process.stderr.take().expect("it is piped"));
        let address = listening(&mut log);
        // Somebody has to read it.
        thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        Self { process, address }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("it is our child").is_some()
    }

    pub(crate) fn exit_status(&mut self) -> Option<i32> {
        self.process.wait().expect("it is our child").code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn signal(process: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.id().to_string()]).status();
    assert!(status.expect("there is kill").success());
}

/// Waits for the line that says where it listens.
fn listening(log: &mut impl BufRead) -> SocketAddr {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).expect("text"), 0, "it did not start: {seen}");
        if let Some((_, rest)) = line.split_once("addr=") {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            return rest[..end].parse().expect("an address");
        }
        seen.push_str(&line);
    }
}
