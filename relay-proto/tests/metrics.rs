//! What an operator sees of a short life of a relay: every series from the start, true values, no ids.

mod openmetrics;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use openmetrics::{Scrape, Series};
use relay_proto::config::{Settings, VARIABLES};
use relay_proto::http::{Head, Response};
use relay_proto::metrics::{Facts, METRICS, Process, answer, answer_fault, render};
use relay_proto::token::{Claims, encode_key, sign};
use relay_proto::{Action, Config, ConnId, Event, Fault, Now, Refusal, Relay, Role, Wake};

const ROOM: &str = "secret-room";
const HOST: &str = "peer-harriet";
const GUEST: &str = "peer-george";
const ADDRESS: &str = "203.0.113.77";

/// One relay and whoever is connected to it. Writes reach the kernel when a test says so.
struct World {
    relay: Relay,
    config: Config,
    now: Duration,
    actions: Vec<Action>,
    key: SigningKey,
}

impl World {
    fn new(vars: &[(&'static str, &'static str)]) -> Self {
        let config = Settings::from_vars(vars.iter().copied()).expect("valid").relay;
        Self {
            relay: Relay::new(config.clone(), [7; 32]),
            config,
            now: Duration::ZERO,
            actions: Vec::new(),
            key: SigningKey::from_bytes(&[1; 32]),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, unix: Duration::from_secs(1_700_000_000) + self.now }
    }

