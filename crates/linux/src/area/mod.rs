//! The home of one object's pages in this process: addresses and frames, under the protocol of `memobj_core::pages`.
//!
//! ```text
//!   Area = Pages<Home>     who may do what to which page: core's
//!     Home                 how it is done on Linux
//!       views     address range(s) of the whole object, each registered with one userfaultfd; those of guests lie in
//!                 other processes
//!       frames    local:  private memory of the one view (4 KiB copied in, or 2 MiB moved in and out)
//!                 shared: a frame file that all views map (4 KiB copied in through the first view, or 2 MiB
//!                         written to the file and then shown)
//! ```
//!
//! The rules that make `&[u8]` over this memory sound are the protocol's. The unsafe code here relies on them, and on
//! [`Held`](memobj_core::pages::Held), which nobody else can make. [`PinnedBytes`] exist only while every page is pinned.
//! Protection is of views only: once another process has a description of the frame file that can write, pins are
//! copies, see `guests`.
//!
//! Without userfaultfd an area still works for pins and copies: nobody gets addresses to touch, pages are copied
//! in by the engine, and there is nothing to protect.

mod frames;
mod glance;
mod guests;
#[cfg(test)]
mod inherit_tests;
#[cfg(test)]
mod interposed;
mod kept;
mod page_watch;
mod pin;
mod pin_one;
#[cfg(test)]
mod tests;
mod touch;
mod views;

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memobj_core::address::{PageRange, PageSize};
use memobj_core::budget::Budget;
use memobj_core::page_word::PageWord;
use memobj_core::pages::{self, BLOCK_BYTES, Blocks, Pages, PagesOptions, groups_of};
use memobj_core::pin_budget::PinBudget;

pub use crate::line::GuestAccess;
pub use glance::{GlanceWords, NotSeen, copy_at_a_glance, glance_at};
pub use guests::{GuestNumber, GuestPlace, GuestView, MOST_GUESTS, NoFile};
pub use kept::{Kept, Mark, Storage};
pub use memobj_core::pages::{
    Evicted, Glance, Inherited, Origin, PinError, Placement, StoreRefused, Tables, UpgradeRefused, Victims,
    Writes,
};
pub use page_watch::{PageWatch, Until};
pub use pin::{CopyBudget, NotPinned, PinnedBytes, PinnedBytesMut, copy_as_is, copy_pinned};
pub use pin_one::{PagePin, PagePinRef, PinShare, PinShares, copy_one};
pub use touch::{TouchRefused, copy_by_touch};
pub use views::Viewer;

use crate::fault_loop::Listeners;
use crate::frame_file::FrameFile;
use crate::huge_folder::HugeFolder;
use crate::pagemap::Pagemap;
use crate::pool::FramePool;
use crate::region::{Purpose, Region, SMALL};
use crate::uffd::{Announce, Modes, Userfaultfd};
use crate::volatile::{SharedWords, VolatileWords};
use crate::zeroed_table::ZeroedTable;
use guests::Guests;
use views::View;

