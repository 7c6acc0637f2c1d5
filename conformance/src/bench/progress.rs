//! How far a run is, on a terminal and nowhere else.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use super::clock;
use super::run::wait_until;

/// Characters of the bar.
const WIDTH: usize = 40;
/// Between two looks at it.
const BEAT: Duration = Duration::from_millis(200);

/// A bar that fills while one waits.
pub(crate) struct Progress {
    start: Instant,
    whole: Duration,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(whole: Duration) -> Self {
        Self { start: clock(), whole, shown: stderr().is_terminal() }
    }

    /// Waits, and shows that it does.
    pub(crate) fn until(&mut self, time: Instant) {
        while self.shown && clock() + BEAT < time {
            self.show();
            wait_until(clock() + BEAT);
        }
        wait_until(time);
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    fn show(&self) {
        let part = (self.start.elapsed().as_secs_f64() / self.whole.as_secs_f64()).min(1.0);
        let full = (part * WIDTH as f64) as usize;
        let bar = "#".repeat(full) + &".".repeat(WIDTH - full);
        // A terminal that has gone away is no reason to stop.
        let _ = write!(stderr(), "\r[{bar}] {:3.0} %", part * 100.0);
    }

    pub(crate) fn clear(&self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
