//! `conformance doctor URL`: looks at a relay from where the user stands, one layer after the other, and says of each
//! whether it is well, and what to do if not.

mod link;
mod room;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lexopt::prelude::*;
use link::{Place, now, text};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use crate::options::{Trust, client_config};

const HELP: &str = "\
Looks at a relay from here: name, TCP, TLS, HTTP, token, clock, round trip, size, voice, idle connections.

    conformance doctor URL [--idle SECONDS] [--ca FILE | --insecure]

URL             ws://HOST[:PORT]/ws or wss://HOST[:PORT]/ws: opens a room of its own there and closes it again;
                or a whole invitation: joins that room, and says nothing in it
--idle SECONDS  how long a connection is left idle (5); what cuts idle connections mostly does after 60
--ca FILE       PEM of the certificates to trust, in place of those of this machine
--insecure      trust any certificate

Exit status 0: nothing is wrong, though there may be warnings; 1: something is; 2: it was asked for wrongly.
";

/// Worth a warning: a certificate that expires this soon.
const SOON_DAYS: u64 = 14;

/// What was asked for.
struct Options {
    url: Url,
    idle: Duration,
    trust: Option<Trust>,
}

/// The parts of a URL that matter here.
struct Url {
    encrypted: bool,
    host: String,
    port: u16,
    query: String,
}

impl Url {
    fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let encrypted = match scheme {
            "ws" => false,
            "wss" => true,
            _ => return Err(format!("{url}: the URL begins with ws:// or wss://")),
        };
        // What follows # is the key of the room, which is nobody's business here.
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "ws"));
        if path != "ws" {
            return Err(format!("/{path}: the path of the URL is /ws"));
        }
        let default = if encrypted { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{port}: a port is a number from 1 to 65535"))?)
            }
            _ => (authority, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { encrypted, host, port, query: query.to_owned() })
    }

    fn base(&self) -> String {
        let scheme = if self.encrypted { "wss" } else { "ws" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}", self.port)
    }
}

/// Runs the command line behind `doctor`.
pub(crate) fn main(parser: lexopt::Parser) -> ExitCode {
    let options = match options(parser) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::default();
    // A step that fails ends those that need it.
    let _ = examine(&options, &mut report);
    println!("{} ok, {} warnings, {} failures", report.ok, report.warnings, report.failures);
    if report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut parser: lexopt::Parser) -> Result<Option<Options>, Box<dyn std::error::Error>> {
    let (mut url, mut idle, mut trust) = (None, Duration::from_secs(5), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("idle") => {
                let value = parser.value()?.string()?;
                let seconds = value.trim_end_matches('s').parse().ok();
                idle = seconds
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .ok_or_else(|| format!("--idle {value}: a number of seconds such as 70"))?;
            }
            Long("ca") => trust = Some(Trust::File(parser.value()?.string()?)),
            Long("insecure") => trust = Some(Trust::Anybody),
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            Value(value) if url.is_none() => url = Some(Url::parse(&value.string()?)?),
            other => return Err(other.unexpected().into()),
        }
    }
    if let Some(Trust::File(path)) = &trust {
        fs::metadata(path).map_err(|error| format!("--ca {path}: {error}"))?;
    }
    let Some(url) = url else { return Err(HELP.into()) };
    Ok(Some(Options { url, idle, trust }))
}

/// What was found.
#[derive(Default)]
struct Report {
    ok: usize,
    warnings: usize,
    failures: usize,
}

impl Report {
    fn ok(&mut self, step: &str, what: impl AsRef<str>) {
        self.ok += 1;
        println!("ok       {step:11} {}", what.as_ref());
    }

    fn warning(&mut self, step: &str, what: impl AsRef<str>, fix: &str) {
        self.warnings += 1;
        println!("warning  {step:11} {}\n         {:11} → {fix}", what.as_ref(), "");
    }

    fn failure(&mut self, step: &str, what: impl AsRef<str>, fix: &str) {
        self.failures += 1;
        println!("FAILED   {step:11} {}\n         {:11} → {fix}", what.as_ref(), "");
    }

    /// Ends here if it failed.
    fn need<T>(&mut self, step: &str, outcome: Result<T, String>, fix: &str) -> Option<T> {
        outcome.map_err(|what| self.failure(step, what, fix)).ok()
    }
}

