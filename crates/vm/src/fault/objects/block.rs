//! The host of the pages of one block of an object: frames by their numbers, and the page tables of spaces as its view.
//!
//! Pages come into view by faults only, which map them while they have the table of objects. So there is nothing to
//! show, to open or to wake here. What goes, or may not be stored to any more, is told to all spaces.

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use core::convert::Infallible;
use core::ops::Deref;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use super::change::pieces;
use super::{PAGE, PAGE_BYTES};
use crate::fault::{FrameNumber, Memory, Notice};
use crate::space::ObjectId;
use memobj_core::address::{PageIndex, PageRange};
use memobj_core::budget::Budget;
use memobj_core::page_word::{PageWord, Word};
use memobj_core::pages::{
    BLOCK_BYTES, Blocks, Frames, Held, Pages, PagesOptions, Park, Shows, Tables, View, Wake, Writes, boxed,
};
use memobj_core::pin_budget::PinBudget;

/// Pages of a block.
pub(super) const BLOCK_PAGES: u64 = BLOCK_BYTES / PAGE_BYTES;

/// What all blocks share.
#[derive(Debug)]
pub(super) struct Shared<M> {
    pub memory: M,
    pub budget: Arc<Budget>,
    pub pin_budget: Arc<PinBudget>,
    pub unwritten: Arc<AtomicU64>,
    pub tables: Arc<Tables>,
}

/// See the module.
#[derive(Debug)]
pub struct Block<M: Memory> {
    shared: Arc<Shared<M>>,
    object: ObjectId,
    /// The page of the object that is the first one here.
    first: u64,
    /// The number of the frame of each page, and one; 0: none. Only who holds a page changes it.
    frames: Box<[AtomicU64]>,
}

/// The counter of a table that has one block.
#[derive(Debug, Default)]
pub struct One([AtomicU32; 1]);

impl Deref for One {
    type Target = [AtomicU32];

    fn deref(&self) -> &[AtomicU32] {
        &self.0
    }
}

/// The pages of block `number` of `object`, all absent; `length` bytes of the object lie in it.
pub(super) fn new_block<M: Memory>(
    shared: &Arc<Shared<M>>,
    object: ObjectId,
    number: u64,
    length: u64,
) -> Result<Arc<Pages<Block<M>>>, TryReserveError> {
    let counts = || Blocks::new(One::default(), One::default());
    let frames = boxed(BLOCK_PAGES, || AtomicU64::new(0))?;
    let pages = Pages::new(PagesOptions {
        host: Block { shared: Arc::clone(shared), object, first: number * BLOCK_PAGES, frames },
        words: boxed(BLOCK_PAGES, PageWord::new)?,
        resident: counts(),
        occupied: (One::default(), One::default()),
        unclean: counts(),
        length,
        capacity: BLOCK_BYTES,
        page_size: PAGE,
        writes: Writes::Yes,
        budget: Arc::clone(&shared.budget),
        pin_budget: Arc::clone(&shared.pin_budget),
        unwritten: Arc::clone(&shared.unwritten),
        tables: Arc::clone(&shared.tables),
    })?;
    Ok(Arc::new(pages))
}

impl<M: Memory> Block<M> {
    /// The frame of `page`. Whoever asks keeps the page from changing hands.
    pub(super) fn frame(&self, page: PageIndex) -> Option<FrameNumber> {
        self.frames[page.0 as usize].load(Ordering::Acquire).checked_sub(1).map(FrameNumber)
    }

    fn put(&self, page: PageIndex, frame: FrameNumber) {
        let before = self.frames[page.0 as usize].swap(frame.0 + 1, Ordering::AcqRel);
        assert!(before == 0, "page {page} gets a second frame");
    }

    fn release(&self, page: PageIndex) {
        if let Some(frame) = self.frames[page.0 as usize].swap(0, Ordering::AcqRel).checked_sub(1) {
            self.shared.memory.release(FrameNumber(frame));
        }
    }

