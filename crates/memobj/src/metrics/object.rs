//! What is counted of one object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Counter, Counters};

/// What has been done for one object since it was made. Pages are counted in the object's page size. Pins and copies of pages
/// that are there are not counted, which keeps them cheap. A private mapping counts apart, and is in the metrics of the
/// cache only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ObjectMetrics {
    /// Faults that reached the engine.
    pub faults: u64,
    /// Pages that were put in place.
    pub supplied_pages: u64,
    /// Of these, pages that the engine guessed.
    pub read_ahead_pages: u64,
    /// Of these, pages that the caller asked for in advance.
    pub prefetched_pages: u64,
    /// Pager calls that were made again after an error.
    pub retries: u64,
    /// Pages that failed.
    pub failed_pages: u64,
    /// Bytes that came from the pager.
    pub read_bytes: u64,
    /// Pages that were written back or committed.
    pub written_pages: u64,
    /// Bytes that were written back or committed.
    pub written_bytes: u64,
    /// Sleeps of pins, copies and stores until a page was there, or free. One wait can take several.
    pub waits: u64,
    /// How long those took, by the clock of the cache.
    pub wait_time: Duration,
    /// Syncs that users called for.
    pub syncs: u64,
    /// How long those took.
    pub sync_time: Duration,
    /// Commits that users called for.
    pub commits: u64,
    /// How long those took.
    pub commit_time: Duration,
    /// Checkpoints: copies of what was committed to its place in the file.
    pub checkpoints: u64,
    /// How long those took.
    pub checkpoint_time: Duration,
}

/// How often something was done, and how long it took together.
#[derive(Debug, Default)]
pub(crate) struct Timed {
    count: AtomicU64,
    time_ns: AtomicU64,
}

impl Timed {
    pub(crate) fn add(&self, time: Duration) {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.time_ns.fetch_add(time_ns, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> (u64, Duration) {
        let time = Duration::from_nanos(self.time_ns.load(Ordering::Relaxed));
        (self.count.load(Ordering::Relaxed), time)
    }
}

/// A counter of one object, which counts for its cache too.
#[derive(Debug)]
pub(crate) struct ObjectCounter {
    own: AtomicU64,
    all: Arc<Counter>,
}

impl ObjectCounter {
    fn new(all: &Arc<Counter>) -> Self {
        Self { own: AtomicU64::new(0), all: Arc::clone(all) }
    }

    pub(crate) fn add(&self, count: u64) {
        self.own.fetch_add(count, Ordering::Relaxed);
        self.all.add(count);
    }

    pub(crate) fn take_back(&self, count: u64) {
        self.own.fetch_sub(count, Ordering::Relaxed);
        self.all.take_back(count);
    }

    fn get(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }
}

macro_rules! object_counters {
    ($($name:ident),*) => {
        #[derive(Debug)]
        pub(crate) struct ObjectCounters {
            $(pub(crate) $name: ObjectCounter,)*
            pub(crate) waits: Timed,
            pub(crate) syncs: Timed,
            pub(crate) commits: Timed,
        }

        impl ObjectCounters {
            /// Zero. They count for `all` too.
            pub(crate) fn new(all: &Counters) -> Self {
                Self {
                    $($name: ObjectCounter::new(&all.$name),)*
                    waits: Timed::default(),
                    syncs: Timed::default(),
                    commits: Timed::default(),
                }
            }

            /// What was counted; `checkpoints` are counted elsewhere.
            pub(crate) fn get(&self, checkpoints: (u64, Duration)) -> ObjectMetrics {
                let (waits, wait_time) = self.waits.get();
                let (syncs, sync_time) = self.syncs.get();
                let (commits, commit_time) = self.commits.get();
                let (checkpoints, checkpoint_time) = checkpoints;
                ObjectMetrics {
                    $($name: self.$name.get(),)*
                    waits,
                    wait_time,
                    syncs,
                    sync_time,
                    commits,
                    commit_time,
                    checkpoints,
                    checkpoint_time,
                }
            }
        }
    };
}

object_counters!(
    faults,
    supplied_pages,
    read_ahead_pages,
    prefetched_pages,
    retries,
    failed_pages,
    read_bytes,
    written_pages,
    written_bytes
);
