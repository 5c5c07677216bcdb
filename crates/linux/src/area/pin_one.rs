//! Bytes of one page that is there, at little cost. What takes waiting, protection or a copy is refused here.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use memobj_core::address::{ByteRange, PageIndex};
use memobj_core::pages::{Keeper, OnePin};
use memobj_core::pin_budget::{SHARDS, Shard};

use super::{Area, Home};
use crate::signal;

/// See [`memobj_core::pages::PinShare`].
pub type PinShare = memobj_core::pages::PinShare<Home>;
/// Bytes of one pinned page, of an area that they keep.
pub type PagePin = PinnedPage<Arc<PinShare>>;
/// Bytes of one pinned page, of an area that they borrow.
pub type PagePinRef<'a> = PinnedPage<&'a Area>;

/// The shares of one area, made when they are first used.
#[derive(Debug)]
pub struct PinShares {
    area: Arc<Area>,
    kept: Arc<dyn Any + Send + Sync>,
    by_shard: [OnceLock<Arc<PinShare>>; SHARDS],
}

impl PinShares {
    /// The shares of `area`. They keep `kept` besides: what must not end before the last pin.
    pub fn new(area: Arc<Area>, kept: Arc<dyn Any + Send + Sync>) -> Self {
        Self { area, kept, by_shard: Default::default() }
    }

    /// The share of `shard`.
    #[inline]
    pub fn share(&self, shard: Shard) -> &Arc<PinShare> {
        let new = || PinShare::new(Arc::clone(&self.area), shard, Arc::clone(&self.kept));
        self.by_shard[shard.index()].get_or_init(new)
    }

    /// The area.
    #[inline]
    pub fn area(&self) -> &Area {
        &self.area
    }
}

/// Bytes of one page that is pinned: the page's memory itself.
pub struct PinnedPage<K: Keeper<Home>> {
    pin: OnePin<Home, K>,
    bytes: ByteRange,
}

impl PagePin {
    /// Pins the page that `bytes` lie in, if it is there and can be pinned at once. `None`: it may be possible by a
    /// [`PinSet`](super::PinSet).
    #[inline]
    pub fn new(share: &Arc<PinShare>, bytes: ByteRange) -> Option<Self> {
        Self::refer(OnePin::try_new(share, page_of(share.owner(), bytes)?)?, bytes)
    }
}

impl<'a> PagePinRef<'a> {
    /// As [`PagePin::new`], with the credit of `shard`.
    #[inline]
    pub fn borrow(area: &'a Area, shard: Shard, bytes: ByteRange) -> Option<Self> {
        Self::refer(OnePin::try_borrow(area, page_of(area, bytes)?, shard)?, bytes)
    }
}

/// The page that `bytes` lie in, all of which are the object's, if it is one.
#[inline]
fn page_of(area: &Area, bytes: ByteRange) -> Option<PageIndex> {
    let shift = area.page_size().shift();
    let page = PageIndex(bytes.start >> shift);
    let is_one = bytes.start < bytes.end && (bytes.end - 1) >> shift == page.0;
    (is_one && bytes.end <= area.length()).then_some(page)
}

impl<K: Keeper<Home>> PinnedPage<K> {
    /// Counts a reference to `bytes`, which lie in the page of `pin`.
    #[inline]
    fn refer(pin: OnePin<Home, K>, bytes: ByteRange) -> Option<Self> {
        let area = pin.owner();
        // It could have been cut off before it was pinned, and is not cut off while it is.
        let may_refer = bytes.end <= area.length() && area.enter_reference();
        // Made only then: it ends the reference when it is dropped.
        may_refer.then(|| Self { pin, bytes })
    }
}

impl<K: Keeper<Home>> Deref for PinnedPage<K> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.pin.owner().pointer(self.bytes.start);
        // SAFETY: the bytes lie in the one page that `pin` has pinned (`page_of`), so it has a frame that eviction leaves
        // alone, and is protected in all views; bytes are put in place only into absent pages; nobody else has a
        // description of the frames that can write, as this reference is counted (`refer`). The region lives as long as
        // the area, which the keeper of the pin keeps, always the same one (`Keeper`).
        unsafe { std::slice::from_raw_parts(start, self.bytes.len() as usize) }
    }
}

impl<K: Keeper<Home>> Drop for PinnedPage<K> {
    #[inline]
    fn drop(&mut self) {
        self.pin.owner().leave_reference();
    }
}

impl<K: Keeper<Home>> fmt::Debug for PinnedPage<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedPage").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Copies `bytes` of `area`, which lie in one page, to `buffer`, which is as long, if the page is there and can be pinned
/// at once. Refused, nothing is copied, or a part. No reference is made to the page.
#[inline]
pub fn copy_one(area: &Area, shard: Shard, bytes: ByteRange, buffer: &mut [u8]) -> bool {
    assert_eq!(bytes.len(), buffer.len() as u64);
    let Some(page) = page_of(area, bytes) else { return false };
    let Some(_pin) = OnePin::try_borrow(area, page, shard) else { return false };
    if bytes.end > area.length() {
        return false;
    }
    let start = area.pointer(bytes.start);
    if area.guests.is_some() {
        // SAFETY: the bytes lie in a view, which is mapped as long as the area; the pin keeps mutable references of this
        // process away, and stores of a guest are no race with loads in assembly.
        return unsafe { signal::copy_trapping(buffer, start) == buffer.len() };
    }
    // SAFETY: the page is pinned, so its frame stays, and is protected in all views; nobody else has these frames. The
    // buffer is as long, and other memory: nobody has a `&mut` of a page that is pinned for reading.
    unsafe { std::ptr::copy_nonoverlapping(start, buffer.as_mut_ptr(), buffer.len()) };
    true
}
