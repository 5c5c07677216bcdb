//! Pins that borrow their mapping.

use std::fmt;
use std::ops::{Deref, Range, RangeBounds};

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_linux::area::{PagePinRef, PinnedBytes};

use super::Mapping;
use crate::error::AccessError;
use crate::pins::{NotedPin, ThisThread, key};

/// Bytes of an object that cannot be evicted and cannot change while this lives; it borrows its mapping.
///
/// As [`Pinned`](super::Pinned), and counted alike, but it owns no part in the object, so it costs less.
///
/// # Soundness
///
/// What is said of [`Pinned`](super::Pinned) holds: while this lives the pages' words count its pin. The memory is mapped
/// as long as the mapping lives, which this borrows. One that is forgotten (`mem::forget`) leaves its pages pinned until
/// the object is unmapped; nobody has its bytes any more.
///
/// It does not outlive its mapping, nor its bytes this:
///
/// ```compile_fail,E0505
/// # fn leak(mapping: memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let pinned = mapping.pin_ref(0..8)?;
/// drop(mapping);
/// assert_eq!(pinned[0], 0);
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0505
/// # fn leak(mapping: &memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let pinned = mapping.pin_ref(0..8)?;
/// let bytes: &[u8] = &pinned;
/// drop(pinned);
/// assert_eq!(bytes[0], 0);
/// # Ok(())
/// # }
/// ```
pub struct PinRef<'a> {
    bytes: Bytes<'a>,
    _noted: NotedPin,
}

/// What is rare is boxed, so that moving a pin costs little.
enum Bytes<'a> {
    Page(PagePinRef<'a>),
    Pages(Box<PinnedBytes>),
}

impl fmt::Debug for PinRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinRef").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Deref for PinRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Page(bytes) => bytes,
            Bytes::Pages(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for PinRef<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Mapping {
    /// As [`pin`](Self::pin), for as long as the mapping is borrowed: the cheapest pin.
    ///
    /// Blocks, and fails, as `pin` does.
    #[inline]
    pub fn pin_ref(&self, range: impl RangeBounds<u64>) -> Result<PinRef<'_>, AccessError> {
        let range = self.within(range);
        match self.pin_page(&range) {
            Some((page, noted)) => Ok(PinRef { bytes: Bytes::Page(page), _noted: noted }),
            None => self.pin_pages_ref(range),
        }
    }

    /// Pins `range` if that is one page, and possible at once.
    fn pin_page(&self, range: &Range<u64>) -> Option<(PagePinRef<'_>, NotedPin)> {
        let bytes = self.object_bytes(range).ok()?;
        let thread = ThisThread::get();
        let page = PagePinRef::borrow(self.pins.area(), thread.shard(), bytes)?;
        Some((page, thread.note(key(self.pins.area()), self.page_of(bytes))))
    }

    #[cold]
    fn pin_pages_ref(&self, range: Range<u64>) -> Result<PinRef<'_>, AccessError> {
        let (bytes, noted) = self.pin_pages(self.object_bytes(&range)?)?;
        Ok(PinRef { bytes: Bytes::Pages(Box::new(bytes)), _noted: noted })
    }

    /// Calls `look` with the bytes of `range`, which are pinned meanwhile.
    ///
    /// Blocks, and fails, as [`pin`](Self::pin) does; `look` is not called then. It may pin more, and must not store to
    /// what is pinned here: it would wait for itself.
    ///
    /// The bytes cannot be kept:
    ///
    /// ```compile_fail
    /// # fn leak(mapping: &memobj::Mapping) -> Result<(), memobj::AccessError> {
    /// let kept: &[u8] = mapping.with_pin(0..8, |bytes| bytes)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0521
    /// # fn leak(mapping: &memobj::Mapping) -> Result<(), memobj::AccessError> {
    /// let mut kept: &[u8] = &[];
    /// mapping.with_pin(0..8, |bytes| kept = bytes)?;
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn with_pin<R>(
        &self,
        range: impl RangeBounds<u64>,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, AccessError> {
        let range = self.within(range);
        match self.pin_page(&range) {
            Some((page, _noted)) => Ok(look(&page)),
            None => Ok(look(&self.pin_pages_ref(range)?)),
        }
    }

    /// The page of the first of `bytes`.
    pub(super) fn page_of(&self, bytes: ByteRange) -> PageRange {
        PageRange::one(PageIndex(bytes.start >> self.pins.area().page_size().shift()))
    }
}
