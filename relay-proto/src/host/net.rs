//! Sockets: how they are opened, tuned and asked.

use core::net::SocketAddr;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::Duration;
use std::vec::Vec;

use nix::errno::Errno;
#[cfg(target_os = "linux")]
use nix::{getsockopt_impl, libc, sockopt_impl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::getsockopt;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::running::StartError;
use crate::config::Listen;

/// Connections that the kernel keeps ready while the relay is busy: a reconnecting crowd comes at once.
const BACKLOG: i32 = 4096;

/// The pause after an accept failed for want of descriptors or memory: time for others to give some back.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is read from a socket at a time. It stays with each connection, idle or not, so it is small.
pub const READ_BUFFER_BYTES: usize = 4096;

/// How long written bytes may stay unacknowledged before the kernel gives up on the peer, even where the
/// relay was told not to (`RELAY_PONG_TIMEOUT=0`). By default it would take a quarter of an hour.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// How much the kernel takes before it has sent what it has: enough to keep a link busy, and little enough
/// that voice, once the relay lets it overtake, does not stand behind megabytes of data (rule M4).
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// Opens every address, or one of the two families of a bare port where the machine lacks the other.
pub fn listen(wanted: &Listen) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut lacking = None;
    for address in &wanted.addresses {
        let mut address = *address;
        // Port 0 is any free port, but the same for both families.
        if let (0, Some(Ok(first))) = (address.port(), listeners.first().map(TcpListener::local_addr)) {
            address.set_port(first.port());
        }
        match open(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if lacks_family(&error) => lacking = Some((address, error)),
            Err(error) => return Err(StartError::occupied(address, &error)),
        }
    }
    match lacking {
        Some((address, error)) if listeners.is_empty() => Err(StartError::occupied(address, &error)),
        Some(_) | None => Ok(listeners),
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // 0.0.0.0 has a socket of its own, so an IPv4 client is one, not `::ffff:…`.
        socket.set_only_v6(true)?;
    }
    // A restart need not wait for the last connections of its predecessor to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn lacks_family(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// Whether an accept failed because this process or the machine has no more to give. Any other failure is
/// about one connection only.
pub fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

/// Sets what every accepted socket needs. A socket that is gone already fails later, where it is read.
pub fn tune(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    // Messages and the flights of a TLS handshake leave at once, not when the one before is acknowledged.
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
        let _ = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
    }
}

/// How many bytes the peer has acknowledged since the connection began (rule S5); 0 if the kernel does not
/// tell.
#[cfg(target_os = "linux")]
pub fn acknowledged(socket: &impl AsFd) -> u64 {
    getsockopt(socket, TcpInfo).map_or(0, |info| info[TCPI_BYTES_ACKED])
}

/// The kernel does not tell.
#[cfg(not(target_os = "linux"))]
pub fn acknowledged(_: &impl AsFd) -> u64 {
    0
}

/// The head of `struct tcp_info` (`linux/tcp.h`) as 64-bit words. The kernel fills in as much of it as was
/// asked for, and later versions only add to its end: this part has been there since Linux 4.1.
#[cfg(target_os = "linux")]
type TcpInfoHead = [u64; TCPI_BYTES_ACKED + 1];

/// Before `tcpi_bytes_acked` stand 8 members of 8 bits, 24 of 32 and 2 of 64.
#[cfg(target_os = "linux")]
const TCPI_BYTES_ACKED: usize = (8 + 24 * 4 + 2 * 8) / 8;

#[cfg(target_os = "linux")]
sockopt_impl!(
    /// `TCP_INFO`, of which neither nix nor socket2 has a safe form.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfoHead
);

/// Lets this process open as many files as it may. Each connection is one.
pub fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(target: "relay", soft, hard, %error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::string::ToString;
    use std::vec;

    use super::*;

    fn any_port(addresses: &[&str]) -> Listen {
        Listen { addresses: addresses.iter().map(|text| text.parse().unwrap()).collect() }
    }

    #[test]
    fn both_families_share_a_port() {
        let listeners = listen(&any_port(&["[::]:0", "0.0.0.0:0"])).unwrap();
        let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn an_occupied_port_is_named_with_its_remedy() {
        let first = listen(&any_port(&["127.0.0.1:0"])).unwrap();
        let address = first[0].local_addr().unwrap();
        let error = listen(&Listen { addresses: vec![address] }).unwrap_err().to_string();
        assert!(error.contains(&std::format!("{address}")) && error.contains("RELAY_ADDR"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    /// RFC 9293 section 3.10.7.4: what the peer acknowledged is what it has, read or not.
    #[cfg(target_os = "linux")]
    #[test]
    fn acknowledged_bytes_are_counted() {
        let listener = listen(&any_port(&["127.0.0.1:0"])).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        tune(&near);
        let before = acknowledged(&near);
        near.write_all(&[7; 1000]).unwrap();
        // A byte on the way back carries the acknowledgement of all that was read before it was sent.
        far.read_exact(&mut [0; 1000]).unwrap();
        far.write_all(&[7]).unwrap();
        near.read_exact(&mut [0]).unwrap();
        assert_eq!(acknowledged(&near) - before, 1000);
    }
}
