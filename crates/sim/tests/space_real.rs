//! Random histories of mapping on three sides: software, this machine's kernel, and a space of this process.
//!
//! `MEMOBJ_STEPS` orders in all (by default 20,000), from `MEMOBJ_SEED`; the seed is printed. `MEMOBJ_REPLAY` plays a
//! script, as in `space_oracle.rs`.

use memobj_linux::uffd;
use memobj_sim::space::{Mismatch, Outcome, RealObjects, compare_three, parse, space_histories, unfit};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Orders of the longest history.
const MOST: usize = 100;

/// The window of a process is for one space at a time.
static WINDOW: Mutex<()> = Mutex::new(());

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn reason_to_skip() -> Option<String> {
    unfit().or_else(|| uffd::probe().err().map(|error| format!("no userfaultfd: {error}")))
}

#[test]
fn spaces_of_this_process_have_the_kernels_answers() {
    if let Some(reason) = reason_to_skip() {
        return println!("skipped: {reason}");
    }
    let _one = WINDOW.lock().unwrap();
    let seed = number("MEMOBJ_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let steps = number("MEMOBJ_STEPS").unwrap_or(20_000);
    println!("MEMOBJ_SEED={seed} MEMOBJ_STEPS={steps}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let cases = u32::try_from(steps / (MOST as u64 / 2)).unwrap_or(u32::MAX).max(1);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let (objects, done, declared) = (RealObjects::new(), Cell::new(0), RefCell::new(BTreeMap::new()));
    let failed = runner.run(&space_histories(MOST), |history| {
        done.set(done.get() + history.orders.len());
        match compare_three(&history, &objects) {
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
    let _one = WINDOW.lock().unwrap();
    let history = parse(&std::fs::read_to_string(path).unwrap()).expect("a script");
    let played: Result<Outcome, Box<Mismatch>> = compare_three(&history, &RealObjects::new());
    match played {
        Ok(outcome) => println!("{outcome:?}"),
        Err(mismatch) => panic!("{mismatch}"),
    }
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
