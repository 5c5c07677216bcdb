//! One object's pages in this process: addresses, frames and page words.
//!
//! ```text
//!   views     address range(s) of the whole object, each registered with one userfaultfd; those of guests lie in
//!             other processes
//!   words     one PageWord for each page: who may do what
//!   frames    local:  private memory of the one view (4 KiB copied in, or 2 MiB moved in and out)
//!             shared: a frame file that all views map (4 KiB copied in through the first view, or 2 MiB
//!                     written to the file and then shown, see `show`)
//! ```
//!
//! The rules that make `&[u8]` over this memory sound, each kept by the page word:
//! only the owner of a [`FillClaim`] puts bytes in place, and only into an absent page; only [`Area::evict_block`]
//! takes frames away, and only from pages without pins (what others outside drop is found by [`Area::look`]: a page that
//! its pager has is filled again with the same bytes, any other traps); [`PinnedBytes`] exist only while every page is pinned.
//! In an area that can be written, a page that is pinned for reading is write-protected, and one that is pinned
//! for writing ([`PinnedBytesMut`]) has no other pin; every page that is neither Dirty nor Changing is
//! write-protected, so that no store goes unnoticed. Loads by touch and pins for writing keep off each other, see
//! `touch`. Protection is of views only: once another process has a description of the frame file that can write,
//! pins are copies, see `guests`.
//!
//! Without userfaultfd an area still works for pins and copies: nobody gets addresses to touch, pages are copied
//! in by the engine, and there is nothing to protect.

mod claim;
mod evict;
mod guests;
mod hold;
#[cfg(test)]
mod interposed;
mod look;
mod pin;
mod pin_one;
mod residency;
mod show;
mod store;
#[cfg(test)]
mod tests;
mod touch;
mod views;
mod write_back;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memobj_core::address::{PageIndex, PageRange, PageSize};
use memobj_core::budget::Budget;
use memobj_core::page_word::{Advanced, PageWord, Transition, Word};
use memobj_core::pin_budget::PinBudget;

pub use claim::{FillClaim, Origin, Placement};
pub use evict::{Evicted, Victims};
pub use guests::{GuestNumber, GuestView, NoFile};
pub use hold::HeldPage;
pub use look::{GonePage, Looked};
pub use pin::{NotPinned, PinError, PinSet, PinnedBytes, Room};
pub use pin_one::{PagePin, PagePinRef, PinShare, PinShares};
pub use store::{MutPinSet, PinnedBytesMut, StoreRefused};
pub use touch::TouchRefused;
pub use views::Viewer;
pub use write_back::{WriteClaim, WriteRun};

use crate::frame_file::FrameFile;
use crate::futex;
use crate::huge_folder::HugeFolder;
use crate::pagemap::Pagemap;
use crate::pool::FramePool;
use crate::region::{LARGE, Purpose, Region, SMALL, ZeroedTable};
use crate::uffd::{Announce, Modes, Userfaultfd};
use crate::volatile::{SharedWords, VolatileWords};
use guests::Guests;
use residency::Residency;
use touch::Touches;
use views::View;

/// Counts of writes that an area keeps apart. Of a page that is read from the pager again and again, while others are
/// written all the time, few readings must be in vain.
const WRITE_COUNTS: usize = 1024;

/// Where the frames of an object live.
#[derive(Clone, Debug)]
pub enum Frames {
    /// Private memory of this process; 4 KiB.
    LocalSmall,
    /// Private memory of this process; 2 MiB, recycled through the pool.
    LocalLarge(Arc<FramePool>),
    /// A frame file; 4 KiB. Can have one view for each way of announcing faults.
    SharedSmall,
    /// A frame file made in this folder; 2 MiB. Views as above.
    SharedLarge(Arc<HugeFolder>),
}

impl Frames {
    /// The frame file of an object of `len` bytes, if its frames are in one.
    fn new_file(&self, name: &str, len: u64) -> io::Result<Option<FrameFile>> {
        match self {
            Frames::SharedSmall => FrameFile::new(name, len).map(Some),
            Frames::SharedLarge(folder) => FrameFile::new_large(folder, len).map(Some),
            Frames::LocalSmall | Frames::LocalLarge(_) => Ok(None),
        }
    }

