//! Random histories of mapping, on our address space and on this machine's kernel.
//!
//! `MEMOBJ_STEPS` orders in all (by default 20,000), from `MEMOBJ_SEED`; the seed is printed. A history that differs is
//! made as short as possible and printed as a script; put into a file whose name is in `MEMOBJ_REPLAY`, it is played
//! alone.

use memobj_sim::space::{Outcome, compare, histories, parse, unfit};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Orders of the longest history.
const MOST: usize = 100;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeded(seed: u64, steps: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let cases = u32::try_from(steps / (MOST as u64 / 2)).unwrap_or(u32::MAX).max(1);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn histories_have_the_kernels_answers() {
    if let Some(reason) = unfit() {
        return println!("skipped: {reason}");
    }
    let seed = number("MEMOBJ_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let steps = number("MEMOBJ_STEPS").unwrap_or(20_000);
    println!("MEMOBJ_SEED={seed} MEMOBJ_STEPS={steps}");
    let (done, declared) = (Cell::new(0), RefCell::new(BTreeMap::new()));
    let failed = seeded(seed, steps).run(&histories(MOST), |history| {
        done.set(done.get() + history.orders.len());
        match compare(&history) {
            Ok(Outcome::Same) => Ok(()),
            Ok(Outcome::Declared(name)) => {
                *declared.borrow_mut().entry(name).or_insert(0) += 1;
                Ok(())
            }
            Err(mismatch) => Err(TestCaseError::fail(mismatch.to_string())),
        }
    });
    println!("{} orders; declared differences: {:?}", done.get(), declared.borrow());
    if let Err(proptest::test_runner::TestError::Fail(reason, _)) = &failed {
        panic!("seed {seed}: {reason}");
    }
    failed.expect("histories can be made");
}

#[test]
fn a_script_is_played_again() {
    let Ok(path) = std::env::var("MEMOBJ_REPLAY") else { return };
    let history = parse(&std::fs::read_to_string(path).unwrap()).expect("a script");
    match compare(&history) {
        Ok(outcome) => println!("{outcome:?}"),
        Err(mismatch) => panic!("{mismatch}"),
    }
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
