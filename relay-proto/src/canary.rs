//! Mistakes on purpose, to prove that the simulator can see (`docs/simulation.md`). They exist in builds with
//! `--cfg canary` only; everywhere else `sings` is `false` when it is compiled, and nothing is left of them.

macro_rules! canaries {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(not(canary), expect(unreachable_pub, reason = "it is public where it is of use"))]
        pub enum Canary {
            $($(#[doc = $doc])* $name,)*
        }

        impl Canary {
            /// Each of them.
            #[cfg(canary)]
            pub const ALL: &'static [Canary] = &[$(Canary::$name),*];
        }
    };
}

canaries! {
    /// R6: whoever loses its socket leaves without a notice.
    SilentLeave,
    /// R2: a message comes back to its sender.
    Echo,
    /// R2: a message goes to the oldest room.
    OtherRoom,
    /// Contract 1: a connection that is being closed has no deadline.
    ForgottenDeadline,
    /// M7: a coalescing window never ends by itself.
    EndlessWindow,
    /// S4: a byte is counted twice.
    DoubleCount,
    /// A6: any key opens any room.
    ForeignKey,
    /// A7: a guest's token makes a host.
    GuestsAsHosts,
    /// R4: one member more than may be.
    OneTooMany,
    /// R1: a room outlives its last member, if that lost its socket.
    GhostRoom,
    /// R7: a peer that has come back is said to have left.
    HastyLeave,
    /// T1: nobody is ever called dead.
    Immortal,
    /// A sender that was over its receive limit is not read again.
    PausedForGood,
    /// R8: anybody may take anybody's name.
    StolenName,
    /// M3: what has line breaks is joined.
    JoinedLines,
    /// M4: data overtakes data.
    Reordered,
    /// M4: data leaves before voice.
    VoiceLast,
    /// S3: data that waits behind much other data is let go.
    DroppedData,
    /// S3: no receiver is too slow.
    Patience,
    /// S2: old voice leaves too.
    StaleVoice,
    /// Contract 6: a second write while the first is outstanding.
    TwoWrites,
    /// M5: a message that is too large is a protocol error.
    WrongCode,
    /// R9: hosts are not the first to go, and somebody stays.
    HalfClosedRoom,
    /// A room is wherever somebody asks for it.
    TwoHomes,
    /// C2: whoever goes to another shard takes up two places.
    TwoPlaces,
    /// D1: the last room is closed, and no other shard hears of it.
    SilentEnd,
}

#[cfg(canary)]
mod cage {
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::Canary;

    /// The place of the one that sings, from 1; 0: none does.
    static SINGING: AtomicUsize = AtomicUsize::new(0);

    /// Lets one mistake be made from now on, by every relay of this process, or none.
    pub fn release(canary: Option<Canary>) {
        SINGING.store(canary.map_or(0, |canary| canary as usize + 1), Relaxed);
    }

    /// Whether this mistake is to be made.
    pub(crate) fn sings(canary: Canary) -> bool {
        SINGING.load(Relaxed) == canary as usize + 1
    }
}

#[cfg(canary)]
pub use cage::release;
#[cfg(canary)]
pub(crate) use cage::sings;

/// Whether this mistake is to be made: never.
#[cfg(not(canary))]
pub(crate) const fn sings(_: Canary) -> bool {
    false
}
