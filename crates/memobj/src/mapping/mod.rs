//! Mappings: the ways to the same bytes.
//!
//! | | reads | an unreadable page | for |
//! |---|---|---|---|
//! | pin ([pin](Mapping::pin), [pin_ref](Mapping::pin_ref), [with_pin](Mapping::with_pin)) | a slice that cannot fault or change | is an error before you get the slice | most uses |
//! | [copy](Mapping::read_at) | into your buffer | is an error | small reads |
//! | optimistic ([try_words](Mapping::try_words)) | words, loaded again if they changed meanwhile | is an error | hot pages that many threads look at |
//! | touch ([as_ptr](Mapping::as_ptr), [touch_at](Mapping::touch_at)) | plain loads, demand paged | traps (SIGBUS) | existing code |

mod access;
mod cursor;
mod glance;
mod io;
mod pin;
mod pin_ref;
mod slice;
#[cfg(feature = "zerocopy")]
mod typed;
mod words;
mod write;

use std::fmt;
use std::ops::{Range, RangeBounds};
use std::sync::Arc;

use memobj_core::address::{ByteRange, PageRange};
use memobj_linux::area::PinShares;
use memobj_linux::uffd::Announce;

pub use cursor::Cursor;
pub use glance::GlanceWords;
pub use io::{Reader, Writer};
pub use pin::Pinned;
pub use pin_ref::PinRef;
pub use slice::PinnedSlice;
#[cfg(feature = "zerocopy")]
pub use typed::PinnedAs;
pub use words::{SharedWords, VolatileWords};
pub use write::PinnedMut;

use crate::error::{AccessError, PageError};
use crate::handles::{ObjectHandle, PartsHandle};
use crate::options::Advice;
use crate::parts::ObjectParts;
use crate::pins::Ask;
use crate::ranges::bytes_in;

/// How long a mapping is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extent {
    /// As it was mapped.
    Fixed,
    /// As the object is.
    Object,
}

/// The owning handle of a mapped range of an object. Cheap to clone; offsets count from the range's start.
///
/// A child of fork has none of the mapped memory (MADV_DONTFORK): touching it there is SIGSEGV, never zeros, and
/// every other call answers `Detached`. A process that is to outlive its parent's mappings maps for itself.
///
/// # Soundness
///
/// A mapping itself makes no reference to the memory. References come from [`pin`](Self::pin) and
/// [`pin_mut`](Self::pin_mut), and say themselves why nothing changes under them. Copies are made under a pin, or by
/// loads and stores in assembly that keep off what is pinned for writing. [`as_ptr`](Self::as_ptr) and
/// [`as_mut_ptr`](Self::as_mut_ptr) are addresses: using one takes `unsafe`, and then it is the user who keeps a handle of
/// the object, and keeps away from what is pinned. Words borrow the mapping:
///
/// ```compile_fail,E0505
/// # fn leak(mapping: memobj::Mapping) {
/// let words = mapping.words();
/// drop(mapping);
/// assert!(words.is_some());
/// # }
/// ```
#[derive(Clone)]
pub struct Mapping {
    parts: Arc<PartsHandle>,
    /// The store again, for pins of single pages.
    pins: Arc<PinShares>,
    // Dropped after `parts`: the pager is detached when nothing is mapped any more.
    _object: Arc<ObjectHandle>,
    /// Of the object. Up to all that it can grow to, if `extent` follows it.
    range: ByteRange,
    extent: Extent,
    /// `None`: it cannot be touched.
    announce: Option<Announce>,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("object", &self.frames().object.name)
            .field("range", &self.object_range())
            .finish_non_exhaustive()
    }
}

impl Mapping {
    pub(crate) fn new(
        parts: Arc<PartsHandle>,
        object: Arc<ObjectHandle>,
        range: Range<u64>,
        announce: Option<Announce>,
    ) -> Self {
        let range = ByteRange { start: range.start, end: range.end };
        let pins = parts.pins();
        Self { parts, pins, _object: object, range, extent: Extent::Fixed, announce }
    }

    /// This, of the whole object, however long that is.
    pub(crate) fn of_all(self) -> Self {
        let range = ByteRange { start: 0, end: self.frames().area.capacity() };
        Self { range, extent: Extent::Object, ..self }
    }

