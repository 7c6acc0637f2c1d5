//! What can be set: one table of variables, and the values that the machine and its adapters read.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::num::NonZeroU16;
use core::time::Duration;

use ipnet::IpNet;

use crate::ledger::MAX_OVERHEAD_BYTES;

/// Everything that the machine decides by. A limit of `usize::MAX` is none, and so is a time of `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    /// Live rooms (rule R4).
    pub max_rooms: usize,
    /// Connections of one room, hosts included (rule R4).
    pub max_clients_per_room: usize,
    /// Bytes of one message over all its fragments (rule M5).
    pub max_message_size: usize,
    /// How long a room may be silent (rule R1).
    pub room_idle_timeout: Option<Duration>,
    /// Requests to `/ws` per second and address; the burst is twice that (rule T3).
    pub rate_limit_per_ip: Option<u32>,
    /// From accept to the end of the request head (rule H9).
    pub handshake_timeout: Option<Duration>,
    /// Between two pings (rule T1).
    pub ping_interval: Option<Duration>,
    /// Silence after which a peer is dead (rule T1).
    pub pong_timeout: Option<Duration>,
    /// Voice packets that wait for one receiver (rule S2).
    pub voice_queue: usize,
    /// Age at which voice that waits is let go (rule S2).
    pub voice_max_age: Option<Duration>,
    /// Bytes of data that wait for one receiver (rule S3); read it through [`Config::data_bound`].
    pub data_queue_bytes: usize,
    /// Bytes that wait anywhere, shared payloads counted once (rule S4).
    pub max_queued_bytes: usize,
    /// Whether waiting messages may be joined (rule M3).
    pub batch: bool,
    /// How long after a write the next one waits (rule M7).
    pub coalesce: Option<Duration>,
    /// Sockets in all.
    pub max_connections: usize,
    /// Sockets of one address.
    pub max_connections_per_ip: usize,
    /// Bytes per second that one connection may send before it is read more slowly.
    pub max_bytes_per_second: Option<u32>,
    /// Messages per second that one connection may send before it is read more slowly.
    pub max_messages_per_second: Option<u32>,
    /// Whose `X-Forwarded-For` is believed (rule T4). Not for a recording: it holds no addresses.
    #[cfg_attr(feature = "std", serde(skip))]
    pub trusted_proxies: Vec<IpNet>,
    /// The time over which a drain spreads the end of rooms (rule D1).
    pub drain: Duration,
    /// Whether clients come over TLS; nothing depends on it but what the status page says (rule H1).
    #[cfg_attr(feature = "std", serde(default))]
    pub tls: bool,
}

impl Config {
    /// Rule S3: never below four messages of the largest size.
    pub fn data_bound(&self) -> usize {
        self.data_queue_bytes.max(self.max_message_size.saturating_add(MAX_OVERHEAD_BYTES).saturating_mul(4))
    }
}

impl Default for Config {
    fn default() -> Self {
        Settings::default().relay
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// One address, or both families for a bare port. If the machine lacks one of two families, the other
    /// is enough.
    pub addresses: Vec<SocketAddr>,
}

/// The lowest level that is logged, or a filter for the logging library.
pub type LogFilter = String;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A relay as its operator set it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `RELAY_ADDR`.
    pub addr: Listen,
    /// `RELAY_TLS_CERT`: a path to PEM.
    pub tls_cert: Option<String>,
    /// `RELAY_TLS_KEY`: a path to PEM.
    pub tls_key: Option<String>,
    /// `RELAY_METRICS_ADDR`.
    pub metrics_addr: Option<Listen>,
    /// `RELAY_LOG`.
    pub log: LogFilter,
    /// `RELAY_LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `RELAY_LOG_ADDRESSES`.
    pub log_addresses: bool,
    /// `RELAY_RECORD`: a path.
    pub record: Option<String>,
    /// `RELAY_SHARDS`; none for what the adapter takes by itself, see [`shards`](Self::shards).
    pub shards: Option<NonZeroU16>,
    /// What the machine decides by.
    pub relay: Config,
}

