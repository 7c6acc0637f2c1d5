//! What the relay's programs share and no runtime sees: the command line, the log, sockets and their options,
//! certificate files, recordings, signals, systemd. There is I/O here, but no rule of the protocol: those are in
//! [`relay_proto`].

mod certificate;
pub mod cli;
mod control;
pub mod decode;
pub mod log;
mod memory;
mod metrics;
pub mod net;
mod process;
mod record;
mod running;
pub mod systemd;

pub use certificate::{CHECK_INTERVAL, Certificate, Pem};
pub use control::Control;
pub use memory::quarter_of_memory;
pub use metrics::MetricsPage;
pub use process::process;
pub use running::{Addresses, Running, Seat, StartError, new_hub};
