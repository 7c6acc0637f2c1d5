//! Where actions lie until the tasks that they are for take them.

use core::task::{Context, Waker};
use std::boxed::Box;
use std::vec::Vec;

use super::{Verdict, Write};
use crate::event::{Action, ConnId, Notice, Sink};
use crate::frame::{Batch, Frame};

/// A desk for each connection, and what is for nobody in particular.
pub(super) struct Board {
    /// By slot.
    pub(super) desks: Vec<Desk>,
    pub(super) timer: Option<Waker>,
    /// Of the request head that the machine was given last.
    pub(super) verdict: Verdict,
    pub(super) process: Process,
    pub(super) notices: Box<dyn FnMut(Notice<'_>)>,
}

/// What the machine wants of its process.
#[derive(Default)]
pub(super) struct Process {
    pub(super) tick_others: bool,
    pub(super) exit: bool,
    pub(super) waker: Option<Waker>,
}

/// What the machine wants of one connection. One `write` is enough: at most one is outstanding.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) owner: Option<ConnId>,
    pub(super) write: Option<Write>,
    pub(super) last_write: LastWrite,
    pub(super) probed: bool,
    pub(super) paused: bool,
    /// Reads in this turn.
    pub(super) turn: u8,
    pub(super) writer: Option<Waker>,
    pub(super) reader: Option<Waker>,
}

/// How far [`Write::Finish`] has come.
#[derive(Default, PartialEq, Eq)]
pub(super) enum LastWrite {
    #[default]
    ToCome,
    Taken,
    Done,
}

impl Board {
    pub(super) fn seat(&mut self, conn: ConnId) {
        if self.desks.len() <= conn.slot() {
            self.desks.resize_with(conn.slot() + 1, Desk::default);
        }
        self.desks[conn.slot()] = Desk { owner: Some(conn), ..Desk::default() };
    }

    fn desk(&mut self, conn: ConnId) -> Option<&mut Desk> {
        self.desks.get_mut(conn.slot()).filter(|desk| desk.owner == Some(conn))
    }

    fn write(&mut self, conn: ConnId, write: Write) {
        if let Some(desk) = self.desk(conn) {
            debug_assert!(desk.write.is_none(), "two writes are outstanding");
            desk.write = Some(write);
            wake(desk.writer.as_ref());
        }
    }

    pub(super) fn wake_timer(&mut self) {
        if let Some(waker) = self.timer.take() {
            waker.wake();
        }
    }

    pub(super) fn end(&mut self, conn: ConnId) {
        if let Some(desk) = self.desk(conn) {
            let ended = core::mem::take(desk);
            wake(ended.writer.as_ref());
            wake(ended.reader.as_ref());
        }
    }
}

impl Sink for Board {
    fn action(&mut self, action: Action) {
        match action {
            Action::Respond { conn, response } => {
                self.write(conn, Write::Finish(Batch::single(response.bytes)));
            }
            Action::Upgrade { conn, response } => {
                self.verdict = Verdict::Upgraded;
                self.write(conn, Write::Continue(Batch::single(response.bytes)));
            }
            Action::Send { conn, batch } => self.write(conn, Write::Continue(batch)),
            Action::Close { conn, code, reason } => {
                self.write(conn, Write::Finish(Frame::close(code, reason).into()));
            }
            Action::Abort { conn } => self.end(conn),
            Action::Probe { conn } => {
                if let Some(desk) = self.desk(conn) {
                    desk.probed = true;
                    wake(desk.writer.as_ref());
                }
            }
            Action::Pause { conn } => {
                if let Some(desk) = self.desk(conn) {
                    desk.paused = true;
                }
            }
            Action::Resume { conn } => {
                if let Some(desk) = self.desk(conn) {
                    desk.paused = false;
                    wake(desk.reader.as_ref());
                }
            }
            // Whoever asked for the verdict will end the desk.
            Action::HandOver { shard, pass, .. } => self.verdict = Verdict::Elsewhere { shard, pass },
            Action::TickOthers => {
                self.process.tick_others = true;
                wake(self.process.waker.as_ref());
            }
            Action::Exit => {
                self.process.exit = true;
                wake(self.process.waker.as_ref());
            }
        }
    }

    fn notice(&mut self, notice: Notice<'_>) {
        (self.notices)(notice);
    }
}

/// A waker of a current-thread runtime puts its task on a list and returns, so this is fine under a borrow.
pub(super) fn wake(waker: Option<&Waker>) {
    if let Some(waker) = waker {
        waker.wake_by_ref();
    }
}

pub(super) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}
