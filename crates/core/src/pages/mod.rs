//! The pages of one object, and what is done to them: the protocol on their words.
//!
//! ```text
//!   claim        Absent -> Filling: obtain the bytes, then place them or fail
//!   evict        Clean -> Evicting: drop the frame; look: is it there at all?
//!   store        -> Changing: open the page, or copy bytes in, or drop changes
//!   pin          count: the page stays, with the bytes that it has; or one pin that may write
//!   pin_upgrade  the only pin becomes one that may write: of many pages at once, or of none
//!   write_back   Dirty -> Changing: protect, copy -> WritingBack -> Clean
//!   inherit      the pages of an owner that has ended, whatever it was doing
//!   hold         nobody moves the page while the length changes
//!   show         how pages come into views that do not show them by themselves
//!   touch        loads by plain instructions beside pins for writing
//! ```
//!
//! Who does what is decided by the page words alone; there is no other lock. Memory, addresses and sleep come from the
//! host, by three traits: [`Frames`], [`View`] and [`Park`]. So the engine on Linux, the simulator of its threads and a
//! kernel run this same code. Only the holder of a page in Filling, Evicting or Changing has the host do anything to it.
//!
//! The rules on which the host's memory safety rests, each kept by the page word:
//!
//! - Bytes are put in place by the owner of a [`FillClaim`] only, and only into an absent page.
//! - Frames are dropped from pages without pins only; the one exception is a frame that is gone already.
//! - A page that is pinned for reading is protected, and one that is pinned for writing has no other pin. Every page that
//!   is neither Dirty nor Changing is protected, so no store goes unnoticed.

mod blocks;
mod claim;
mod evict;
mod hold;
mod host;
mod inherit;
mod look;
mod pin;
mod pin_new;
mod pin_one;
mod pin_upgrade;
mod show;
mod store;
mod tables;
mod touch;
mod write_back;

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

pub use blocks::{Blocks, groups_of};
pub use claim::{FillClaim, Origin, PlaceError, Placement, Unplaced};
pub use evict::{Evicted, Victims};
pub use hold::HeldPage;
pub use host::{Frames, Held, Host, Park, Shows, View, Wake};
pub use inherit::{Inherited, Legacy};
pub use look::{GonePage, Looked};
pub use pin::{MutPinSet, PinError, PinSet};
pub use pin_new::NewPinSet;
pub use pin_one::{Keeper, OnePin, PinShare};
pub use pin_upgrade::{ExclusivePages, UpgradeRefused};
pub use store::StoreRefused;
pub use tables::{TABLE_BYTES, Tables};
pub use touch::Touching;
pub use write_back::{WriteClaim, WriteRun};

use crate::address::{ByteRange, PageIndex, PageRange, PageSize};
use crate::budget::Budget;
use crate::page_word::{Advanced, Transition, Word};
use crate::pin_budget::PinBudget;
use tables::Occupied;
use touch::Touches;

/// Bytes of a block, the unit in which the reclaim hand goes.
pub const BLOCK_BYTES: u64 = 2 << 20;
/// The most counts of writes that are kept apart. Of a page that is read from the pager again and again, while others
/// are written all the time, few readings must be in vain.
const MOST_WRITE_COUNTS: u64 = 1024;

/// Whether pages can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writes {
    /// They are read only.
    No,
    /// Stores are noticed, and pages written back.
    Yes,
}

/// A page at one moment, to be compared with what it is later.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    word: Word,
    /// Versions begin anew when the words of the block have been given back.
    epoch: u32,
}

/// What [`Pages::new`] needs.
#[derive(Debug)]
pub struct PagesOptions<H: Host> {
    /// Memory and addresses.
    pub host: H,
    /// A word for each page that the object can have.
    pub words: H::Words,
    /// Counts resident pages, by block.
    pub resident: Blocks<H::Counts>,
    /// Counts pages that are not free, by block, and blocks that have tables, by group.
    pub occupied: (H::Counts, H::Counts),
    /// Counts pages that the pager does not have, by block. Of an object that is read only it may be empty.
    pub unclean: Blocks<H::Counts>,
    /// Bytes of the object.
    pub length: u64,
    /// The most bytes that the object can grow to.
    pub capacity: u64,
    /// The size of its pages.
    pub page_size: PageSize,
    /// Whether the pages can be written. Takes small pages.
    pub writes: Writes,
    /// Bounds the frames.
    pub budget: Arc<Budget>,
    /// Bounds the frames that pins hold at once.
    pub pin_budget: Arc<PinBudget>,
    /// Counts the bytes of frames that hold what the pager does not have yet.
    pub unwritten: Arc<AtomicU64>,
    /// Counts what blocks take beside frames.
    pub tables: Arc<Tables>,
}

