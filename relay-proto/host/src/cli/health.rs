//! `health`: asks a relay how it is, for the health check of a container that holds nothing but the relay.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lexopt::{Arg, Parser};

use super::{Adapter, Duplex, Environment, Failure};
use relay_proto::config::Settings;

/// Nobody waits longer for a health check.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn health(adapter: &Adapter, mut args: Parser) -> Result<(), Failure> {
    let target = match args.next()? {
        None => Target::of(&Environment::read().settings()?),
        Some(Arg::Value(url)) => {
            let url = url.to_string_lossy();
            Target::parse(&url).ok_or_else(|| {
                Failure::asked_wrongly(format!(
                    "{url:?} cannot be used; it has to be http://ADDRESS:PORT or https://ADDRESS:PORT, with an \
                     IP address or localhost for ADDRESS"
                ))
            })?
        }
        Some(other) => return Err(other.unexpected().into()),
    };
    super::no_more(args)?;
    let status = ask(adapter, &target)
        .map_err(|error| Failure::here_and_now(format!("{}: {error}", target.address)))?;
    if status.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(Failure::here_and_now(format!("{}: {status}", target.address)))
    }
}

/// The status line of the answer.
fn ask(adapter: &Adapter, target: &Target) -> io::Result<String> {
    let socket = TcpStream::connect_timeout(&target.address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut stream: Box<dyn Duplex> =
        if target.tls { (adapter.connect_tls)(socket)? } else { Box::new(socket) };
    let host = target.address;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut answer = [0; 1024];
    let mut len = 0;
    while len < answer.len() && !answer[..len].contains(&b'\n') {
        match stream.read(&mut answer[len..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => len += more,
        }
    }
    let text = String::from_utf8_lossy(&answer[..len]);
    Ok(text.lines().next().unwrap_or_default().trim_end().to_string())
}

/// Where to ask. An address, because a static binary looks up no names.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    address: SocketAddr,
}

impl Target {
    /// The relay that these settings are for, on this machine.
    fn of(settings: &Settings) -> Self {
        let mut addresses = settings.addr.addresses.iter().copied();
        // Of both families IPv4, which hardly any machine lacks.
        let mut address = addresses
            .clone()
            .find(SocketAddr::is_ipv4)
            .or_else(|| addresses.next())
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        Self { tls: settings.tls_cert.is_some(), address }
    }

    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (tls, default_port) = match scheme {
            "http" | "ws" => (false, 80),
            "https" | "wss" => (true, 443),
            _ => return None,
        };
        let authority = rest.split(['/', '?']).next()?.replace("localhost", "127.0.0.1");
        let host = authority.trim_start_matches('[').trim_end_matches(']');
        let with_port = || host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, default_port));
        let address = authority.parse().ok().or_else(with_port)?;
        Some(Self { tls, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_an_address() {
        let target = |tls, address: &str| Some(Target { tls, address: address.parse().unwrap() });
        assert_eq!(Target::parse("http://127.0.0.1:8443/health"), target(false, "127.0.0.1:8443"));
        assert_eq!(Target::parse("https://localhost"), target(true, "127.0.0.1:443"));
        assert_eq!(Target::parse("https://[::1]:1?x"), target(true, "[::1]:1"));
        assert_eq!(Target::parse("http://[::1]"), target(false, "[::1]:80"));
        for bad in ["127.0.0.1:8443", "ftp://127.0.0.1", "http://relay.example", "http://"] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_interface_is_reached_at_loopback() {
        let target = |addr| Target::of(&Settings::from_vars([("RELAY_ADDR", addr)]).unwrap()).address;
        assert_eq!(target(":8443"), "127.0.0.1:8443".parse().unwrap());
        assert_eq!(target("[::]:1"), "[::1]:1".parse().unwrap());
        assert_eq!(target("192.0.2.1:1"), "192.0.2.1:1".parse().unwrap());
    }
}
