//! What the kernel knows of this process, under the names that every dashboard knows. Linux only: elsewhere
//! nothing is known, and nothing is told.

use std::fs;
use std::time::Duration;

use relay_proto::metrics::Process;

/// The unit of times in `/proc`: 1 / `USER_HZ` s, which is part of the kernel's interface and 100 on every
/// architecture that Rust has a standard library for (time(7)).
const TICK_MS: u64 = 10;

/// Reads a few small files below `/proc`.
pub fn process() -> Process {
    let stat = text("/proc/self/stat");
    Process {
        cpu: stat.as_deref().and_then(cpu),
        resident_bytes: text("/proc/self/status").as_deref().and_then(resident_bytes),
        open_fds: open_fds(),
        max_fds: text("/proc/self/limits").as_deref().and_then(max_fds),
        started: stat.as_deref().zip(text("/proc/stat").as_deref()).and_then(started),
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// A time by the number of its field in proc(5). Field 2, in parentheses, may hold anything.
fn stat_time(stat: &str, field: usize) -> Option<Duration> {
    let ticks: u64 = stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(field - 3)?.parse().ok()?;
    Some(Duration::from_millis(ticks.saturating_mul(TICK_MS)))
}

fn cpu(stat: &str) -> Option<Duration> {
    Some(stat_time(stat, 14)? + stat_time(stat, 15)?)
}

fn started((stat, system): (&str, &str)) -> Option<Duration> {
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Duration::from_secs(boot) + stat_time(stat, 22)?)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn max_fds(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_ascii_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<u64> {
    // Since Linux 6.2 the directory knows its size; listing ten thousand takes a while.
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // The listing itself has one open.
    let listed = fs::read_dir("/proc/self/fd").ok()?.count();
    Some((listed as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) S 1 (b) R 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 1 0 12345 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(4)));
        let system = "cpu 1 2\nbtime 1700000000\nprocesses 1\n";
        assert_eq!(started((stat, system)), Some(Duration::from_millis(1_700_000_123_450)));
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        assert_eq!(cpu(""), None);
        assert_eq!(cpu("7 (a) S 1 2"), None);
        assert_eq!(resident_bytes("VmRSS:\t  12 MB\n"), None);
        assert_eq!(resident_bytes("VmSize:\t 9 kB\nVmRSS:\t  12 kB\n"), Some(12 * 1024));
        assert_eq!(max_fds("Max open files            unlimited  unlimited  files"), None);
        assert_eq!(max_fds("Max open files            1024       524288     files"), Some(1024));
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[expect(clippy::disallowed_methods, reason = "the kernel's clock is what is compared with")]
    fn this_process_is_known() {
        let process = process();
        assert!(process.cpu.is_some());
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        let (open, max) = (process.open_fds.expect("Linux"), process.max_fds.expect("Linux"));
        assert!((3..=max).contains(&open), "{open} of {max}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let age = now.saturating_sub(process.started.expect("Linux"));
        assert!(age < Duration::from_secs(3600), "{age:?}");
    }
}
