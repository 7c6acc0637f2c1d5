//! Sockets: how they are opened, tuned and asked.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::getsockopt;
#[cfg(target_os = "linux")]
use nix::{getsockopt_impl, libc, sockopt_impl};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::running::StartError;
use relay_proto::config::Listen;
use relay_proto::event::Progress;

/// Connections that the kernel keeps ready while the relay is busy: a reconnecting crowd comes at once.
const BACKLOG: i32 = 4096;

/// The pause after an accept failed for want of descriptors or memory: time for others to give some back.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is read at a time of a request head, and of what is only discarded.
pub const READ_BUFFER_BYTES: usize = 1024;

/// How many chunks go into one vectored write; as many as tokio gives it.
pub const SLICES_PER_WRITE: usize = 64;

/// How long written bytes may stay unacknowledged before the kernel gives up on the peer, even where the
/// relay was told not to (`RELAY_PONG_TIMEOUT=0`). By default it would take a quarter of an hour.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// How much the kernel takes before it has sent what it has: enough to keep a link busy, and little enough
/// that voice, once the relay lets it overtake, does not stand behind megabytes of data (rule M4).
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// Opens every address that a variable names, or one of the two families of a bare port where the machine lacks the other.
pub fn listen(variable: &str, wanted: &Listen) -> Result<Vec<TcpListener>, StartError> {
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
            Err(error) => return Err(StartError::occupied(variable, address, &error)),
        }
    }
    match lacking {
        Some((address, error)) if listeners.is_empty() => {
            Err(StartError::occupied(variable, address, &error))
        }
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

/// The same sockets, for one more thread to accept from.
pub fn share(listeners: &[TcpListener]) -> Result<Vec<TcpListener>, StartError> {
    let shared = listeners.iter().map(TcpListener::try_clone).collect::<io::Result<_>>();
    shared.map_err(|error| StartError::system(&error))
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

/// How far what was written has come (rule S5); nowhere, if the kernel does not tell.
#[cfg(target_os = "linux")]
pub fn progress(socket: &impl AsFd) -> Progress {
    let Ok(info) = getsockopt(socket, TcpInfo) else { return Progress::default() };
    let sent_once = info.bytes_sent.saturating_sub(info.bytes_retrans);
    let in_flight = sent_once.saturating_sub(info.bytes_acked);
    Progress {
        acked: info.bytes_acked,
        waiting: in_flight + u64::from(info.notsent_bytes),
        received: info.bytes_received,
    }
}

/// The kernel does not tell.
#[cfg(not(target_os = "linux"))]
pub fn progress(_: &impl AsFd) -> Progress {
    Progress::default()
}

#[cfg(target_os = "linux")]
sockopt_impl!(
    /// `TCP_INFO`, of which neither nix nor socket2 has a safe form.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfoHead
);

/// The head of `struct tcp_info` (`linux/tcp.h`). The kernel fills in as much of it as is asked for, and later
/// versions only add to its end: this part has been there since Linux 4.19. (libc's ends later, and nix wants
/// all of it.)
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Debug)]
pub struct TcpInfoHead {
    state_to_options: [u8; 8],
    rto_to_total_retrans: [u32; 24],
    pacing_rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
    segs: [u32; 2],
    notsent_bytes: u32,
    min_rtt_to_data_segs_out: [u32; 3],
    delivery_rate_to_sndbuf_limited: [u64; 4],
    delivered: [u32; 2],
    bytes_sent: u64,
    bytes_retrans: u64,
}

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

    use super::*;

    fn any_port(addresses: &[&str]) -> Listen {
        Listen { addresses: addresses.iter().map(|text| text.parse().unwrap()).collect() }
    }

    #[test]
    fn both_families_share_a_port() {
        let listeners = listen("RELAY_ADDR", &any_port(&["[::]:0", "0.0.0.0:0"])).unwrap();
        let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn an_occupied_port_is_named_with_its_remedy() {
        let first = listen("RELAY_ADDR", &any_port(&["127.0.0.1:0"])).unwrap();
        let address = first[0].local_addr().unwrap();
        let error = listen("RELAY_ADDR", &Listen { addresses: vec![address] }).unwrap_err().to_string();
        assert!(error.contains(&format!("{address}")) && error.contains("RELAY_ADDR"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn s5_bytes_are_waiting_until_they_are_acknowledged() {
        let listener = listen("RELAY_ADDR", &any_port(&["127.0.0.1:0"])).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut near, _) = listener.accept().unwrap();
        tune(&near);
        assert_eq!(progress(&near), Progress::default());

        near.write_all(&[7; 1000]).unwrap();
        // A byte on the way back carries the acknowledgement of all that was read before it was sent.
        far.read_exact(&mut [0; 1000]).unwrap();
        far.write_all(&[7]).unwrap();
        near.read_exact(&mut [0]).unwrap();
        assert_eq!(progress(&near), Progress { acked: 1000, waiting: 0, received: 1 });

        near.set_nonblocking(true).unwrap();
        let mut written = 1000;
        while let Ok(len) = near.write(&[7; 8192]) {
            written += len as u64;
        }
        let full = progress(&near);
        assert_eq!(full.acked + full.waiting, written, "the peer does not read, so most of it waits");
        assert!(full.waiting > 0);
    }
}
