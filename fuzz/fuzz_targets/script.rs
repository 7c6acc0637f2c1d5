//! Whole runs of the simulator: the first eight bytes choose the world and its limits, each four that follow
//! choose one operation. What breaks an invariant is printed as a script (`docs/simulation.md`).
#![no_main]

use conformance::simulate::{Run, generate, play};

/// A run gets slower with its length, and a shorter one says more.
const MAX_OPS: usize = 60;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((world, ops)) = data.split_first_chunk::<8>() else { return };
    let op = |chunk: &[u8]| generate(chunk.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)), 1).ops;
    let ops = ops.chunks_exact(4).take(MAX_OPS).flat_map(op).collect();
    let run = Run { ops, ..generate(u64::from_le_bytes(*world), 0) };
    let failure = play(&run).failure;
    assert!(failure.is_none(), "{failure:?}\n{run}");
});
