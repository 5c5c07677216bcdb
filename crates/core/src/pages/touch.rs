//! Loads by plain instructions that are no race with a pin for writing.
//!
//! Whoever has pinned a page for writing has a `&mut [u8]` of it, beside which nobody may load. A load cannot be taken
//! back once it has begun, and it may fault and sleep for long. So both sides tell each other (Dekker): a touch counts
//! itself and then looks whether the page is pinned for writing; a pin for writing is put into the page word and then
//! waits until the touches that began before have ended. One of them sees the other.

use core::sync::atomic::{AtomicU32, Ordering, fence};

use alloc::boxed::Box;
use alloc::collections::TryReserveError;

use super::{Host, Pages, boxed};
use crate::address::PageIndex;

/// The most counters. Pages share them: a pin may wait for the touch of another page that has the same counter.
const MOST_COUNTERS: u64 = 256;

/// Touches under way.
#[derive(Debug)]
pub(super) struct Touches(Box<[AtomicU32]>);

/// A touch under way, until dropped.
#[derive(Debug)]
pub struct Touching<'a>(Option<&'a AtomicU32>);

impl Drop for Touching<'_> {
    fn drop(&mut self) {
        if let Some(counter) = self.0 {
            counter.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Touches {
    /// Counters for `pages` pages; none of an object that is read only.
    pub(super) fn new(pages: u64) -> Result<Self, TryReserveError> {
        boxed(pages.min(MOST_COUNTERS), || AtomicU32::new(0)).map(Self)
    }

    fn counter(&self, page: PageIndex) -> Option<&AtomicU32> {
        let count = self.0.len().max(1);
        self.0.get(page.0 as usize % count)
    }

    /// The first page from `from` on up to `end`, all of which the caller has pinned for writing, that touches may be under
    /// way of. `from` moves on to it.
    pub(super) fn first(&self, from: &mut u64, end: u64) -> Option<PageIndex> {
        while *from < end {
            if self.may_touch(PageIndex(*from)) {
                return Some(PageIndex(*from));
            }
            *from += 1;
        }
        None
    }

    /// Whether touches of `page`, which the caller has pinned for writing, may be under way still.
    fn may_touch(&self, page: PageIndex) -> bool {
        fence(Ordering::SeqCst);
        self.counter(page).is_some_and(|counter| counter.load(Ordering::Acquire) > 0)
    }
}

impl<H: Host> Pages<H> {
    /// Lets the caller load from `page` by plain instructions until the answer is dropped. `None`: it is pinned for
    /// writing.
    pub fn touching(&self, page: PageIndex) -> Option<Touching<'_>> {
        let counter = self.touches.counter(page);
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        let touching = Touching(counter);
        fence(Ordering::SeqCst);
        (!self.word(page).is_pinned_mut()).then_some(touching)
    }
}