    fn tell(&self, what: fn(ObjectId, PageRange) -> Notice, pages: PageRange) {
        let pages = PageRange { start: self.first + pages.start, end: self.first + pages.end };
        self.shared.memory.tell(what(self.object, pages));
    }
}

impl<M: Memory> Frames for Block<M> {
    type Words = Box<[PageWord]>;
    type Counts = One;
    type Frame = FrameNumber;
    /// There is no frame.
    type Error = ();

    fn copy_in(&self, _: Held<Self>, pages: PageRange, bytes: &[u8], _: Wake) -> Result<(), (u64, ())> {
        let memory = &self.shared.memory;
        for (page, bytes) in pages.iter().zip(bytes.chunks(PAGE_BYTES as usize)) {
            let frame = memory.zeroed().ok_or((page.0 - pages.start, ()))?;
            memory.write(frame, 0, bytes);
            self.put(page, frame);
        }
        Ok(())
    }

    fn move_in(&self, _: Held<Self>, page: PageIndex, frame: FrameNumber) -> Result<(), ()> {
        self.put(page, frame);
        Ok(())
    }

    fn load(&self, _: Held<Self>, offset: u64, buffer: &mut [u8]) -> usize {
        let pieces = pieces(offset, buffer.len()).map_while(|(page, at, part)| {
            self.shared.memory.read(self.frame(PageIndex(page))?, at, &mut buffer[part.clone()]);
            Some(part.len())
        });
        pieces.sum()
    }

    fn store(&self, _: Held<Self>, offset: u64, bytes: &[u8]) -> usize {
        let Some(frame) = self.frame(PageIndex(offset / PAGE_BYTES)) else { return 0 };
        self.shared.memory.write(frame, (offset % PAGE_BYTES) as usize, bytes);
        bytes.len()
    }

    fn drop_frames(&self, _: Held<Self>, pages: PageRange) -> bool {
        self.tell(Notice::Replaced, pages);
        pages.iter().for_each(|page| self.release(page));
        true
    }

    fn released_bytes(&self, pages: u64) -> u64 {
        pages * PAGE_BYTES
    }

    fn drop_block(&self, held: Held<Self>, pages: PageRange) -> bool {
        self.drop_frames(held, pages)
    }

    fn forget_words(&self, _: Held<Self>, words: &Box<[PageWord]>, _: PageRange) {
        words.iter().for_each(PageWord::forget);
    }

    fn end(&mut self, _: u64) {
        (0..BLOCK_PAGES).for_each(|page| self.release(PageIndex(page)));
    }
}

impl<M: Memory> View for Block<M> {
    type Viewer = ();
    type Refused = Infallible;

    fn own(&self) {}

    fn shows(&self) -> Shows {
        Shows::WhenTold
    }

    fn show(&self, _: Held<Self>, _: PageIndex, (): ()) {}

    fn each_without(&self, _: PageIndex, _: &mut dyn FnMut(())) {}

    fn open(&self, _: Held<Self>, _: PageRange, (): ()) {}

    fn protect(&self, pages: PageRange) -> Result<(), Infallible> {
        self.tell(Notice::Protected, pages);
        Ok(())
    }

    // A page without a frame is in no page table: its word says that it traps.
    fn poison(&self, _: PageRange) {}

    fn lift_poison(&self, _: Held<Self>, _: PageRange) {}

    fn wake(&self, _: PageRange) {}

    fn wake_others(&self, _: PageRange) {}

    fn length_changed(&self, _: u64) {}
}

/// Others hold a page for the time of a call, and not while they have the table of objects.
impl<M: Memory> Park for Block<M> {
    fn wait(&self, _: &PageWord, _: Word, _: Option<Duration>) {
        core::hint::spin_loop();
    }

    fn wake_all(&self, _: &PageWord) {}

    fn pause(&self) {
        core::hint::spin_loop();
    }
}
