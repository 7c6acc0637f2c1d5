//! The smallest run that still fails in the same way: operations are taken out, many at once and then one by
//! one, then variables, for as long as there is time.

use std::time::{Duration, Instant};

use super::script::Run;
use super::{Failure, play};

/// Shrinks a failing run. `within` bounds the real time it may take.
#[expect(clippy::disallowed_methods, reason = "whoever waits for the result waits in real time")]
pub fn shrink(run: &Run, failure: &Failure, within: Duration) -> Run {
    let until = Instant::now() + within;
    let fails = |candidate: &Run| {
        Instant::now() < until && play(candidate).failure.is_some_and(|found| found.resembles(failure))
    };
    let mut best = run.clone();
    loop {
        let before = best.clone();
        best.ops = without(&best.ops, |ops| fails(&Run { ops, ..best.clone() }));
        best.vars = without(&best.vars, |vars| fails(&Run { vars, ..best.clone() }));
        if best == before {
            return best;
        }
    }
}

/// Takes out halves, quarters and so on, down to single elements, where what is left still fails.
fn without<T: Clone>(list: &[T], fails: impl Fn(Vec<T>) -> bool) -> Vec<T> {
    let mut list = list.to_vec();
    let mut size = list.len().div_ceil(2);
    while size > 0 {
        // From the end: what comes later depends on what was earlier.
        let mut end = list.len();
        while end > 0 {
            let start = end.saturating_sub(size);
            let candidate = [&list[..start], &list[end..]].concat();
            if fails(candidate.clone()) {
                list = candidate;
            }
            end = start;
        }
        size /= 2;
    }
    list
}