impl Settings {
    /// Reads variables given as name and value; those that are not in [`VARIABLES`] are skipped.
    pub fn from_vars<'a>(vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for (name, value) in vars {
            let Some(variable) = VARIABLES.iter().find(|variable| variable.name == name) else { continue };
            if (variable.apply)(&mut settings, value).is_none() {
                return Err(SettingsError {
                    name: variable.name,
                    value: value.to_owned(),
                    remedy: variable.allowed,
                });
            }
        }
        settings.judge()?;
        settings.relay.tls = settings.tls_cert.is_some();
        Ok(settings)
    }

    /// On how many threads the rooms are. `auto` is what an adapter takes where it was not told.
    pub fn shards(&self, auto: NonZeroU16) -> NonZeroU16 {
        // A recording is of one machine, which decides nothing by what others have counted.
        let auto = if self.record.is_some() { NonZeroU16::MIN } else { auto };
        self.shards.unwrap_or(auto).min(MAX_SHARDS)
    }

    /// What no single variable shows.
    fn judge(&self) -> Result<(), SettingsError> {
        let alone = |name, remedy| Err(SettingsError { name, value: String::new(), remedy });
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => return alone("RELAY_TLS_KEY", "set together with RELAY_TLS_CERT"),
            (None, Some(_)) => return alone("RELAY_TLS_CERT", "set together with RELAY_TLS_KEY"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if self.record.is_some()
            && let Some(shards) = self.shards.filter(|shards| shards.get() > 1)
        {
            return Err(SettingsError {
                name: "RELAY_SHARDS",
                value: alloc::format!("{shards}"),
                remedy: "1 or auto together with RELAY_RECORD: one shard is all that a recording can hold",
            });
        }
        if let (Some(ping), Some(pong)) = (self.relay.ping_interval, self.relay.pong_timeout)
            && ping >= pong
        {
            return Err(SettingsError {
                name: "RELAY_PONG_TIMEOUT",
                value: alloc::format!("{}", pong.as_secs_f64()),
                remedy: "more than RELAY_PING_INTERVAL, or every quiet client would be cut off",
            });
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        let none = Listen { addresses: Vec::new() };
        let mut settings = Self {
            addr: none,
            tls_cert: None,
            tls_key: None,
            metrics_addr: None,
            log: String::new(),
            log_format: LogFormat::Text,
            log_addresses: false,
            record: None,
            shards: None,
            relay: Config {
                max_rooms: 0,
                max_clients_per_room: 0,
                max_message_size: 0,
                room_idle_timeout: None,
                rate_limit_per_ip: None,
                handshake_timeout: None,
                ping_interval: None,
                pong_timeout: None,
                voice_queue: 0,
                voice_max_age: None,
                data_queue_bytes: 0,
                max_queued_bytes: 0,
                batch: false,
                coalesce: None,
                max_connections: 0,
                max_connections_per_ip: 0,
                max_bytes_per_second: None,
                max_messages_per_second: None,
                trusted_proxies: Vec::new(),
                drain: Duration::ZERO,
                tls: false,
            },
        };
        // The table is where defaults are written; a test reads every one of them.
        for variable in VARIABLES.iter().filter(|variable| !variable.default.is_empty()) {
            let applied = (variable.apply)(&mut settings, variable.default);
            debug_assert!(applied.is_some(), "the default of {} cannot be read", variable.name);
        }
        settings
    }
}

/// A variable that cannot be read (rule C3). Its text is one line that names variable, value and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    name: &'static str,
    value: String,
    remedy: &'static str,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{} is empty or not set; it has to be {}", self.name, self.remedy)
        } else {
            // Debug: what an operator pasted may hold line breaks.
            write!(f, "{}={:?} cannot be used; it has to be {}", self.name, self.value, self.remedy)
        }
    }
}

impl core::error::Error for SettingsError {}

/// One environment variable.
#[derive(Debug)]
pub struct Variable {
    /// `RELAY_…`.
    pub name: &'static str,
    /// The value when it is not set; empty for none.
    pub default: &'static str,
    /// What it may be, as the end of "it has to be …".
    pub allowed: &'static str,
    /// What it is for.
    pub help: &'static str,
    apply: fn(&mut Settings, &str) -> Option<()>,
}

const LIMIT: &str = "a whole number; 0 is no limit";
const RATE: &str = "a whole number up to 4294967295; 0 is no limit";
const SECONDS: &str = "a number of seconds such as 10 or 0.5; 0 is no limit";
const MILLISECONDS: &str = "a whole number of milliseconds up to 60000; 0 is off";
const SWITCH: &str = "on or off";
const FILE: &str = "the path of a PEM file";

macro_rules! variables {
    ($($name:literal, $default:literal, $allowed:expr, $help:literal, $apply:expr;)*) => {
        /// Every variable, in the order in which people ask for them (rules C1, C2).
        pub const VARIABLES: &[Variable] = &[$(Variable {
            name: $name,
            default: $default,
            allowed: $allowed,
            help: $help,
            apply: $apply,
        }),*];
    };
}