    fn handle(&mut self, event: Event<'_>) {
        let now = self.now();
        self.relay.handle(now, event, &mut self.actions);
        self.check_accounts();
        // The end of the turn: what a message left for its receivers is due.
        if self.relay.next_deadline().is_some_and(|(at, wake)| wake == Wake::Flush && at <= now.monotonic) {
            self.relay.handle(now, Event::Tick, &mut self.actions);
            self.check_accounts();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.handle(Event::Tick);
    }

    fn open(&mut self) -> Option<ConnId> {
        let now = self.now();
        self.relay.open(now, ADDRESS.parse::<IpAddr>().expect("valid"), &mut self.actions)
    }

    fn request(&mut self, head: &str) -> ConnId {
        let conn = self.open().expect("there is room");
        let head = whole(head);
        self.handle(Event::Connect { conn, request: &head.request().expect("whole") });
        conn
    }

    /// A member whose 101 is written.
    fn join(&mut self, peer: &str, role: Role) -> ConnId {
        let claims = Claims {
            room_id: ROOM.into(),
            peer_id: peer.into(),
            role,
            name: None,
            iat: None,
            nbf: None,
            exp: None,
        };
        let pubkey = match role {
            Role::Host => format!("&pubkey={}", encode_key(&self.key.verifying_key())),
            Role::Guest => String::new(),
        };
        let token = sign(&self.key, &claims);
        let conn = self.request(&format!(
            "GET /ws?room={ROOM}&token={token}{pubkey} HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        assert!(matches!(self.actions.last(), Some(Action::Upgrade { .. })), "{:?}", self.actions.last());
        self.sent(conn);
        conn
    }

    fn message(&mut self, conn: ConnId, payload: &'static [u8]) {
        self.handle(Event::Message { conn, payload: Bytes::from_static(payload) });
    }

    fn sent(&mut self, conn: ConnId) {
        self.handle(Event::Sent { conn });
    }

    fn gone(&mut self, conn: ConnId) {
        self.handle(Event::Disconnect { conn });
    }

    /// enqueued = delivered + dropped + waiting, in messages and in bytes.
    fn check_accounts(&self) {
        for lane in self.relay.stats().lanes {
            let all = |read: fn(&relay_proto::stats::Flow) -> u64| {
                let dropped: u64 = lane.dropped.iter().map(read).sum();
                (read(&lane.enqueued), read(&lane.delivered) + dropped + read(&lane.waiting))
            };
            for (enqueued, accounted) in [all(|flow| flow.messages), all(|flow| flow.bytes)] {
                assert_eq!(enqueued, accounted, "{lane:?}");
            }
        }
    }

    fn text(&self) -> String {
        render(self.relay.stats(), &self.config, facts())
    }

    fn scrape(&self) -> Scrape {
        Scrape::parse(&self.text())
    }
}

fn facts() -> Facts {
    Facts {
        adapter: "tokio",
        version: "1.2.3",
        shards: 2,
        certificate_expiry: Some(1_800_000_000),
        process: Process {
            cpu: Some(Duration::from_millis(2500)),
            resident_bytes: Some(8192),
            open_fds: Some(9),
            max_fds: Some(1024),
            started: Some(Duration::from_millis(1_700_000_000_250)),
        },
    }
}

fn whole(head: &str) -> Head {
    let mut whole = Head::new();
    assert_eq!(whole.push(head.as_bytes()), Ok(true));
    whole
}

#[test]
fn every_series_is_there_from_the_start_at_0() {
    let scrape = World::new(&[]).scrape();
    for ((name, labels), value) in &scrape.samples {
        let given = name.starts_with("relay_limit_")
            || name.starts_with("process_")
            || ["relay_build_info", "relay_shards", "relay_certificate_expiry_timestamp_seconds"]
                .contains(&name.as_str());
        assert!(given || *value == 0.0, "{name} {labels:?} {value}");
    }
    scrape.expect("relay_build_info", &["version=1.2.3", "adapter=tokio"], 1.0);
    for reason in Refusal::CODES {
        scrape.expect("relay_handshakes_refused_total", &[&format!("reason={reason}")], 0.0);
    }
    // Data is never let go for its age or number (rule S3).
    for name in ["relay_messages_dropped_total", "relay_dropped_bytes_total"] {
        assert_eq!(scrape.count(name), 6);
        for lane_and_reason in [
            ["lane=voice", "reason=queue_full"],
            ["lane=voice", "reason=stale"],
            ["lane=voice", "reason=slow_consumer"],
            ["lane=voice", "reason=gone"],
            ["lane=data", "reason=slow_consumer"],
            ["lane=data", "reason=gone"],
        ] {
            scrape.expect(name, &lane_and_reason, 0.0);
        }
    }
    assert_eq!(scrape.count("relay_disconnects_total"), 12 + 1 + 6);
    for (initiator, code) in [("peer", "1000"), ("peer", "1006"), ("peer", "other"), ("relay", "1013")] {
        let labels = [&*format!("initiator={initiator}"), &*format!("code={code}")];
        scrape.expect("relay_disconnects_total", &labels, 0.0);
    }
}

#[test]
fn the_table_says_what_is_written() {
    let scrape = World::new(&[]).scrape();
    let mut listed = BTreeSet::new();
    for metric in METRICS {
        let unsuffixed = ["_total", "_info"].iter().find_map(|suffix| metric.name.strip_suffix(suffix));
        let kind = scrape.types.get(unsuffixed.unwrap_or(metric.name));
        assert_eq!(kind.map(String::as_str), Some(metric.kind()), "{}", metric.name);
        for series in metric.series() {
            let samples = scrape.samples.keys().filter(|(name, _)| *name == series);
            let mut seen = 0;
            for (_, labels) in samples {
                let names: BTreeSet<_> =
                    labels.keys().map(String::as_str).filter(|name| *name != "le").collect();
                assert_eq!(names, metric.labels.iter().copied().collect(), "{series}");
                seen += 1;
            }
            assert!(seen > 0, "{series}");
            assert!(listed.insert(series));
        }
    }
    let written = scrape.samples.keys().map(|(name, _)| name.clone()).collect();
    assert_eq!(listed, written);
}

#[test]
fn values_follow_what_happens() {
    let mut world = World::new(&[("RELAY_COALESCE_MS", "0")]);
    let host = world.join(HOST, Role::Host);
    let guest = world.join(GUEST, Role::Guest);
    let waiting = world.open().expect("there is room");
    let stray = world.request("GET /nowhere HTTP/1.1\r\nHost: relay\r\n\r\n");
    world.sent(stray);
    let scrape = world.scrape();
    scrape.expect("relay_sockets", &[], 4.0);
    scrape.expect("relay_connections", &["role=host"], 1.0);
    scrape.expect("relay_connections", &["role=guest"], 1.0);
    scrape.expect("relay_rooms", &[], 1.0);
    scrape.expect("relay_handshakes_accepted_total", &[], 2.0);
    scrape.expect("relay_handshakes_refused_total", &["reason=not_found"], 1.0);
    world.gone(waiting);
    world.gone(stray);

    // The first leaves at once; the second waits 30 ms until the first is written.
    world.message(host, b"KV0123456789");
    world.message(host, b"{\"n\":1}");
    let scrape = world.scrape();
    scrape.expect("relay_sockets", &[], 2.0);
    scrape.expect("relay_messages_queued", &["lane=voice"], 1.0);
    scrape.expect("relay_queued_bytes", &["lane=voice"], 12.0);
    scrape.expect("relay_messages_queued", &["lane=data"], 1.0);
    scrape.expect("relay_queued_bytes", &["lane=data"], 7.0);
    scrape.expect("relay_messages_delivered_total", &["lane=voice"], 0.0);
    world.now += Duration::from_millis(30);
    world.sent(guest);
    world.sent(guest);
    let scrape = world.scrape();
    for (lane, bytes) in [("lane=voice", 12.0), ("lane=data", 7.0)] {
        for what in ["received", "enqueued", "delivered"] {
            scrape.expect(&format!("relay_messages_{what}_total"), &[lane], 1.0);
            scrape.expect(&format!("relay_{what}_bytes_total"), &[lane], bytes);
        }
        scrape.expect("relay_messages_queued", &[lane], 0.0);
        scrape.expect("relay_queued_bytes", &[lane], 0.0);
        scrape.expect("relay_queue_wait_seconds_count", &[lane], 1.0);
    }
    scrape.expect("relay_queue_wait_seconds_sum", &["lane=voice"], 0.0);
    scrape.expect("relay_queue_wait_seconds_sum", &["lane=data"], 0.03);
    scrape.expect("relay_queue_wait_seconds_bucket", &["lane=data", "le=0.025"], 0.0);
    scrape.expect("relay_queue_wait_seconds_bucket", &["lane=data", "le=0.05"], 1.0);
    scrape.expect("relay_message_fan_out_bucket", &["le=0.0"], 0.0);
    scrape.expect("relay_message_fan_out_bucket", &["le=1.0"], 2.0);
    scrape.expect("relay_message_size_bytes_sum", &[], 19.0);
    scrape.expect("relay_message_size_bytes_bucket", &["le=64.0"], 2.0);

    world.handle(Event::PeerClose { conn: guest, code: Some(4000) });
    world.handle(Event::Fault { conn: host, fault: Fault::TooBig });
    world.gone(guest);
    world.gone(host);
    let scrape = world.scrape();
    scrape.expect("relay_disconnects_total", &["initiator=peer", "code=other"], 1.0);
    scrape.expect("relay_disconnects_total", &["initiator=relay", "code=1009"], 1.0);
    // The leave notice for the host, which was closed before it could be written.
    scrape.expect("relay_messages_enqueued_total", &["lane=data"], 2.0);
    scrape.expect("relay_messages_received_total", &["lane=data"], 1.0);
    scrape.expect("relay_connections", &["role=host"], 0.0);
    scrape.expect("relay_rooms", &[], 0.0);
    scrape.expect("relay_sockets", &[], 0.0);
}

/// Lets everything happen that is counted under a label.
fn an_eventful_life() -> World {
    let mut world = World::new(&[
        ("RELAY_VOICE_QUEUE", "2"),
        ("RELAY_MAX_MESSAGE_SIZE", "1000"),
        ("RELAY_DATA_QUEUE_BYTES", "4000"),
        ("RELAY_MAX_MESSAGES_PER_SECOND", "5"),
        ("RELAY_MAX_CONNECTIONS", "3"),
        ("RELAY_ROOM_IDLE_TIMEOUT", "100"),
    ]);
    let host = world.join(HOST, Role::Host);

    // A receiver that takes nothing: its voice becomes too much and too old, its data too much.
    let slow = world.join(GUEST, Role::Guest);
    for _ in 0..4 {
        world.message(host, b"KV voice");
    }
    world.now += Duration::from_millis(500);
    world.sent(slow);
    for _ in 0..3 {
        world.message(host, b"KV voice");
    }
    for _ in 0..7 {
        world.message(host, &[b'x'; 999]);
    }
    world.gone(slow);

    // A full house, and a host that goes with something waiting for it in each lane.
    let guest = world.join(GUEST, Role::Guest);
    let third = world.open().expect("there is room");
    assert_eq!(world.open(), None);
    world.gone(third);
    for payload in [&b"KV voice"[..], b"{}", b"KV voice", b"{}"] {
        world.message(guest, payload);
    }
    world.gone(host);
    world.sent(guest);

    // A head that is no head, a peer that breaks the protocol.
    let bad = world.open().expect("there is room");
    world.handle(Event::Fault { conn: bad, fault: Fault::HeadTooLarge });
    world.gone(bad);
    let host = world.join(HOST, Role::Host);
    world.handle(Event::Fault { conn: guest, fault: Fault::Protocol });
    world.gone(guest);
    world.sent(host);

    // A ping and its pong, then nothing at all.
    world.pass(Duration::from_secs(54));
    world.sent(host);
    world.now += Duration::from_millis(40);
    world.handle(Event::Pong { conn: host });
    world.pass(Duration::from_secs(50));
    world.gone(host);

    // The end.
    let last = world.join(HOST, Role::Host);
    world.handle(Event::Drain);
    world.pass(Duration::from_secs(30));
    world.gone(last);
    world
}

#[test]
fn nothing_appears_later() {
    let world = an_eventful_life();
    let scrape = world.scrape();
    for reason in [["lane=voice", "reason=queue_full"], ["lane=voice", "reason=stale"]] {
        assert!(scrape.get("relay_messages_dropped_total", &reason) > 0.0, "{reason:?}");
    }
    for lane in ["lane=voice", "lane=data"] {
        for reason in ["reason=slow_consumer", "reason=gone"] {
            assert!(scrape.get("relay_messages_dropped_total", &[lane, reason]) > 0.0, "{lane} {reason}");
        }
    }
    for code in ["code=1013", "code=1002", "code=1001", "code=1012"] {
        scrape.expect("relay_disconnects_total", &["initiator=relay", code], 1.0);
    }
    scrape.expect("relay_handshakes_refused_total", &["reason=too_many_connections"], 1.0);
    scrape.expect("relay_handshakes_refused_total", &["reason=head_too_large"], 1.0);
    assert!(scrape.get("relay_sender_pauses_total", &[]) > 0.0);
    assert!(scrape.get("relay_slow_consumer_closes_total", &[]) > 0.0);
    assert!(scrape.get("relay_ping_round_trip_seconds_count", &[]) > 0.0);
    let fresh = Relay::new(world.config.clone(), [0; 32]);
    let before = Scrape::parse(&render(fresh.stats(), &world.config, facts()));
    assert_eq!(scrape.series(), before.series());
}

#[test]
fn the_accounts_balance_in_what_is_written() {
    let world = an_eventful_life();
    let scrape = world.scrape();
    let shapes = [
        ("relay_messages_{}_total", "relay_messages_queued"),
        ("relay_{}_bytes_total", "relay_queued_bytes"),
    ];
    for lane in ["voice", "data"] {
        let label = format!("lane={lane}");
        for (shape, queued) in shapes {
            let dropped = |((name, labels), value): (&Series, &f64)| {
                (*name == shape.replace("{}", "dropped") && labels["lane"] == lane).then_some(*value)
            };
            let dropped: f64 = scrape.samples.iter().filter_map(dropped).sum();
            let total = |what| scrape.get(&shape.replace("{}", what), &[&label]);
            let accounted = total("delivered") + dropped + scrape.get(queued, &[&label]);
            assert!((total("enqueued") - accounted).abs() < 0.5 && dropped > 0.0, "{lane} {shape}");
        }
    }
}

#[test]
fn buckets_are_cumulative_and_end_with_the_count() {
    let scrape = an_eventful_life().scrape();
    let mut histograms: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), value) in &scrape.samples {
        if let Some(name) = name.strip_suffix("_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").expect("a bound").parse().expect("a number");
            histograms.entry((name, labels)).or_default().push((bound, *value));
        }
    }
    assert_eq!(histograms.len(), 5);
    for ((name, labels), mut buckets) in histograms {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{name}");
        let last = buckets.last().expect("there are buckets");
        assert!(last.0.is_infinite());
        let counted = scrape.samples[&(format!("{name}_count"), labels)];
        assert!((last.1 - counted).abs() < 0.5 && counted > 0.0, "{name}");
    }
}

