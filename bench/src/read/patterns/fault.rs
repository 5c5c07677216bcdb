//! The cost of one fault, no device involved: bytes are in memory and their page is touched for the first
//! time.

use std::time::{Duration, Instant};

use crate::data::{PAGE_BYTES, PAGE_WORDS, check_word};
use crate::job::{Failure, Sample};
use crate::read::contestant::{Contestant, Rewound, Worker};
use crate::read::job::ReadJob;
use crate::{timed, usage};

/// One touch of so many has its latency taken; the others run without a look at the clock.
const TOUCHES_PER_LATENCY: usize = 8;

/// Touches scattered pages in one thread until the time is over or no page is left.
pub fn run<C: Contestant>(job: &ReadJob, contestant: &C) -> Result<Sample, Failure> {
    contestant.populate(0..job.file_bytes)?;
    let order = scattered(job.file_bytes / PAGE_BYTES, contestant.fault_stride_pages());
    let (warm_up, measured) = order.split_at(order.len() / 8);
    let mut worker = contestant.worker()?;
    let mut latencies = timed::latencies();
    for &page in warm_up {
        touch(&mut worker, page)?;
    }

    let before = usage::now()?;
    let (mut touches, mut elapsed, mut pages) = (0, Duration::ZERO, measured);
    loop {
        let start = Instant::now();
        for (index, &page) in pages.iter().enumerate() {
            if index % TOUCHES_PER_LATENCY == 0 {
                let start = Instant::now();
                touch(&mut worker, page)?;
                timed::record(&mut latencies, start.elapsed());
            } else {
                touch(&mut worker, page)?;
            }
        }
        elapsed += start.elapsed();
        touches += pages.len() as u64;
        if elapsed >= job.measured() || contestant.unmap_again()? == Rewound::No {
            break;
        }
        pages = &order;
    }
    let mut sample = timed::sample(touches, elapsed, (before, usage::now()?), &latencies)?;
    sample.peak_frame_bytes = contestant.peak_frame_bytes();
    Ok(sample)
}

/// Every `stride`-th page in an order that looks random to read-ahead, each once.
fn scattered(pages: u64, stride: u64) -> Vec<u64> {
    let count = pages / stride;
    // A prime that divides no power of two times a small number of pages, so that each index appears once.
    (0..count).map(|index| index * 1_000_003 % count * stride).collect()
}

#[inline]
fn touch<W: Worker>(worker: &mut W, page: u64) -> Result<(), Failure> {
    check_word(page * PAGE_WORDS, worker.load(page * PAGE_WORDS)?)
}

#[cfg(test)]
mod tests {
    use super::scattered;

    #[test]
    fn scattered_touches_each_page_once() {
        let mut order = scattered(4096 * 3, 16);
        order.sort_unstable();
        assert!(order.into_iter().eq((0..4096 * 3).step_by(16)));
    }
}
