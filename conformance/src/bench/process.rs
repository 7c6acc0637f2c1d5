//! What a process has used, as Linux tells it.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

/// At one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Of all threads, kernel included, in nanoseconds: `/proc/PID/task/*/schedstat`.
    pub(crate) cpu: Duration,
    /// It had nothing to do.
    pub(crate) waits: u64,
    /// Somebody else had something to do.
    pub(crate) preemptions: u64,
    /// Bytes.
    pub(crate) resident: u64,
    /// The most that was ever resident, in bytes.
    pub(crate) peak: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self, String> {
        let of = |error: std::io::Error| format!("--pid {pid}: {error}: it has to run, on this machine");
        let mut usage = Self::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(of)? {
            let thread = thread.map_err(of)?.path();
            // A thread that has ended in between takes its time along.
            let Ok(schedstat) = fs::read_to_string(thread.join("schedstat")) else { continue };
            let nanos = schedstat.split(' ').next().and_then(|word| word.parse().ok());
            usage.cpu += Duration::from_nanos(nanos.ok_or_else(|| format!("schedstat reads {schedstat:?}"))?);
            let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
            usage.waits += field(&status, "voluntary_ctxt_switches");
            usage.preemptions += field(&status, "nonvoluntary_ctxt_switches");
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(of)?;
        usage.resident = field(&status, "VmRSS") * 1024;
        usage.peak = field(&status, "VmHWM") * 1024;
        Ok(usage)
    }
}

/// What was used in between; memory is that of the later moment.
impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            waits: self.waits.saturating_sub(earlier.waits),
            preemptions: self.preemptions.saturating_sub(earlier.preemptions),
            ..self
        }
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
