//! What each operation does to the world.

use std::time::Duration;

use relay_proto::{Event, Role};

use crate::frame::{ClientFrame, opcode};

use super::call::{Ask, Call, PEERS};
use super::client::Pace;
use super::invariants::Violation;
use super::op::Op;
use super::world::World;

/// Padding of a message, in bytes, by operand.
const SIZES: [usize; 16] = [0, 0, 5, 10, 20, 40, 60, 100, 130, 200, 400, 900, 1000, 3000, 20_000, 70_000];
/// Milliseconds, by operand.
const TIMES: [u64; 16] = [0, 1, 1, 2, 2, 3, 5, 10, 20, 50, 100, 200, 400, 1000, 2000, 5000];
/// Bytes per turn of a slow client, by operand.
const PACES: [usize; 6] = [1, 7, 50, 200, 1000, 5000];
/// Close codes of clients, by operand.
const CODES: [Option<u16>; 5] = [None, Some(1000), Some(1001), Some(3000), Some(4999)];

fn time(operand: u16) -> Duration {
    Duration::from_millis(TIMES[usize::from(operand) % TIMES.len()])
}

fn padding(operand: u16) -> usize {
    SIZES[usize::from(operand) % SIZES.len()]
}

fn call(room: u16, peer: u16, role: Role) -> Call {
    let (room, peer) = (usize::from(room) % 4, usize::from(peer) % PEERS.len());
    Call { room, peer, role, key: 0, ask: Ask::Room, proxied: false }
}

impl World {
    /// Applies an operation; nothing else happens yet, unless it is about time.
    pub(crate) fn apply(&mut self, op: Op) -> Result<(), Violation> {
        match op {
            Op::Host { ip, room, peer } => self.ask(ip, call(room, peer, Role::Host)),
            Op::Guest { ip, room, peer } => self.ask(ip, call(room, peer, Role::Guest)),
            Op::Stranger { ip, room, peer } => self.ask(ip, Call { key: 1, ..call(room, peer, Role::Host) }),
            Op::Ask { ip, room, what } => {
                self.ask(ip, Call { ask: Ask::number(what), ..call(room, 0, Role::Host) })
            }
            Op::Half { ip, room, part } => self.ask_in_part(ip, call(room, 0, Role::Guest), part),
            Op::Early { ip, room, peer } => self.ask_early(ip, call(room, peer, Role::Guest)),
            Op::Again { who } => match self.client(who) {
                Some(index) => self.ask(u16::from(index % 2 == 0), self.clients[index].call),
                None => Ok(()),
            },
            Op::Pass { time: operand } => self.run_until(self.now + time(operand)),
            Op::Drain {} => self.handle(&Event::Drain, None),
            other => {
                self.turn(other);
                self.say(other);
                self.harm(other);
                Ok(())
            }
        }
    }

    /// Clocks, the timer, and the order of things.
    fn turn(&mut self, op: Op) {
        match op {
            Op::Suspend { seconds } => self.now += Duration::from_secs(seconds.into()),
            Op::Wall { minutes } => self.wall = (i64::from(minutes) - 60) * 60,
            Op::Late { time: operand } => self.late = time(operand),
            Op::Order { how } => self.order = how,
            // What comes together is decided where the operations come from.
            _ => {}
        }
    }

    /// What a client sends.
    fn say(&mut self, op: Op) {
        match op {
            Op::Voice { who, size, times } => self.send(who, times, |number| voice(number, padding(size))),
            Op::Data { who, kind, size, times } => {
                self.send(who, times, |number| data(kind, number, padding(size)));
            }
            Op::Announce { who, peer } => self.send(who, 0, |number| announcement(number, peer)),
            Op::Garbage { who, kind } => self.send(who, 0, |_| garbage(kind)),
            Op::Ping { who, len } => self.ping(who, len),
            Op::Pong { who } => self.send(who, 0, |_| ClientFrame::new(opcode::PONG, "").encode()),
            Op::Bye { who, code } => {
                if let Some(index) = self.speaker(who) {
                    self.clients[index].say_goodbye(CODES[usize::from(code) % CODES.len()]);
                }
            }
            _ => {}
        }
    }

    /// What goes wrong between a client and the relay.
    fn harm(&mut self, op: Op) {
        let (Op::Mute { who }
        | Op::Stall { who }
        | Op::Slow { who, .. }
        | Op::Resume { who }
        | Op::Delay { who, .. }
        | Op::Finish { who }
        | Op::HangUp { who }
        | Op::Reset { who }
        | Op::Die { who }) = op
        else {
            return;
        };
        let Some(index) = self.client(who) else { return };
        let (client, socket) = (&mut self.clients[index], &mut self.sockets[index]);
        match op {
            Op::Stall { .. } => client.pace = Pace::Stalled,
            Op::Slow { pace, .. } => client.pace = Pace::Slow(PACES[usize::from(pace) % PACES.len()]),
            Op::Resume { .. } => client.pace = Pace::Free,
            Op::Mute { .. } => client.mute(),
            Op::Delay { time: operand, .. } => {
                socket.inbound.delay(time(operand));
                socket.outbound.delay(time(operand));
            }
            Op::Finish { .. } => client.finish(),
            Op::HangUp { .. } => {
                client.abandon();
                socket.inbound.finish();
                socket.outbound.ignore();
            }
            Op::Reset { .. } => {
                client.abandon();
                socket.break_off();
            }
            Op::Die { .. } => {
                client.die();
                socket.inbound.die();
                socket.outbound.die();
            }
            _ => {}
        }
    }

