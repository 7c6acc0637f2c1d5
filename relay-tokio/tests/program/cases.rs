//! What only the program shows: exit status, lines on standard error, files, signals, systemd. What happens on
//! the wire is the business of the conformance suite.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use relay_proto::Settings;
use relay_proto::config::VARIABLES;

use super::PROGRAM;

/// The program with these variables and no others of its own.
fn program(vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    for variable in VARIABLES {
        command.env_remove(variable.name);
    }
    command.envs(vars.iter().copied()).stdin(Stdio::null());
    command
}

/// What is left of a program that did not start: its status and the line that it leaves.
fn failure(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "one line, not: {text}");
    assert!(output.stdout.is_empty());
    (output.status.code(), text.trim_end().to_owned())
}

/// A relay that serves, as a process of its own.
struct Relay {
    process: Child,
    log: BufReader<ChildStderr>,
    addr: String,
    /// Where its metrics are, if anywhere.
    metrics: Option<String>,
}

impl Relay {
    fn start(vars: &[(&str, &str)]) -> Self {
        Self::run(program(vars).env("RELAY_ADDR", "127.0.0.1:0"))
    }

    fn run(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let mut relay = Self { process, log, addr: String::new(), metrics: None };
        let line = relay.wait_for("listening");
        // `addr=127.0.0.1:1 ` as text, `"addr":"127.0.0.1:1"` as JSON.
        let is_addr = |part: &&str| part.starts_with("127.0.0.1:");
        let mut addrs = line.split([' ', '=', '"']).filter(is_addr).map(str::to_owned);
        relay.addr = addrs.next().unwrap();
        relay.metrics = addrs.next();
        relay
    }

