//! What an operator can see: the counters of the machine as OpenMetrics text, and the answers of the port
//! where they are fetched (rule C5).
//!
//! ```text
//! Stats ──┐                              ┌─ GET, HEAD /metrics: 200
//! Facts ──┴─► render ─► text ─► answer ──┤
//!              one row of METRICS each   ├─ /: a dashboard drawn from it
//!                                        └─ anything else: 404, 405, 400
//! ```
//!
//! Every series is there from the start, at 0. A label has one of a few values that are known beforehand:
//! none holds a room, a peer, an address or a key. For each lane, in messages and in bytes, always:
//! `enqueued = delivered + dropped + queued`.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use std::boxed::Box;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder,
    MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::config::{AUTO, Config};
use crate::dashboard;
use crate::envelope::Lane;
use crate::event::{Fault, Initiator, Role};
use crate::http::{Content, Form, HeadOnly, Request, Response, Route};
use crate::refusal::Refusal;
use crate::stats::{DropReason, Flow, Histogram, LaneStats, Stats};

/// Where metrics are fetched.
pub const PATH: &str = "/metrics";

/// What [`render`] writes.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What neither the counters of the machine nor its settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// The runtime: `tokio` or `smol`.
    pub adapter: &'static str,
    /// The version of the program.
    pub version: &'static str,
    /// On how many threads the rooms are.
    pub shards: u16,
    /// Until when the served certificate is valid, in Unix seconds; none without TLS.
    pub certificate_expiry: Option<i64>,
    /// What the kernel knows of the process.
    pub process: Process,
}

/// The process as the kernel sees it; what cannot be read is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// User and system time.
    pub cpu: Option<Duration>,
    /// Memory in use that is not swapped out.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The soft limit of them.
    pub max_fds: Option<u64>,
    /// The time of its start since the Unix epoch.
    pub started: Option<Duration>,
}

/// Everything that can be seen, as OpenMetrics text.
pub fn render(stats: &Stats, config: &Config, facts: Facts) -> String {
    // The library wants to own what it encodes: a registry for one scrape, and none that outlives it.
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot { stats: stats.clone(), config: config.clone(), facts }));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes whatever is written to it");
    text
}

/// The answer to a request on the metrics port. `render` is called for `/metrics` only.
pub fn answer(request: &Request<'_>, render: impl FnOnce() -> String) -> Response {
    let head_only = if request.method == "HEAD" { HeadOnly::Yes } else { HeadOnly::No };
    let path = request.origin_form().0;
    let page = dashboard::page(path);
    // How a page may be asked for is the same everywhere.
    let route = if path == PATH || page.is_some() { Route::Status } else { Route::Unknown };
    match request.judge(route) {
        Ok(()) => {
            let text = if page.is_none() { render() } else { String::new() };
            let metrics = Content { media_type: MEDIA_TYPE, fields: "", body: &text };
            Response::new(200, head_only, page.as_ref().unwrap_or(&metrics))
        }
        Err(refusal) => {
            let form = if request.wants_json() { Form::Json } else { Form::Plain };
            Response::refusal(refusal, form, head_only, None)
        }
    }
}

/// The answer to a request head on the metrics port that cannot be read.
pub fn answer_fault(fault: Fault) -> Response {
    let refusal = if fault == Fault::HeadTooLarge { Refusal::HeadTooLarge } else { Refusal::BadRequest };
    Response::refusal(refusal, Form::Plain, HeadOnly::No, None)
}

/// One metric: a row of [`METRICS`].
#[derive(Debug)]
pub struct Metric {
    /// As in a query, with `_total` and `_info`. A histogram has no series of this name: see
    /// [`series`](Self::series).
    pub name: &'static str,
    /// The names of its labels; for a histogram without `le`.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    read: Read,
}

