//! Clients that do what clients do, good and bad, and expect little of any answer.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use conformance::Room;
use conformance::frame::{ClientFrame, opcode};
use conformance::http::Request;
use conformance::room::key;
use socket2::{Domain, SockRef, Socket, Type};

/// What nobody may find in a recording: names, payloads, addresses, and how every token begins.
pub(crate) const SECRETS: [&str; 6] =
    ["secret-room", "secret-peer", "secret-payload", "198.51.100.", "127.0.0.1", "eyJ"];

/// Longer than every time-out of the relay.
const LONG: Duration = Duration::from_millis(1200);
/// Between two attempts to get in.
const PAUSE: Duration = Duration::from_millis(20);
/// Small enough for a receiver that is soon too slow.
const LITTLE_BYTES: usize = 4096;

pub(crate) struct Client {
    address: SocketAddr,
    /// Reproducible as far as it goes: what meets what is decided by the kernel.
    random: u64,
}

/// Where clients meet.
const ROOMS: u64 = 6;
/// How a client asks for something else than to be let in.
const REFUSED: u64 = 12;
/// How a member ends.
const ENDINGS: u64 = 8;

impl Client {
    pub(crate) fn new(address: SocketAddr, seed: u64) -> Self {
        Self { address, random: seed }
    }

    /// Something that some client does.
    pub(crate) fn session(&mut self) {
        let room = Room::new(format!("secret-room {}", self.below(ROOMS)));
        if self.below(3) == 0 {
            let what = self.below(REFUSED);
            return self.ask(what, &room);
        }
        let Some(mut member) = self.join(&room) else { return };
        for _ in 0..self.below(60) {
            self.say_something(&mut member);
        }
        let ending = self.below(ENDINGS);
        end(member, ending);
    }

    /// Everything that a relay may be met with, once, on purpose.
    pub(crate) fn tour(&mut self) {
        let room = Room::new("secret-room of the tour");
        let mut host = self.join_surely(&room);
        for what in 0..REFUSED {
            self.ask(what, &room);
        }
        for ending in 0..ENDINGS {
            end(self.join_surely(&room), ending);
        }
        // One address, too often.
        let (mut often, mut answer) = ([0; 20].map(|_| self.dial()), [0; 1]);
        for stream in &mut often {
            send(stream, Request::upgrade("/ws").with("X-Real-IP", "198.51.100.250").encode());
        }
        for stream in &mut often {
            let _ = stream.read(&mut answer);
        }

        // One who does not read, one who sends too fast, and more than there is room for.
        let mut stalled = self.join_surely(&room);
        let chunk = ClientFrame::new(opcode::BINARY, vec![b'x'; 19_000]).encode();
        (0..300).for_each(|_| send(&mut host, &chunk));
        let crowded: Vec<_> = (0..8).map(|_| self.join(&room)).collect();
        (0..900).for_each(|n: u32| send(&mut host, ClientFrame::new(opcode::TEXT, n.to_string()).encode()));
        pass(LONG);
        // What is in front of its close frame was as much as fits.
        while stalled.read(&mut [0; LITTLE_BYTES]).is_ok_and(|len| len > 0) {}
        drop((stalled, host, crowded));

        // Nobody says a word, and somebody not even which one.
        let _quiet = self.join_surely(&Room::new("secret-room of the quiet"));
        let _silent: Vec<_> = (0..60).map(|_| self.dial()).collect();
        pass(LONG);
    }

    /// Asks at every door until nobody is behind any.
    pub(crate) fn finds_nobody(&mut self) {
        for number in 0..ROOMS {
            let room = Room::new(format!("secret-room {number}"));
            let request = Request::upgrade(&room.guest_target("secret-peer")).encode();
            let is_gone = (0..500).any(|_| {
                let (mut stream, mut status) = (self.dial(), [0; 12]);
                send(&mut stream, &request);
                let gone = stream.read_exact(&mut status).is_ok() && status.ends_with(b"404");
                // The visit must have ended before the next.
                send(&mut stream, ClientFrame::close(1000, "").encode());
                while stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {}
                if !gone {
                    pass(PAUSE);
                }
                gone
            });
            assert!(is_gone, "somebody is still in {}", room.id);
        }
    }

    /// Some who stay until the relay ends.
    pub(crate) fn stay(&mut self) -> Vec<TcpStream> {
        (0..3).map(|number| self.join_surely(&Room::new(format!("secret-room {number}")))).collect()
    }

