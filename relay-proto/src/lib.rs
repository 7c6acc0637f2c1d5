//! A relay for sealed messages, as a pure state machine: events in, actions out.
//!
//! Hosts open rooms with an Ed25519 key, invited guests join them, and whatever one member sends reaches
//! the others byte for byte. This crate decides all of it (HTTP, tokens, rooms, queues, time-outs, stopping)
//! and does none of it: no sockets, no clock, no randomness, no threads, no `unsafe`. `no_std`, with `alloc`.
//!
//! ```text
//!    your runtime, or your simulator                         this crate
//!   ┌───────────────────────────────┐   Event + Now   ┌──────────────────────────────────────┐
//!   │ accept, read, decode frames ──┼────────────────►│ Relay                                │
//!   │                               │                 │  http, token   may it come in?       │
//!   │ write, then report Sent     ◄─┼─────────────────│  gate, room    where does it belong? │
//!   │                               │     Action      │  outbox        what leaves next?     │
//!   │ sleep until next_deadline() ──┼── Event::Tick ─►│  timers        who is late?          │
//!   └───────────────────────────────┘                 └──────────────────────────────────────┘
//! ```
//!
//! Whoever drives a [`Relay`] does four things: gives each accepted socket an id with [`Relay::open`], tells
//! what happens on it by [`Relay::handle`], carries out the [`Action`]s that come back, and sends
//! [`Event::Tick`] when [`Relay::next_deadline`] has come. The contract stands at [`Relay`].
//!
//! ```
//! use std::time::Duration;
//! use relay_proto::http::Head;
//! use relay_proto::{Action, Config, Event, Now, Relay};
//!
//! let mut relay = Relay::new(Config::default(), [0; 32]);
//! let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(1_800_000_000) };
//! let mut actions = Vec::new();
//!
//! let conn = relay.open(now, [192, 0, 2, 1].into(), &mut actions).expect("the first of 100,000");
//! let mut head = Head::new();
//! assert_eq!(head.push(b"GET /health HTTP/1.1\r\nHost: relay\r\n\r\n"), Ok(true));
//! let request = head.request().expect("it is whole");
//! relay.handle(now, Event::Connect { conn, request: &request }, &mut actions);
//!
//! let [Action::Respond { response, .. }] = &actions[..] else { panic!() };
//! assert!(response.bytes.ends_with(br#"{"status":"ok"}"#));
//! ```
//!
//! The wire protocol, rule by rule with the ids that are named all over this crate (`R5`, `S3`), is in
//! `docs/protocol.md`.
//!
//! With the feature `std` (on by default) comes what every adapter needs, whatever its runtime, and is still
//! no I/O: the [`hub`], which shares one relay between the tasks of a thread, its [`metrics`] as text, and
//! how to [`record`] what it does.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod admit;
#[cfg(canary)]
pub mod canary;
#[cfg(not(canary))]
mod canary;
pub mod config;
mod connection;
#[cfg(feature = "std")]
mod dashboard;
mod deliver;
mod depart;
mod drain;
pub mod envelope;
pub mod event;
pub mod frame;
mod gate;
pub mod http;
#[cfg(feature = "std")]
pub mod hub;
mod keepalive;
mod ledger;
#[cfg(feature = "std")]
pub mod metrics;
mod outbox;
mod rates;
#[cfg(feature = "std")]
pub mod record;
mod refusal;
mod relay;
mod rng;
pub mod room;
pub mod shard;
mod slab;
pub mod stats;
mod status;
mod time;
mod timers;
pub mod token;

pub use config::{Config, Settings};
pub use event::{Action, ConnId, Event, Fault, Initiator, Notice, Progress, Role, Sink};
#[cfg(feature = "std")]
pub use hub::Hub;
pub use refusal::Refusal;
pub use relay::Relay;
pub use shard::{Pass, Shard};
pub use stats::Stats;
pub use time::Now;
pub use timers::Wake;