/// The pages of one object in this process.
pub type Area = Pages<Home>;
/// See [`pages::ExclusivePages`].
pub type ExclusivePages = pages::ExclusivePages<Home>;
/// See [`pages::FillClaim`].
pub type FillClaim = pages::FillClaim<Home>;
/// See [`pages::GonePage`].
pub type GonePage = pages::GonePage<Home>;
/// See [`pages::HeldPage`].
pub type HeldPage = pages::HeldPage<Home>;
/// See [`pages::Looked`].
pub type Looked = pages::Looked<Home>;
/// See [`pages::MutPinSet`].
pub type MutPinSet = pages::MutPinSet<Home>;
/// See [`pages::NewPinSet`].
pub type NewPinSet = pages::NewPinSet<Home>;
/// See [`pages::PinSet`].
pub type PinSet = pages::PinSet<Home>;
/// See [`pages::WriteClaim`].
pub type WriteClaim = pages::WriteClaim<Home>;
/// See [`pages::WriteRun`].
pub type WriteRun = pages::WriteRun<Home>;

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
    fn file(&self, name: &str, len: u64, storage: &Storage) -> io::Result<Option<FrameFile>> {
        if let Storage::Inherited { frames, .. } = storage {
            return FrameFile::inherit(frames.try_clone()?, len).map(Some);
        }
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

/// What [`new`] needs.
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
    /// The address of the view whose faults are announced so; `None` for any. The others are anywhere.
    pub home: Option<(Announce, usize)>,
    /// Bounds the frames.
    pub budget: Arc<Budget>,
    /// Bounds the frames that pins hold at once.
    pub pin_budget: Arc<PinBudget>,
    /// Counts the bytes of frames that hold what the pager does not have yet.
    pub unwritten: Arc<AtomicU64>,
    /// Counts what blocks take beside frames.
    pub tables: Arc<Tables>,
    /// Where words and frames are.
    pub storage: Storage,
}

/// Page words in memory that is taken where it is touched.
#[derive(Debug)]
pub struct Words(ZeroedTable<PageWord>);

impl Deref for Words {
    type Target = [PageWord];

    #[inline]
    fn deref(&self) -> &[PageWord] {
        &self.0
    }
}

impl Words {
    /// Gives the memory of the words of `pages` back, which nobody changes meanwhile. They are zero then. What shares
    /// memory with other words stays.
    fn forget(&self, pages: PageRange) {
        self.0.forget(pages.start as usize..pages.end as usize);
    }
}

/// Counters, likewise. The home has those of unclean pages, too.
#[derive(Clone, Debug)]
pub struct Counts(Arc<ZeroedTable<AtomicU32>>);

impl Deref for Counts {
    type Target = [AtomicU32];

    #[inline]
    fn deref(&self) -> &[AtomicU32] {
        &self.0
    }
}

/// Counters for blocks, and for groups of them.
fn counters(blocks: usize) -> io::Result<(Counts, Counts)> {
    let table = |len| ZeroedTable::new(len).map(|table| Counts(Arc::new(table)));
    Ok((table(blocks)?, table(groups_of(blocks))?))
}

/// Addresses and frames of one object. See the module.
#[derive(Debug)]
pub struct Home {
    views: Vec<View>,
    /// Views in other processes, of an area that can have some.
    guests: Option<Box<Guests>>,
    /// Fault loops that wait for pages.
    listeners: Listeners,
    /// Counts pages that the pager does not have, by block.
    unclean: Blocks<Counts>,
    pagemap: Pagemap,
    #[cfg(test)]
    interposed: interposed::Interposed,
    writes: Writes,
    length: AtomicU64,
    capacity: u64,
    page_size: PageSize,
    frame_file: Option<FrameFile>,
    kept: Option<Kept>,
    pool: Option<Arc<FramePool>>,
}

/// Reserves addresses for the whole object and registers them; no page is resident.
pub fn new(options: AreaOptions) -> io::Result<Arc<Area>> {
    build(options).map(Arc::new)
}

/// As [`new`], with the pages of an owner that has ended: [`Storage::Inherited`]. Says what was found.
pub fn inherit(options: AreaOptions) -> io::Result<(Arc<Area>, Inherited)> {
    let Storage::Inherited { tables, .. } = &options.storage else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing is inherited"));
    };
    let (used, marks) = (tables.used_pages()?, kept::Marks::of(tables)?);
    let mut area = build(options)?;
    let found = area.inherit(&used, &marks);
    Ok((Arc::new(area), found))
}