impl Metric {
    /// Its type in OpenMetrics.
    pub fn kind(&self) -> &'static str {
        match self.read {
            Read::Info(_) => "info",
            Read::Gauge(_) => "gauge",
            Read::Counter(_) => "counter",
            Read::Histogram(_) => "histogram",
        }
    }

    /// What can be asked for: the name, or for a histogram its three.
    pub fn series(&self) -> Vec<String> {
        match self.read {
            Read::Histogram(_) => {
                ["_bucket", "_count", "_sum"].map(|suffix| alloc::format!("{}{suffix}", self.name)).into()
            }
            Read::Info(_) | Read::Gauge(_) | Read::Counter(_) => alloc::vec![self.name.to_string()],
        }
    }

    fn encode(&self, snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        match self.read {
            Read::Info(read) => {
                let labels = read(snapshot);
                self.describe(encoder, MetricType::Info)?.encode_info(&self.pairs(&labels))
            }
            Read::Gauge(read) => {
                self.encode_each(encoder, MetricType::Gauge, &read(snapshot), Number::encode_gauge)
            }
            Read::Counter(read) => {
                self.encode_each(encoder, MetricType::Counter, &read(snapshot), Number::encode_counter)
            }
            Read::Histogram(read) => {
                self.encode_each(encoder, MetricType::Histogram, &read(snapshot), Distribution::encode)
            }
        }
    }

    fn encode_each<T>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        kind: MetricType,
        readings: &[Reading<T>],
        encode: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
    ) -> fmt::Result {
        if readings.is_empty() {
            return Ok(());
        }
        let mut series = self.describe(encoder, kind)?;
        for (labels, value) in readings {
            if labels.is_empty() {
                encode(&mut series, value)?;
            } else {
                encode(&mut series.encode_family(&self.pairs(labels))?, value)?;
            }
        }
        Ok(())
    }

    /// The library adds the unit and the suffix of the type to a name; here both are written out.
    fn describe<'a>(
        &self,
        encoder: &'a mut DescriptorEncoder<'_>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'a>, fmt::Error> {
        let stem = match kind {
            MetricType::Counter => self.name.strip_suffix("_total"),
            MetricType::Info => self.name.strip_suffix("_info"),
            MetricType::Gauge | MetricType::Histogram | MetricType::Unknown => None,
        };
        let stem = stem.unwrap_or(self.name);
        for (suffix, unit) in [("_bytes", &Unit::Bytes), ("_seconds", &Unit::Seconds)] {
            if let Some(stem) = stem.strip_suffix(suffix) {
                return encoder.encode_descriptor(stem, self.help, Some(unit), kind);
            }
        }
        encoder.encode_descriptor(stem, self.help, None, kind)
    }

    fn pairs<'a>(&self, values: &'a Labels) -> Vec<(&'static str, &'a str)> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        self.labels.iter().copied().zip(values.iter().map(|value| &**value)).collect()
    }
}

/// All that is known at the moment of a scrape.
#[derive(Debug)]
struct Snapshot {
    stats: Stats,
    config: Config,
    facts: Facts,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| metric.encode(self, &mut encoder))
    }
}

/// The values of the labels, in the order of their names.
type Labels = Vec<Cow<'static, str>>;

type Reading<T> = (Labels, T);

/// How a metric gets its values, and so what type it is.
#[derive(Debug)]
enum Read {
    Info(fn(&Snapshot) -> Labels),
    Gauge(fn(&Snapshot) -> Vec<Reading<Number>>),
    Counter(fn(&Snapshot) -> Vec<Reading<Number>>),
    Histogram(fn(&Snapshot) -> Vec<Reading<Distribution>>),
}

macro_rules! metrics {
    ($($name:literal, [$($label:literal),*], $kind:ident, $help:literal, $read:expr;)*) => {
        /// Every metric, in the order in which they are written.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            labels: &[$($label),*],
            help: $help,
            read: Read::$kind($read),
        }),*];
    };
}

