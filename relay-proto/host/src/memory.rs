//! How much memory there is, for `RELAY_MAX_QUEUED_BYTES=auto`.

use std::fs;

/// A quarter of the memory of the machine or of the container, whichever is smaller; no limit where neither
/// can be told.
pub fn quarter_of_memory() -> usize {
    let limits = [
        "/sys/fs/cgroup/memory.max",                   // cgroup v2: a number, or `max`
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", // cgroup v1
    ];
    let container = limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    container.chain(machine).min().map_or(usize::MAX, |bytes: usize| bytes / 4)
}

/// `MemTotal` of `/proc/meminfo`, which is in units of 1024 bytes.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kibibytes() {
        assert_eq!(total("MemTotal:       16316412 kB\nMemFree: 1 kB\n"), Some(16_316_412 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(quarter_of_memory() > 0);
    }
}