fn build(options: AreaOptions) -> io::Result<Area> {
    check(&options)?;
    let page_size = match options.frames {
        Frames::LocalLarge(_) | Frames::SharedLarge(_) => PageSize::LARGE,
        Frames::LocalSmall | Frames::SharedSmall => PageSize::SMALL,
    };
    let capacity = options.capacity.max(options.length);
    let pages = usize::try_from(page_size.pages_for(capacity)).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let blocks = capacity.div_ceil(BLOCK_BYTES) as usize;
    let (unclean, groups) = counters(if options.writes == Writes::Yes { blocks } else { 0 })?;
    let unclean = Blocks::new(unclean, groups);
    let (resident, resident_groups) = counters(blocks)?;
    let words = match options.storage.tables() {
        Some(kept) if kept.pages() < pages as u64 => return Err(io::ErrorKind::InvalidInput.into()),
        Some(kept) => kept.words()?,
        None => ZeroedTable::new(pages)?,
    };
    let pages = Pages::new(PagesOptions {
        words: Words(words),
        resident: Blocks::new(resident, resident_groups),
        occupied: counters(blocks)?,
        unclean: unclean.clone(),
        length: options.length,
        capacity,
        page_size,
        writes: options.writes,
        budget: Arc::clone(&options.budget),
        pin_budget: Arc::clone(&options.pin_budget),
        unwritten: Arc::clone(&options.unwritten),
        tables: Arc::clone(&options.tables),
        host: Home::new(options, capacity, page_size, unclean)?,
    });
    Ok(pages.map_err(|_| io::ErrorKind::OutOfMemory)?)
}

/// Bytes of addresses that a view of an object takes which can grow to `capacity` bytes; `None` if no process has so many.
pub fn address_bytes(capacity: u64) -> Option<usize> {
    // Views end with the last 4 KiB of the object, also where the frame behind them goes on.
    usize::try_from(capacity.max(1)).ok()?.checked_next_multiple_of(SMALL)
}

impl Home {
    fn new(
        options: AreaOptions,
        capacity: u64,
        page_size: PageSize,
        unclean: Blocks<Counts>,
    ) -> io::Result<Self> {
        let bytes = address_bytes(capacity).ok_or(io::ErrorKind::OutOfMemory)?;
        let frame_file = options.frames.file(&options.name, bytes as u64, &options.storage)?;
        let purpose = match (&options.frames, options.writes, options.views.is_empty()) {
            (Frames::LocalLarge(_), ..) => Purpose::Large,
            (_, Writes::No, false) => Purpose::Small,
            _ => Purpose::Writable,
        };
        let modes = options.frames.modes(options.writes);
        let mut views = Vec::new();
        for uffd in options.views {
            let region = match options.home {
                Some((announce, start)) if announce == uffd.announce() => Region::at(start, bytes, purpose)?,
                _ => Region::new(bytes, purpose)?,
            };
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
        let guests = (frame_file.is_some() && options.writes == Writes::Yes).then(Box::default);
        Ok(Self {
            views,
            guests,
            listeners: Listeners::default(),
            unclean,
            pagemap: Pagemap::shared(),
            #[cfg(test)]
            interposed: interposed::Interposed::default(),
            writes: options.writes,
            length: AtomicU64::new(options.length),
            capacity,
            page_size,
            frame_file,
            kept: options.storage.tables().cloned(),
            pool: match options.frames {
                Frames::LocalLarge(pool) => Some(pool),
                _ => None,
            },
        })
    }

    /// Whether its memory can be touched, and not only pinned and copied.
    #[inline]
    pub fn can_be_touched(&self) -> bool {
        self.views[0].uffd.is_some()
    }

    /// Whether the frames are private memory of this process, with one view at most.
    pub fn is_local(&self) -> bool {
        self.frame_file.is_none()
    }

    /// The 2 MiB pool that its frames come from, if they are large.
    pub fn pool(&self) -> Option<&Arc<FramePool>> {
        self.pool.as_ref()
    }

    fn offset_in_view(&self, page: u64) -> usize {
        (page << self.page_size.shift()) as usize
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
    let can_be_kept = matches!(options.frames, Frames::SharedSmall) && options.writes == Writes::Yes;
    if options.storage.tables().is_some() && !can_be_kept {
        return refused("only small shared frames of pages that can be written are kept");
    }
    Ok(())
}