metrics! {
    "relay_build_info", ["version", "adapter"], Info, "What is running.",
        |s| alloc::vec![s.facts.version.into(), s.facts.adapter.into()];
    "relay_shards", [], Gauge, "Threads among which the rooms are divided: RELAY_SHARDS.",
        |s| one(u64::from(s.facts.shards));
    "relay_draining", [], Gauge, "1 while the relay is stopping.", |s| one(u64::from(s.stats.draining));
    "relay_certificate_expiry_timestamp_seconds", [], Gauge,
        "Until when the served certificate is valid, in Unix time; +Inf without TLS.",
        |s| one(expiry(s.facts.certificate_expiry));

    "relay_sockets", [], Gauge,
        "Sockets, from accept to close; those in no room are in their handshake, or closing.",
        |s| one(s.stats.connections);
    "relay_connections", ["role"], Gauge, "Connections that are in a room.", |s| alloc::vec![
        (label(Role::Host.as_str()), s.stats.hosts.into()),
        (label(Role::Guest.as_str()), s.stats.guests.into()),
    ];
    "relay_rooms", [], Gauge, "Live rooms.", |s| one(s.stats.rooms);
    "relay_handshakes_accepted_total", [], Counter, "Upgrades to WebSocket.", |s| one(s.stats.accepted);
    "relay_handshakes_refused_total", ["reason"], Counter, "Requests and sockets that were turned away.",
        |s| Refusal::CODES.iter().zip(s.stats.refused).map(|(code, n)| (label(code), n.into())).collect();
    "relay_disconnects_total", ["initiator", "code"], Counter,
        "Connections that left their room, by who ended it and the close code; 1006 is an end without one.",
        |s| disconnects(&s.stats);

    "relay_messages_received_total", ["lane"], Counter, "Messages that came in from clients.",
        |s| by_lane(s, |lane| lane.received.messages);
    "relay_received_bytes_total", ["lane"], Counter, "Payload bytes of messages that came in from clients.",
        |s| by_lane(s, |lane| lane.received.bytes);
    "relay_messages_enqueued_total", ["lane"], Counter,
        "Messages for receivers, once for each; with the leave notices of the relay itself.",
        |s| by_lane(s, |lane| lane.enqueued.messages);
    "relay_enqueued_bytes_total", ["lane"], Counter, "Payload bytes of messages for receivers, once for each.",
        |s| by_lane(s, |lane| lane.enqueued.bytes);
    "relay_messages_delivered_total", ["lane"], Counter, "Messages that reached the kernel.",
        |s| by_lane(s, |lane| lane.delivered.messages);
    "relay_delivered_bytes_total", ["lane"], Counter, "Payload bytes of messages that reached the kernel.",
        |s| by_lane(s, |lane| lane.delivered.bytes);
    "relay_messages_dropped_total", ["lane", "reason"], Counter,
        "Messages that were let go; data only together with its receiver.",
        |s| by_drop(s, |flow| flow.messages);
    "relay_dropped_bytes_total", ["lane", "reason"], Counter, "Payload bytes of messages that were let go.",
        |s| by_drop(s, |flow| flow.bytes);
    "relay_messages_queued", ["lane"], Gauge, "Messages that wait or are being written, once for each receiver.",
        |s| by_lane(s, |lane| lane.waiting.messages);
    "relay_queued_bytes", ["lane"], Gauge,
        "Payload bytes that wait or are being written, once for each receiver.",
        |s| by_lane(s, |lane| lane.waiting.bytes);
    "relay_held_bytes", [], Gauge,
        "What waits anywhere, a payload counted once for all its receivers, as RELAY_MAX_QUEUED_BYTES bounds it.",
        |s| one(s.stats.held_bytes);
    "relay_slow_consumer_closes_total", [], Counter, "Receivers that were closed for being slow.",
        |s| one(s.stats.slow_consumers);
    "relay_sender_pauses_total", [], Counter, "Times that a sender was made to wait by its receive limit.",
        |s| one(s.stats.paused);

    "relay_message_fan_out", [], Histogram, "Receivers of one message.",
        |s| alloc::vec![(Labels::new(), Distribution::of(&s.stats.fan_out, Histogram::FAN_OUT))];
    "relay_message_size_bytes", [], Histogram, "Payload bytes of one message from a client.",
        |s| alloc::vec![(Labels::new(), Distribution::of(&s.stats.message_size, Histogram::SIZE))];
    "relay_queue_wait_seconds", ["lane"], Histogram, "How long a message waited until it began to be written.",
        |s| Lane::ALL
            .map(|lane| (label(lane.as_str()), Distribution::of_times(&s.stats.lane(lane).waited)))
            .into();
    "relay_ping_round_trip_seconds", [], Histogram, "From a written ping to its pong.",
        |s| alloc::vec![(Labels::new(), Distribution::of_times(&s.stats.ping_round_trip))];

    "relay_limit_rooms", [], Gauge, "RELAY_MAX_ROOMS; +Inf, as in every limit, is none.",
        |s| one(limit(s.config.max_rooms));
    "relay_limit_connections_per_room", [], Gauge, "RELAY_MAX_CLIENTS_PER_ROOM.",
        |s| one(limit(s.config.max_clients_per_room));
    "relay_limit_sockets", [], Gauge, "RELAY_MAX_CONNECTIONS.", |s| one(limit(s.config.max_connections));
    "relay_limit_sockets_per_address", [], Gauge, "RELAY_MAX_CONNECTIONS_PER_IP.",
        |s| one(limit(s.config.max_connections_per_ip));
    "relay_limit_requests_per_second", [], Gauge, "RELAY_RATE_LIMIT_PER_IP.",
        |s| one(rate(s.config.rate_limit_per_ip));
    "relay_limit_message_size_bytes", [], Gauge, "RELAY_MAX_MESSAGE_SIZE.",
        |s| one(limit(s.config.max_message_size));
    "relay_limit_received_bytes_per_second", [], Gauge, "RELAY_MAX_BYTES_PER_SECOND.",
        |s| one(rate(s.config.max_bytes_per_second));
    "relay_limit_messages_received_per_second", [], Gauge, "RELAY_MAX_MESSAGES_PER_SECOND.",
        |s| one(rate(s.config.max_messages_per_second));
    "relay_limit_voice_queue_messages", [], Gauge, "RELAY_VOICE_QUEUE.", |s| one(limit(s.config.voice_queue));
    "relay_limit_voice_age_seconds", [], Gauge, "RELAY_VOICE_MAX_AGE_MS.",
        |s| one(bound(s.config.voice_max_age));
    "relay_limit_data_queue_bytes", [], Gauge,
        "RELAY_DATA_QUEUE_BYTES, raised to four of the largest messages.",
        |s| one(limit(s.config.data_bound()));
    "relay_limit_queued_bytes", [], Gauge,
        "RELAY_MAX_QUEUED_BYTES, against which a payload counts once however many wait for it.",
        |s| one(limit(s.config.max_queued_bytes));
    "relay_limit_coalesce_seconds", [], Gauge, "RELAY_COALESCE_MS; 0 is off.",
        |s| one(s.config.coalesce.unwrap_or_default());
    "relay_limit_room_idle_seconds", [], Gauge, "RELAY_ROOM_IDLE_TIMEOUT.",
        |s| one(bound(s.config.room_idle_timeout));
    "relay_limit_handshake_seconds", [], Gauge, "RELAY_HANDSHAKE_TIMEOUT.",
        |s| one(bound(s.config.handshake_timeout));
    "relay_limit_ping_interval_seconds", [], Gauge, "RELAY_PING_INTERVAL.",
        |s| one(bound(s.config.ping_interval));
    "relay_limit_silence_seconds", [], Gauge, "RELAY_PONG_TIMEOUT.", |s| one(bound(s.config.pong_timeout));
    "relay_limit_drain_seconds", [], Gauge, "RELAY_DRAIN_SECONDS.", |s| one(s.config.drain);

    "process_cpu_seconds_total", [], Counter, "User and system CPU time.",
        |s| known(s.facts.process.cpu);
    "process_resident_memory_bytes", [], Gauge, "Memory in use that is not swapped out.",
        |s| known(s.facts.process.resident_bytes);
    "process_open_fds", [], Gauge, "Open file descriptors.", |s| known(s.facts.process.open_fds);
    "process_max_fds", [], Gauge, "File descriptors that may be open.", |s| known(s.facts.process.max_fds);
    "process_start_time_seconds", [], Gauge, "When the process started, in Unix time.",
        |s| known(s.facts.process.started);
}