    fn wait_for(&mut self, text: &str) -> String {
        line_with(&mut self.log, text)
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    fn exit_status(mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn line_with(log: &mut impl BufRead, text: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "no line with {text:?} in: {seen}");
        if line.contains(text) {
            return line;
        }
        seen.push_str(&line);
    }
}

/// A directory of its own, gone at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("{}-{name}-{}", env!("CARGO_PKG_NAME"), std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &str) -> String {
        fs::write(self.0.join(name), content).unwrap();
        self.path(name)
    }

    /// A certificate and its key.
    fn pair(&self, name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert = self.write(&format!("{name}.crt"), &made.cert.pem());
        (cert, self.write(&format!("{name}.key"), &made.signing_key.serialize_pem()))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The token, or the URL, that the program prints.
fn token(args: &[&str]) -> String {
    let output = program(&[]).arg("token").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The host of a room, through the opening handshake.
fn host(relay: &Relay, dir: &Dir) -> TcpStream {
    let url = token(&["--key", &dir.path("host.key"), "--room=r", "--peer=h", "--host", "--url=/ws"]);
    let mut socket = TcpStream::connect(&relay.addr).unwrap();
    write!(
        socket,
        "GET {url} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        relay.addr
    )
    .unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    socket
}

#[test]
fn c3_a_value_that_cannot_be_read_ends_it_with_2() {
    for (name, value) in [
        ("RELAY_ADDR", "localhost:8443"),
        ("RELAY_MAX_ROOMS", "many"),
        ("RELAY_PING_INTERVAL", "-1"),
        ("RELAY_BATCH", "maybe"),
        ("RELAY_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("RELAY_LOG", "verbose"),
        ("RELAY_LOG_FORMAT", "xml"),
    ] {
        for command in ["serve", "check", "health"] {
            let (status, line) = failure(&program(&[(name, value)]).arg(command).output().unwrap());
            assert_eq!(status, Some(2), "{line}");
            assert!(line.contains(&format!("{name}={value:?} cannot be used; it has to be ")), "{line}");
        }
    }
}

#[test]
fn c3_a_certificate_without_its_key_ends_it_with_2() {
    for (one, other) in [("RELAY_TLS_CERT", "RELAY_TLS_KEY"), ("RELAY_TLS_KEY", "RELAY_TLS_CERT")] {
        let (status, line) = failure(&program(&[(one, "file.pem")]).output().unwrap());
        assert_eq!(status, Some(2));
        assert!(line.contains(&format!("{other} is empty or not set")), "{line}");
    }
}

#[test]
fn c3_tls_files_that_cannot_be_used_end_it_with_1() {
    let dir = Dir::new("tls");
    let (cert, key) = dir.pair("one");
    let (_, other_key) = dir.pair("two");
    let nowhere = dir.path("nowhere");
    for (cert, key, complaint) in [
        (&nowhere, &key, format!("RELAY_TLS_CERT={nowhere:?} cannot be used: No such file")),
        (&cert, &nowhere, format!("RELAY_TLS_KEY={nowhere:?} cannot be used: No such file")),
        (&key, &key, format!("RELAY_TLS_CERT={key:?} cannot be used: it holds no certificate")),
        (&cert, &cert, format!("RELAY_TLS_KEY={cert:?} cannot be used: it holds no private key")),
        (&cert, &other_key, "cannot be used together: the key is not the certificate's".to_owned()),
    ] {
        let vars = [("RELAY_ADDR", "127.0.0.1:0"), ("RELAY_TLS_CERT", cert), ("RELAY_TLS_KEY", key)];
        let (status, line) = failure(&program(&vars).output().unwrap());
        assert_eq!(status, Some(1), "{line}");
        assert!(line.contains(&complaint), "{line}");
    }
}

#[test]
fn c3_a_recording_that_cannot_be_written_ends_it_with_1() {
    let dir = Dir::new("record");
    let nowhere = dir.path("no directory/file");
    // A device must not be renamed like the recording of the last run.
    for path in [nowhere.as_str(), "/dev/null"] {
        let vars = [("RELAY_ADDR", "127.0.0.1:0"), ("RELAY_RECORD", path)];
        let (status, line) = failure(&program(&vars).output().unwrap());
        assert_eq!(status, Some(1), "{line}");
        assert!(line.contains(&format!("RELAY_RECORD={path:?} cannot be used: ")), "{line}");
    }
}

#[test]
fn c3_an_occupied_port_ends_it_with_1() {
    let occupant = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = occupant.local_addr().unwrap().to_string();
    let (status, line) = failure(&program(&[("RELAY_ADDR", &addr)]).output().unwrap());
    assert_eq!(status, Some(1));
    assert!(line.contains(&format!("cannot listen on {addr}")) && line.contains("RELAY_ADDR"), "{line}");
}

#[test]
fn c4_an_unknown_variable_is_a_warning_that_names_the_nearest() {
    let mut command = program(&[("RELAY_MAX_ROOM", "5"), ("RELAY_ADDR", "127.0.0.1:0")]);
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let line = line_with(&mut BufReader::new(process.stderr.take().unwrap()), "RELAY_MAX_ROOM");
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(line.contains(" WARN ") && line.contains("RELAY_MAX_ROOMS"), "{line}");
}

#[test]
fn wrong_arguments_end_it_with_2() {
    for args in [&["dance"][..], &["--loud"], &["check", "twice"], &["token"], &["health", "ftp://127.0.0.1"]]
    {
        let (status, line) = failure(&program(&[]).args(args).output().unwrap());
        assert_eq!(status, Some(2), "{line}");
    }
}

#[test]
fn check_prints_every_variable_as_an_environment_file() {
    let output = program(&[("RELAY_MAX_ROOMS", "7")]).arg("check").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let vars: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('=').unwrap())
        .collect();
    assert!(vars.contains(&("RELAY_MAX_ROOMS", "7")));
    assert!(vars.iter().map(|(name, _)| *name).eq(VARIABLES.iter().map(|variable| variable.name)));
    // Fed back, it means the same.
    let set = vars.iter().copied().filter(|(_, value)| !value.is_empty());
    assert_eq!(Settings::from_vars(set), Settings::from_vars([("RELAY_MAX_ROOMS", "7")]));
}

#[test]
fn help_and_version_are_printed() {
    let print = |arg| String::from_utf8(program(&[]).arg(arg).output().unwrap().stdout).unwrap();
    assert_eq!(print("--version"), format!("{} {}\n", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")));
    let help = print("--help");
    assert!(VARIABLES.iter().all(|variable| help.contains(variable.name)), "{help}");
    let of_a_command = program(&[]).args(["token", "--help"]).output().unwrap();
    assert_eq!(String::from_utf8(of_a_command.stdout).unwrap(), help);
}

#[test]
fn token_makes_a_key_that_only_its_owner_can_read() {
    let dir = Dir::new("token");
    let key = dir.path("host.key");
    let url = token(&["--key", &key, "--room=r", "--peer=h", "--host", "--url=ws://127.0.0.1:1/ws"]);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let public = |url: &str| url.split("&pubkey=").nth(1).map(str::to_owned);
    assert!(public(&url).is_some_and(|key| key.len() == 43), "{url}");
    // The key is used again, not made anew.
    let again = token(&["--key", &key, "--room=q", "--peer=h", "--host", "--url=ws://127.0.0.1:1/ws"]);
    assert_eq!(public(&url), public(&again));

    let damaged = dir.write("damaged.key", "short\n");
    let output = program(&[]).args(["token", "--key", &damaged, "--room=r", "--peer=h"]).output().unwrap();
    let (status, line) = failure(&output);
    assert_eq!(status, Some(1));
    assert!(line.contains(&damaged), "{line}");
}

#[test]
fn d1_a_drained_relay_ends_with_0() {
    let mut relay = Relay::start(&[]);
    relay.signal("TERM");
    relay.wait_for("drained");
    assert_eq!(relay.exit_status(), Some(0));
}

#[test]
fn d1_a_second_signal_ends_it_at_once() {
    for (second, status) in [("INT", 130), ("TERM", 143)] {
        let dir = Dir::new(second);
        let mut relay = Relay::start(&[("RELAY_DRAIN_SECONDS", "3600")]);
        let _host = host(&relay, &dir);
        relay.signal("TERM");
        relay.wait_for("draining");
        relay.signal(second);
        assert_eq!(relay.exit_status(), Some(status));
    }
}

#[test]
fn d2_sighup_reads_the_certificate_anew() {
    let dir = Dir::new("reload");
    let (cert, key) = dir.pair("pair");
    let mut relay = Relay::start(&[("RELAY_TLS_CERT", &cert), ("RELAY_TLS_KEY", &key)]);
    dir.pair("pair");
    relay.signal("HUP");
    relay.wait_for("certificate reloaded");
    dir.write("pair.key", "nothing\n");
    relay.signal("HUP");
    relay.wait_for("certificate not reloaded");
}

#[test]
fn health_tells_by_its_exit_status() {
    let dir = Dir::new("health");
    let (cert, key) = dir.pair("pair");
    let status = |url: String| program(&[]).args(["health", &url]).output().unwrap().status.code();
    for (scheme, vars) in
        [("http", &[][..]), ("https", &[("RELAY_TLS_CERT", &*cert), ("RELAY_TLS_KEY", &*key)])]
    {
        let mut relay = Relay::start(&[vars, &[("RELAY_DRAIN_SECONDS", "3600")]].concat());
        let url = format!("{scheme}://{}", relay.addr);
        assert_eq!(status(url.clone()), Some(0), "{url}");
        if scheme == "http" {
            let _host = host(&relay, &dir);
            relay.signal("TERM");
            relay.wait_for("draining");
            assert_eq!(status(url.clone()), Some(1), "draining");
        }
        drop(relay);
        assert_eq!(status(url), Some(1), "gone");
    }
}

#[test]
fn systemd_hands_over_a_socket_and_hears_how_it_is_going() {
    let name = format!("{}-notify-{}", env!("CARGO_PKG_NAME"), std::process::id());
    let told = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let len = told.recv(&mut message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();

    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" 3<&0", PROGRAM]);
    shell.env("NOTIFY_SOCKET", format!("@{name}")).stdin(OwnedFd::from(listener));
    // Not listened on: systemd's socket counts.
    let relay = Relay::run(shell.env("RELAY_ADDR", "192.0.2.1:1"));
    assert_eq!(relay.addr, addr);
    assert_eq!(hear(), "READY=1");

    relay.signal("HUP");
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(), "READY=1");

    relay.signal("TERM");
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(relay.exit_status(), Some(0));
}

#[test]
fn a_socket_that_does_not_listen_is_not_taken_over() {
    // As from a unit with `Accept=yes`.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" 3<&0", PROGRAM]);
    let (status, line) = failure(&shell.stdin(socket).output().unwrap());
    assert_eq!(status, Some(1));
    assert!(line.contains("LISTEN_FDS"), "{line}");
}

#[test]
fn c6_json_entries_are_one_object_a_line() {
    let mut relay = Relay::start(&[("RELAY_LOG_FORMAT", "json")]);
    relay.signal("TERM");
    let line = relay.wait_for("drained");
    assert!(line.starts_with("{\"timestamp\":\"") && line.ends_with("\"}\n"), "{line}");
}

#[test]
fn c5_metrics_have_a_port_of_their_own() {
    let dir = Dir::new("metrics");
    let (cert, key) = dir.pair("pair");
    let port = ("RELAY_METRICS_ADDR", "127.0.0.1:0");
    for tls in [&[][..], &[("RELAY_TLS_CERT", &*cert), ("RELAY_TLS_KEY", &*key)]] {
        let relay = Relay::start(&[tls, &[port]].concat());
        let get = |path: &str| {
            let mut socket = TcpStream::connect(relay.metrics.as_ref().unwrap()).unwrap();
            write!(socket, "GET {path} HTTP/1.1\r\nHost: metrics\r\n\r\n").unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            answer
        };
        let _host = tls.is_empty().then(|| host(&relay, &dir));
        let page = get("/metrics");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text;"), "{page}");
        assert!(page.ends_with("# EOF\n"));
        let shows = |line: &str| page.lines().any(|l| l.starts_with(line));
        assert!(shows("relay_build_info{") && shows("process_resident_memory_bytes "), "{page}");
        let hosts = i32::from(tls.is_empty());
        assert!(shows(&format!("relay_connections{{role=\"host\"}} {hosts}")), "{page}");
        let expires = shows("relay_certificate_expiry_timestamp_seconds 67090118400");
        assert_eq!(expires, !tls.is_empty(), "{page}");
        assert!(get("/").starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html;"));
        assert!(get("/nothing").starts_with("HTTP/1.1 404 "));
        // The port of the clients has no such page.
        if tls.is_empty() {
            let mut socket = TcpStream::connect(&relay.addr).unwrap();
            write!(socket, "GET /metrics HTTP/1.1\r\nHost: clients\r\n\r\n").unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        }
    }
}

#[test]
fn c5_fetches_that_stall_take_no_sockets_from_clients() {
    let relay = Relay::start(&[("RELAY_METRICS_ADDR", "127.0.0.1:0"), ("RELAY_HANDSHAKE_TIMEOUT", "0")]);
    let connect = || TcpStream::connect(relay.metrics.as_ref().unwrap()).unwrap();
    let _stalled: Vec<_> = (0..32).map(|_| connect()).collect();
    // One more is let go at once.
    let mut more = connect();
    more.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let end = more.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
}

#[test]
fn c5_an_occupied_metrics_port_is_named() {
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = occupied.local_addr().unwrap().to_string();
    let (status, line) =
        failure(&program(&[("RELAY_ADDR", "127.0.0.1:0"), ("RELAY_METRICS_ADDR", &addr)]).output().unwrap());
    assert_eq!(status, Some(1));
    assert!(line.contains(&addr) && line.contains("RELAY_METRICS_ADDR"), "{line}");
}
