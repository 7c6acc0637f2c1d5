//! What every adapter asks of the machine that it runs on. There is I/O here, but no runtime: an adapter
//! calls these functions where its own runtime has nothing better.

mod certificate;
mod memory;
pub mod net;
mod running;
pub mod systemd;

pub use certificate::{CHECK_INTERVAL, Certificate, Pem};
pub use memory::quarter_of_memory;
pub use running::{Control, Ready, Running, StartError, new_hub};
