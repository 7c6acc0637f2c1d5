//! `RELAY_RECORD=FILE`: lines of a recording, written by a thread of their own.
//!
//! The relay never waits for the disk. If that cannot keep up, or takes no more, the recording ends there, and
//! what has been written of it is good.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use relay_proto::record::Tape;

/// The most that a file may hold. Together with the one before it, a recording takes twice as much.
const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;

/// Lines that wait for the disk: a few megabytes.
const MAX_WAITING: usize = 1 << 15;

/// How long the end of a relay may be held up by what waits for the disk.
const FAREWELL: Duration = Duration::from_secs(1);

/// The relay's end of a file that is being recorded to.
pub(crate) struct FileTape {
    max_bytes: u64,
    /// How much has been sent to the file.
    bytes: u64,
    /// Whether lines are wanted, or nothing but a new beginning.
    running: bool,
    /// None when the file takes nothing any more.
    lines: Option<SyncSender<Order>>,
    ended: Receiver<()>,
}

enum Order {
    /// In an empty file. What the file holds is kept beside it, until the next time.
    Begin(Vec<u8>),
    Line(Vec<u8>),
}

impl FileTape {
    pub(crate) fn create(path: &str) -> io::Result<Self> {
        Self::with_bound(Path::new(path), MAX_FILE_BYTES)
    }

    fn with_bound(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut file = RecordFile::create(path)?;
        let (lines, orders) = sync_channel(MAX_WAITING);
        let (done, ended) = sync_channel(1);
        thread::Builder::new().name("record".into()).spawn(move || {
            if let Err(error) = file.obey(&orders) {
                let path = file.path.display();
                tracing::error!(target: "relay", %path, %error, "the recording has ended: it cannot be written");
            }
            // Whoever waited may be gone.
            let _ = done.send(());
        })?;
        Ok(Self { max_bytes, bytes: 0, running: false, lines: Some(lines), ended })
    }

    /// Whether the order was taken.
    fn give(&mut self, order: Order) -> bool {
        let Some(lines) = &self.lines else { return false };
        match lines.try_send(order) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.pause("the disk is too slow");
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                self.lines = None;
                false
            }
        }
    }

    fn pause(&mut self, why: &'static str) {
        self.running = false;
        tracing::warn!(target: "relay", why, "the recording has ended; a new one begins when nobody is connected");
    }
}

impl Tape for FileTape {
    /// A file that is half full is given up for an empty one: there may be no such moment for a long time.
    fn is_due(&self) -> bool {
        self.lines.is_some() && (!self.running || self.bytes > self.max_bytes / 2)
    }

    fn begin(&mut self, line: &[u8]) {
        self.bytes = line.len() as u64;
        self.running = self.give(Order::Begin(line.to_vec()));
    }

    fn push(&mut self, line: Vec<u8>) -> bool {
        if !self.running {
            return false;
        }
        self.bytes += line.len() as u64;
        if self.bytes > self.max_bytes {
            self.pause("the file is full");
            return false;
        }
        self.running = self.give(Order::Line(line));
        self.running
    }
}

impl Drop for FileTape {
    fn drop(&mut self) {
        self.lines = None;
        // Too long, or a thread that has failed: there is nothing more to be done.
        let _ = self.ended.recv_timeout(FAREWELL);
    }
}

/// The disk's end.
struct RecordFile {
    path: PathBuf,
    file: BufWriter<File>,
    is_empty: bool,
}

impl RecordFile {
    fn create(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            // A device or a directory must not be renamed.
            Ok(there) if !there.is_file() => return Err(io::Error::other("it is there and no file")),
            Ok(_) => fs::rename(path, predecessor(path))?,
            Err(_) => {}
        }
        // Who talked when, and how much, is nobody's business but the operator's.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), is_empty: true })
    }

    /// Writes until nobody has orders any more, or something fails.
    fn obey(&mut self, orders: &Receiver<Order>) -> io::Result<()> {
        loop {
            let order = match orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Empty) => {
                    self.file.flush()?;
                    let Ok(order) = orders.recv() else { return Ok(()) };
                    order
                }
                Err(TryRecvError::Disconnected) => return self.file.flush(),
            };
            let line = match order {
                Order::Line(line) => line,
                Order::Begin(line) => {
                    if !self.is_empty {
                        self.file.flush()?;
                        *self = Self::create(&self.path)?;
                    }
                    line
                }
            };
            self.file.write_all(&line)?;
            self.is_empty = false;
        }
    }
}

/// `FILE.1`.
fn predecessor(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8; 10] = b"012345678\n";

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("relay-record-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_full_file_makes_way_when_a_new_recording_can_begin() {
        let directory = directory("full");
        let path = directory.join("file");
        fs::write(&path, "of the last run").unwrap();
        let mut tape = FileTape::with_bound(&path, 50).unwrap();
        assert!(tape.is_due());
        tape.begin(b"one\n");
        assert!(!tape.is_due());
        assert_eq!((0..10).filter(|_| tape.push(LINE.to_vec())).count(), 4);
        assert!(tape.is_due());
        tape.begin(b"two\n");
        assert!(tape.push(LINE.to_vec()));
        drop(tape);
        assert_eq!(fs::read(&path).unwrap(), [b"two\n".as_slice(), LINE].concat());
        assert_eq!(fs::read(predecessor(&path)).unwrap(), [b"one\n".as_slice(), &LINE.repeat(4)].concat());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_disk_that_takes_no_more_ends_the_recording() {
        let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
        let (lines, orders) = sync_channel(10);
        let mut file = RecordFile { path: "/dev/full".into(), file: BufWriter::new(full), is_empty: true };
        let writer = thread::spawn(move || file.obey(&orders));
        lines.send(Order::Begin(LINE.to_vec())).unwrap();
        assert!(writer.join().unwrap().is_err());
        // From now on nothing is taken, and the relay goes on.
        let (_, ended) = sync_channel(1);
        let mut tape = FileTape { max_bytes: 1000, bytes: 0, running: true, lines: Some(lines), ended };
        assert!(!tape.push(LINE.to_vec()));
        assert!(!tape.is_due());
    }

    #[test]
    fn a_disk_that_is_too_slow_ends_it_until_the_next_beginning() {
        let (lines, orders) = sync_channel(2);
        let (done, ended) = sync_channel(1);
        done.send(()).unwrap();
        let mut tape = FileTape { max_bytes: 1000, bytes: 0, running: true, lines: Some(lines), ended };
        assert_eq!((0..5).filter(|_| tape.push(LINE.to_vec())).count(), 2);
        assert!(tape.is_due());
        drop(orders);
    }
}