    /// What views are registered for. Those of a file show its pages by themselves, unless they are registered for
    /// minor faults: not before a large frame is whole, and not where a store could come unnoticed.
    fn modes(&self, writes: Writes) -> Modes {
        match (self, writes) {
            (Frames::SharedLarge(_), _) => Modes::MISSING | Modes::MINOR,
            (Frames::SharedSmall, Writes::Yes) => Modes::MISSING | Modes::MINOR | Modes::WRITE_PROTECT,
            (_, Writes::Yes) => Modes::MISSING | Modes::WRITE_PROTECT,
            (_, Writes::No) => Modes::MISSING,
        }
    }
}

/// What [`Area::new`] needs.
#[derive(Debug)]
pub struct AreaOptions {
    /// A name for the frame file, seen in /proc/PID/maps.
    pub name: String,
    /// Bytes of the object.
    pub length: u64,
    /// The most bytes that the object can grow to.
    pub capacity: u64,
    /// Whether the pages can be written. Takes small frames.
    pub writes: Writes,
    /// Where frames live.
    pub frames: Frames,
    /// One userfaultfd for each view; exactly one for local frames. None at all: pages can be pinned and copied,
    /// but not touched; takes [`Frames::LocalSmall`].
    pub views: Vec<Arc<Userfaultfd>>,
    /// Bounds the frames.
    pub budget: Arc<Budget>,
    /// Bounds the frames that pins hold at once.
    pub pin_budget: Arc<PinBudget>,
    /// Counts the bytes of frames that hold what the pager does not have yet.
    pub unwritten: Arc<AtomicU64>,
}

/// Whether the pages of an area can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writes {
    /// They are read only.
    No,
    /// Stores are noticed, and pages written back.
    Yes,
}

/// See the module.
#[derive(Debug)]
pub struct Area {
    views: Vec<View>,
    /// Views in other processes, of an area that can have some.
    guests: Option<Box<Guests>>,
    words: ZeroedTable<PageWord>,
    residency: Residency,
    /// Pages that are Dirty, Changing or WritingBack, by block.
    unclean: Residency,
    touches: Touches,
    unwritten: Arc<AtomicU64>,
    /// Counts writes to the pager, by pages; several pages share a count.
    writes_begun: Box<[AtomicU32]>,
    pagemap: Pagemap,
    #[cfg(test)]
    interposed: interposed::Interposed,
    writes: Writes,
    length: AtomicU64,
    capacity: u64,
    page_size: PageSize,
    frame_file: Option<FrameFile>,
    pool: Option<Arc<FramePool>>,
    budget: Arc<Budget>,
    pin_budget: Arc<PinBudget>,
}

