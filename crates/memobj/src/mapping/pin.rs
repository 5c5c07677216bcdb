//! Pins.

use std::fmt;
use std::ops::{Deref, Range, RangeBounds};
use std::sync::Arc;

use memobj_core::address::ByteRange;
use memobj_linux::area::{self, PagePin, PinnedBytes};

use super::Mapping;
use crate::error::AccessError;
use crate::handles::PartsHandle;
use crate::pins::{NotedPin, ThisThread, key};

/// Bytes of an object that cannot be evicted and cannot change while this lives.
///
/// Dereferences to `&[u8]`. Pins count against a share of the budget (seven eighths), so that faults always find
/// room. In a child of fork the bytes are not mapped.
///
/// Of an object that has admitted a guest which may store, the bytes are a copy of the pages as they were, which counts
/// against the budget and that share besides; the pages are pinned all the same, so that stores of guests wait.
///
/// It cannot be cloned, because a page carries a limited number of pins. [`slice`](Self::slice) makes something of it that
/// can.
///
/// # Soundness
///
/// The bytes are frames that stay, because each page's word counts this pin, and eviction and pins for writing are
/// refused while it does. They do not change: pages are write-protected in every view while they are pinned, a store
/// sleeps, and bytes are put in place only into pages that are not there. Protection is of no use against who can write
/// to the file of frames itself. No such process exists while this does: a guest gets a descriptor that can write only
/// while no `Pinned` shows frames, and from then on a `Pinned` is a copy. It owns its frames, not the mapping.
///
/// Its bytes do not outlive it:
///
/// ```compile_fail,E0505
/// # fn leak(mapping: memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let pinned = mapping.pin(0..8)?;
/// let bytes: &[u8] = &pinned;
/// drop(pinned);
/// assert_eq!(bytes[0], 0);
/// # Ok(())
/// # }
/// ```
pub struct Pinned {
    bytes: Bytes,
    _noted: NotedPin,
}

/// Both keep the parts registered. What is rare is boxed, so that moving a pin costs little.
enum Bytes {
    Page(PagePin),
    Pages(Box<Pages>),
}

struct Pages {
    bytes: PinnedBytes,
    _parts: Arc<PartsHandle>,
}

impl Bytes {
    fn pages(bytes: PinnedBytes, parts: &Arc<PartsHandle>) -> Self {
        Self::Pages(Box::new(Pages { bytes, _parts: Arc::clone(parts) }))
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Deref for Pinned {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Page(bytes) => bytes,
            Bytes::Pages(pages) => &pages.bytes,
        }
    }
}

impl AsRef<[u8]> for Pinned {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Mapping {
    /// Resolves every page of `range`, and hands out its bytes.
    ///
    /// Blocks until the pages are there or one has failed. The caller may hold other pins. A range inside one page that is
    /// there takes no allocation, and writes to no memory that other threads write to but the page's word.
    #[inline]
    pub fn pin(&self, range: impl RangeBounds<u64>) -> Result<Pinned, AccessError> {
        let range = self.within(range);
        match self.pin_own_page(&range) {
            Some((page, noted)) => Ok(Pinned { bytes: Bytes::Page(page), _noted: noted }),
            None => self.pin_own_pages(range),
        }
    }

    /// Pins `range` if that is one page, and possible at once.
    fn pin_own_page(&self, range: &Range<u64>) -> Option<(PagePin, NotedPin)> {
        let bytes = self.object_bytes(range).ok()?;
        let thread = ThisThread::get();
        let page = PagePin::new(self.pins.share(thread.shard()), bytes)?;
        Some((page, thread.note(key(self.pins.area()), self.page_of(bytes))))
    }

    #[cold]
    fn pin_own_pages(&self, range: Range<u64>) -> Result<Pinned, AccessError> {
        let (bytes, noted) = self.pin_pages(self.object_bytes(&range)?)?;
        Ok(Pinned { bytes: Bytes::pages(bytes, &self.parts), _noted: noted })
    }

    /// Pins `bytes` of the object, whatever that takes.
    pub(super) fn pin_pages(&self, bytes: ByteRange) -> Result<(PinnedBytes, NotedPin), AccessError> {
        let pins = &self.frames().pins;
        pins.pin_set(bytes).and_then(|set| pins.note(set, bytes)).map_err(|error| self.in_mapping(error))
    }

    /// Pins many ranges together: their absent pages are read at once, in a deep queue. Either all are pinned or none.
    pub fn pin_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Pinned>, AccessError> {
        let pins = &self.frames().pins;
        let bytes = ranges.iter().map(|range| self.object_bytes(range)).collect::<Result<Vec<_>, _>>()?;
        let sets = pins.pin_all(&bytes).map_err(|error| self.in_mapping(error))?;
        let pinned = sets.into_iter().zip(bytes).map(|(set, bytes)| {
            let (bytes, noted) = pins.note(set, bytes).map_err(|error| self.in_mapping(error))?;
            Ok(Pinned { bytes: Bytes::pages(bytes, &self.parts), _noted: noted })
        });
        pinned.collect()
    }

    /// Pins `range` for as long as it takes to copy it to `buffer`, which is as long.
    pub(super) fn copy_pinned(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<(), AccessError> {
        let parts = self.frames();
        if !parts.area.pins_are_copies() {
            buffer.copy_from_slice(&self.pin_ref(range)?);
            return Ok(());
        }
        let bytes = self.object_bytes(&range)?;
        let set = parts.pins.pin_set(bytes).map_err(|error| self.in_mapping(error))?;
        area::copy_pinned(&set, bytes, buffer).map_err(|at| parts.waits.trapped_at(at))
    }

    /// An error about bytes of the object as one about bytes of the mapping.
    pub(super) fn in_mapping(&self, error: AccessError) -> AccessError {
        let start = self.range.start;
        match error {
            AccessError::OutOfRange { range, length } => AccessError::OutOfRange {
                range: range.start.saturating_sub(start)..range.end.saturating_sub(start),
                length: length.saturating_sub(start).min(self.len()),
            },
            error => error,
        }
    }
}
