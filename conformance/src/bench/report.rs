//! Results, for people and for programs.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::idle::{Connect, Idle};
use super::plan::Plan;
use super::run::Outcome;

/// What is told of a distribution.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;
/// With less of a processor than this left, it is the generator that is measured.
const BUSY: f64 = 0.9;

/// A quantile in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours fit")]
pub(crate) fn millis(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1e6
}

/// Of a run with load.
pub(crate) fn load(plan: &Plan, outcome: &Outcome, as_json: bool) {
    if as_json {
        println!("{}", load_json(plan, outcome));
        return;
    }
    let tally = &outcome.tally;
    let seconds = plan.duration.as_secs_f64();
    println!("{plan}\n");
    row("sent", &tally.sent.to_string());
    row(
        "received",
        &format!("{} of {}, {:.0}/s", tally.received, tally.expected, rate(tally.measured, seconds)),
    );
    row("lost, late or twice", &format!("{}, {}", tally.lost, tally.disordered));
    if tally.stalls > 0 {
        row("stalls", &format!("{}: nothing moved for a second", tally.stalls));
    }
    let quantiles =
        QUANTILES.map(|(name, quantile)| format!("{name} {:.3}", millis(&tally.latency, quantile)));
    row("latency, ms", &quantiles.join("  "));
    if let (Some(server), Some(cost)) = (outcome.server, outcome.cpu_per_delivery()) {
        row("server CPU", &format!("{:.3} s per million deliveries", cost / 1000.0));
        row("", &format!("{:.0} % of a processor", server.cpu.as_secs_f64() / seconds * 100.0));
        let switches = format!("{} waits, {} preemptions", server.waits, server.preemptions);
        row("context switches", &switches);
        row(
            "resident memory",
            &format!("{:.1} MiB, at most {:.1} MiB", mib(server.resident), mib(server.peak)),
        );
    }
    let busy = outcome.generator.as_secs_f64() / seconds;
    row("load generator", &format!("{:.0} % of a processor", busy * 100.0));
    #[expect(clippy::cast_precision_loss, reason = "a number of threads")]
    if busy > BUSY * plan.threads as f64 {
        row("", "it has little left: latency is its own, too; see --threads");
    }
}

fn load_json(plan: &Plan, outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    let latency: serde_json::Map<_, _> = QUANTILES
        .iter()
        .map(|(name, quantile)| ((*name).to_owned(), json!(millis(&tally.latency, *quantile))))
        .collect();
    json!({
        "plan": plan.to_string(),
        "seconds": plan.duration.as_secs_f64(),
        "sent": tally.sent,
        "expected": tally.expected,
        "received": tally.received,
        "measured": tally.measured,
        "lost": tally.lost,
        "disordered": tally.disordered,
        "foreign": tally.foreign,
        "other": tally.other,
        "stalls": tally.stalls,
        "closed": tally.closed,
        "latency_ms": latency,
        "server": outcome.server.map(|server| json!({
            "cpu_seconds": server.cpu.as_secs_f64(),
            "cpu_seconds_per_million_deliveries": outcome.cpu_per_delivery().map(|nanos| nanos / 1000.0),
            "waits": server.waits,
            "preemptions": server.preemptions,
            "resident_bytes": server.resident,
            "peak_bytes": server.peak,
        })),
        "generator_cpu_seconds": outcome.generator.as_secs_f64(),
    })
}

/// Of connections that do nothing.
pub(crate) fn idle(idle: &Idle, as_json: bool) {
    let (plain, used) = idle.per_connection();
    if as_json {
        println!(
            "{}",
            json!({
                "connections": idle.connections,
                "people": idle.people,
                "empty_bytes": idle.empty,
                "plain_bytes": idle.plain,
                "used_bytes": idle.used,
                "plain_bytes_per_connection": plain,
                "used_bytes_per_connection": used,
            })
        );
        return;
    }
    println!("{} connections in rooms of {}\n", idle.connections, idle.people);
    row("empty", &format!("{:.1} MiB resident", mib(idle.empty)));
    row("plain", &format!("{:.1} MiB, {:.2} KiB per connection", mib(idle.plain), plain / KIB));
    let used = format!("{:.1} MiB, {:.2} KiB per connection", mib(idle.used), used / KIB);
    row("1 KiB each way", &used);
}

/// Of connections that were set up.
pub(crate) fn connect(connect: &Connect, as_json: bool) {
    let Connect { connections, people, usage, time } = connect;
    if as_json {
        println!(
            "{}",
            json!({
                "connections": connections,
                "people": people,
                "seconds": time.as_secs_f64(),
                "cpu_microseconds_per_connection": connect.per_connection(),
                "waits": usage.waits,
                "preemptions": usage.preemptions,
            })
        );
        return;
    }
    println!("{connections} connections in rooms of {people}, in {:.2} s\n", time.as_secs_f64());
    row("server CPU", &format!("{:.1} µs per connection", connect.per_connection()));
    row("context switches", &format!("{} waits, {} preemptions", usage.waits, usage.preemptions));
}

fn row(name: &str, value: &str) {
    println!("{name:20}{value}");
}

#[expect(clippy::cast_precision_loss, reason = "it is shown rounded")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[expect(clippy::cast_precision_loss, reason = "it is shown rounded")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