#[test]
fn a9_no_label_holds_an_id_an_address_or_a_key() {
    let world = an_eventful_life();
    let text = world.text();
    let key = encode_key(&world.key.verifying_key());
    for secret in [ROOM, HOST, GUEST, ADDRESS, &key] {
        assert!(!text.contains(secret), "{secret}");
    }
    let mut values: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (_, labels) in world.scrape().samples.into_keys() {
        for (name, value) in labels {
            values.entry(name).or_default().insert(value);
        }
    }
    let numeric = |text: &String| text.parse::<f64>().is_ok();
    let codes = values.remove("code").expect("disconnects have it");
    assert!(codes.iter().all(|code| numeric(code) || code == "other"));
    assert!(values.remove("le").expect("histograms have it").iter().all(numeric));
    let reasons: BTreeSet<_> =
        Refusal::CODES.into_iter().chain(["queue_full", "stale", "slow_consumer", "gone"]).collect();
    for (name, closed_set) in [
        ("version", BTreeSet::from(["1.2.3"])),
        ("adapter", BTreeSet::from(["tokio"])),
        ("role", BTreeSet::from(["host", "guest"])),
        ("lane", BTreeSet::from(["voice", "data"])),
        ("initiator", BTreeSet::from(["peer", "relay"])),
        ("reason", reasons),
    ] {
        let seen = values.remove(name).expect(name);
        assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), closed_set, "{name}");
    }
    assert!(values.is_empty(), "{values:?}");
}

