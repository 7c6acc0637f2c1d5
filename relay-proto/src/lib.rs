//! The relay as a pure state machine: events in, actions out.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
pub mod cli;
pub mod config;
pub mod event;
pub mod frame;
#[cfg(feature = "std")]
pub mod host;
pub mod http;
#[cfg(feature = "std")]
pub mod hub;
#[cfg(feature = "std")]
pub mod log;
mod refusal;
mod relay;
mod room;
mod stats;
mod time;
pub mod token;

pub use config::{Config, Settings};
pub use event::{Action, ConnId, Event, Fault, Initiator, Notice, Role, Sink};
#[cfg(feature = "std")]
pub use hub::Hub;
pub use refusal::Refusal;
pub use relay::{Relay, Wake};
pub use stats::Stats;
pub use time::Now;
