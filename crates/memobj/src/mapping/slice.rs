//! Pinned bytes that several can own.

use std::fmt;
use std::ops::{Deref, RangeBounds};
use std::sync::Arc;

use super::Pinned;
use crate::ranges::bytes_in;

/// A part of pinned bytes, which can be cloned and cut up further. All parts share one pin, which ends with the last of them:
/// until then all of the pinned pages stay, however short the part is.
///
/// ```
/// # use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions, pagers};
/// # let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
/// let object = cache.object("greeting", pagers::Bytes::new(*b"hello, world"), ObjectOptions::default())?;
/// let mapping = object.map(.., MapOptions::default())?;
/// let all = mapping.pin(..)?.slice(..);
/// let (first, last) = (all.slice(..5), all.slice(7..));
/// drop(all);
/// assert_eq!((&*first, last.as_ref()), (&b"hello"[..], &b"world"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Soundness
///
/// What is said of [`Pinned`] holds: this has a part in one.
#[derive(Clone)]
pub struct PinnedSlice {
    pinned: Arc<Pinned>,
    start: usize,
    end: usize,
}

impl fmt::Debug for PinnedSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedSlice").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Pinned {
    /// The bytes of `range`, for several owners. Takes one allocation.
    ///
    /// # Panics
    ///
    /// If the range is reversed or ends past the bytes, as indexing does.
    pub fn slice(self, range: impl RangeBounds<u64>) -> PinnedSlice {
        PinnedSlice::from(self).slice(range)
    }
}

impl From<Pinned> for PinnedSlice {
    fn from(pinned: Pinned) -> Self {
        Self { start: 0, end: pinned.len(), pinned: Arc::new(pinned) }
    }
}

impl PinnedSlice {
    /// The bytes of `range`, counted from the start of this part.
    ///
    /// # Panics
    ///
    /// If the range is reversed or ends past the bytes, as indexing does.
    pub fn slice(&self, range: impl RangeBounds<u64>) -> PinnedSlice {
        let length = self.len() as u64;
        let range = bytes_in(range, || length);
        let fits = range.start <= range.end && range.end <= length;
        assert!(fits, "slice [{}, {}) of {length} bytes", range.start, range.end);
        let (start, end) = (self.start + range.start as usize, self.start + range.end as usize);
        Self { pinned: Arc::clone(&self.pinned), start, end }
    }
}

impl Deref for PinnedSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pinned[self.start..self.end]
    }
}

impl AsRef<[u8]> for PinnedSlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
