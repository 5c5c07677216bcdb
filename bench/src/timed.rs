//! Measuring for a time: all threads warm up, then their accesses count until the clock says stop.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::job::{Failure, Sample};
use crate::usage::{self, Counters};

/// Before the measured phase of patterns that run for a time, but no longer than that: caches, threads and the host's
/// memory settle.
const WARM_UP: Duration = Duration::from_millis(300);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const STOPPED: u8 = 2;

/// What one thread counted in the measured phase.
struct Tally {
    accesses: u64,
    latencies: Histogram<u64>,
}

/// What the whole process counted between the start and the end of the measured phase.
struct Interval {
    elapsed: Duration,
    counters: (Counters, Counters),
    missed_pages: Option<u64>,
}

/// Each of `threads` threads repeats the step that `step_of` makes in it; after a warm-up their accesses count for
/// `measured`. A step says how many accesses it was.
pub fn repeat<S: FnMut() -> Result<u64, Failure>>(
    threads: u32,
    measured: Duration,
    missed_pages: impl Fn() -> Result<Option<u64>, Failure>,
    step_of: impl Fn(u32) -> Result<S, Failure> + Sync,
) -> Result<Sample, Failure> {
    let phase = AtomicU8::new(WARMING);
    let ready = Barrier::new(threads as usize + 1);
    let thread_main = |thread| {
        let result = work(step_of(thread), &phase, &ready);
        if result.is_err() {
            phase.store(STOPPED, Ordering::Relaxed);
        }
        result
    };
    let (interval, tallies) = thread::scope(|scope| {
        let thread_main = &thread_main;
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || thread_main(thread))).collect();
        ready.wait();
        thread::sleep(WARM_UP.min(measured));
        let interval = measure(measured, &missed_pages, &phase);
        // Once more for the case that `measure` failed half-way.
        phase.store(STOPPED, Ordering::Relaxed);
        (interval, threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>())
    });
    let (accesses, latencies) = add_up(tallies)?;
    let interval = interval?;
    let mut sample = sample(accesses, interval.elapsed, interval.counters, &latencies)?;
    sample.missed_pages = interval.missed_pages;
    Ok(sample)
}

/// Opens and closes the measured phase.
fn measure(
    measured: Duration,
    missed_pages: &impl Fn() -> Result<Option<u64>, Failure>,
    phase: &AtomicU8,
) -> Result<Interval, Failure> {
    let (before, missed_before) = (usage::now()?, missed_pages()?);
    let start = Instant::now();
    // The exchange fails if a thread has failed and stopped the run; the failure itself comes out of the
    // join.
    let _ = phase.compare_exchange(WARMING, MEASURING, Ordering::Relaxed, Ordering::Relaxed);
    thread::sleep(measured);
    phase.store(STOPPED, Ordering::Relaxed);
    let elapsed = start.elapsed();
    let (after, missed_after) = (usage::now()?, missed_pages()?);
    let missed_pages = missed_after.zip(missed_before).and_then(|(after, before)| after.checked_sub(before));
    Ok(Interval { elapsed, counters: (before, after), missed_pages })
}

fn add_up(tallies: Vec<thread::Result<Result<Tally, Failure>>>) -> Result<(u64, Histogram<u64>), Failure> {
    let mut accesses = 0;
    let mut latencies = latencies();
    for tally in tallies {
        let tally = tally.map_err(|_| Failure::Failed("a thread panicked".into()))??;
        accesses += tally.accesses;
        latencies.add(&tally.latencies).map_err(|error| Failure::Failed(error.to_string()))?;
    }
    Ok((accesses, latencies))
}

fn work<S: FnMut() -> Result<u64, Failure>>(
    step: Result<S, Failure>,
    phase: &AtomicU8,
    ready: &Barrier,
) -> Result<Tally, Failure> {
    ready.wait();
    let mut step = step?;
    let mut tally = Tally { accesses: 0, latencies: latencies() };
    loop {
        let now = phase.load(Ordering::Relaxed);
        if now == STOPPED {
            return Ok(tally);
        }
        let start = Instant::now();
        let accesses = step()?;
        let latency: Duration = start.elapsed();
        if now == MEASURING {
            tally.accesses += accesses;
            record(&mut tally.latencies, latency);
        }
    }
}

/// An empty histogram of nanoseconds up to a minute, three digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are valid")
}

/// Records a latency, at most the histogram's bound.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(latency.as_nanos() as u64);
}

/// Puts together what all patterns report.
pub fn sample(
    accesses: u64,
    elapsed: Duration,
    counters: (Counters, Counters),
    latencies: &Histogram<u64>,
) -> Result<Sample, Failure> {
    let (before, after) = counters;
    Ok(Sample {
        accesses,
        elapsed_ns: elapsed.as_nanos() as u64,
        cpu_ns: after.cpu_ns - before.cpu_ns,
        machine_cpu_ns: after.machine_cpu_ns - before.machine_cpu_ns,
        p50_ns: latencies.value_at_quantile(0.5),
        p99_ns: latencies.value_at_quantile(0.99),
        max_ns: latencies.max(),
        major_faults: after.faults.major - before.faults.major,
        minor_faults: after.faults.minor - before.faults.minor,
        peak_rss_bytes: usage::peak_rss_bytes()?,
        ..Sample::default()
    })
}
