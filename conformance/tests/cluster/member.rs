//! A client that comes again whenever it is let go, as `docs/protocol.md` advises.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use conformance::Room;
use conformance::frame::{ClientFrame, ServerFrame, opcode};
use conformance::http::Request;
use serde_json::Value;

/// Who it is about, and what happened.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) room: usize,
    pub(crate) seat: usize,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Joined,
    /// The code of the close frame, if there was one.
    Left(Option<u16>),
    Heard {
        from: usize,
        round: u32,
    },
}

/// The hand that speaks; the ear is a thread.
pub(crate) struct Member {
    socket: Arc<Mutex<Option<TcpStream>>>,
    seat: usize,
}

impl Member {
    /// Seat 0 is the host's.
    pub(crate) fn new(room: usize, seat: usize, balancer: SocketAddr, events: Sender<Event>) -> Self {
        let place = Room::new(format!("call {room}"));
        let target = match seat {
            0 => place.host_target("0"),
            // Another way to write a space: the same room.
            1 => place.guest_target("1").replace("%20", "+"),
            _ => place.guest_target(&seat.to_string()),
        };
        let socket = Arc::new(Mutex::new(None));
        let client = Client {
            balancer,
            target,
            socket: Arc::clone(&socket),
            random: (room * 10 + seat) as u64,
            say: Box::new(move |what| events.send(Event { room, seat, what }).is_ok()),
        };
        thread::spawn(move || client.run());
        Self { socket, seat }
    }

    /// Says something, if it is connected. It may be on its way out.
    pub(crate) fn speak(&self, round: u32) {
        if let Some(socket) = &mut *self.socket.lock().expect("nobody panics with it") {
            let text = format!(r#"{{"from":"{}","round":{round}}}"#, self.seat);
            let _ = socket.write_all(&ClientFrame::new(opcode::TEXT, text).encode());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(socket) = &*self.socket.lock().expect("nobody panics with it") {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

struct Client {
    balancer: SocketAddr,
    target: String,
    socket: Arc<Mutex<Option<TcpStream>>>,
    random: u64,
    /// False: nobody wants to know any more.
    say: Box<dyn Fn(What) -> bool + Send>,
}

impl Client {
    fn run(mut self) {
        let mut attempt = 0;
        loop {
            match self.join() {
                Ok((stream, received)) => {
                    attempt = 0;
                    *self.socket.lock().expect("nobody panics with it") = stream.try_clone().ok();
                    if !(self.say)(What::Joined) {
                        return;
                    }
                    let code = self.listen(stream, received);
                    *self.socket.lock().expect("nobody panics with it") = None;
                    if !(self.say)(What::Left(code)) {
                        return;
                    }
                }
                Err(retry_after) => pass(retry_after),
            }
            // Full jitter.
            let most = Duration::from_secs(1 << attempt.min(4)).as_millis();
            pass(Duration::from_millis(self.below(u64::try_from(most).expect("seconds"))));
            attempt += 1;
        }
    }

    /// An error is the time to wait before the next attempt.
    fn join(&self) -> Result<(TcpStream, BytesMut), Duration> {
        let at_once = |_| Duration::ZERO;
        let mut stream = TcpStream::connect(self.balancer).map_err(at_once)?;
        stream.write_all(&Request::upgrade(&self.target).encode()).map_err(at_once)?;
        let (mut head, mut buffer) = (BytesMut::new(), [0; 4096]);
        let end = loop {
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer).map_err(at_once)? {
                0 => return Err(Duration::ZERO),
                len => head.extend_from_slice(&buffer[..len]),
            }
        };
        let text = String::from_utf8_lossy(&head[..end]).to_lowercase();
        if text.starts_with("http/1.1 101") {
            return Ok((stream, head.split_off(end)));
        }
        let worth_another = ["http/1.1 404", "http/1.1 503"].iter().any(|status| text.starts_with(status));
        assert!(worth_another, "refused for good: {text}");
        let seconds =
            text.split_once("\nretry-after: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        Err(Duration::from_secs(seconds.unwrap_or(0)))
    }

    fn listen(&self, mut stream: TcpStream, mut received: BytesMut) -> Option<u16> {
        let mut buffer = [0; 4096];
        loop {
            while let Some(frame) = ServerFrame::take(&mut received).expect("a relay speaks WebSocket") {
                match frame.opcode {
                    opcode::BINARY => self.hear(&frame.payload),
                    opcode::CLOSE => {
                        let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                        let _ = stream.write_all(&ClientFrame::new(opcode::CLOSE, frame.payload).encode());
                        return code;
                    }
                    opcode::PING => {
                        let _ = stream.write_all(&ClientFrame::new(opcode::PONG, frame.payload).encode());
                    }
                    _ => {}
                }
            }
            match stream.read(&mut buffer) {
                Ok(len @ 1..) => received.extend_from_slice(&buffer[..len]),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// A message may be several (rule M3); a leave notice has no round.
    fn hear(&self, payload: &[u8]) {
        for line in payload.split(|byte| *byte == b'\n') {
            let message: Value = serde_json::from_slice(line).expect("members speak JSON");
            if let Some(round) = message["round"].as_u64() {
                let from = message["from"].as_str().and_then(|from| from.parse().ok()).expect("a seat");
                let round = u32::try_from(round).expect("not so many");
                (self.say)(What::Heard { from, round });
            }
        }
    }

    /// `SplitMix64`.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 27)) >> 16) % bound
    }
}

#[expect(clippy::disallowed_methods, reason = "this is what a client is told to do")]
fn pass(time: Duration) {
    thread::sleep(time);
}
