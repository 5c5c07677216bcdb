//! A pin of one page that is there, at little cost: no allocation, and no memory that other threads write but the page
//! word.
//!
//! A [`PinSet`](super::PinSet) counts itself among the owners of its pages, and each page against the pin budget, in two
//! counts that all threads share. A [`OnePin`] keeps the pages by a borrow, or by a [`PinShare`] that the threads of one
//! shard have for themselves; and takes its bytes from that shard's credit. What takes waiting or protection is refused
//! here, and left to a `PinSet`.

use alloc::sync::Arc;
use core::any::Any;
use core::fmt;

use super::{Host, Pages};
use crate::address::PageIndex;
use crate::page_word::Advanced;
use crate::pin_budget::Shard;

/// An object's pages as the threads of one shard keep them for their pins: the count of an `Arc` of this is theirs alone.
#[derive(Debug)]
#[repr(align(128))]
pub struct PinShare<H: Host> {
    owner: Arc<Pages<H>>,
    shard: Shard,
    _kept: Arc<dyn Any + Send + Sync>,
}

impl<H: Host> PinShare<H> {
    /// The share of `shard` in the pages of `owner`. It keeps `kept` besides: what must not end before the last pin.
    pub fn new(owner: Arc<Pages<H>>, shard: Shard, kept: Arc<dyn Any + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { owner, shard, _kept: kept })
    }

    /// Whose pages they are.
    #[inline]
    pub fn owner(&self) -> &Pages<H> {
        &self.owner
    }

    /// Whose share it is.
    #[inline]
    pub fn shard(&self) -> Shard {
        self.shard
    }
}

mod sealed {
    /// Implemented here only.
    pub trait Sealed {}
}

/// What keeps the pages of a pin: always the same ones.
pub trait Keeper<H: Host>: sealed::Sealed {
    /// Whose pages they are.
    fn owner(&self) -> &Pages<H>;
}

impl<H: Host> sealed::Sealed for Arc<PinShare<H>> {}

impl<H: Host> Keeper<H> for Arc<PinShare<H>> {
    #[inline]
    fn owner(&self) -> &Pages<H> {
        &self.owner
    }
}

impl<H: Host> sealed::Sealed for &Pages<H> {}

impl<H: Host> Keeper<H> for &Pages<H> {
    #[inline]
    fn owner(&self) -> &Pages<H> {
        self
    }
}

/// One pin of one page, until dropped.
pub struct OnePin<H: Host, K: Keeper<H>> {
    keeper: K,
    page: PageIndex,
    shard: Shard,
    host: core::marker::PhantomData<fn(&H)>,
}

impl<H: Host, K: Keeper<H>> OnePin<H, K> {
    /// Whose page it is.
    #[inline]
    pub fn owner(&self) -> &Pages<H> {
        self.keeper.owner()
    }

    /// The page.
    #[inline]
    pub fn page(&self) -> PageIndex {
        self.page
    }

    #[inline]
    fn new(keeper: K, page: PageIndex, shard: Shard) -> Self {
        Self { keeper, page, shard, host: core::marker::PhantomData }
    }
}

impl<H: Host> OnePin<H, Arc<PinShare<H>>> {
    /// Pins `page`, which the object can have, if it is there and needs not be protected for it. `None`: it may be possible
    /// by a [`PinSet`](super::PinSet).
    #[inline]
    pub fn try_new(share: &Arc<PinShare<H>>, page: PageIndex) -> Option<Self> {
        let is_pinned = share.owner.pin_one(page, share.shard);
        is_pinned.then(|| Self::new(Arc::clone(share), page, share.shard))
    }
}

impl<'a, H: Host> OnePin<H, &'a Pages<H>> {
    /// As above, with the credit of `shard`.
    #[inline]
    pub fn try_borrow(owner: &'a Pages<H>, page: PageIndex, shard: Shard) -> Option<Self> {
        owner.pin_one(page, shard).then(|| Self::new(owner, page, shard))
    }
}

impl<H: Host, K: Keeper<H>> Drop for OnePin<H, K> {
    #[inline]
    fn drop(&mut self) {
        self.keeper.owner().unpin_one(self.page, self.shard);
    }
}

impl<H: Host, K: Keeper<H>> fmt::Debug for OnePin<H, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnePin").field("page", &self.page).finish_non_exhaustive()
    }
}

impl<H: Host> Pages<H> {
    #[inline]
    fn pin_one(&self, page: PageIndex, shard: Shard) -> bool {
        let word = self.word(page);
        if !word.takes_pin_as_it_is() {
            return false;
        }
        // The first pin of a page reserves its frame in the pin budget, the last one releases it.
        let is_first = word.pins() == 0;
        if is_first && !self.pin_budget.take(shard, self.page_size) {
            return false;
        }
        self.host.step();
        if self.words[page.0 as usize].pin(word).is_ok() {
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
        core::hint::spin_loop();
        self.pin_one(page, shard)
    }

    #[inline]
    fn unpin_one(&self, page: PageIndex, shard: Shard) {
        self.host.step();
        let ended = self.words[page.0 as usize].unpin();
        if ended.after.pins() == 0 {
            self.pin_budget.give(shard, self.page_size);
        }
        if ended.must_wake() || ended.after.is_free() {
            self.unpinned(page, ended);
        }
    }

    /// What a pin can leave when it ends: sleepers; or a page whose frame was dropped from outside.
    #[cold]
    fn unpinned(&self, page: PageIndex, ended: Advanced) {
        if ended.after.is_free() {
            self.occupied.exit(self.block_of(page.0));
        }
        if ended.must_wake() {
            self.host.wake_all(&self.words[page.0 as usize]);
        }
    }
}
