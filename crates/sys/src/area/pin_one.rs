//! A pin of one page that is there, at little cost: no allocation, and no memory that other threads write but the page
//! word.
//!
//! A [`PinSet`](super::PinSet) counts itself among the owners of its area, and its page against the pin budget, in two
//! counts that all threads share. A [`PagePin`] keeps its area by a borrow, or by a [`PinShare`] that the threads of one
//! shard have for themselves; and takes its bytes from that shard's credit. What takes waiting, protection or a copy is
//! refused here, and left to a `PinSet`.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use memobj_core::address::{ByteRange, PageIndex};
use memobj_core::pin_budget::{SHARDS, Shard};

use super::Area;
use crate::{futex, signal};

/// An area as the threads of one shard keep it for their pins: the count of an `Arc` of this is theirs alone.
#[derive(Debug)]
#[repr(align(128))]
pub struct PinShare {
    area: Arc<Area>,
    shard: Shard,
    _kept: Arc<dyn Any + Send + Sync>,
}

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
        self.by_shard[shard.index()].get_or_init(|| {
            let (area, kept) = (Arc::clone(&self.area), Arc::clone(&self.kept));
            Arc::new(PinShare { area, shard, _kept: kept })
        })
    }

    /// The area.
    #[inline]
    pub fn area(&self) -> &Area {
        &self.area
    }
}

/// What keeps the area of a pin: nobody else can say so of a type of his own.
trait Keeps {
    fn area(&self) -> &Area;
    fn shard(&self) -> Shard;
}

impl Keeps for Arc<PinShare> {
    #[inline]
    fn area(&self) -> &Area {
        &self.area
    }

    #[inline]
    fn shard(&self) -> Shard {
        self.shard
    }
}

struct Borrowed<'a> {
    area: &'a Area,
    shard: Shard,
}

impl Keeps for Borrowed<'_> {
    #[inline]
    fn area(&self) -> &Area {
        self.area
    }

    #[inline]
    fn shard(&self) -> Shard {
        self.shard
    }
}

/// Bytes of one page for which `enter_one` has said yes, with this area and shard: they are the page's memory itself.
struct Held<K: Keeps> {
    keeper: K,
    bytes: ByteRange,
}

impl<K: Keeps> Deref for Held<K> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.keeper.area().views[0].region.pointer(self.bytes.start as usize);
        // SAFETY: the bytes lie in one page of the area, which this has pinned (`enter_one`): its frame is left alone by
        // eviction and protected in all views; bytes are put in place only into absent pages; nobody else has a
        // description of the frames that can write, as this reference is counted. The region lives as long as the area,
        // which the keeper keeps: it is a borrow of it, or owns it, and always the same one.
        unsafe { std::slice::from_raw_parts(start, self.bytes.len() as usize) }
    }
}

impl<K: Keeps> Drop for Held<K> {
    #[inline]
    fn drop(&mut self) {
        self.keeper.area().leave_one(self.bytes, self.keeper.shard());
    }
}

/// Bytes of one pinned page, of an area that they keep.
pub struct PagePin(Held<Arc<PinShare>>);

/// Bytes of one pinned page, of an area that they borrow.
pub struct PagePinRef<'a>(Held<Borrowed<'a>>);

impl PagePin {
    /// Pins the page that `bytes` lie in, if it is there and can be pinned at once. `None`: it may be possible by a
    /// [`PinSet`](super::PinSet).
    #[inline]
    pub fn new(share: &Arc<PinShare>, bytes: ByteRange) -> Option<Self> {
        let is_entered = share.area.enter_one(bytes, share.shard);
        is_entered.then(|| Self(Held { keeper: Arc::clone(share), bytes }))
    }
}

impl<'a> PagePinRef<'a> {
    /// As [`PagePin::new`], with the credit of `shard`.
    #[inline]
    pub fn new(area: &'a Area, shard: Shard, bytes: ByteRange) -> Option<Self> {
        let is_entered = area.enter_one(bytes, shard);
        is_entered.then(|| Self(Held { keeper: Borrowed { area, shard }, bytes }))
    }
}

