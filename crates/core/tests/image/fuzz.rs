//! The body of the fuzz target without a fuzzer, for machines that have none: `MEMOBJ_FUZZ_SECONDS` says how long,
//! `MEMOBJ_FUZZ_SEED` from where on.

use crate::check::check_any;
use crate::mutate::{Random, mutated};
use std::time::{Duration, Instant};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn mutations_for_a_while() {
    let seed = number("MEMOBJ_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let limit = Duration::from_millis(number("MEMOBJ_FUZZ_SECONDS").map_or(300, |seconds| seconds * 1000));
    println!("seed {seed}");
    let begin = Instant::now();
    let mut cases = 0_u64;
    while begin.elapsed() < limit {
        // Each case has its own seed, so that one can be repeated without those before it.
        let case = seed.wrapping_add(cases);
        let mut random = Random::new(case);
        let choice = [0; 3].map(|_: u8| random.below(256) as u8);
        let (bytes, length_bytes) = mutated(&mut random);
        let told = std::panic::catch_unwind(|| check_any(choice, length_bytes, &bytes));
        assert!(told.is_ok(), "seed {case}");
        cases += 1;
    }
    println!("{cases} cases in {} s", begin.elapsed().as_secs());
}