fn examine(options: &Options, report: &mut Report) -> Option<()> {
    let Options { url, idle, trust } = options;
    let began = now();
    let found = (url.host.as_str(), url.port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let addresses =
        report.need("name", found.map_err(text), "check the name, and the resolver of this machine")?;
    let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    report.ok("name", format!("{} is {}, found in {}", url.host, list.join(", "), millis(began.elapsed())));
    let mut place = Place { address: tcp(&addresses, report)?, tls: None };
    if url.encrypted {
        tls(&mut place, url, trust.as_ref(), report)?;
    }
    http(&place, url, report)?;
    room::examine(&place, url, *idle, report)
}

fn tcp(addresses: &[SocketAddr], report: &mut Report) -> Option<SocketAddr> {
    let mut reached = None;
    for address in addresses {
        let began = now();
        match (Place { address: *address, tls: None }).tcp() {
            Ok(_) => {
                report.ok("TCP", format!("{address} answers in {}", millis(began.elapsed())));
                reached = reached.or(Some(*address));
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => report.failure(
                "TCP",
                format!("{address} refuses connections"),
                "start the relay there, or correct the port; on this address RELAY_ADDR must listen",
            ),
            Err(error) => report.failure(
                "TCP",
                format!("{address}: {error}"),
                "look for a firewall in between, and for a route to that address",
            ),
        }
    }
    reached
}

#[expect(clippy::disallowed_methods, reason = "certificates are judged by the clock")]
fn tls(place: &mut Place, url: &Url, trust: Option<&Trust>, report: &mut Report) -> Option<()> {
    let name = ServerName::try_from(url.host.clone()).map_err(text);
    let name = report.need("TLS", name, "use a name or an address in the URL")?;
    let config = match trust {
        Some(trust) => client_config(trust).map_err(text),
        None => of_this_machine(),
    };
    let mut config = Arc::new(report.need("TLS", config, "give a PEM file with --ca")?);
    let mut shown = place.handshake(&config, &name);
    if let Err(error) = &shown {
        report.failure("TLS", error.to_string(), fix_of_tls(&error.to_string()));
        // Whether the rest is well can be seen all the same.
        config = Arc::new(client_config(&Trust::Anybody).ok()?);
        shown = place.handshake(&config, &name);
    }
    let shown = shown.ok()?;
    place.tls = Some((config, name));
    let trusted = if matches!(trust, Some(Trust::Anybody)) { "not verified" } else { "verified" };
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let days = shown.not_after.map(|end| end.saturating_sub(unix) / 86_400);
    if report.failures == 0 {
        report.ok("TLS", format!("{}, certificate {trusted}", shown.version));
    }
    match days {
        Some(days) if days < SOON_DAYS => {
            report.warning(
                "certificate",
                format!("expires in {days} days"),
                "renew it; the relay takes the new files by itself",
            );
        }
        Some(days) => report.ok("certificate", format!("expires in {days} days")),
        None => {}
    }
    Some(())
}

fn of_this_machine() -> Result<ClientConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(found.certs).0 == 0 {
        return Err("this machine has no certificates to trust".to_owned());
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn fix_of_tls(error: &str) -> &'static str {
    if error.contains("UnknownIssuer") || error.contains("CaUsedAsEndEntity") {
        "serve the whole chain (fullchain.pem) of an issuer that this machine knows, or give --ca FILE"
    } else if error.contains("Expired") {
        "renew the certificate; the relay takes the new files by itself"
    } else if error.contains("NotValidForName") {
        "use the name that is in the certificate, or get one for this name"
    } else if error.contains("ProtocolVersion") {
        "whatever ends TLS there has to speak version 1.3"
    } else {
        "check that this port speaks TLS; a relay without a certificate is ws://"
    }
}

fn http(place: &Place, url: &Url, report: &mut Report) -> Option<()> {
    let answer = place.dial().and_then(|(mut stream, _)| {
        write!(stream, "GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.host)?;
        let mut answer = Vec::new();
        // Some end TLS without saying so; what has come until then is what counts.
        let ended = Read::by_ref(&mut stream).take(64 * 1024).read_to_end(&mut answer);
        if answer.is_empty() { ended.map(|_| answer) } else { Ok(answer) }
    });
    let answer = report.need(
        "HTTP",
        answer.map_err(text),
        "check that this port is a relay's, and ws or wss right",
    )?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    let server = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("server: "));
    let through = server.map_or(String::new(), |server| format!(", through {}", &server[8..]));
    if answer.ends_with(r#"{"status":"ok"}"#) {
        report.ok("HTTP", format!("/health is well{through}"));
    } else if answer.contains("draining") {
        report.warning("HTTP", format!("the relay is stopping{through}"), "wait until its successor runs");
    } else {
        report.failure(
            "HTTP",
            format!("/health answers {status:?}{through}"),
            "pass every path to the relay, and name the right one here",
        );
    }
    Some(())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
