//! Bytes one after the other, from pages that are pinned once.

use std::fmt;
use std::ops::{Range, RangeBounds};

use super::{Mapping, PinRef};
use crate::error::AccessError;

/// Reads here and there in a mapping, and keeps the page of the last read pinned.
///
/// For many small reads that are often in the page of the one before: such a read costs a comparison. While it holds a
/// page, that counts as a pin of the thread that read: stores to the page wait, also that thread's own, until the cursor
/// goes to another page, [lets go](Self::release) or is dropped.
///
/// # Soundness
///
/// Bytes come from the one [`PinRef`] that it holds, and are borrowed from the cursor: no other read, which could end that
/// pin, is possible while they are used.
///
/// ```compile_fail,E0499
/// # fn leak(mapping: &memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let mut cursor = mapping.cursor();
/// let first = cursor.read(0..8)?;
/// let second = cursor.read(4096..4104)?;
/// assert_eq!(first, second);
/// # Ok(())
/// # }
/// ```
///
/// It does not outlive its mapping:
///
/// ```compile_fail,E0505
/// # fn leak(mapping: memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let mut cursor = mapping.cursor();
/// drop(mapping);
/// cursor.read(0..8)?;
/// # Ok(())
/// # }
/// ```
pub struct Cursor<'a> {
    mapping: &'a Mapping,
    /// Of the mapping: the bytes that `pinned` shows. Empty if there is no pin.
    held: Range<u64>,
    pinned: Option<PinRef<'a>>,
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("held", &self.held).finish_non_exhaustive()
    }
}

impl Mapping {
    /// A cursor, which holds nothing before its first read.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { mapping: self, held: 0..0, pinned: None }
    }
}

impl Cursor<'_> {
    /// The bytes of `range`. The page that they lie in stays pinned; if they lie in several, those are pinned and no more.
    ///
    /// Blocks, and fails, as [`Mapping::pin`] does, if the bytes are not those of a page that is held already. The pin
    /// before ends first, so a cursor never holds two pages by two reads; after an error it holds nothing.
    #[inline]
    pub fn read(&mut self, range: impl RangeBounds<u64>) -> Result<&[u8], AccessError> {
        let range = self.mapping.within(range);
        let is_held = self.held.start <= range.start && range.start < range.end && range.end <= self.held.end;
        if !(is_held && self.mapping.frames().owner.is_this_process()) {
            self.hold(&range)?;
        }
        let start = (range.start - self.held.start) as usize;
        let length = (range.end - range.start) as usize;
        let bytes = self.pinned.as_ref().and_then(|pinned| pinned.get(start..start + length));
        bytes.ok_or_else(|| self.mapping.past_the_end(range.start, length as u64))
    }

    /// Ends the pin, if there is one.
    pub fn release(&mut self) {
        self.held = 0..0;
        self.pinned = None;
    }

    #[cold]
    fn hold(&mut self, range: &Range<u64>) -> Result<(), AccessError> {
        self.release();
        let page = self.mapping.page_around(range)?;
        let (held, pinned) = match self.mapping.pin_ref(page.clone()) {
            // Cut off meanwhile, behind what is wanted perhaps.
            Err(AccessError::OutOfRange { .. }) => (range.clone(), self.mapping.pin_ref(range.clone())?),
            pinned => (page, pinned?),
        };
        (self.held, self.pinned) = (held, Some(pinned));
        Ok(())
    }
}

impl Mapping {
    /// All that the mapping and the object have of the page that `range` lies in; `range` itself if that is not one.
    fn page_around(&self, range: &Range<u64>) -> Result<Range<u64>, AccessError> {
        let bytes = self.object_bytes(range)?;
        let area = self.pins.area();
        let page = self.page_of(bytes);
        if area.page_size().pages_of(bytes) != page {
            return Ok(range.clone());
        }
        let shift = area.page_size().shift();
        let start = (page.start << shift).max(self.range.start);
        let end = (page.end << shift).min(self.range.end).min(area.length());
        // The object can have become shorter this moment.
        let whole = start - self.range.start..end.max(bytes.end) - self.range.start;
        Ok(whole)
    }
}