/// See the module. Dereferences to the host.
pub struct Pages<H: Host> {
    host: H,
    words: H::Words,
    resident: Blocks<H::Counts>,
    occupied: Occupied<H::Counts>,
    tables: Arc<Tables>,
    /// Pages that are Dirty, Changing or WritingBack, by block.
    unclean: Blocks<H::Counts>,
    touches: Touches,
    unwritten: Arc<AtomicU64>,
    /// Counts writes to the pager, by pages; several pages share a count.
    writes_begun: Box<[AtomicU32]>,
    writes: Writes,
    length: AtomicU64,
    capacity: u64,
    page_size: PageSize,
    budget: Arc<Budget>,
    pin_budget: Arc<PinBudget>,
}

/// `len` values on the heap; an error where there is no memory for them.
pub fn boxed<T>(len: u64, new: impl Fn() -> T) -> Result<Box<[T]>, TryReserveError> {
    let mut values = Vec::new();
    values.try_reserve_exact(len as usize)?;
    values.extend((0..len).map(|_| new()));
    Ok(values.into_boxed_slice())
}

impl<H: Host> fmt::Debug for Pages<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("host", &self.host)
            .field("length", &self.length())
            .field("resident", &self.resident_pages())
            .finish_non_exhaustive()
    }
}

impl<H: Host> Deref for Pages<H> {
    type Target = H;

    #[inline]
    fn deref(&self) -> &H {
        &self.host
    }
}

impl<H: Host> Pages<H> {
    /// Pages that are all absent. Fails where there is no memory for some KiB of counters.
    pub fn new(options: PagesOptions<H>) -> Result<Self, TryReserveError> {
        let capacity = options.capacity.max(options.length);
        let pages = options.page_size.pages_for(capacity);
        assert!(options.words.len() as u64 >= pages, "{} words for {pages} pages", options.words.len());
        let written = if options.writes == Writes::Yes { pages } else { 0 };
        Ok(Self {
            host: options.host,
            words: options.words,
            resident: options.resident,
            occupied: Occupied::new(options.occupied.0, options.occupied.1),
            tables: options.tables,
            unclean: options.unclean,
            touches: Touches::new(written)?,
            unwritten: options.unwritten,
            writes_begun: boxed(written.min(MOST_WRITE_COUNTS), || AtomicU32::new(0))?,
            writes: options.writes,
            length: AtomicU64::new(options.length),
            capacity,
            page_size: options.page_size,
            budget: options.budget,
            pin_budget: options.pin_budget,
        })
    }

    /// Bytes of the object.
    #[inline]
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// The most bytes that the object can grow to.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether the pages can be written.
    pub fn writes(&self) -> Writes {
        self.writes
    }

    /// The size of its pages.
    #[inline]
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// How many pages it has.
    pub fn pages(&self) -> u64 {
        self.page_size.pages_for(self.length())
    }

    /// Bounds the frames.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Bounds the frames that pins hold at once.
    pub fn pin_budget(&self) -> &PinBudget {
        &self.pin_budget
    }

    /// The word of `page`, which must be one that the object can have.
    #[inline]
    pub fn word(&self, page: PageIndex) -> Word {
        self.host.step();
        if !self.occupied.has_tables(self.block_of(page.0)) {
            return Word::default();
        }
        self.words[page.0 as usize].load()
    }

    /// The page as it is, if its bytes may be loaded without a pin.
    pub fn glance(&self, page: PageIndex) -> Option<Glance> {
        let epoch = self.occupied.epoch(self.block_of(page.0));
        let word = self.word(page);
        word.is_readable().then_some(Glance { word, epoch })
    }

    /// Whether `page` has been readable all the time since `glance`: what was loaded meanwhile by atomic loads belongs
    /// together, but for plain stores to a page that is open to them.
    pub fn is_still(&self, page: PageIndex, glance: Glance) -> bool {
        self.host.step();
        let is_still = self.words[page.0 as usize].still(glance.word);
        is_still && self.occupied.epoch(self.block_of(page.0)) == glance.epoch
    }

