//! The two things that systemd offers a service: sockets that are open already, and somewhere to say how it
//! is going (`sd_listen_fds(3)`, `sd_notify(3)`). Without systemd both do nothing.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, io};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::AcceptConn;
use nix::time::{ClockId, clock_gettime};

/// What a service tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Clients can connect, and what was to be reloaded is.
    Ready,
    /// SIGHUP is being obeyed.
    Reloading,
    /// The drain has begun.
    Stopping,
}

/// Sockets that systemd listens on for us. Only once: they are taken out of the environment.
pub fn listeners() -> io::Result<Vec<TcpListener>> {
    let mut inherited = listenfd::ListenFd::from_env();
    let listeners: Vec<_> = (0..inherited.len())
        .filter_map(|index| inherited.take_tcp_listener(index).transpose())
        .collect::<io::Result<_>>()?;
    // On any other socket every accept fails at once, for ever: with `Accept=yes` it is one that was accepted.
    if listeners.iter().all(|socket| getsockopt(socket, AcceptConn).is_ok_and(|listens| listens)) {
        return Ok(listeners);
    }
    Err(io::Error::other("a socket in LISTEN_FDS does not listen; set Accept=no in its unit"))
}

/// Tells how it is going. Nobody has to listen, so a failure is no error.
pub fn notify(state: State) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let message = match state {
        State::Ready => "READY=1".into(),
        State::Stopping => "STOPPING=1".into(),
        State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_microseconds()),
    };
    let _ = send(&path, message.as_bytes());
}

fn send(path: &OsStr, message: &[u8]) -> io::Result<usize> {
    let address = match path.as_bytes() {
        // A name in the abstract namespace, which has no file.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address)
}

/// systemd compares this with its own reading, to tell this reload from an earlier one.
fn monotonic_microseconds() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_socket_hears_the_message() {
        let name = format!("relay-proto-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), b"READY=1").unwrap();
        let mut heard = [0; 16];
        let len = socket.recv(&mut heard).unwrap();
        assert_eq!(&heard[..len], b"READY=1");
    }
}