    fn ask(&mut self, what: u64, room: &Room) {
        let other = Room::new("secret-room elsewhere");
        let mut stranger = room.clone();
        stranger.key = key("stranger");
        let mut expired = room.claims("secret-peer", "host");
        expired["exp"] = 1.into();
        let upgrade = |target: String| Request::upgrade(&target);
        let mut request = match what {
            0 => Request::get("/health"),
            1 => Request::new("HEAD", "/"),
            2 => Request::new("POST", "/ws").with("Content-Length", "5"),
            3 => Request::new("PUT", "/ws"),
            4 => Request::get("/secret-payload"),
            5 => Request::get(&room.host_target("secret-peer")),
            6 => upgrade(stranger.host_target("secret-peer")),
            7 => upgrade(room.host_target_with(&room.sign(&expired))),
            8 => upgrade(room.guest_target_with(&other.token("secret-peer", "guest"))),
            9 => upgrade(other.guest_target("secret-peer")).with("Accept", "application/json"),
            10 => Request::get("/").with_fields(80),
            _ => upgrade("/ws?room=%01&token=secret-payload".to_owned()),
        };
        request = request.with("X-Forwarded-For", &self.some_address());
        let mut stream = self.dial();
        send(&mut stream, request.encode());
        while stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {}
    }

    fn join_surely(&mut self, room: &Room) -> TcpStream {
        (0..500)
            .find_map(|_| {
                self.join(room).or_else(|| {
                    pass(PAUSE);
                    None
                })
            })
            .expect("it is let in at last")
    }

    fn join(&mut self, room: &Room) -> Option<TcpStream> {
        let peer = format!("secret-peer \"{}\"", self.below(8));
        let target = if self.below(3) > 0 { room.host_target(&peer) } else { room.guest_target(&peer) };
        let mut stream = self.dial();
        let request = Request::upgrade(&target).with("X-Forwarded-For", &self.some_address());
        send(&mut stream, request.encode());
        let mut status = [0; 12];
        (stream.read_exact(&mut status).is_ok() && status.ends_with(b"101")).then_some(stream)
    }

    fn say_something(&mut self, member: &mut TcpStream) {
        let announced = format!(r#"{{"p":"secret-payload","from":"secret-peer \"{}\""}}"#, self.below(8));
        let length = usize::try_from(self.below(3000)).unwrap_or_default();
        let (code, payload) = match self.below(12) {
            0 => (opcode::TEXT, announced.into_bytes()),
            1 => (opcode::TEXT, announced.replace(',', ",\n").into_bytes()),
            2 => (opcode::PING, b"secret-payload".to_vec()),
            3 => (opcode::PONG, Vec::new()),
            4 => (opcode::BINARY, vec![b'x'; length]),
            5..=7 => (opcode::BINARY, [b"KV secret-payload".as_slice(), &vec![0; length / 8]].concat()),
            8..=9 => (opcode::TEXT, format!("{{{:length$}}}", "").into_bytes()),
            // Takes what is there; who does so seldom enough is too slow.
            _ => {
                member.set_nonblocking(true).expect("a socket can");
                while member.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {}
                return member.set_nonblocking(false).expect("a socket can");
            }
        };
        send(member, ClientFrame::new(code, payload).encode());
    }

    fn dial(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there are sockets");
        socket.set_recv_buffer_size(LITTLE_BYTES).expect("a socket has a buffer");
        socket.connect(&self.address.into()).expect("the relay listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LONG)).expect("a socket takes a time-out");
        stream.set_write_timeout(Some(LONG)).expect("a socket takes a time-out");
        stream
    }

    fn some_address(&mut self) -> String {
        format!("198.51.100.{}", self.below(200))
    }

    /// `SplitMix64`.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 27)) >> 16) % bound
    }
}

fn end(mut member: TcpStream, ending: u64) {
    let last = match ending {
        0 => ClientFrame::close(1000, "secret-payload"),
        1 => ClientFrame::new(opcode::CLOSE, ""),
        2 => ClientFrame::new(opcode::BINARY, "").declaring(20_001),
        3 => ClientFrame::new(opcode::TEXT, b"\xFF"),
        4 => ClientFrame::new(opcode::BINARY, "").unmasked(),
        5 => return drop(member.shutdown(Shutdown::Write)),
        6 => return SockRef::from(&member).set_linger(Some(Duration::ZERO)).expect("a socket can"),
        _ => return,
    };
    send(&mut member, last.encode());
    while member.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {}
}

/// The relay may have closed: that is its right.
fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref());
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is waited for is that the relay does something by itself"
)]
fn pass(time: Duration) {
    sleep(time);
}