    fn advance(&self, page: PageIndex, transition: Transition) -> Result<Advanced, Word> {
        if matches!(transition, Transition::Claim { .. } | Transition::Hold) {
            return self.advance_free(page, transition);
        }
        self.host.step();
        if !self.occupied.has_tables(self.block_of(page.0)) {
            return Err(Word::default());
        }
        let word = &self.words[page.0 as usize];
        let advanced = word.advance(transition)?;
        if advanced.after.is_free() && !advanced.before.is_free() {
            self.occupied.exit(self.block_of(page.0));
        }
        if advanced.must_wake() {
            self.host.wake_all(word);
        }
        Ok(advanced)
    }

    /// A transition of a page that may be free: it is counted first.
    fn advance_free(&self, page: PageIndex, transition: Transition) -> Result<Advanced, Word> {
        let block = self.block_of(page.0);
        while !self.occupied.enter(block, &self.tables) {
            self.host.pause();
        }
        self.host.step();
        // A free page allows these transitions, so a wrong guess is never the answer.
        let word = &self.words[page.0 as usize];
        let advanced = word.advance_from(Word::default(), transition);
        // Whoever is not free is counted already.
        if advanced.is_err() || advanced.is_ok_and(|advanced| !advanced.before.is_free()) {
            self.occupied.exit(block);
        }
        // A page can be absent and pinned, and somebody sleep until its pins end.
        if advanced.is_ok_and(|advanced| advanced.must_wake()) {
            self.host.wake_all(word);
        }
        advanced
    }

    /// The first block from `from` on that has tables.
    pub fn next_tabled_block(&self, from: u64) -> Option<u64> {
        self.occupied.next(from)
    }

    /// Makes a transition that must be allowed: the caller holds the page.
    fn settle(&self, page: PageIndex, transition: Transition) {
        let _ = self.settled(page, transition);
    }

    /// As `settle`; says what the word was and is.
    fn settled(&self, page: PageIndex, transition: Transition) -> Advanced {
        match self.advance(page, transition) {
            Ok(advanced) => advanced,
            Err(word) => panic!("page {page} has left its owner: {transition:?} of {word:?}"),
        }
    }

    /// Sleeps while somebody else owns `page`, at most `timeout`; returns the word then. Signal-safe.
    pub fn wait(&self, page: PageIndex, timeout: Option<Duration>) -> Word {
        self.host.step();
        let word = &self.words[page.0 as usize];
        if let Some(seen) = word.announce_waiter() {
            self.host.wait(word, seen, timeout);
        }
        self.word(page)
    }

    /// Announces a sleeper on `page`, who will sleep elsewhere: returns the word for whose change the host's `wake_all` is
    /// called, or `None` if nobody owns the page.
    pub fn announce_waiter(&self, page: PageIndex) -> Option<Word> {
        self.host.step();
        self.words[page.0 as usize].announce_waiter()
    }

    /// As [`announce_waiter`](Self::announce_waiter), for who waits until nothing keeps a plain store off.
    pub fn announce_storer(&self, page: PageIndex) -> Option<Word> {
        self.host.step();
        self.words[page.0 as usize].announce_storer()
    }

    /// Waits, at most `timeout`, while `page` is owned, pinned or on its way to the pager; returns the word then.
    pub fn wait_as_writer(&self, page: PageIndex, timeout: Option<Duration>) -> Word {
        self.host.step();
        let word = &self.words[page.0 as usize];
        if let Some(seen) = word.announce_writer() {
            self.host.wait(word, seen, timeout);
        }
        self.word(page)
    }

    /// Waits, at most `timeout`, while `page` is owned or pinned for reading, as [`open_to_store`](Self::open_to_store)
    /// wants it not to be; returns the word then. For faults of stores: a wait for whatever
    /// [`wait_as_writer`](Self::wait_as_writer) waits for could be one for the faulting thread's own pin for writing, or
    /// for one that waits until this thread's touch has ended. Signal-safe.
    pub fn wait_to_store(&self, page: PageIndex, timeout: Option<Duration>) -> Word {
        self.host.step();
        let word = &self.words[page.0 as usize];
        if let Some(seen) = word.announce_storer() {
            self.host.wait(word, seen, timeout);
        }
        self.word(page)
    }

