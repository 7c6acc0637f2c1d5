//! What is logged: one line per entry, whatever peers put into their ids (rule C6), no token ever (rule A9),
//! and no address unless `RELAY_LOG_ADDRESSES=on`.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use std::time::Instant;

use tracing::field::display;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use relay_proto::Refusal;
use relay_proto::config::{LogFormat, Settings};
use relay_proto::event::{Initiator, Notice};

/// How long refusals with one code, from one address if those are logged, count as one entry.
const REFUSALS_PERIOD: Duration = Duration::from_secs(10);

/// Addresses that are told apart in one period; what comes beyond them is summed up by its code alone.
const MAX_REFUSED: usize = 1024;

/// Reads `RELAY_LOG`: a level, or levels by target such as `info,relay=debug`.
pub fn filter(text: &str) -> Option<Targets> {
    let readable = |entry: &str| {
        let level = entry.split_once('=').map_or(entry, |(_, level)| level);
        // An empty level would be read as `error`.
        !level.is_empty() && level.parse::<LevelFilter>().is_ok()
    };
    if text.split(',').all(readable) { text.parse().ok() } else { None }
}

/// Sends all log entries of this process to standard error.
pub fn init(settings: &Settings) {
    let filter = filter(&settings.log).unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry();
    // Only a second call could fail, and the first one counts.
    let _ = match settings.log_format {
        LogFormat::Text => registry.with(lines.with_filter(filter)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
    };
}

/// Logs what a machine notices.
pub fn notices(addresses: bool) -> impl FnMut(Notice<'_>) {
    let mut refusals = Refusals::default();
    move |notice| {
        let now = now();
        refusals.sum_up(now);
        let shown = |ip| addresses.then_some(ip);
        // Ids are recorded as strings, which both formats escape.
        match notice {
            Notice::Joined { conn, ip, room, peer, role } => {
                let (ip, role) = (shown(ip).map(display), role.as_str());
                tracing::info!(target: "relay", %conn, ip, room, peer, role, "joined");
            }
            Notice::Left { conn, room, peer, initiator, code, reason } => {
                let by = match initiator {
                    Initiator::Peer => "peer",
                    Initiator::Relay => "relay",
                };
                tracing::info!(target: "relay", %conn, room, peer, by, code, reason, "left");
            }
            Notice::Refused { ip, refusal } => refusals.add(now, shown(ip), refusal),
            Notice::LetGo { conn } => {
                tracing::warn!(target: "relay", %conn, code = 1013, "let go while draining");
            }
            Notice::Draining { rooms } => tracing::info!(target: "relay", rooms, "draining"),
            Notice::Misuse { what } => tracing::error!(target: "relay", what, "the adapter is wrong"),
        }
    }
}

/// Refusals are what anybody can cause, as often as they like. The first one is logged at once, those that
/// follow it as a sum.
#[derive(Default)]
struct Refusals {
    counted: BTreeMap<(Option<IpAddr>, &'static str), u64>,
    since: Option<Instant>,
}

impl Refusals {
    fn add(&mut self, now: Instant, ip: Option<IpAddr>, refusal: Refusal) {
        let code = refusal.code();
        let ip = ip.filter(|_| self.counted.len() < MAX_REFUSED || self.counted.contains_key(&(ip, code)));
        let repeated = self.counted.entry((ip, code)).and_modify(|count| *count += 1).or_default();
        if *repeated == 0 {
            self.since.get_or_insert(now);
            tracing::info!(target: "relay", ip = ip.map(display), code, "refused");
        }
    }

    fn sum_up(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.duration_since(since) < REFUSALS_PERIOD) {
            return;
        }
        self.since = None;
        for ((ip, code), count) in std::mem::take(&mut self.counted) {
            if count > 0 {
                tracing::info!(target: "relay", ip = ip.map(display), code, count, "refused again");
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the log counts by the second; nothing is decided by it")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use relay_proto::{Config, Now, Relay};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// The lines that `work` logs as text.
    fn lines(work: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let lines = tracing_subscriber::fmt::layer().without_time().with_writer(written.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), work);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(Into::into).collect()
    }

    #[test]
    fn c6_an_entry_is_one_line() {
        let mut relay = Relay::new(Config::default(), [0; 32]);
        let conn = relay.open(Now::default(), [192, 0, 2, 1].into(), &mut Vec::new()).unwrap();
        let (room, peer) = ("a\nb\u{1b}[2J", "p\u{2028}q");
        let left = Notice::Left { conn, room, peer, initiator: Initiator::Peer, code: 1000, reason: "" };
        let lines = lines(|| notices(false)(left));
        assert_eq!(
            lines,
            [
                r#" INFO relay: left conn=0.0 room="a\nb\u{1b}[2J" peer="p\u{2028}q" by="peer" code=1000 reason="""#
            ]
        );
    }

    #[test]
    fn addresses_are_logged_only_if_wanted() {
        let refused = Notice::Refused { ip: [192, 0, 2, 1].into(), refusal: Refusal::NotFound };
        assert_eq!(
            lines(|| notices(true)(refused)),
            [r#" INFO relay: refused ip=192.0.2.1 code="not_found""#]
        );
        assert_eq!(lines(|| notices(false)(refused)), [r#" INFO relay: refused code="not_found""#]);
    }

    #[test]
    fn repeated_refusals_are_summed_up() {
        let mut refusals = Refusals::default();
        let (start, ip) = (now(), Some(IpAddr::from([192, 0, 2, 1])));
        let lines = lines(|| {
            for _ in 0..5 {
                refusals.add(start, ip, Refusal::RateLimited);
            }
            refusals.sum_up(start + REFUSALS_PERIOD / 2);
            refusals.sum_up(start + REFUSALS_PERIOD);
            refusals.sum_up(start + REFUSALS_PERIOD * 3);
        });
        assert_eq!(
            lines,
            [
                r#" INFO relay: refused ip=192.0.2.1 code="rate_limited""#,
                r#" INFO relay: refused again ip=192.0.2.1 code="rate_limited" count=4"#,
            ]
        );
    }

    #[test]
    fn a_filter_is_a_level_or_levels_by_target() {
        for good in ["error", "warn", "info", "debug", "trace", "off", "info,relay=debug"] {
            assert!(filter(good).is_some(), "{good}");
        }
        for bad in ["", "verbose", "info,", "relay=loud", "relay=debug,quiet"] {
            assert!(filter(bad).is_none(), "{bad:?}");
        }
    }
}
