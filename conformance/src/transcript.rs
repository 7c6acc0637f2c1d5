//! What each peer of a case sent and saw, in words that are the same on every host.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fmt::Write as _;
use std::rc::Rc;

/// Payloads up to this many bytes are written out.
const SHOWN_BYTES: usize = 200;

/// A list of lines that is written by all peers of a case. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Rc<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: RefCell<Vec<String>>,
    muted: Cell<bool>,
}

impl Transcript {
    /// Adds a line.
    pub fn note(&self, line: impl Into<String>) {
        if !self.0.muted.get() {
            self.0.lines.borrow_mut().push(line.into());
        }
    }

    /// Does something whose details differ between hosts, or are a repetition, without writing it down.
    pub fn unrecorded<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = self.0.muted.replace(true);
        let done = act();
        self.0.muted.set(before);
        done
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lines.borrow().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A payload in short: text as it is, other bytes in hexadecimal, large ones by their size and beginning.
pub(crate) fn show(payload: &[u8]) -> String {
    if payload.len() > SHOWN_BYTES {
        return format!("{} bytes, beginning {}", payload.len(), hex(&payload[..8]));
    }
    match std::str::from_utf8(payload) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n') => format!("{text:?}"),
        _ => hex(payload),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
