//! Threads that do one thing again and again until the time is over.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::job::Failure;
use crate::timed::{latencies, record};

/// What one thread repeats.
pub trait Unit: Send {
    /// What happens before the clock of one operation starts.
    fn prepare(&mut self) {}

    /// One operation.
    fn run(&mut self) -> Result<(), Failure>;
}

/// What all threads did together.
pub struct Finished<U> {
    /// Their units, for what these remember.
    pub units: Vec<U>,
    /// Operations of all of them.
    pub operations: u64,
    /// Their latencies.
    pub latencies: Histogram<u64>,
    /// From the common start to the end of the last operation.
    pub elapsed: Duration,
}

/// Runs the unit that `unit_of` makes for each thread for `measured`.
pub fn run<U: Unit>(
    threads: u32,
    measured: Duration,
    unit_of: impl Fn(u32) -> U,
) -> Result<Finished<U>, Failure> {
    let ready = Barrier::new(threads as usize + 1);
    let failed = AtomicBool::new(false);
    let units: Vec<U> = (0..threads).map(unit_of).collect();
    let (elapsed, results) = thread::scope(|scope| {
        let (ready, failed) = (&ready, &failed);
        let start_thread = |unit| scope.spawn(move || repeat(unit, measured, ready, failed));
        let handles: Vec<_> = units.into_iter().map(start_thread).collect();
        ready.wait();
        let start = Instant::now();
        let results: Vec<_> = handles.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (start.elapsed(), results)
    });
    let mut finished = Finished { units: Vec::new(), operations: 0, latencies: latencies(), elapsed };
    for result in results {
        let (unit, histogram) = result.map_err(|_| Failure::Failed("a thread panicked".into()))??;
        finished.operations += histogram.len();
        finished.latencies.add(&histogram).map_err(|error| Failure::Failed(error.to_string()))?;
        finished.units.push(unit);
    }
    Ok(finished)
}

fn repeat<U: Unit>(
    mut unit: U,
    measured: Duration,
    ready: &Barrier,
    failed: &AtomicBool,
) -> Result<(U, Histogram<u64>), Failure> {
    let mut histogram = latencies();
    ready.wait();
    let begin = Instant::now();
    while begin.elapsed() < measured && !failed.load(Ordering::Relaxed) {
        unit.prepare();
        let start = Instant::now();
        if let Err(failure) = unit.run() {
            failed.store(true, Ordering::Relaxed);
            return Err(failure);
        }
        record(&mut histogram, start.elapsed());
    }
    Ok((unit, histogram))
}
