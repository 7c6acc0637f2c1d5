//! Whole runs of the simulator. What breaks an invariant is printed as a script (`docs/simulation.md`).
#![no_main]

use conformance::simulate::{from_bytes, play};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(run) = from_bytes(data) else { return };
    let failure = play(&run).failure;
    assert!(failure.is_none(), "{failure:?}\n{run}");
});