    pub(crate) fn frames(&self) -> &ObjectParts {
        &self.parts.parts
    }

    /// Bytes: those that were mapped, or of [`map_all`](crate::MemoryObject::map_all) those that the object has now.
    pub fn len(&self) -> u64 {
        match self.extent {
            Extent::Fixed => self.range.len(),
            Extent::Object => self.len_now(),
        }
    }

    /// Of what was mapped, the bytes that the object has now: it can be shorter by now.
    fn len_now(&self) -> u64 {
        self.range.len().min(self.frames().area.length().saturating_sub(self.range.start))
    }

    /// A range of any form, in this mapping.
    #[inline]
    fn within(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        bytes_in(range, || self.len_now())
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the object that are mapped.
    pub fn object_range(&self) -> Range<u64> {
        self.range.start..self.range.start + self.len()
    }

    /// The size of the object's pages in bytes: 4 KiB or 2 MiB.
    pub fn page_bytes(&self) -> u64 {
        self.frames().area.page_size().bytes()
    }

    /// A range of the mapping as a range of the object.
    fn object_bytes(&self, range: &Range<u64>) -> Result<ByteRange, AccessError> {
        if !self.frames().owner.is_this_process() {
            return Err(AccessError::Detached);
        }
        let length = self.len_now();
        if range.start > range.end || range.end > length {
            return Err(AccessError::OutOfRange { range: range.clone(), length });
        }
        Ok(ByteRange { start: self.range.start + range.start, end: self.range.start + range.end })
    }

    fn pages(&self, range: &Range<u64>) -> Result<PageRange, AccessError> {
        Ok(self.frames().area.page_size().pages_of(self.object_bytes(range)?))
    }

    /// Obtains all pages of `range` now and waits; the first page that fails is the error.
    ///
    /// Under a budget smaller than the range, the first pages may be evicted again before the call ends.
    pub fn populate(&self, range: impl RangeBounds<u64>) -> Result<(), AccessError> {
        let pages = self.pages(&self.within(range))?;
        self.frames().waits.populate(pages).map_err(AccessError::Page)
    }

    /// Asks for the pages of `ranges` in the background, many at once, and returns at once.
    ///
    /// Failures are not reported here: the next access to the page gets its error.
    pub fn prefetch(&self, ranges: &[Range<u64>]) -> Result<(), AccessError> {
        for range in ranges {
            let pages = self.pages(range)?;
            if !pages.is_empty() {
                self.frames().waits.driver.ask(Ask::Prefetch(pages));
            }
        }
        Ok(())
    }

    /// Says how `range` will be used. The last advice holds, in steps of 2 MiB, for all mappings of the object.
    pub fn advise(&self, range: impl RangeBounds<u64>, advice: Advice) -> Result<(), AccessError> {
        let range = self.within(range);
        let pages = self.pages(&range)?;
        let parts = self.frames();
        match advice {
            Advice::WillNeed => return self.prefetch(&[range]),
            Advice::DontNeed => {
                // Of pages with changes nothing happens: dropping those takes `discard`.
                parts.fill.allocator.evict(&parts.area, pages);
            }
            Advice::Normal | Advice::Random | Advice::Sequential => parts.pins.pattern.advise(pages, advice),
        }
        Ok(())
    }

    /// Why the failed pages of this mapping failed, in order; pages that share one long outage may share a text.
    pub fn errors(&self) -> Vec<PageError> {
        if !self.frames().owner.is_this_process() {
            // A lock that the parent held while it forked would be held here for ever.
            return Vec::new();
        }
        let pages = self.frames().area.page_size().pages_of(self.range);
        self.frames().errors.known_in(pages)
    }

    /// The error of the object's page that failed last.
    pub fn last_error(&self) -> Option<PageError> {
        if !self.frames().owner.is_this_process() {
            return None;
        }
        self.frames().errors.last()
    }

    /// Lets the failed pages of `range` be asked for again; returns how many there were.
    pub fn retry(&self, range: impl RangeBounds<u64>) -> Result<u64, AccessError> {
        let pages = self.pages(&self.within(range))?;
        Ok(self.frames().errors.retry(pages))
    }
}
