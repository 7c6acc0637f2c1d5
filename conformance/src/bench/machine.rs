//! The machine: what it is, and who runs where.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// In words, for a table.
pub(crate) fn describe(cores: &Cores) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    let load = load.split(' ').next().unwrap_or_default();
    let pinned = if cores.split() {
        "servers pinned to one, the load generator to the others"
    } else {
        "nothing pinned: there is only one"
    };
    format!("{} cores ({pinned}), {model}, Linux {}, load average {load}", cores.0.len(), kernel.trim())
}

/// Those that this process may run on.
pub(crate) struct Cores(Vec<usize>);

impl Cores {
    pub(crate) fn allowed() -> Result<Self, String> {
        let set = sched_getaffinity(Pid::from_raw(0)).map_err(|error| error.to_string())?;
        Ok(Self((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect()))
    }

    fn split(&self) -> bool {
        self.0.len() > 1
    }

    /// From now on this thread runs where servers do, and so does what it starts.
    pub(crate) fn as_server(&self) -> Result<(), String> {
        pin(&self.0[..1])
    }

    /// From now on it keeps out of their way.
    pub(crate) fn as_generator(&self) -> Result<(), String> {
        pin(if self.split() { &self.0[1..] } else { &self.0 })
    }
}

fn pin(cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    let pinned = cores.iter().try_for_each(|core| set.set(*core));
    let pinned = pinned.and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    pinned.map_err(|error| format!("cannot pin to the cores {cores:?}: {error}"))
}
