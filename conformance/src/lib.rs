//! One suite for every host of the relay.
//!
//! ```text
//!              cases: http · token · room · message · slow · time · stop · config · tls
//!                │  each written once, against a Stage: rooms, peers with names, a transcript
//!                ▼
//!   ┌─ Host: dial, let time pass ──────────────────────────────────────────────────────┐
//!   │ simulated: the machine alone, virtual time  │ tokio, smol: in this process │ URL │
//!   └───────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A case names the rules of `docs/protocol.md` that it proves. What its peers saw is its transcript, and
//! one snapshot of it holds on all hosts.

pub mod cases;
pub mod frame;
pub mod host;
pub mod http;
pub mod net;
pub mod peer;
pub mod proxy;
pub mod replay;
pub mod room;
pub mod sim;
pub mod simulate;
mod stage;
mod transcript;

pub use cases::{Case, Needs, Played};
pub use host::{Host, Link, Received};
pub use peer::{Peer, Pings, Seen};
pub use room::Room;
pub use sim::Simulated;
pub use stage::Stage;
