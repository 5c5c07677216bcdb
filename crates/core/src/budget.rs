//! The hard bound on bytes of frames, shared by all objects of a cache.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

/// Counts bytes of frames; never lets the sum pass its limit.
///
/// Reserve first, obtain the frame afterwards; give the frame back first, release afterwards. Then the
/// frames that exist are never more than the bytes that are counted.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes, all free.
    #[cfg(loom)]
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0), peak: AtomicU64::new(0) }
    }

    /// A budget of `limit` bytes, all free.
    #[cfg(not(loom))]
    pub const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0), peak: AtomicU64::new(0) }
    }

    /// The bound in bytes.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes reserved now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were ever reserved at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Reserves `bytes` if they fit under the limit. Never blocks, never allocates.
    pub fn try_reserve(&self, bytes: u64) -> bool {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let Some(next) = used.checked_add(bytes).filter(|&next| next <= self.limit) else {
                return false;
            };
            match self.used.compare_exchange_weak(used, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    self.peak.fetch_max(next, Ordering::Relaxed);
                    return true;
                }
                Err(seen) => used = seen,
            }
        }
    }

    /// Counts `bytes` that are there already, also beyond the limit: of frames that another owner has left, and that nobody
    /// can do without.
    pub fn count_inherited(&self, bytes: u64) {
        let before = self.used.fetch_add(bytes, Ordering::AcqRel);
        self.peak.fetch_max(before + bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back that were reserved before.
    pub fn release(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "released {bytes} of {before} reserved bytes");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{sync::Arc, thread};

    #[test]
    fn loom_two_reservers_never_pass_the_limit() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(8));
            let other = budget.clone();
            let rival = thread::spawn(move || other.try_reserve(5));
            let here = budget.try_reserve(5);
            let there = rival.join().unwrap();
            assert!(here != there, "reserved here: {here}, there: {there}");
            assert_eq!((budget.used(), budget.peak()), (5, 5));
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_the_peak_remembers() {
        let budget = Budget::new(8192);
        assert!(budget.try_reserve(4096));
        assert!(budget.try_reserve(4096));
        assert!(!budget.try_reserve(1));
        budget.release(4096);
        assert_eq!(budget.used(), 4096);
        assert_eq!(budget.peak(), 8192);
        assert!(!budget.try_reserve(u64::MAX));
    }
}