variables! {
    "RELAY_ADDR", ":8443", "HOST:PORT with an IP address for HOST, or :PORT for all interfaces",
        "where clients connect; `:PORT` is every interface, IPv4 and IPv6",
        |s, v| { s.addr = listen(v, &[IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)])?; Some(()) };
    "RELAY_TLS_CERT", "", FILE, "certificate chain; with the key: TLS 1.3, without both: plain text",
        |s, v| { s.tls_cert = Some(path(v)?); Some(()) };
    "RELAY_TLS_KEY", "", FILE, "private key of the certificate",
        |s, v| { s.tls_key = Some(path(v)?); Some(()) };
    "RELAY_MAX_ROOMS", "1000", LIMIT, "live rooms",
        |s, v| { s.relay.max_rooms = limit(v)?; Some(()) };
    "RELAY_MAX_CLIENTS_PER_ROOM", "20", LIMIT, "connections of one room, hosts included",
        |s, v| { s.relay.max_clients_per_room = limit(v)?; Some(()) };
    "RELAY_MAX_MESSAGE_SIZE", "1048576", "a whole number of bytes from 1 to 268435456",
        "bytes of one message; a larger one closes its sender with 1009",
        |s, v| { s.relay.max_message_size = number(v).filter(|n| (1..=1 << 28).contains(n))?; Some(()) };
    "RELAY_ROOM_IDLE_TIMEOUT", "3600", SECONDS, "how long a room may be silent",
        |s, v| { s.relay.room_idle_timeout = seconds(v)?; Some(()) };
    "RELAY_RATE_LIMIT_PER_IP", "100", RATE, "requests to `/ws` per second and address; twice that at once",
        |s, v| { s.relay.rate_limit_per_ip = rate(v)?; Some(()) };
    "RELAY_HANDSHAKE_TIMEOUT", "10", SECONDS, "from accept to the end of the request head, TLS included",
        |s, v| { s.relay.handshake_timeout = seconds(v)?; Some(()) };
    "RELAY_PING_INTERVAL", "54", SECONDS, "between two pings to a client",
        |s, v| { s.relay.ping_interval = seconds(v)?; Some(()) };
    "RELAY_PONG_TIMEOUT", "60", SECONDS, "silence after which a client is dead; longer than the ping interval",
        |s, v| { s.relay.pong_timeout = seconds(v)?; Some(()) };
    "RELAY_VOICE_QUEUE", "64", LIMIT, "voice packets that wait for one receiver; the oldest goes first",
        |s, v| { s.relay.voice_queue = limit(v)?; Some(()) };
    "RELAY_VOICE_MAX_AGE_MS", "400", MILLISECONDS, "age at which waiting voice is let go",
        |s, v| { s.relay.voice_max_age = milliseconds(v)?; Some(()) };
    "RELAY_DATA_QUEUE_BYTES", "4194304", LIMIT,
        "data that waits for one receiver before it is closed with 1013; at least four of the largest messages",
        |s, v| { s.relay.data_queue_bytes = limit(v)?; Some(()) };
    "RELAY_MAX_QUEUED_BYTES", "auto", "a whole number of bytes, 0 for no limit, or auto",
        "all that waits together; `auto` is a quarter of the memory of the machine or container",
        |s, v| { s.relay.max_queued_bytes = if v == "auto" { AUTO } else { limit(v)? }; Some(()) };
    "RELAY_BATCH", "on", SWITCH, "join waiting JSON messages into one, a line break between them",
        |s, v| { s.relay.batch = switch(v)?; Some(()) };
    "RELAY_COALESCE_MS", "2", MILLISECONDS,
        "after a write to a client the next one waits this long and takes along all that came",
        |s, v| { s.relay.coalesce = milliseconds(v)?; Some(()) };
    "RELAY_MAX_CONNECTIONS", "100000", LIMIT, "sockets in all",
        |s, v| { s.relay.max_connections = limit(v)?; Some(()) };
    "RELAY_MAX_CONNECTIONS_PER_IP", "0", LIMIT, "sockets of one address; IPv6 counts by /64",
        |s, v| { s.relay.max_connections_per_ip = limit(v)?; Some(()) };
    "RELAY_MAX_BYTES_PER_SECOND", "0", RATE, "what one client may send before it is read more slowly",
        |s, v| { s.relay.max_bytes_per_second = rate(v)?; Some(()) };
    "RELAY_MAX_MESSAGES_PER_SECOND", "0", RATE, "what one client may send before it is read more slowly",
        |s, v| { s.relay.max_messages_per_second = rate(v)?; Some(()) };
    "RELAY_TRUSTED_PROXIES", "127.0.0.0/8,::1/128", "networks such as 10.0.0.0/8,::1/128, or none",
        "whose `X-Forwarded-For` and `X-Real-IP` are believed",
        |s, v| { s.relay.trusted_proxies = networks(v)?; Some(()) };
    "RELAY_DRAIN_SECONDS", "10", "a number of seconds such as 10 or 0.5, up to 86400",
        "time over which rooms are closed after SIGTERM",
        |s, v| { s.relay.drain = seconds(v)?.unwrap_or_default(); (s.relay.drain <= MAX_DRAIN).then_some(()) };
    "RELAY_SHARDS", "auto", "a whole number from 1 to 256, or auto",
        "threads among which the rooms are divided; `auto` is one for each processor on relay-tokio, and 1 on relay-smol",
        |s, v| { s.shards = if v == "auto" { None } else { Some(shards(v)?) }; Some(()) };
    "RELAY_METRICS_ADDR", "", "HOST:PORT with an IP address for HOST, or :PORT for loopback",
        "where `/metrics` is served; `:PORT` is loopback only",
        |s, v| { s.metrics_addr = Some(listen(v, &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?); Some(()) };
    "RELAY_LOG", "info", "error, warn, info, debug, trace, or a filter such as info,relay=debug",
        "what is logged",
        |s, v| { s.log = some(v)?; Some(()) };
    "RELAY_LOG_FORMAT", "text", "text or json", "how a log line looks",
        |s, v| { s.log_format = log_format(v)?; Some(()) };
    "RELAY_LOG_ADDRESSES", "off", SWITCH, "whether client addresses may stand in the log",
        |s, v| { s.log_addresses = switch(v)?; Some(()) };
    "RELAY_RECORD", "", "the path of a file that can be written",
        "record what the relay is told and decides, without payloads, names and addresses: see docs/recording.md",
        |s, v| { s.record = Some(path(v)?); Some(()) };
}