impl Area {
    /// Reserves addresses for the whole object and registers them; no page is resident.
    pub fn new(options: AreaOptions) -> io::Result<Arc<Self>> {
        check(&options)?;
        let page_size = match options.frames {
            Frames::LocalLarge(_) | Frames::SharedLarge(_) => PageSize::LARGE,
            Frames::LocalSmall | Frames::SharedSmall => PageSize::SMALL,
        };
        let capacity = options.capacity.max(options.length);
        let pages = usize::try_from(page_size.pages_for(capacity)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let bytes = usize::try_from(capacity.max(1)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // Views end with the last 4 KiB of the object, also where the frame behind them goes on.
        let bytes = bytes.checked_next_multiple_of(SMALL).ok_or(io::ErrorKind::OutOfMemory)?;
        let frame_file = options.frames.new_file(&options.name, bytes as u64)?;
        let words = ZeroedTable::new(pages)?;
        let purpose = match (&options.frames, options.writes, options.views.is_empty()) {
            (Frames::LocalLarge(_), ..) => Purpose::Large,
            (_, Writes::No, false) => Purpose::Small,
            _ => Purpose::Writable,
        };
        let modes = options.frames.modes(options.writes);
        let mut views = Vec::new();
        for uffd in options.views {
            let region = Region::new(bytes, purpose)?;
            if let Some(file) = &frame_file {
                // SAFETY: the region is new; nobody holds references into it.
                unsafe { region.map_file(file, options.writes)? };
            }
            uffd.register(region.start(), region.len(), modes)?;
            views.push(View::new(region, Some(uffd)));
        }
        if views.is_empty() {
            views.push(View::new(Region::new(bytes, purpose)?, None));
        }
        let blocks = pages.div_ceil(block_pages(page_size));
        let guests = (frame_file.is_some() && options.writes == Writes::Yes).then(Box::default);
        Ok(Arc::new(Self {
            views,
            guests,
            words,
            residency: Residency::new(blocks)?,
            unclean: Residency::new(if options.writes == Writes::Yes { blocks } else { 0 })?,
            touches: Touches::new(options.writes),
            unwritten: options.unwritten,
            writes_begun: (0..if options.writes == Writes::Yes { WRITE_COUNTS } else { 0 })
                .map(|_| AtomicU32::new(0))
                .collect(),
            pagemap: Pagemap::shared(),
            #[cfg(test)]
            interposed: interposed::Interposed::default(),
            writes: options.writes,
            length: AtomicU64::new(options.length),
            capacity,
            page_size,
            frame_file,
            pool: match options.frames {
                Frames::LocalLarge(pool) => Some(pool),
                _ => None,
            },
            budget: options.budget,
            pin_budget: options.pin_budget,
        }))
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

    /// Whether its memory can be touched, and not only pinned and copied.
    pub fn can_be_touched(&self) -> bool {
        self.views[0].uffd.is_some()
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

    /// The 2 MiB pool that its frames come from, if they are large.
    pub fn pool(&self) -> Option<&Arc<FramePool>> {
        self.pool.as_ref()
    }

    /// The word of `page`, which must be one of the object's.
    #[inline]
    pub fn word(&self, page: PageIndex) -> Word {
        self.words[page.0 as usize].load()
    }

    /// Bytes of `page` that belong to the object, as a length from its start, rounded up to 4 KiB.
    fn mapped_bytes(&self, page: PageIndex) -> usize {
        let start = page.0 << self.page_size.shift();
        let end = (start + self.page_size.bytes()).min(self.length().max(start + 1));
        ((end - start) as usize).next_multiple_of(SMALL)
    }

    fn offset_in_view(&self, page: u64) -> usize {
        (page << self.page_size.shift()) as usize
    }

    fn advance(&self, page: PageIndex, transition: Transition) -> Result<Advanced, Word> {
        let word = &self.words[page.0 as usize];
        let advanced = word.advance(transition)?;
        if advanced.must_wake() {
            futex::wake_all(futex::low_half(word.as_atomic()));
        }
        Ok(advanced)
    }

    /// Sleeps while somebody else owns `page`, at most `timeout`; returns the word then.
    /// Safe to call from a signal handler.
    pub fn wait(&self, page: PageIndex, timeout: Option<std::time::Duration>) -> Word {
        let word = &self.words[page.0 as usize];
        if let Some(seen) = word.announce_waiter() {
            futex::wait(futex::low_half(word.as_atomic()), seen.low_half(), timeout);
        }
        word.load()
    }

    /// Makes a Failed page Absent, without its poison. Says whether it was Failed.
    pub fn retry(&self, page: PageIndex) -> bool {
        if self.advance(page, Transition::Retry).is_err() {
            return false;
        }
        let (start, len) = (self.offset_in_view(page.0), self.mapped_bytes(page));
        // SAFETY: the page is ours (Evicting), has no frame, and nobody can hold references to a failed page.
        unsafe { self.lift_poison(start, len) };
        let _ = self.advance(page, Transition::Release);
        true
    }

    /// Whether `page` lies behind the end, and nobody holds it: while the object is being cut off, pages that are pinned
    /// still are used as before.
    pub fn is_outside(&self, page: PageIndex) -> bool {
        let word = || self.words.get(page.0 as usize).map(PageWord::load);
        page.0 >= self.pages() && word().is_none_or(|word| word.pins() == 0)
    }

    /// The words of `[offset, offset + 8 * words)`, to be loaded one by one. `offset` is a multiple of eight.
    pub fn volatile_words(&self, announce: Announce, offset: u64, words: u64) -> Option<VolatileWords<'_>> {
        let end = words.checked_mul(8)?.checked_add(offset).filter(|end| *end <= self.capacity)?;
        let start = self.address(announce, offset).filter(|_| offset.is_multiple_of(8) && offset <= end)?;
        // SAFETY: the words lie in a view, whose start is page aligned and which is mapped as long as `self`.
        Some(unsafe { VolatileWords::new(start.cast(), words) })
    }

    /// The words of `[offset, offset + 8 * words)`, for whoever loads and stores by atomic steps. `offset` is a
    /// multiple of eight.
    ///
    /// The caller sees to it that nothing is pinned for writing while they are used; pins for reading keep stores
    /// out by themselves.
    pub fn shared_words(&self, announce: Announce, offset: u64, words: u64) -> Option<SharedWords<'_>> {
        let end = words.checked_mul(8)?.checked_add(offset).filter(|end| *end <= self.capacity)?;
        let fits = |_: &*const u8| offset.is_multiple_of(8) && offset <= end && self.writes == Writes::Yes;
        let start = self.address(announce, offset).filter(fits)?;
        // SAFETY: the words lie in a view, whose start is page aligned, and which is mapped writable as long as
        // `self`; references to pinned pages are as the caller and the page words see to.
        Some(unsafe { SharedWords::new(start.cast_mut().cast(), words) })
    }

    fn all_unowned(&self) -> bool {
        // Only blocks that hold something are looked at, so that a sparse giant costs nothing.
        let mut from = 0;
        while let Some(block) = self.residency.next(from) {
            for page in self.block_range(block).iter() {
                let word = self.word(page);
                if word.pins() > 0 || word.is_owned() || word.is_writing() {
                    return false;
                }
            }
            from = block + 1;
        }
        true
    }

    fn block_range(&self, block: u64) -> PageRange {
        let pages = block_pages(self.page_size) as u64;
        PageRange { start: block * pages, end: ((block + 1) * pages).min(self.words.len() as u64) }
    }

    fn block_of(&self, page: u64) -> u64 {
        page / block_pages(self.page_size) as u64
    }

    /// Whether the frames are private memory of this process, with one view at most.
    pub fn is_local(&self) -> bool {
        self.frame_file.is_none()
    }

    /// Frames in use by resident pages.
    pub fn resident_pages(&self) -> u64 {
        self.residency.total()
    }

    /// The first block from `from` on that has a resident page.
    pub fn next_resident_block(&self, from: u64) -> Option<u64> {
        self.residency.next(from)
    }
}

fn check(options: &AreaOptions) -> io::Result<()> {
    let shared = matches!(options.frames, Frames::SharedSmall | Frames::SharedLarge(_));
    let plain = matches!(options.frames, Frames::LocalSmall);
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !plain && (options.views.is_empty() || (!shared && options.views.len() > 1)) {
        return refused("local frames have exactly one view");
    }
    if plain && options.views.len() > 1 {
        return refused("local frames have one view at most");
    }
    let small = matches!(options.frames, Frames::LocalSmall | Frames::SharedSmall);
    if !small && options.writes == Writes::Yes {
        return refused("pages that can be written have small frames");
    }
    Ok(())
}

/// Pages in one block of the reclaim hand: 2 MiB worth.
const fn block_pages(page_size: PageSize) -> usize {
    LARGE >> page_size.shift()
}

impl Drop for Area {
    fn drop(&mut self) {
        let resident = self.resident_pages();
        debug_assert!(!self.words.is_empty() || resident == 0);
        debug_assert!(self.all_unowned(), "an area is dropped while a page is owned or pinned");
        self.unwritten.fetch_sub(self.unclean.total() << self.page_size.shift(), Ordering::Relaxed);
        self.views.clear();
        self.frame_file = None;
        match &self.pool {
            Some(pool) => pool.forget(resident),
            None => self.budget.release(resident << self.page_size.shift()),
        }
    }
}
