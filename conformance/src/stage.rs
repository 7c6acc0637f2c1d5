//! Where a case is played: a host, rooms that nobody else uses, peers with names, and the transcript.

use std::time::Duration;

use crate::host::{Host, PATIENCE, Start};
use crate::http::{Answer, Request};
use crate::peer::Peer;
use crate::room::Room;
use crate::transcript::Transcript;

/// What a case is given.
pub struct Stage<'h> {
    /// The relay under test.
    pub host: &'h dyn Host,
    /// What was seen.
    pub transcript: Transcript,
    /// How to start another relay, where that is possible.
    pub start: Option<Start>,
    run: String,
}

impl<'h> Stage<'h> {
    /// A stage on a host. `run` tells the rooms of this run from those of others.
    pub fn new(host: &'h dyn Host, start: Option<Start>, run: &str) -> Self {
        Self { host, transcript: Transcript::default(), start, run: run.to_owned() }
    }

    /// A room that does not exist yet.
    pub fn room(&self, label: &str) -> Room {
        Room::new(format!("{label} {}", self.run))
    }

    /// A room id of exactly `length` bytes that nobody else uses.
    pub fn room_of(&self, length: usize) -> Room {
        Room::new(format!("{:x<length$}", format!("{} ", self.run)))
    }

    /// Opens a connection and sends nothing yet.
    pub fn dial(&self, name: &str) -> Peer<'h> {
        Peer::new(name, self.host, self.transcript.clone())
    }

    /// Opens a connection that joins a room.
    #[track_caller]
    pub fn join(&self, name: &str, target: &str) -> Peer<'h> {
        let mut peer = self.dial(name);
        let request = Request::upgrade(target);
        peer.bytes(&request.encode());
        peer.upgraded(&request);
        peer
    }

    /// A host joins; its name is its peer id.
    #[track_caller]
    pub fn host(&self, room: &Room, name: &str) -> Peer<'h> {
        self.join(name, &room.host_target(name))
    }

    /// A guest joins; its name is its peer id.
    #[track_caller]
    pub fn guest(&self, room: &Room, name: &str) -> Peer<'h> {
        self.join(name, &room.guest_target(name))
    }

    /// Sends a request that is not granted.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Answer {
        self.dial("client").ask(request)
    }

    /// Sends a request and writes down the whole answer.
    #[track_caller]
    pub fn ask_recorded(&self, what: &str, request: &Request) -> Answer {
        let answer = self.ask(request);
        self.record(what, &answer);
        answer
    }

    /// Sends an opening handshake and expects its refusal.
    #[track_caller]
    pub fn refused(&self, what: &str, target: &str, status: u16, text: &str) -> Answer {
        self.refused_request(what, &Request::upgrade(target), status, text)
    }

    /// Sends a request and expects its refusal.
    #[track_caller]
    pub fn refused_request(&self, what: &str, request: &Request, status: u16, text: &str) -> Answer {
        let answer = self.ask(request);
        self.transcript.note(format!("{what}: {} {}", answer.status, answer.body.trim_end()));
        let expected = format!("{text}\n");
        assert!(
            answer.status == status && (answer.body == expected || request.is_head()),
            "{what}: expected {status} {text}, got {} {:?}",
            answer.status,
            answer.body,
        );
        answer
    }

    /// Writes down an answer.
    pub fn record(&self, what: &str, answer: &Answer) {
        self.transcript.note(format!("{what}: {}", answer.status));
        for (name, value) in &answer.fields {
            self.transcript.note(format!("  {name}: {value}"));
        }
        if !answer.body.is_empty() {
            self.transcript.note(format!("  {}", answer.body.trim_end()));
        }
    }

    /// Proves that nothing else was on its way to `to`: a marker that `from` sends now comes first. It takes
    /// the same path as everything that `from` sent or caused before.
    #[track_caller]
    pub fn fence(&self, from: &mut Peer<'_>, to: &mut [&mut Peer<'_>]) {
        let marker = br#"{"type":"fence"}"#;
        self.transcript.unrecorded(|| {
            from.send(marker);
            for peer in &mut *to {
                peer.expect(marker);
            }
        });
        for peer in to {
            self.transcript.note(format!("{} < nothing else", peer.name()));
        }
    }

    /// Repeats something that is only worth writing down once.
    pub fn repeat(&self, times: usize, mut act: impl FnMut(usize)) {
        act(0);
        self.transcript.unrecorded(|| (1..times).for_each(&mut act));
        self.transcript.note(format!("… {times} times"));
    }

    /// Reads how much time has passed since this was called.
    pub fn stopwatch(&self) -> impl Fn() -> Duration + use<'h> {
        let (host, start) = (self.host, self.host.elapsed());
        move || host.elapsed().saturating_sub(start)
    }

    /// Tries again until something holds, for at most [`PATIENCE`].
    #[track_caller]
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = self.host.elapsed() + PATIENCE;
        while !holds() {
            assert!(self.host.elapsed() < deadline, "{what}: not within {PATIENCE:?}");
            self.host.pass(Duration::from_millis(10));
        }
    }

    /// The transcript with what differs between runs replaced.
    pub fn transcript(&self) -> String {
        self.transcript.to_string().replace(&self.run, "RUN")
    }
}
