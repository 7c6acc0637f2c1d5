//! Time comes in with each event; nothing here reads a clock.

use core::time::Duration;

/// Both clocks, read once by the adapter for each event.
///
/// `monotonic` counts from any fixed point (a start, say) and drives every deadline. It is clamped:
/// a value below an earlier one counts as that earlier one. `unix` is the time since 1970-01-01T00:00:00Z
/// and may jump either way; only token times and the `ts` of a leave notice read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since an arbitrary fixed point.
    pub monotonic: Duration,
    /// Time since the Unix epoch.
    pub unix: Duration,
}
