//! What the protocol needs of its host: memory, addresses, and a way to sleep.

use core::fmt::Debug;
use core::marker::PhantomData;
use core::ops::Deref;
use core::sync::atomic::AtomicU32;
use core::time::Duration;

use alloc::vec;
use alloc::vec::Vec;

use crate::address::{PageIndex, PageRange};
use crate::page_word::{PageWord, Word};

/// Everything that [`Pages`](super::Pages) needs.
pub trait Host: Frames + View + Park + Debug {}

impl<H: Frames + View + Park + Debug> Host for H {}

/// Says that the protocol calls, for pages that are held as the call wants it. Only the protocol makes one, and only for
/// the host itself: so a host's unsafe code can rely on it.
pub struct Held<H: ?Sized>(PhantomData<fn(&H)>);

impl<H: ?Sized> Held<H> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<H: ?Sized> Debug for Held<H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Held")
    }
}

/// Who sleeps on a page that is put in place, and when he is woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// By the same call.
    AtOnce,
    /// Later, by [`View::wake`].
    Later,
}

/// Memory that holds the pages of one object.
///
/// Every call is made by the owner of its pages, who holds them in the state that is named. No call waits for another
/// owner. Those marked *signal-safe* are made in signal handlers, too: they take no lock and allocate nothing.
pub trait Frames {
    /// The page words, at least one for each page that the object can have. All zero at the beginning.
    type Words: Deref<Target = [PageWord]>;
    /// Counters, all zero at the beginning.
    type Counts: Deref<Target = [AtomicU32]>;
    /// A frame that is filled elsewhere and moved in place.
    type Frame;
    /// Why bytes could not be put in place.
    type Error;

    /// Puts copies of `bytes` in place; `pages` are Filling. Protected, if the object can be written: a store that
    /// comes before the word says so would go unnoticed. On error says how many pages are in place. Signal-safe.
    fn copy_in(
        &self,
        held: Held<Self>,
        pages: PageRange,
        bytes: &[u8],
        wake: Wake,
    ) -> Result<(), (u64, Self::Error)>;

    /// Moves `frame` in place; `page` is Filling. Sleepers of the first view are woken.
    fn move_in(&self, held: Held<Self>, page: PageIndex, frame: Self::Frame) -> Result<(), Self::Error>;

    /// Loads the object's bytes from `offset` on; the pages are pinned, or Changing. Says how many bytes were loaded: a
    /// load that traps ends it.
    fn load(&self, held: Held<Self>, offset: u64, buffer: &mut [u8]) -> usize;

    /// Stores to the object's bytes from `offset` on, all in one page, which is pinned for writing. Says how many bytes
    /// were stored.
    fn store(&self, held: Held<Self>, offset: u64, bytes: &[u8]) -> usize;

    /// Gives the frames of `pages` back, which are Evicting, or Changing and about to be dropped. `false`: they are as
    /// they were. Signal-safe.
    fn drop_frames(&self, held: Held<Self>, pages: PageRange) -> bool;

    /// As `drop_frames`, of a page whose frame is gone, or a part of it. Signal-safe.
    fn drop_remains(&self, held: Held<Self>, page: PageIndex) -> bool {
        self.drop_frames(held, PageRange::one(page))
    }

    /// The most pages that one call of `drop_frames` takes.
    fn longest_drop(&self) -> u64 {
        u64::MAX
    }

    /// Bytes of the budget that are free again when `pages` pages have lost their frames. Signal-safe.
    fn released_bytes(&self, pages: u64) -> u64;

    /// Whether the frame around byte `offset` is there; its page is Evicting or Changing. A host that cannot tell says
    /// yes. Signal-safe.
    fn is_present(&self, offset: u64) -> bool {
        let _ = offset;
        true
    }

    /// Whether `pages`, which are Changing, all have frames. Signal-safe.
    fn are_present(&self, pages: PageRange) -> bool {
        let _ = pages;
        true
    }

    /// The runs of `pages` that have frames, ascending. Only what it says of pages in Changing counts.
    fn present_runs(&self, pages: PageRange) -> Vec<PageRange> {
        vec![pages]
    }

    /// Drops the frames of `pages`, a whole block, and its page tables in all views. All are Evicting or free, none is
    /// pinned, and nobody claims one meanwhile. `false`: the frames are there still. Hosts that
    /// [drop](Self::longest_drop) one page at a time are asked for blocks without frames only. Signal-safe.
    fn drop_block(&self, held: Held<Self>, pages: PageRange) -> bool;

    /// Gives back the memory of the words of `pages`, a whole block, which read as zeros then. All are free, and nobody
    /// changes their words meanwhile. Signal-safe.
    fn forget_words(&self, held: Held<Self>, words: &Self::Words, pages: PageRange);

    /// Gives back all memory, of which `resident` pages are in use. Nobody has addresses of it any more.
    fn end(&mut self, resident: u64);
}

/// How pages come into view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shows {
    /// By themselves, once they are in place.
    Unasked,
    /// When told to. What is in place is whole, so they may be told at any time.
    WhenTold,
    /// When told to by who keeps the page from changing hands.
    WhenHeld,
}

/// Addresses in which pages can be accessed: any number of ranges, here or in other processes.
///
/// All calls are signal-safe but [`protect`](Self::protect), [`lift_poison`](Self::lift_poison) and
/// [`length_changed`](Self::length_changed).
pub trait View {
    /// Names one of the ranges.
    type Viewer: Copy;
    /// Why a range could not be protected.
    type Refused;

    /// The range in which the host itself loads and stores.
    fn own(&self) -> Self::Viewer;

    /// How pages come into view.
    fn shows(&self) -> Shows;

    /// Shows `page` to `viewer`, protected if the object can be written, and wakes who sleeps on it there. What fails
    /// is tried again by the next fault.
    fn show(&self, held: Held<Self>, page: PageIndex, viewer: Self::Viewer);

    /// Calls `act` for each range in use that does not show `page` yet, which is Clean.
    fn each_without(&self, page: PageIndex, act: &mut dyn FnMut(Self::Viewer));

    /// Opens `pages`, which are Changing, to stores wherever they are shown, and shows them to `viewer`. What fails is
    /// tried again by the next store, which faults.
    fn open(&self, held: Held<Self>, pages: PageRange, viewer: Self::Viewer);

    /// Makes stores to `pages` fault from now on, everywhere. Those of them that may be open are Changing.
    fn protect(&self, pages: PageRange) -> Result<(), Self::Refused>;

    /// Makes accesses to `pages`, which have no frames, trap.
    fn poison(&self, pages: PageRange);

    /// Lets accesses to `pages` trap no longer. They have no frames, and get none before this returns.
    fn lift_poison(&self, held: Held<Self>, pages: PageRange);

    /// Wakes who sleeps on `pages`, everywhere.
    fn wake(&self, pages: PageRange);

    /// As `wake`, but for those that [`Frames::copy_in`] and [`Frames::move_in`] have woken.
    fn wake_others(&self, pages: PageRange);

    /// The object has another length.
    fn length_changed(&self, length: u64);
}

/// Sleeping until a word changes.
pub trait Park {
    /// Sleeps while `word` is `seen`, at most `timeout`. May return early for any reason. Signal-safe.
    fn wait(&self, word: &PageWord, seen: Word, timeout: Option<Duration>);

    /// Wakes all sleepers on `word`. Signal-safe.
    fn wake_all(&self, word: &PageWord);

    /// Lets others go on for a moment. Signal-safe.
    fn pause(&self);

    /// Called before each look at a word and each change of one. A simulator takes turns here.
    fn step(&self) {}
}