impl Deref for PagePin {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for PagePinRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PagePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagePin").field("bytes", &self.0.bytes).finish_non_exhaustive()
    }
}

impl fmt::Debug for PagePinRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagePinRef").field("bytes", &self.0.bytes).finish_non_exhaustive()
    }
}

impl Area {
    /// Copies `bytes`, which lie in one page, to `buffer`, which is as long, if the page is there and can be pinned at
    /// once. Refused, nothing is copied, or a part. No reference is made to the page.
    #[inline]
    pub fn copy_one(&self, shard: Shard, bytes: ByteRange, buffer: &mut [u8]) -> bool {
        assert_eq!(bytes.len(), buffer.len() as u64);
        let Some(page) = self.pin_present(bytes, shard) else { return false };
        let start = self.views[0].region.pointer(bytes.start as usize);
        let copied = match self.guests {
            None => {
                // SAFETY: the page is pinned, so its frame stays, and is protected in all views. Nobody else has these
                // frames. The buffer is a slice of as many bytes of other memory: no `&mut` of a pinned page exists.
                unsafe { std::ptr::copy_nonoverlapping(start, buffer.as_mut_ptr(), buffer.len()) };
                true
            }
            Some(_) => {
                // SAFETY: the bytes lie in a view, which is mapped as long as `self`; the pin keeps mutable references
                // of this process away, and a guest's stores are no race with loads in assembly.
                unsafe { signal::copy_trapping(buffer, start) == buffer.len() }
            }
        };
        self.unpin_one(page, shard);
        copied
    }

    /// Pins the one page of `bytes` and counts a reference into it. `false`: not now, or not this way.
    #[inline]
    fn enter_one(&self, bytes: ByteRange, shard: Shard) -> bool {
        let Some(page) = self.pin_present(bytes, shard) else { return false };
        let is_entered = self.enter_reference();
        if !is_entered {
            self.unpin_one(page, shard);
        }
        is_entered
    }

    #[inline]
    fn leave_one(&self, bytes: ByteRange, shard: Shard) {
        self.leave_reference();
        self.unpin_one(PageIndex(bytes.start >> self.page_size.shift()), shard);
    }

    /// Pins the one page of `bytes`, all of which are the object's.
    #[inline]
    fn pin_present(&self, bytes: ByteRange, shard: Shard) -> Option<PageIndex> {
        let page = PageIndex(bytes.start >> self.page_size.shift());
        let is_in_one = bytes.start < bytes.end && (bytes.end - 1) >> self.page_size.shift() == page.0;
        if !is_in_one || bytes.end > self.length() || !self.pin_one(page, shard) {
            return None;
        }
        // It could have been cut off before it was pinned, and is not cut off while it is.
        if bytes.end > self.length() {
            self.unpin_one(page, shard);
            return None;
        }
        Some(page)
    }

    /// Pins `page` if it is there, and need not be protected for it.
    #[inline]
    fn pin_one(&self, page: PageIndex, shard: Shard) -> bool {
        let page_word = &self.words[page.0 as usize];
        let word = page_word.load();
        if !word.takes_pin_as_it_is() {
            return false;
        }
        // The first pin of a page reserves its frame.
        let is_first = word.pins() == 0;
        if is_first && !self.pin_budget.take(shard, self.page_size) {
            return false;
        }
        if page_word.pin(word).is_ok() {
            return true;
        }
        if is_first {
            self.pin_budget.give(shard, self.page_size);
        }
        self.pin_one_again(page, shard)
    }

    /// The word has changed since it was looked at.
    #[cold]
    fn pin_one_again(&self, page: PageIndex, shard: Shard) -> bool {
        std::hint::spin_loop();
        self.pin_one(page, shard)
    }

    #[inline]
    fn unpin_one(&self, page: PageIndex, shard: Shard) {
        let page_word = &self.words[page.0 as usize];
        let ended = page_word.unpin();
        if ended.after.pins() == 0 {
            self.pin_budget.give(shard, self.page_size);
        }
        if ended.must_wake() {
            futex::wake_all(futex::low_half(page_word.as_atomic()));
        }
    }
}
