//! The relay as a pure state machine: events in, actions out.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod admit;
#[cfg(feature = "std")]
pub mod cli;
pub mod config;
mod connection;
mod deliver;
mod depart;
mod drain;
pub mod envelope;
pub mod event;
pub mod frame;
mod gate;
#[cfg(feature = "std")]
pub mod host;
pub mod http;
#[cfg(feature = "std")]
pub mod hub;
mod keepalive;
mod ledger;
#[cfg(feature = "std")]
pub mod log;
mod outbox;
mod refusal;
mod relay;
mod rng;
pub mod room;
mod slab;
pub mod stats;
mod time;
mod timers;
pub mod token;

pub use config::{Config, Settings};
pub use event::{Action, ConnId, Event, Fault, Initiator, Notice, Progress, Role, Sink};
#[cfg(feature = "std")]
pub use hub::Hub;
pub use refusal::Refusal;
pub use relay::Relay;
pub use stats::Stats;
pub use time::Now;
pub use timers::Wake;
