//! Counters.

mod object;
mod prometheus;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use object::ObjectMetrics;
pub(crate) use object::{ObjectCounters, Timed};

/// What a cache has done since it was made. Pages are counted in the page size of their object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Metrics {
    /// Faults that reached the engine.
    pub faults: u64,
    /// Pages that were put in place.
    pub supplied_pages: u64,
    /// Of these, pages that were read ahead: the engine guessed them.
    pub read_ahead_pages: u64,
    /// Of these, pages that were prefetched: the caller asked for them in advance.
    pub prefetched_pages: u64,
    /// Pages whose frame was evicted.
    pub evicted_pages: u64,
    /// Pager calls that were made again after an error.
    pub retries: u64,
    /// Pages that failed.
    pub failed_pages: u64,
    /// Bytes of frames now.
    pub frame_bytes: u64,
    /// The most bytes of frames there were at once.
    pub peak_frame_bytes: u64,
    /// The bound on bytes of frames.
    pub budget_bytes: u64,
    /// Bytes of frames that pins hold now.
    pub pinned_bytes: u64,
    /// Bytes of page words and page tables, 8 KiB for each 2 MiB of objects that has pages. Beyond an eighth of the budget
    /// and 16 MiB they are given back where nothing is pinned or changed.
    pub table_bytes: u64,
    /// Bytes that came from pagers.
    pub read_bytes: u64,
    /// Bytes of pages that have changes which their pagers do not have.
    pub dirty_bytes: u64,
    /// Pages that were written back.
    pub written_pages: u64,
    /// Bytes that were written back.
    pub written_bytes: u64,
    /// Copies in place of what commits have put into logs, that ran in the background to their end.
    pub checkpoints: u64,
    /// The time that they took, in nanoseconds.
    pub checkpoint_ns: u64,
    /// The longest time that a commit took while one of them ran, in nanoseconds.
    pub longest_commit_beside_checkpoint_ns: u64,
    /// Sweeps of the reclaim hand.
    pub sweeps: u64,
    /// Events that were dropped because the queue was full.
    pub dropped_events: u64,
    /// The event loop that resolves faults of guests, spaces and borrowers. All caches of the process share it.
    pub fault_loop: FaultLoopMetrics,
}

/// The event loop that resolves faults of others. All caches and spaces of the process share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FaultLoopMetrics {
    /// Address spaces whose faults it resolves, now.
    pub clients: usize,
    /// Faults that wait for their pages now.
    pub parked: usize,
    /// Threads now.
    pub threads: usize,
    /// Faults that were read.
    pub events: u64,
    /// How often a client had so many parked faults that no more of its events were read for a while.
    pub held_back: u64,
    /// How often a call of a client took so long that another thread went on with the others.
    pub calls_held_up: u64,
    /// Clients that were dropped because they had ended, or did what clients do not do.
    pub dropped: u64,
}

impl FaultLoopMetrics {
    pub(crate) fn of_process() -> Self {
        let now = memobj_linux::fault_loop::FaultLoop::metrics_of_process();
        Self {
            clients: now.clients,
            parked: now.parked,
            threads: now.threads,
            events: now.events,
            held_back: now.held_back,
            calls_held_up: now.calls_held_up,
            dropped: now.dropped,
        }
    }
}

/// Calls of pagers that are to supply pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PagerCalls {
    /// Calls that run or wait for a thread, and have not overrun their time.
    pub waited_for: usize,
    /// Calls that still run, but have overrun their time: their pages have failed or were asked for again.
    pub given_up: usize,
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Arc<Counter>,)*
        }
    };
}

counters!(
    faults,
    supplied_pages,
    read_ahead_pages,
    prefetched_pages,
    evicted_pages,
    retries,
    failed_pages,
    read_bytes,
    written_pages,
    written_bytes,
    checkpoints,
    checkpoint_ns,
    longest_commit_beside_checkpoint_ns,
    dropped_events
);

/// A counter on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Makes it `count` if it is less.
    pub(crate) fn raise_to(&self, count: u64) {
        self.0.fetch_max(count, Ordering::Relaxed);
    }

    pub(crate) fn take_back(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
