//! The page of the metrics port, as both adapters serve it (rule C5).

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use relay_proto::http::Head;
use relay_proto::metrics::{self, Facts};
use relay_proto::{Config, Fault, Stats};

use crate::control::Control;
use crate::process::process;

/// How long a fetch may take where there is no `RELAY_HANDSHAKE_TIMEOUT`.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fetches at once. Each is a socket that a client cannot have, and monitoring needs one or two.
const MAX_FETCHES: usize = 32;

/// What is shown to whoever asks for `/metrics`.
pub struct MetricsPage {
    control: Control,
    config: Config,
    adapter: &'static str,
    version: &'static str,
    valid_until: Box<dyn Fn() -> Option<Duration>>,
    fetches: Cell<usize>,
}

/// One fetch, while it lasts.
pub struct Fetch<'a>(&'a Cell<usize>);

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl MetricsPage {
    /// `valid_until` tells when the certificate expires that is in use at that moment.
    pub fn new(
        control: &Control,
        config: &Config,
        (adapter, version): (&'static str, &'static str),
        valid_until: impl Fn() -> Option<Duration> + 'static,
    ) -> Self {
        let valid_until = Box::new(valid_until);
        Self {
            control: control.clone(),
            config: config.clone(),
            adapter,
            version,
            valid_until,
            fetches: Cell::new(0),
        }
    }

    /// A socket was accepted. None: it is one too many, to be closed at once.
    pub fn admit(&self) -> Option<Fetch<'_>> {
        let fetches = self.fetches.get();
        (fetches < MAX_FETCHES).then(|| {
            self.fetches.set(fetches + 1);
            Fetch(&self.fetches)
        })
    }

    /// From accept to the last byte.
    pub fn patience(&self) -> Duration {
        self.config.handshake_timeout.unwrap_or(PATIENCE)
    }

    /// The whole answer to a request head, or to what was none.
    pub async fn answer(&self, head: &Result<Head, Fault>) -> Bytes {
        let request = match head {
            Ok(head) => head.request().ok_or(Fault::BadHead),
            Err(fault) => Err(*fault),
        };
        let response = match request {
            Ok(request) => {
                let stats = self.control.stats().await;
                metrics::answer(&request, || self.render(&stats))
            }
            Err(fault) => metrics::answer_fault(fault),
        };
        response.bytes
    }

    fn render(&self, stats: &Stats) -> String {
        let expiry = (self.valid_until)().and_then(|time| i64::try_from(time.as_secs()).ok());
        let facts = Facts {
            adapter: self.adapter,
            version: self.version,
            shards: self.control.shards(),
            certificate_expiry: expiry,
            process: process(),
        };
        metrics::render(stats, &self.config, facts)
    }
}
