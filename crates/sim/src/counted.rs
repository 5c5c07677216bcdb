//! A pager that is watched.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memobj::SupplyError;
use memobj::pagers::BlockingPager;

/// What has been asked of a [`Counted`] pager. Clones look at the same calls.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    running: Vec<Range<u64>>,
    ended: Vec<Range<u64>>,
    overlapped: Option<(Range<u64>, Range<u64>)>,
    most: usize,
    detached: u32,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that run now.
    pub fn running(&self) -> usize {
        self.lock().running.len()
    }

    /// The most calls that ran at once.
    pub fn most(&self) -> usize {
        self.lock().most
    }

    /// All calls so far.
    pub fn started(&self) -> usize {
        let seen = self.lock();
        seen.running.len() + seen.ended.len()
    }

    /// Ended calls whose range has a byte in common with `range`.
    pub fn ended_within(&self, range: Range<u64>) -> usize {
        self.lock().ended.iter().filter(|call| overlap(call, &range)).count()
    }

    /// Two calls that ran at once for overlapping ranges, if there were any.
    pub fn overlapped(&self) -> Option<(Range<u64>, Range<u64>)> {
        self.lock().overlapped.clone()
    }

    /// How often the pager was detached.
    pub fn detached(&self) -> u32 {
        self.lock().detached
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Wraps a pager and notes every call.
#[derive(Debug)]
pub struct Counted<P> {
    inner: P,
    calls: Calls,
}

impl<P: BlockingPager> Counted<P> {
    /// `inner`, whose calls are noted in `calls`. It must be called: there is no shorter way to the bytes.
    pub fn new(inner: P, calls: Calls) -> Self {
        Self { inner, calls }
    }
}

impl<P: BlockingPager> BlockingPager for Counted<P> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        {
            let mut seen = self.calls.lock();
            if let Some(other) = seen.running.iter().find(|other| overlap(other, &range)).cloned() {
                seen.overlapped.get_or_insert((other, range.clone()));
            }
            seen.running.push(range.clone());
            seen.most = seen.most.max(seen.running.len());
        }
        let _ended = Ended { calls: &self.calls, range: range.clone() };
        self.inner.supply(range, buffer)
    }

    fn detach(&self) {
        self.calls.lock().detached += 1;
        self.inner.detach();
    }
}

/// Notes the end of a call, also when the call panics.
struct Ended<'a> {
    calls: &'a Calls,
    range: Range<u64>,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut seen = self.calls.lock();
        if let Some(at) = seen.running.iter().position(|call| *call == self.range) {
            let call = seen.running.swap_remove(at);
            seen.ended.push(call);
        }
    }
}

by_calls!([P: BlockingPager] Counted<P>);
