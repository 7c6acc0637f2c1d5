//! A run out of a seed. Each run draws what may happen in it at all, and how scarce everything is: runs that
//! are all alike find what one of them finds.

use super::op::Op;
use super::rng::Rng;
use super::script::Run;

/// What is set to nothing, to a value that hurts at once, or left as it is.
const LIMITS: &[(&str, &[&str])] = &[
    ("RELAY_MAX_ROOMS", &["1", "2"]),
    ("RELAY_MAX_CLIENTS_PER_ROOM", &["2", "3", "4", "6"]),
    ("RELAY_MAX_MESSAGE_SIZE", &["100", "1000", "4000"]),
    ("RELAY_DATA_QUEUE_BYTES", &["1", "20000"]),
    ("RELAY_MAX_QUEUED_BYTES", &["500", "3000", "20000", "200000"]),
    ("RELAY_VOICE_QUEUE", &["1", "3", "0"]),
    ("RELAY_VOICE_MAX_AGE_MS", &["10", "50", "0"]),
    ("RELAY_ROOM_IDLE_TIMEOUT", &["0.3", "1", "5", "0"]),
    ("RELAY_PING_INTERVAL", &["0.5", "2", "0"]),
    ("RELAY_HANDSHAKE_TIMEOUT", &["0.1", "1", "0"]),
    ("RELAY_MAX_CONNECTIONS", &["6", "12"]),
    ("RELAY_MAX_CONNECTIONS_PER_IP", &["2", "4"]),
    ("RELAY_RATE_LIMIT_PER_IP", &["1", "5", "0"]),
    ("RELAY_MAX_MESSAGES_PER_SECOND", &["5", "50"]),
    ("RELAY_MAX_BYTES_PER_SECOND", &["5000", "50000"]),
    ("RELAY_DRAIN_SECONDS", &["0", "0.5", "2"]),
    ("RELAY_BATCH", &["off"]),
    ("RELAY_COALESCE_MS", &["0", "20", "100"]),
    ("SIM_LATENCY_MS", &["1", "10", "100"]),
];

/// What the kernels of both sides hold of one direction.
const WINDOWS: &[&str] = &["300", "1000", "5000", "30000", "131072"];

/// Longer than every interval above.
const PONG_TIMEOUTS: &[&str] = &["2.5", "6", "60"];

/// How many shards there are; in half of the runs one.
const SHARDS: &[u16] = &[1, 1, 1, 2, 3, 4];

/// How long a socket takes from one shard to another. The last is longer than some time-outs.
const HAND_OVERS_MS: &[u16] = &[0, 0, 1, 50, 1500];

/// The run that belongs to a seed.
pub(crate) fn generate(seed: u64, ops: usize) -> Run {
    let mut rng = Rng::new(seed);
    let vars = variables(seed, &mut rng);
    let weights = weights(&mut rng);
    // Most runs have no large messages, which take most of the time.
    let sizes = *rng.choose(&[8, 12, 14, 16]);
    let total = weights.iter().sum();
    let ops = (0..ops).map(|_| smaller(draw(&weights, total, &mut rng), sizes)).collect();
    Run { vars, ops }
}

fn variables(seed: u64, rng: &mut Rng) -> Vec<(String, String)> {
    let mut vars = vec![("SIM_SEED", seed.to_string())];
    let scarcity = *rng.choose(&[3, 5, 10, 30]);
    for (name, values) in LIMITS {
        if rng.one_in(scarcity) {
            vars.push((name, (*rng.choose(values)).to_owned()));
        }
    }
    // The bound of a queue is never below four messages, so only small messages make it small (rule S3).
    let has = |vars: &[(&str, String)], name| vars.iter().any(|(known, _)| *known == name);
    if has(&vars, "RELAY_DATA_QUEUE_BYTES") && !has(&vars, "RELAY_MAX_MESSAGE_SIZE") {
        vars.push(("RELAY_MAX_MESSAGE_SIZE", "200".to_owned()));
    }
    vars.push(("SIM_WINDOW", (*rng.choose(WINDOWS)).to_owned()));
    if has(&vars, "RELAY_PING_INTERVAL") {
        vars.push(("RELAY_PONG_TIMEOUT", (*rng.choose(PONG_TIMEOUTS)).to_owned()));
    }
    let shards = shards(seed, &mut vars);
    // Each shard has its part of this (rule S4), and that is to be as scarce as it would be for one alone.
    for (_, bytes) in vars.iter_mut().filter(|(name, _)| *name == "RELAY_MAX_QUEUED_BYTES") {
        *bytes = (bytes.parse().unwrap_or(0) * u64::from(shards)).to_string();
    }
    vars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Drawn by itself: the operations of a seed are the same, however many shards they come to.
fn shards(seed: u64, vars: &mut Vec<(&str, String)>) -> u16 {
    let mut rng = Rng::new(!seed);
    let shards = *rng.choose(SHARDS);
    if shards > 1 {
        vars.push(("RELAY_SHARDS", shards.to_string()));
        vars.push(("SIM_HAND_OVER_MS", rng.choose(HAND_OVERS_MS).to_string()));
    }
    shards
}

/// In each run some operations never happen, and some all the time.
fn weights(rng: &mut Rng) -> Vec<u16> {
    let variation = |weight: &u16| match rng.below(8) {
        0 | 1 => 0,
        2 => weight * 3,
        _ => *weight,
    };
    let mut weights: Vec<u16> = Op::WEIGHTS.iter().map(variation).collect();
    // Without a host there is no room, and without time nothing ends.
    for (weight, default) in weights.iter_mut().zip(Op::WEIGHTS).take(2) {
        *weight = (*weight).max(*default);
    }
    weights
}

fn draw(weights: &[u16], total: u16, rng: &mut Rng) -> Op {
    let mut at = rng.below(total);
    let index = weights.iter().position(|weight| match at.checked_sub(*weight) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    });
    Op::draw(index.unwrap_or_default(), rng)
}

fn smaller(op: Op, sizes: u16) -> Op {
    match op {
        Op::Voice { who, size, times } => Op::Voice { who, size: size % sizes, times },
        Op::Data { who, kind, size, times } => Op::Data { who, kind, size: size % sizes, times },
        other => other,
    }
}
