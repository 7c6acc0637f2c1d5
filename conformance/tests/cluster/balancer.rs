//! HAProxy with `deploy/haproxy/cluster.cfg`, in which nothing is changed but addresses, paths and the certificate.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use conformance::Stage;
use conformance::net::Sockets;

use crate::node::{Node, signal};

const FILE: &str = include_str!("../../../deploy/haproxy/cluster.cfg");
const BIND: &str = "bind :443 ssl crt /etc/haproxy/relay.pem alpn http/1.1 ssl-min-ver TLSv1.3";
const SOCKET: &str = "/run/haproxy/admin.sock";

pub(crate) struct Balancer {
    process: Child,
    directory: PathBuf,
    address: SocketAddr,
}

impl Balancer {
    /// Two that share what they know.
    pub(crate) fn pair(address: Ipv4Addr, nodes: &BTreeMap<u32, Node>) -> Vec<Self> {
        let peers = [free(address), free(address)];
        let mut file = FILE.to_owned();
        for (number, peer) in (1..).zip(peers) {
            replace(&mut file, &format!("192.0.2.{number}:10000"), &peer.to_string());
        }
        for (id, node) in nodes {
            replace(&mut file, &format!("192.0.2.1{id}:8443"), &node.address.to_string());
        }
        (1..=2).map(|number| Self::start(number, free(address), file.clone())).collect()
    }

    fn start(number: u32, address: SocketAddr, mut file: String) -> Self {
        // Short: the name of a socket is at most 108 bytes.
        let directory = std::env::temp_dir().join(format!("relay-{number}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        replace(&mut file, BIND, &format!("bind {address}"));
        replace(&mut file, SOCKET, directory.join("admin").to_str().expect("UTF-8"));
        fs::write(directory.join("cluster.cfg"), file).expect("a file");
        let log = File::create(directory.join("log")).expect("a file");
        // As a service does, with a master that reloads on SIGUSR2.
        let process = Command::new("haproxy")
            .args(["-W", "-L", &format!("balancer{number}"), "-f"])
            .arg(directory.join("cluster.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("haproxy is installed: .ci/cluster does that");
        Self { process, directory, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn wait_until_ready(&mut self) {
        self.wait_until(&[(1, true), (2, true), (3, true)]);
    }

    /// Another line in the file, and a reload.
    pub(crate) fn add(&mut self, id: u32, node: SocketAddr) {
        let path = self.directory.join("cluster.cfg");
        let mut file = fs::read_to_string(&path).expect("it was written");
        file = format!("{file}    server relay{id} {node} id {id}\n");
        fs::write(path, file).expect("a file");
        signal(&self.process, "USR2");
    }

    /// Waits until it knows these relays, and which of them are up.
    pub(crate) fn wait_until(&mut self, expected: &[(u32, bool)]) {
        let clock = Sockets::new(self.address, None);
        Stage::new(&clock, None, "").until(&format!("{expected:?}, and not {:?}", self.states()), || {
            assert!(self.process.try_wait().expect("our child").is_none(), "{}", self.log());
            self.states() == expected
        });
    }

    /// Columns of `show servers state`: 3 is the id, 6 the state, in which 2 is running.
    fn states(&self) -> Vec<(u32, bool)> {
        let mut answer = String::new();
        let Ok(mut socket) = UnixStream::connect(self.directory.join("admin")) else { return Vec::new() };
        let asked = socket.write_all(b"show servers state relays\n");
        if asked.and_then(|()| socket.read_to_string(&mut answer)).is_err() {
            return Vec::new();
        }
        let fields = answer.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields
            .filter(|fields| fields.get(1) == Some(&"relays"))
            .map(|fields| (fields[2].parse().expect("a number"), fields[5] == "2"))
            .collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // The master takes all its workers along.
        if matches!(self.process.try_wait(), Ok(None)) {
            signal(&self.process, "TERM");
            let _ = self.process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}: {}", self.directory.display(), self.log());
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn free(address: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).expect("there are ports");
    listener.local_addr().expect("it listens")
}

/// What is not there was not replaced, and then this would not be the file that it is said to be.
fn replace(file: &mut String, from: &str, to: &str) {
    assert_eq!(file.matches(from).count(), 1, "{from}");
    *file = file.replace(from, to);
}