fn label(value: &'static str) -> Labels {
    alloc::vec![value.into()]
}

fn one(value: impl Into<Number>) -> Vec<Reading<Number>> {
    known(Some(value))
}

/// Nothing rather than a zero that is not true.
fn known(value: Option<impl Into<Number>>) -> Vec<Reading<Number>> {
    value.into_iter().map(|value| (Labels::new(), value.into())).collect()
}

fn by_lane(s: &Snapshot, read: impl Fn(&LaneStats) -> u64) -> Vec<Reading<Number>> {
    Lane::ALL.map(|lane| (label(lane.as_str()), read(s.stats.lane(lane)).into())).into()
}

fn by_drop(s: &Snapshot, read: impl Fn(&Flow) -> u64) -> Vec<Reading<Number>> {
    let mut readings = Vec::new();
    for lane in Lane::ALL {
        for (reason, flow) in DropReason::ALL.into_iter().zip(&s.stats.lane(lane).dropped) {
            if reason.concerns(lane) {
                let labels = alloc::vec![lane.as_str().into(), reason.as_str().into()];
                readings.push((labels, read(flow).into()));
            }
        }
    }
    readings
}

fn disconnects(stats: &Stats) -> Vec<Reading<Number>> {
    // A client may send any code; those that have no name of their own are counted as 0.
    let by_peer = Stats::CLOSE_CODES.into_iter().chain([0]).map(|code| (Initiator::Peer, code));
    let by_relay = Stats::RELAY_CLOSE_CODES.map(|code| (Initiator::Relay, code));
    let mut counts: BTreeMap<_, u64> = by_peer.chain(by_relay).map(|key| (key, 0)).collect();
    counts.extend(&stats.disconnects);
    let reading = |((initiator, code), n): ((Initiator, u16), u64)| {
        let initiator = match initiator {
            Initiator::Peer => "peer",
            Initiator::Relay => "relay",
        };
        let code = if code == 0 { "other".into() } else { Cow::Owned(code.to_string()) };
        (alloc::vec![initiator.into(), code], n.into())
    };
    counts.into_iter().map(reading).collect()
}