#[test]
fn what_is_given_is_told() {
    let scrape = World::new(&[("RELAY_MAX_ROOMS", "17"), ("RELAY_VOICE_MAX_AGE_MS", "250")]).scrape();
    scrape.expect("relay_limit_rooms", &[], 17.0);
    scrape.expect("relay_limit_voice_age_seconds", &[], 0.25);
    scrape.expect("relay_limit_message_size_bytes", &[], 1_048_576.0);
    scrape.expect("relay_limit_data_queue_bytes", &[], 4_194_600.0);
    scrape.expect("relay_certificate_expiry_timestamp_seconds", &[], 1.8e9);
    scrape.expect("process_cpu_seconds_total", &[], 2.5);
    scrape.expect("process_resident_memory_bytes", &[], 8192.0);
    scrape.expect("process_open_fds", &[], 9.0);
    scrape.expect("process_max_fds", &[], 1024.0);
    scrape.expect("process_start_time_seconds", &[], 1_700_000_000.25);

    let mut none = World::new(&[("RELAY_MAX_ROOMS", "0"), ("RELAY_PING_INTERVAL", "0")]);
    none.handle(Event::Drain);
    let nothing = Facts { certificate_expiry: None, process: Process::default(), ..facts() };
    let scrape = Scrape::parse(&render(none.relay.stats(), &none.config, nothing));
    scrape.expect("relay_draining", &[], 1.0);
    scrape.expect("relay_shards", &[], 2.0);
    for unlimited in [
        "relay_limit_rooms",
        "relay_limit_ping_interval_seconds",
        "relay_limit_sockets_per_address",
        "relay_limit_received_bytes_per_second",
        "relay_certificate_expiry_timestamp_seconds",
    ] {
        assert!(scrape.get(unlimited, &[]).is_infinite(), "{unlimited}");
    }
    assert!(!scrape.samples.keys().any(|(name, _)| name.starts_with("process_")), "unknown is not 0");
}

