//! The page that people see at `/` (rule H1): what is true of this relay, and nothing of those who use it.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Write as _;
use core::time::Duration;

use crate::config::Config;

const PAGE: &str = include_str!("status.html");

/// The page brings all that it needs, so that nothing else may be loaded, run or put around it.
pub(crate) const POLICY: &str = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";

/// Its colours and words for a state.
pub(crate) struct State {
    class: &'static str,
    icon: &'static str,
    name: &'static str,
    meaning: &'static str,
}

pub(crate) const SERVING: State = State {
    class: "serving",
    icon: "1a7f4b",
    name: "Serving",
    meaning: "This relay takes new rooms, and guests into those that are open.",
};
pub(crate) const DRAINING: State = State {
    class: "draining",
    icon: "a85b00",
    name: "Draining",
    meaning: "This relay is about to stop: it takes no new room, and closes those that are open one after the other.",
};

pub(crate) fn page(config: &Config, state: &State) -> String {
    PAGE.replace("{class}", state.class)
        .replace("{icon}", state.icon)
        .replace("{state}", state.name)
        .replace("{meaning}", state.meaning)
        .replace("{rows}", &rows(config))
}

fn rows(config: &Config) -> String {
    let transport = if config.tls { "TLS 1.3" } else { "plain text; a proxy in front may add TLS" };
    let idle = config.room_idle_timeout.map_or(NO_LIMIT.into(), |time| format!("after {}", duration(time)));
    let rate = config.rate_limit_per_ip.map_or(NO_LIMIT.into(), |rate| format!("{} a second", grouped(rate)));
    let mut rows = String::new();
    for (name, value) in [
        ("Transport", transport.into()),
        ("Version", env!("CARGO_PKG_VERSION").into()),
        ("Rooms, at most", limit(config.max_rooms, grouped)),
        ("Connections in a room, at most", limit(config.max_clients_per_room, grouped)),
        ("Connections in all, at most", limit(config.max_connections, grouped)),
        ("Largest message", limit(config.max_message_size, bytes)),
        ("A silent room is closed", idle.into()),
        ("Requests from one address, at most", Cow::<str>::from(rate)),
    ] {
        let _ = writeln!(rows, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    rows
}

const NO_LIMIT: &str = "no limit";

fn limit(limit: usize, show: impl FnOnce(usize) -> String) -> Cow<'static, str> {
    if limit == usize::MAX { NO_LIMIT.into() } else { show(limit).into() }
}

/// 100000 as `100,000`.
fn grouped(number: impl ToString + Copy) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// In the largest unit that shows it exactly.
fn bytes(bytes: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let exact = units.into_iter().find(|(size, _)| bytes.is_multiple_of(*size));
    exact.map_or_else(
        || format!("{} bytes", grouped(bytes)),
        |(size, unit)| format!("{} {unit}", grouped(bytes / size)),
    )
}

/// In the largest unit that shows it exactly.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        _ if time.subsec_nanos() > 0 => return format!("{} seconds", time.as_secs_f64()),
        _ if seconds.is_multiple_of(3600) => (seconds / 3600, "hour"),
        _ if seconds.is_multiple_of(60) => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    format!("{} {unit}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_write_them() {
        let show = |seconds| duration(Duration::from_secs_f64(seconds));
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [1000, 1 << 20, 1536, 1 << 28].map(bytes),
            ["1,000 bytes", "1 MiB", "1,536 bytes", "256 MiB"]
        );
        assert_eq!(
            [1.0, 0.5, 90.0, 120.0, 3600.0].map(show),
            ["1 second", "0.5 seconds", "90 seconds", "2 minutes", "1 hour"]
        );
        assert_eq!(limit(usize::MAX, bytes), "no limit");
    }

    #[test]
    fn h1_the_page_says_what_is_true_of_this_relay() {
        let mut config = Config { max_rooms: usize::MAX, ..Config::default() };
        let serving = page(&config, &SERVING);
        for said in [
            "<h1>Serving</h1>",
            "<dd>plain text;",
            env!("CARGO_PKG_VERSION"),
            "<dd>1 MiB</dd>",
            "<dd>no limit</dd>",
        ] {
            assert!(serving.contains(said), "{said} in {serving}");
        }
        config.tls = true;
        let draining = page(&config, &DRAINING);
        assert!(
            draining.contains("<h1>Draining</h1>") && draining.contains("<dd>TLS 1.3</dd>"),
            "{draining}"
        );
        for page in [serving, draining] {
            for placeholder in ["{class}", "{icon}", "{state}", "{meaning}", "{rows}"] {
                assert!(!page.contains(placeholder), "{page}");
            }
        }
    }
}
