//! Loads by plain instructions that are no race with a pin for writing.
//!
//! Whoever has pinned a page for writing has a `&mut [u8]` of it, beside which nobody may load. A load cannot be taken
//! back once it has begun, and it may fault and sleep for long. So both sides tell each other (Dekker): a touch counts
//! itself and then looks whether the page is pinned for writing; a pin for writing is put into the page word and then
//! waits until the touches that began before have ended. One of them sees the other.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use memobj_core::address::PageIndex;

use super::{Area, Writes};
use crate::signal;
use crate::uffd::Announce;

/// Pages share counters. A pin may wait for the touch of another page that has the same counter.
const COUNTERS: usize = 256;

/// Touches under way.
#[derive(Debug)]
pub(super) struct Touches(Box<[AtomicU32]>);

struct Touching<'a>(&'a AtomicU32);

impl Drop for Touching<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Touches {
    pub(super) fn new(writes: Writes) -> Self {
        let counters = if writes == Writes::Yes { COUNTERS } else { 0 };
        Self((0..counters).map(|_| AtomicU32::new(0)).collect())
    }

    fn counter(&self, page: PageIndex) -> Option<&AtomicU32> {
        self.0.get(page.0 as usize % COUNTERS)
    }

    /// Whether touches of `page`, which the caller has pinned for writing, may be under way still.
    pub(super) fn may_touch(&self, page: PageIndex) -> bool {
        fence(Ordering::SeqCst);
        self.counter(page).is_some_and(|counter| counter.load(Ordering::Acquire) > 0)
    }
}

/// Why a copy by plain loads has ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchRefused {
    /// The load of this byte of the object trapped.
    Trapped(u64),
    /// The page of this byte is pinned for writing.
    PinnedMut(u64),
}

impl Area {
    /// Copies `[offset, offset + buffer.len())` by plain loads that fault like anybody's. A trap ends the copy, and so
    /// does a page that is pinned for writing; bytes before it are copied.
    pub fn copy_by_touch(
        &self,
        announce: Announce,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), TouchRefused> {
        assert!(offset.checked_add(buffer.len() as u64).is_some_and(|end| end <= self.capacity));
        if self.writes == Writes::No {
            return self.touch(announce, offset, buffer);
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let page = PageIndex(at >> self.page_size.shift());
            let end = (page.0 + 1) << self.page_size.shift();
            let part = ((end - at) as usize).min(buffer.len() - done);
            let touching = self.touches.counter(page).map(|counter| {
                counter.fetch_add(1, Ordering::SeqCst);
                Touching(counter)
            });
            fence(Ordering::SeqCst);
            if self.word(page).is_pinned_mut() {
                return Err(TouchRefused::PinnedMut(at));
            }
            self.touch(announce, at, &mut buffer[done..done + part])?;
            drop(touching);
            done += part;
        }
        Ok(())
    }

    fn touch(&self, announce: Announce, offset: u64, buffer: &mut [u8]) -> Result<(), TouchRefused> {
        let source = self.address(announce, offset).ok_or(TouchRefused::Trapped(offset))?;
        // SAFETY: the range lies in a view of this area, which is mapped as long as `self`. No mutable reference shows
        // it: the pages of an area that is read only have none, and those of others are not pinned for writing before
        // the caller's touch has ended.
        let copied = unsafe { signal::copy_trapping(buffer, source) };
        if copied == buffer.len() { Ok(()) } else { Err(TouchRefused::Trapped(offset + copied as u64)) }
    }
}
