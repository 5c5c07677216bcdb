//! The commit log under crashes: seeded histories over modelled storage, in which every write, sync, change of
//! length and reservation is a crash point. After each, the reopened object equals the last commit that returned
//! Ok, or the commit in flight: all or nothing. Recovery is cut short and tried again as well.
//!
//! A violation is reported with the seed of its history: `run(seed, 1, None)` runs it again.
#![forbid(unsafe_code)]

mod broken;
mod history;
mod state;

use broken::Canary;
use history::{Violation, run_history};

/// Histories, shared among the threads.
const SEEDS: u64 = 400;
const THREADS: u64 = 2;

/// Runs `count` histories from seed `first` on. The number of crashes that were checked, or the first violation.
fn run(first: u64, count: u64, canary: Option<Canary>) -> Result<history::Coverage, Violation> {
    let mut total = history::Coverage::default();
    for seed in first..first + count {
        total.add(run_history(seed, canary)?);
    }
    Ok(total)
}

#[test]
fn every_crash_shows_a_commit_whole_or_not_at_all() {
    let share = SEEDS / THREADS;
    let threads = (0..THREADS).map(|thread| std::thread::spawn(move || run(1 + thread * share, share, None)));
    let mut total = history::Coverage::default();
    for thread in threads.collect::<Vec<_>>() {
        match thread.join().expect("a history does not panic") {
            Ok(coverage) => total.add(coverage),
            Err(violation) => panic!("{violation}"),
        }
    }
    println!("{SEEDS} histories: {total:?}");
    assert!(total.points > 50_000, "{total:?}");
    assert!(total.commits > 1000 && total.failed_commits > 300 && total.repairs > 200, "{total:?}");
    assert!(total.checkpoints > 300 && total.carried > 50 && total.interrupted > 10_000, "{total:?}");
}

/// A checker that finds nothing wrong with a log that is wrong is itself wrong.
#[test]
fn every_canary_is_caught() {
    for canary in Canary::ALL {
        let violation = run(1, 60, Some(canary)).expect_err(&format!("{canary:?} was not caught"));
        println!("{canary:?}: {violation}");
    }
}