#[test]
fn every_limit_that_can_be_set_is_told() {
    let no_limit = [
        "RELAY_ADDR",
        "RELAY_TLS_",
        "RELAY_BATCH",
        "RELAY_TRUSTED_PROXIES",
        "RELAY_METRICS_ADDR",
        "RELAY_LOG",
        "RELAY_RECORD",
        "RELAY_SHARDS",
    ];
    for variable in VARIABLES {
        let told = METRICS.iter().filter(|metric| {
            metric.name.starts_with("relay_limit_")
                && metric
                    .help
                    .split(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                    .any(|word| word == variable.name)
        });
        let expected = usize::from(!no_limit.iter().any(|start| variable.name.starts_with(start)));
        assert_eq!(told.count(), expected, "{}", variable.name);
    }
}

fn asked(head: &str) -> (Response, bool) {
    let head = whole(head);
    let mut rendered = false;
    let response = answer(&head.request().expect("whole"), || {
        rendered = true;
        "# EOF\n".to_owned()
    });
    (response, rendered)
}

#[track_caller]
fn assert_answer(response: &Response, status: u16, lines: &[&str], body: &str) {
    let text = std::str::from_utf8(&response.bytes).expect("text");
    let (head, content) = text.split_once("\r\n\r\n").expect("an empty line");
    assert_eq!((response.status, content), (status, body));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    for line in lines {
        assert!(head.split("\r\n").any(|other| other == *line), "{line} in {head}");
    }
}

#[test]
fn c5_metrics_are_at_one_path() {
    let fields = [
        "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        "Content-Length: 6",
        "Connection: close",
    ];
    for target in ["/metrics", "/metrics?x=1", "http://relay:9090/metrics"] {
        let (response, rendered) = asked(&format!("GET {target} HTTP/1.1\r\nHost: relay\r\n\r\n"));
        assert_answer(&response, 200, &fields, "# EOF\n");
        assert!(rendered);
    }
    let (response, _) = asked("HEAD /metrics HTTP/1.1\r\nHost: relay\r\n\r\n");
    assert_answer(&response, 200, &fields, "");
}

#[test]
fn c5_a_dashboard_is_at_the_root() {
    for (target, media_type) in
        [("/", "text/html"), ("/dashboard.css", "text/css"), ("/dashboard.js", "text/javascript")]
    {
        let (response, rendered) = asked(&format!("GET {target} HTTP/1.1\r\nHost: relay\r\n\r\n"));
        let text = std::str::from_utf8(&response.bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("an empty line");
        assert!(head.contains(&format!("Content-Type: {media_type}; charset=utf-8\r\n")), "{head}");
        assert!(head.contains("Content-Security-Policy: default-src 'none'; script-src 'self';"), "{head}");
        // A namespace is a name; nobody fetches it.
        let addresses = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("http:") && !addresses.contains("https:"), "{target}");
        assert!(!rendered, "{target}");
    }
}

#[test]
fn c5_anything_else_is_refused_as_everywhere() {
    let plain = "Content-Type: text/plain; charset=utf-8";
    for (head, status, line, body) in [
        ("GET /dashboard HTTP/1.1\r\nHost: r\r\n\r\n", 404, plain, "404 page not found\n"),
        ("POST / HTTP/1.1\r\nHost: r\r\n\r\n", 405, "Allow: GET, HEAD", "method not allowed\n"),
        ("GET /health HTTP/1.1\r\nHost: r\r\n\r\n", 404, plain, "404 page not found\n"),
        ("GET /metrics/ HTTP/1.1\r\nHost: r\r\n\r\n", 404, plain, "404 page not found\n"),
        ("HEAD /x HTTP/1.1\r\nHost: r\r\n\r\n", 404, "Content-Length: 19", ""),
        ("POST /metrics HTTP/1.1\r\nHost: r\r\n\r\n", 405, "Allow: GET, HEAD", "method not allowed\n"),
        ("GET /metrics HTTP/1.1\r\n\r\n", 400, plain, "bad request\n"),
        (
            "GET /x HTTP/1.1\r\nHost: r\r\nAccept: application/json\r\n\r\n",
            404,
            "Content-Type: application/json",
            r#"{"error":"not_found","message":"404 page not found"}"#,
        ),
    ] {
        let (response, rendered) = asked(head);
        assert_answer(&response, status, &[line, "X-Content-Type-Options: nosniff"], body);
        assert!(!rendered, "{head}");
    }
    assert_answer(&answer_fault(Fault::HeadTooLarge), 431, &[plain], "request head too large\n");
    assert_answer(&answer_fault(Fault::BadHead), 400, &[plain], "bad request\n");
}