/// `RELAY_MAX_QUEUED_BYTES=auto`, to be replaced by whoever can ask for the size of the memory.
pub const AUTO: usize = usize::MAX - 1;

/// More threads than any machine has processors for.
const MAX_SHARDS: NonZeroU16 = NonZeroU16::new(256).expect("it is not 0");

/// No time-out needs more than a hundred years, and none overflows a clock.
const MAX_SECONDS: f64 = 3_155_760_000.0;

/// A time that is rounded to nothing would be due again at once, for ever.
const MIN_TIME: Duration = Duration::from_millis(1);

/// A drain that takes longer than a day is a mistake.
const MAX_DRAIN: Duration = Duration::from_secs(86_400);

fn number(text: &str) -> Option<usize> {
    // `parse` takes a sign; nothing here wants one.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn limit(text: &str) -> Option<usize> {
    number(text).map(|n| if n == 0 { usize::MAX } else { n })
}

fn shards(text: &str) -> Option<NonZeroU16> {
    let shards = NonZeroU16::new(u16::try_from(number(text)?).ok()?)?;
    (shards <= MAX_SHARDS).then_some(shards)
}

#[allow(clippy::option_option)] // unreadable, none, some
fn rate(text: &str) -> Option<Option<u32>> {
    let rate = u32::try_from(number(text)?).ok()?;
    Some((rate > 0).then_some(rate))
}

#[allow(clippy::option_option)] // unreadable, none, some
fn seconds(text: &str) -> Option<Option<Duration>> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = digits_only.then(|| text.parse().ok())??;
    (seconds <= MAX_SECONDS).then(|| (seconds > 0.0).then(|| Duration::from_secs_f64(seconds).max(MIN_TIME)))
}

#[allow(clippy::option_option)] // unreadable, none, some
fn milliseconds(text: &str) -> Option<Option<Duration>> {
    let ms = number(text).filter(|ms| *ms <= 60_000)?;
    Some((ms > 0).then(|| Duration::from_millis(ms as u64)))
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn path(text: &str) -> Option<String> {
    some(text)
}

fn listen(text: &str, bare: &[IpAddr]) -> Option<Listen> {
    let addresses = match text.strip_prefix(':') {
        Some(port) => {
            let port = u16::try_from(number(port).filter(|_| !port.is_empty())?).ok()?;
            bare.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
        }
        None => alloc::vec![text.parse().ok()?],
    };
    Some(Listen { addresses })
}

fn networks(text: &str) -> Option<Vec<IpNet>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let network = |entry: &str| {
        let entry = entry.trim();
        entry.parse().ok().or_else(|| entry.parse::<IpAddr>().ok().map(|ip| IpNet::from(ip.to_canonical())))
    };
    text.split(',').map(network).collect()
}
