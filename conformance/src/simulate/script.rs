//! A run as text: one variable or operation a line.

use std::fmt;
use std::str::FromStr;

use super::op::Op;

/// Everything that a run depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Variables of the relay, and `SIM_SEED`, `SIM_WINDOW` (bytes), `SIM_LATENCY_MS` and `SIM_HAND_OVER_MS` of
    /// the world around it.
    pub vars: Vec<(String, String)>,
    /// What happens.
    pub ops: Vec<Op>,
}

impl Run {
    /// The value of a variable of the world, if it is set.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.vars.iter().find(|(known, _)| known == name)?.1.parse().ok()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.vars {
            writeln!(f, "{name}={value}")?;
        }
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

impl FromStr for Run {
    type Err = String;

    /// Empty lines, and what is behind a `#`, are for readers.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut run = Self::default();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        for line in lines.filter(|line| !line.is_empty()) {
            match line.split_once('=') {
                Some((name, value)) => run.vars.push((name.to_owned(), value.to_owned())),
                None => run.ops.push(line.parse()?),
            }
        }
        Ok(run)
    }
}
