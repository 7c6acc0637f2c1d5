//! One [`Relay`] shared by the connection tasks of one thread.
//!
//! The hub stamps each event with both clocks and puts each action where the task of its connection will
//! find it. It knows no runtime: a task waits with the [`Waker`](core::task::Waker) that its runtime gave it. Nothing here is
//! borrowed across an await.
//!
//! ```text
//! open(ip) ─► Connection ─┬─ connect(head) ──► Answered: only an answer will be written
//!                         │                ├─► Upgraded: frames follow
//!                         │                └─► Elsewhere: on to another shard's hub, and there take_over(pass)
//!                         ├─ message, ping, pong, peer_close, fault      (the reading task)
//!                         ├─ next_write ─► write it ─► sent               (the writing task)
//!                         └─ until_end(…)   ends when the machine says so; dropping it is Disconnect
//! ```

mod board;

use core::cell::RefCell;
use core::fmt;
use core::future::{Future, poll_fn};
use core::net::IpAddr;
use core::pin::{Pin, pin};
use core::task::Poll;
use std::boxed::Box;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use std::vec::Vec;

use bytes::Bytes;

use crate::config::Config;
use crate::event::{ConnId, Event, Fault, Notice, Progress};
use crate::frame::Batch;
use crate::http::Request;
use crate::record::{Recorder, Tape};
use crate::relay::Relay;
use crate::shard::{Pass, Shard};
use crate::stats::Stats;
use crate::time::Now;
use board::{Board, Desk, LastWrite, Process, remember, wake};

/// A handle to the machine and to the board on which it leaves its actions. Clones share both.
#[derive(Clone)]
pub struct Hub(Rc<Shared>);

struct Shared {
    origin: Instant,
    relay: RefCell<Relay>,
    recorder: Option<RefCell<Recorder>>,
    board: RefCell<Board>,
}

/// How often one connection is read before others get their turn. A runtime polls a task for as long as it finds
/// something to read, and a fast sender always leaves something.
const READS_PER_TURN: u8 = 2;

/// What a request head led to.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Only an answer will be written: read and discard.
    #[default]
    Answered,
    /// Frames follow.
    Upgraded,
    /// The room is in another shard: its [`Hub::take_over`] wants the pass, then the same request. Here the connection
    /// has ended.
    Elsewhere {
        /// Counted from 0.
        shard: usize,
        /// To be given to that shard.
        pass: Pass,
    },
}

/// Something to write, and what is to happen then.
#[derive(Debug, PartialEq, Eq)]
pub enum Write {
    /// Write all of it, flush, report [`Connection::sent`], ask for more.
    Continue(Batch),
    /// Write all of it, flush, shut down writing; read and discard until the peer ends or the machine says so.
    Finish(Batch),
}

