//! The cases, by family, and how one is played.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::host::{Host, Start, Vars};
use crate::stage::Stage;

mod config;
mod handshake;
mod http;
mod key;
mod message;
mod order;
mod refusal;
mod room;
mod slow;
mod stop;
mod time;
mod tls;
mod token;

/// Something that is to be seen of every relay.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// `family::what`.
    pub name: &'static str,
    /// The rules of `docs/protocol.md` that it proves.
    pub rules: &'static [&'static str],
    /// What it asks of the host.
    pub needs: Needs,
    play: fn(&Stage<'_>),
}

/// What a case asks of its host.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// Nothing: it holds of every relay.
    Nothing,
    /// A relay with these settings.
    Settings(Vars<'static>),
    /// A relay with these settings that can be told to stop.
    Switch(Vars<'static>),
    /// A way to start relays.
    Start,
    /// A relay that speaks TLS.
    Tls,
    /// A relay whose certificate can be replaced.
    Certificate,
}

impl Needs {
    /// The settings to start a relay with.
    pub fn settings(&self) -> Vars<'static> {
        match self {
            Needs::Settings(vars) | Needs::Switch(vars) => vars,
            Needs::Nothing | Needs::Start | Needs::Tls | Needs::Certificate => &[],
        }
    }
}

/// How a case went.
#[derive(Clone, Debug)]
pub struct Played {
    /// What the peers saw, the same on every host.
    pub transcript: String,
    /// What went wrong.
    pub failure: Option<String>,
}

impl Case {
    /// Plays it. `run` tells its rooms from those of other runs on the same relay.
    pub fn play(&self, host: &dyn Host, start: Option<Start>, run: &str) -> Played {
        let stage = Stage::new(host, start, run);
        let failure = catch_unwind(AssertUnwindSafe(|| (self.play)(&stage))).err().map(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
        });
        Played { transcript: stage.transcript(), failure }
    }
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        http::CASES,
        handshake::CASES,
        refusal::CASES,
        token::CASES,
        key::CASES,
        room::CASES,
        order::CASES,
        message::CASES,
        slow::CASES,
        time::CASES,
        stop::CASES,
        config::CASES,
        tls::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Writes a table of cases: name, rules, needs, function.
macro_rules! cases {
    ($($name:literal [$($rule:literal)+] $needs:expr, $play:path;)*) => {
        /// The cases of this family.
        pub(super) const CASES: &[$crate::cases::Case] = &[$($crate::cases::Case {
            name: $name,
            rules: &[$($rule),+],
            needs: $needs,
            play: $play,
        }),*];
    };
}
use cases;
