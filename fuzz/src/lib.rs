//! What each fuzz target does with its bytes: plain functions that panic if something is wrong, so that an
//! ordinary test can replay a corpus.

mod events;
mod head;
mod settings;
mod token;

pub use events::events;
pub use head::head;
pub use settings::settings;
pub use token::token;

/// A target and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 4] =
    [("head", head), ("token", token), ("settings", settings), ("events", events)];