impl Hub {
    /// A hub around a new machine. `notices` hears what a log wants to know.
    pub fn new(config: Config, seed: [u8; 32], notices: impl FnMut(Notice<'_>) + 'static) -> Self {
        Self::build(Relay::new(config, seed), clock().0, None, notices)
    }

    /// The same for one of several machines that are one relay. All of them count time from one `origin`.
    pub fn of_shard(
        config: Config,
        seed: [u8; 32],
        shard: Shard,
        origin: Instant,
        notices: impl FnMut(Notice<'_>) + 'static,
    ) -> Self {
        Self::build(Relay::of_shard(config, seed, shard), origin, None, notices)
    }

    /// The same, with all that happens recorded on a tape.
    pub fn recorded(
        config: Config,
        seed: [u8; 32],
        tape: Box<dyn Tape>,
        notices: impl FnMut(Notice<'_>) + 'static,
    ) -> Self {
        let recorder = Recorder::new(&config, seed, tape);
        Self::build(Relay::new(config, seed), clock().0, Some(recorder), notices)
    }

    fn build(
        relay: Relay,
        origin: Instant,
        recorder: Option<Recorder>,
        notices: impl FnMut(Notice<'_>) + 'static,
    ) -> Self {
        Self(Rc::new(Shared {
            origin,
            relay: RefCell::new(relay),
            recorder: recorder.map(RefCell::new),
            board: RefCell::new(Board {
                desks: Vec::new(),
                timer: None,
                verdict: Verdict::default(),
                process: Process::default(),
                notices: Box::new(notices),
            }),
        }))
    }

    /// A socket was accepted. `None`: close it at once.
    pub fn open(&self, ip: IpAddr) -> Option<Connection> {
        let board = &mut *self.0.board.borrow_mut();
        let (relay, now) = (&mut *self.0.relay.borrow_mut(), self.now());
        let id = match &self.0.recorder {
            None => relay.open(now, ip, board),
            Some(recorder) => recorder.borrow_mut().open(relay, now, ip, board),
        }?;
        Some(self.seat(board, id))
    }

    /// A connection that another shard has handed over. `None`: close it at once.
    pub fn take_over(&self, pass: Pass) -> Option<Connection> {
        let board = &mut *self.0.board.borrow_mut();
        let id = self.0.relay.borrow_mut().take_over(self.now(), pass, board)?;
        Some(self.seat(board, id))
    }

    fn seat(&self, board: &mut Board, id: ConnId) -> Connection {
        board.seat(id);
        board.wake_timer();
        Connection { hub: self.clone(), id }
    }

    /// Stop in good order (rule D1).
    pub fn drain(&self) {
        self.handle(Event::Drain);
    }

    /// Another shard has said that there is something to see.
    pub fn tick(&self) {
        self.handle(Event::Tick);
    }

    /// Ends every connection at once and without a word: what is left to their tasks is to find out.
    pub fn end_all(&self) {
        let board = &mut *self.0.board.borrow_mut();
        for conn in board.desks.iter().filter_map(|desk| desk.owner).collect::<Vec<_>>() {
            board.end(conn);
        }
    }

    /// Waits until a drain is over, in this shard. On the way, whenever the other shards are to be sent a
    /// [`tick`](Self::tick), calls `tick_others`.
    pub async fn drained(&self, tick_others: impl Fn()) {
        poll_fn(|cx| {
            let process = &mut self.0.board.borrow_mut().process;
            if core::mem::take(&mut process.tick_others) {
                tick_others();
            }
            if process.exit {
                return Poll::Ready(());
            }
            remember(&mut process.waker, cx);
            Poll::Pending
        })
        .await;
    }

    /// Fires what is due, then waits until the next deadline, for ever. `sleep` is the runtime's timer; it
    /// is dropped when an earlier deadline comes up.
    pub async fn run_timer<F: Future>(&self, sleep: impl Fn(Option<Instant>) -> F) {
        loop {
            let armed = self.deadline();
            let mut sleeping = pin!(sleep(armed));
            poll_fn(|cx| {
                self.0.board.borrow_mut().timer = Some(cx.waker().clone());
                if self.deadline() != armed {
                    return Poll::Ready(());
                }
                sleeping.as_mut().poll(cx).map(|_| ())
            })
            .await;
            self.handle(Event::Tick);
        }
    }

    /// Reads the counters.
    pub fn with_stats<T>(&self, read: impl FnOnce(&Stats) -> T) -> T {
        read(self.0.relay.borrow().stats())
    }

    /// Deadlines to come are met at whole milliseconds, so that many that are close together are one.
    fn deadline(&self) -> Option<Instant> {
        let (at, _) = self.0.relay.borrow().next_deadline()?;
        let at = if at > self.now().monotonic { whole_millis(at) } else { at };
        self.0.origin.checked_add(at)
    }

    fn now(&self) -> Now {
        let (instant, unix) = clock();
        Now { monotonic: instant.saturating_duration_since(self.0.origin), unix }
    }

    fn handle(&self, event: Event<'_>) {
        let now = self.now();
        let mut relay = self.0.relay.borrow_mut();
        let before = relay.next_deadline();
        let board = &mut *self.0.board.borrow_mut();
        match &self.0.recorder {
            None => relay.handle(now, event, board),
            Some(recorder) => recorder.borrow_mut().handle(&mut relay, now, event, board),
        }
        if relay.next_deadline().map(|(at, _)| at) < before.map(|(at, _)| at) || before.is_none() {
            board.wake_timer();
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

fn whole_millis(at: Duration) -> Duration {
    let millis = at.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).map_or(at, Duration::from_millis)
}

/// The one place where this crate reads clocks.
#[expect(clippy::disallowed_methods, reason = "the hub stamps events; the machine never asks")]
fn clock() -> (Instant, Duration) {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), unix)
}

/// One accepted socket, as its tasks see it. Dropping it tells the machine that the socket is gone.
#[derive(Debug)]
pub struct Connection {
    hub: Hub,
    id: ConnId,
}

impl Connection {
    /// The request head is whole: what the machine makes of it.
    pub fn connect(&self, request: &Request<'_>) -> Verdict {
        self.hub.handle(Event::Connect { conn: self.id, request });
        let board = &mut *self.hub.0.board.borrow_mut();
        let verdict = core::mem::take(&mut board.verdict);
        if let Verdict::Elsewhere { .. } = verdict {
            board.end(self.id);
        }
        verdict
    }

    /// A whole message was read.
    pub fn message(&self, payload: Bytes) {
        self.hub.handle(Event::Message { conn: self.id, payload });
    }

    /// A ping was read.
    pub fn ping(&self, payload: Bytes) {
        self.hub.handle(Event::Ping { conn: self.id, payload });
    }

    /// A pong was read.
    pub fn pong(&self) {
        self.hub.handle(Event::Pong { conn: self.id });
    }

    /// A close frame was read.
    pub fn peer_close(&self, code: Option<u16>) {
        self.hub.handle(Event::PeerClose { conn: self.id, code });
    }

    /// The peer broke a rule; from now on discard what it sends.
    pub fn fault(&self, fault: Fault) {
        self.hub.handle(Event::Fault { conn: self.id, fault });
    }

    /// The last [`Write`] has reached the kernel.
    pub fn sent(&self) {
        self.hub.handle(Event::Sent { conn: self.id });
        if self.desk(|desk| desk.last_write == LastWrite::Taken) == Some(true) {
            self.wrote_the_last();
        }
    }

    /// Nothing can be written any more. What the peer sent before is still to be read.
    pub fn write_failed(&self) {
        self.wrote_the_last();
    }

    fn wrote_the_last(&self) {
        self.desk(|desk| {
            desk.last_write = LastWrite::Done;
            wake(desk.reader.as_ref());
        });
    }

    /// The socket is gone. Also said by dropping.
    pub fn disconnect(&self) {
        self.hub.handle(Event::Disconnect { conn: self.id });
        self.hub.0.board.borrow_mut().end(self.id);
    }

    /// Waits for something to write.
    pub async fn next_write(&self) -> Write {
        poll_fn(|cx| {
            self.desk(|desk| {
                if let Some(write) = desk.write.take() {
                    if let Write::Finish(_) = write {
                        desk.last_write = LastWrite::Taken;
                    }
                    return Poll::Ready(write);
                }
                remember(&mut desk.writer, cx);
                Poll::Pending
            })
            .unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Waits until the last [`Write`] has reached the kernel or failed, where one is sure to come: after an
    /// answer, a close frame or a fault. A peer that has finished sending may still want to read it.
    pub async fn finished(&self) {
        poll_fn(|cx| {
            self.desk(|desk| {
                if desk.last_write == LastWrite::Done {
                    return Poll::Ready(());
                }
                remember(&mut desk.reader, cx);
                Poll::Pending
            })
            .unwrap_or(Poll::Ready(()))
        })
        .await;
    }

    /// Whether the sender is over its receive limit.
    pub fn is_paused(&self) -> bool {
        self.desk(|desk| desk.paused).unwrap_or(false)
    }

    /// Waits before more is read: while the sender is over its receive limit, and now and then for a
    /// moment, so that one that never stops starves nobody.
    pub async fn readable(&self) {
        poll_fn(|cx| {
            self.desk(|desk| {
                if desk.paused {
                    remember(&mut desk.reader, cx);
                    return Poll::Pending;
                }
                desk.turn = (desk.turn + 1) % READS_PER_TURN;
                if desk.turn == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .unwrap_or(Poll::Ready(()))
        })
        .await;
    }

    /// Runs `work` until it is done or the connection has ended. `progress` answers the machine's
    /// question how far the bytes have come.
    pub async fn until_end<T>(
        &self,
        progress: impl Fn() -> Progress,
        // Pinned by the caller: an argument would be in this future twice.
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        poll_fn(|cx| {
            let Some(probed) = self.desk(|desk| {
                remember(&mut desk.writer, cx);
                core::mem::take(&mut desk.probed)
            }) else {
                return Poll::Ready(None);
            };
            if probed {
                self.hub.handle(Event::Acked { conn: self.id, progress: progress() });
            }
            let done = work.as_mut().poll(cx).map(Some);
            // The work itself may have led to the end.
            if done.is_pending() && self.desk(|_| ()).is_none() { Poll::Ready(None) } else { done }
        })
        .await
    }

    /// Visits the desk of this connection while it lives.
    fn desk<T>(&self, visit: impl FnOnce(&mut Desk) -> T) -> Option<T> {
        let mut board = self.hub.0.board.borrow_mut();
        board.desks.get_mut(self.id.slot()).filter(|desk| desk.owner == Some(self.id)).map(visit)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.disconnect();
    }
}