    /// Clients by their place among those that are there, counted from the youngest.
    fn client(&self, who: u16) -> Option<usize> {
        let there: Vec<usize> =
            self.live.iter().copied().filter(|index| !self.clients[*index].is_gone()).collect();
        let place = usize::from(who).checked_rem(there.len())?;
        Some(there[there.len() - 1 - place])
    }

    fn speaker(&self, who: u16) -> Option<usize> {
        let there: Vec<usize> =
            self.live.iter().copied().filter(|index| self.clients[*index].speaks()).collect();
        let place = usize::from(who).checked_rem(there.len())?;
        Some(there[there.len() - 1 - place])
    }

    fn ask(&mut self, ip: u16, call: Call) -> Result<(), Violation> {
        let index = self.dial(ip, call)?;
        let bytes = self.clients[index].call.bytes();
        self.clients[index].send(&bytes);
        Ok(())
    }

    fn ask_in_part(&mut self, ip: u16, call: Call, part: u16) -> Result<(), Violation> {
        let index = self.dial(ip, call)?;
        let bytes = self.clients[index].call.bytes();
        self.clients[index].send(&bytes[..bytes.len() * usize::from(part % 16) / 16]);
        Ok(())
    }

    fn ask_early(&mut self, ip: u16, call: Call) -> Result<(), Violation> {
        self.ask(ip, call)?;
        let index = self.clients.len() - 1;
        self.number += 1;
        self.clients[index].send(&data(0, self.number, 0));
        Ok(())
    }

    /// A client sends several of one kind.
    fn send(&mut self, who: u16, times: u16, what: impl Fn(u64) -> Vec<u8>) {
        let Some(index) = self.speaker(who) else { return };
        for _ in 0..=times {
            self.number += 1;
            self.clients[index].send(&what(self.number));
        }
    }

    fn ping(&mut self, who: u16, len: u16) {
        let Some(index) = self.speaker(who) else { return };
        self.number += 1;
        let mut payload = self.number.to_string().into_bytes();
        payload.resize(payload.len().max(usize::from(len)).min(125), b'p');
        self.clients[index].send(&ClientFrame::new(opcode::PING, &payload).encode());
        self.clients[index].pings.push_back(payload);
    }
}

fn voice(number: u64, padding: usize) -> Vec<u8> {
    ClientFrame::new(opcode::BINARY, format!("KV{number} {}", "v".repeat(padding))).encode()
}

/// One line of JSON, several, text, bytes, and one line in fragments with a ping between them.
fn data(kind: u16, number: u64, padding: usize) -> Vec<u8> {
    let padding = "x".repeat(padding);
    let line = format!(r#"{{"n":{number},"pad":"{padding}"}}"#);
    match kind {
        0 => ClientFrame::new(opcode::TEXT, line).encode(),
        1 => ClientFrame::new(opcode::TEXT, format!("{{\"n\":{number},\n\"pad\":\"{padding}\"}}")).encode(),
        2 => ClientFrame::new(opcode::TEXT, format!("text {number} é {padding}")).encode(),
        3 => {
            let bytes = [b"\0\xff\n{".as_slice(), number.to_string().as_bytes(), padding.as_bytes()].concat();
            ClientFrame::new(opcode::BINARY, bytes).encode()
        }
        _ => {
            let (first, rest) = line.split_at(line.len() / 2);
            let first = ClientFrame::new(opcode::TEXT, first).unfinished().encode();
            let rest = ClientFrame::new(opcode::CONTINUATION, rest).encode();
            [first, ClientFrame::new(opcode::PONG, "").encode(), rest].concat()
        }
    }
}

fn announcement(number: u64, peer: u16) -> Vec<u8> {
    let from = serde_json::Value::from(PEERS[usize::from(peer) % PEERS.len()]);
    ClientFrame::new(opcode::TEXT, format!(r#"{{"n":{number},"from":{from}}}"#)).encode()
}

fn garbage(kind: u16) -> Vec<u8> {
    match kind {
        0 => ClientFrame::new(opcode::TEXT, "unmasked").unmasked().encode(),
        1 => ClientFrame::new(opcode::TEXT, "reserved").reserved(2).encode(),
        2 => ClientFrame::new(3, "an unknown opcode").encode(),
        3 => ClientFrame::new(opcode::PING, "fragmented").unfinished().encode(),
        4 => ClientFrame::new(opcode::CONTINUATION, "of nothing").encode(),
        5 => ClientFrame::new(opcode::CLOSE, "x").encode(),
        6 => ClientFrame::new(opcode::TEXT, b"\xff\xfe").encode(),
        7 => ClientFrame::new(opcode::BINARY, "").declaring(1 << 40).encode(),
        _ => ClientFrame::close(1005, "").encode(),
    }
}