    /// Makes a Failed page Absent, without its poison. Says whether it was Failed.
    pub fn retry(&self, page: PageIndex) -> bool {
        if self.advance(page, Transition::Retry).is_err() {
            return false;
        }
        self.host.lift_poison(Held::new(), PageRange::one(page));
        self.settle(page, Transition::Release);
        true
    }

    /// Makes `page`, which is Failed, trap again, and wakes who sleeps on it. The caller sees to it that the page stays
    /// Failed meanwhile: nobody may [`retry`](Self::retry) it. Poison that comes later would make a page trap that is there.
    pub fn trap_failed(&self, page: PageIndex) {
        self.host.poison(PageRange::one(page));
        self.host.wake(PageRange::one(page));
    }

    /// Wakes who sleeps on a fault in `pages`, everywhere.
    pub fn wake(&self, pages: PageRange) {
        self.host.wake(pages);
    }

    /// Makes the page of byte `offset` trap, which lies in the views and behind the object's end.
    pub fn trap_outside(&self, offset: u64) {
        let page = PageIndex(offset >> self.page_size.shift());
        if page.0 >= self.pages() {
            self.trap_failed(page);
        }
    }

    /// Whether `page` lies behind the end, and nobody holds it: while the object is being cut off, pages that are pinned
    /// still are used as before.
    pub fn is_outside(&self, page: PageIndex) -> bool {
        let has_word = (page.0 as usize) < self.words.len();
        page.0 >= self.pages() && (!has_word || self.word(page).pins() == 0)
    }

    /// Frames in use by resident pages.
    pub fn resident_pages(&self) -> u64 {
        self.resident.total()
    }

    /// The first block from `from` on that has a resident page.
    pub fn next_resident_block(&self, from: u64) -> Option<u64> {
        self.resident.next(from)
    }

    /// The pages of `block` that lie in `pages`.
    pub fn part_of_block(&self, block: u64, pages: PageRange) -> PageRange {
        let range = self.block_range(block);
        let start = range.start.max(pages.start);
        PageRange { start, end: range.end.min(pages.end).max(start) }
    }

    /// The block that `page` lies in.
    pub fn block_with(&self, page: PageIndex) -> u64 {
        self.block_of(page.0)
    }

    /// The pages that `block` can have.
    pub fn block_range(&self, block: u64) -> PageRange {
        let pages = BLOCK_BYTES >> self.page_size.shift();
        PageRange { start: block * pages, end: ((block + 1) * pages).min(self.words.len() as u64) }
    }

    #[inline]
    fn block_of(&self, page: u64) -> u64 {
        page / (BLOCK_BYTES >> self.page_size.shift())
    }

    /// Calls `act` with each block that `pages` lie in, and its part of them.
    fn parts_by_block(&self, pages: PageRange, mut act: impl FnMut(u64, PageRange)) {
        let mut from = pages.start;
        while from < pages.end {
            let block = self.block_of(from);
            let part = self.part_of_block(block, PageRange { start: from, end: pages.end });
            act(block, part);
            from = part.end;
        }
    }

    /// The bytes of `pages`, up to the end of the object.
    fn bytes_of(&self, pages: PageRange) -> ByteRange {
        let shift = self.page_size.shift();
        ByteRange { start: pages.start << shift, end: pages.end << shift }.below(self.length())
    }

    fn all_unowned(&self) -> bool {
        // Only blocks that hold something are looked at, so that a sparse giant costs nothing.
        let mut from = 0;
        while let Some(block) = self.resident.next(from) {
            for page in self.block_range(block).iter() {
                // Pins for reading can be left: one that borrows is forgotten (`mem::forget`) as safely as dropped.
                let word = self.word(page);
                if word.is_pinned_mut() || word.is_owned() || word.is_writing() {
                    return false;
                }
            }
            from = block + 1;
        }
        true
    }
}

impl<H: Host> Drop for Pages<H> {
    fn drop(&mut self) {
        debug_assert!(self.all_unowned(), "pages are dropped while one is owned or pinned for writing");
        self.unwritten.fetch_sub(self.unclean.total() << self.page_size.shift(), Ordering::Relaxed);
        let resident = self.resident_pages();
        self.host.end(resident);
        self.budget.release(self.host.released_bytes(resident));
        self.tables.subtract(self.occupied.total());
    }
}