fn limit(limit: usize) -> Number {
    // The bound that nobody has worked out yet is none so far.
    if limit >= AUTO { Number::Real(f64::INFINITY) } else { Number::Whole(limit as u64) }
}

fn rate(per_second: Option<u32>) -> Number {
    per_second.map_or(Number::Real(f64::INFINITY), |n| Number::Whole(n.into()))
}

fn bound(time: Option<Duration>) -> Number {
    time.map_or(Number::Real(f64::INFINITY), Number::from)
}

/// What never expires needs no alert; a 0 would look like a certificate of 1970.
fn expiry(unix_seconds: Option<i64>) -> Number {
    unix_seconds
        .map_or(Number::Real(f64::INFINITY), |seconds| Number::Whole(u64::try_from(seconds).unwrap_or(0)))
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Whole(u64),
    Real(f64),
}

impl Number {
    fn encode_gauge(series: &mut MetricEncoder<'_>, number: &Self) -> fmt::Result {
        series.encode_gauge(number)
    }

    fn encode_counter(series: &mut MetricEncoder<'_>, number: &Self) -> fmt::Result {
        series.encode_counter::<NoLabelSet, _, u64>(number, None)
    }
}

impl From<u64> for Number {
    fn from(whole: u64) -> Self {
        Number::Whole(whole)
    }
}

impl From<Duration> for Number {
    fn from(time: Duration) -> Self {
        Number::Real(time.as_secs_f64())
    }
}

impl EncodeGaugeValue for Number {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Number::Whole(whole) => EncodeGaugeValue::encode(whole, encoder),
            Number::Real(real) => EncodeGaugeValue::encode(real, encoder),
        }
    }
}

impl EncodeCounterValue for Number {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Number::Whole(whole) => EncodeCounterValue::encode(whole, encoder),
            Number::Real(real) => EncodeCounterValue::encode(real, encoder),
        }
    }
}

/// A histogram with its bounds, in the unit of its name.
#[derive(Debug)]
struct Distribution {
    sum: f64,
    count: u64,
    /// Up to each bound; not cumulative.
    buckets: Vec<(f64, u64)>,
}

impl Distribution {
    fn of(histogram: &Histogram, bounds: &[u64]) -> Self {
        Self::scaled(histogram, bounds, 1.0)
    }

    /// Counted in microseconds, told in seconds.
    fn of_times(histogram: &Histogram) -> Self {
        Self::scaled(histogram, Histogram::WAIT, 1e6)
    }

    #[expect(clippy::cast_precision_loss, reason = "bounds are small, and 53 bits are plenty for a sum")]
    fn scaled(histogram: &Histogram, bounds: &[u64], per_unit: f64) -> Self {
        let bounds = bounds.iter().map(|bound| *bound as f64 / per_unit).chain([f64::INFINITY]);
        Self {
            sum: histogram.sum as f64 / per_unit,
            count: histogram.count(),
            buckets: bounds.zip(histogram.counts).collect(),
        }
    }

    fn encode(series: &mut MetricEncoder<'_>, Self { sum, count, buckets }: &Self) -> fmt::Result {
        series.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
    }
}
