//! The objects behind segments, for hosts whose writes to objects all go through here.
//!
//! An object has a length, and its pages in blocks of [`Pages`]. A snapshot is an object that has another one's bytes
//! of one moment: it shares the other's frames until one changes, and just before that happens the snapshot gets a copy.
//! So a copy segment is a private segment of a snapshot.
//!
//! Past the end of an object, the rest of its last page is zeros when it is supplied, when the object is cut or
//! extended, and when it is written back. In between, stores by shared segments stay there for all to see, and never
//! become part of the object.

mod block;
mod change;
mod snapshot;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;

use super::{FrameNumber, Memory, Notice, Stop, Trap};
use crate::space::ObjectId;
pub use block::Block;
use block::{BLOCK_PAGES, Shared, new_block};
use memobj_core::address::{PageIndex, PageRange, PageSize};
use memobj_core::budget::Budget;
use memobj_core::decide::{Decision, Intent, WaitFor, decide};
use memobj_core::page_word::Word;
use memobj_core::pages::{FillClaim, Origin, Pages, Placement, Tables};
use memobj_core::pin_budget::PinBudget;

const PAGE: PageSize = PageSize::SMALL;
const PAGE_BYTES: u64 = PAGE.bytes();
/// The clock of reclaim, which nobody asks here: hosts say which pages go.
const NOW: u8 = 0;

/// What the pages of an object are that nobody wrote, and where they go when they are written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Zeros; nowhere.
    Zeros,
    /// What a pager supplies; there.
    Pager,
}

#[derive(Debug)]
struct Object<M: Memory> {
    length: u64,
    fill: Fill,
    /// Bytes below come from the pager, others are zeros.
    supplied_below: u64,
    /// Pages that somebody was told to have supplied. Each has reserved its frame.
    claims: BTreeMap<u64, FillClaim<Block<M>>>,
    blocks: BTreeMap<u64, Arc<Pages<Block<M>>>>,
    /// Of a snapshot: what it is one of.
    origin: Option<ObjectId>,
    snapshots: Vec<ObjectId>,
    /// Mapped bytes, and one for whoever has it open.
    references: u64,
}

/// A page in its block.
type Place<'a, M> = (&'a Arc<Pages<Block<M>>>, PageIndex);

impl<M: Memory> Object<M> {
    fn new(length: u64, origin: Option<ObjectId>) -> Self {
        let (claims, blocks, snapshots) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self {
            length,
            fill: Fill::Zeros,
            supplied_below: 0,
            claims,
            blocks,
            origin,
            snapshots,
            references: 0,
        }
    }

    fn has(&self, page: u64) -> bool {
        page < PAGE.pages_for(self.length)
    }

    /// Bytes of the object in block `number`.
    fn length_in(&self, number: u64) -> u64 {
        self.length.saturating_sub(number * BLOCK_PAGES * PAGE_BYTES).min(BLOCK_PAGES * PAGE_BYTES)
    }

    fn at(&self, page: u64) -> Option<Place<'_, M>> {
        self.blocks.get(&(page / BLOCK_PAGES)).map(|block| (block, PageIndex(page % BLOCK_PAGES)))
    }

    fn word(&self, page: u64) -> Word {
        self.at(page).map_or(Word::default(), |(block, page)| block.word(page))
    }

    /// All pages from `from` on in blocks that are there, with their words.
    fn words_from(&self, from: u64) -> impl Iterator<Item = (u64, Word)> {
        self.blocks.range(from / BLOCK_PAGES..).flat_map(move |(number, block)| {
            let first = number * BLOCK_PAGES;
            (first.max(from)..first + BLOCK_PAGES)
                .map(move |page| (page, block.word(PageIndex(page - first))))
        })
    }

    /// The frame of a page that has one by its word.
    fn frame(&self, page: u64) -> FrameNumber {
        self.at(page).and_then(|(block, page)| block.frame(page)).expect("its word says that it has a frame")
    }
}

/// Objects and their pages. See the module `fault`.
#[derive(Debug)]
pub struct ObjectTable<M: Memory> {
    shared: Arc<Shared<M>>,
    objects: BTreeMap<ObjectId, Object<M>>,
    next_snapshot: u64,
}

impl<M: Memory> ObjectTable<M> {
    /// No objects. Snapshots get names from `first_snapshot` on, which nobody else uses. `budget` bounds the frames of
    /// objects.
    pub fn new(memory: M, budget: Arc<Budget>, first_snapshot: ObjectId) -> Self {
        let pin_budget = Arc::new(PinBudget::new(budget.limit()));
        let (unwritten, tables) = (Arc::new(AtomicU64::new(0)), Arc::new(Tables::new(budget.limit() / 8)));
        let shared = Arc::new(Shared { memory, budget, pin_budget, unwritten, tables });
        Self { shared, objects: BTreeMap::new(), next_snapshot: first_snapshot.0 }
    }

    /// What the frames are of.
    pub fn memory(&self) -> &M {
        &self.shared.memory
    }

    /// Adds an object, open until it is closed.
    pub fn open(&mut self, object: ObjectId, length: u64, fill: Fill) {
        let supplied_below = if fill == Fill::Pager { length } else { 0 };
        self.objects
            .insert(object, Object { fill, supplied_below, references: 1, ..Object::new(length, None) });
    }

    /// The object lives on as long as it is mapped.
    pub fn close(&mut self, object: ObjectId) {
        self.release(object, 1);
    }

    /// Bytes of the object, if it is there.
    pub fn length(&self, object: ObjectId) -> Option<u64> {
        self.objects.get(&object).map(|object| object.length)
    }

    /// Puts a page that was needed in place; the frame is the object's from now on. Its bytes past the end of what
    /// the pager has become zeros. A page that came meanwhile stays, and the frame is given back.
    pub fn supply(&mut self, object: ObjectId, page: PageIndex, frame: FrameNumber) {
        let claim = match self.objects.get_mut(&object) {
            Some(entry) if entry.origin.is_none() && entry.has(page.0) => entry.claims.remove(&page.0),
            _ => return self.memory().release(frame),
        };
        let Some(claim) = claim.or_else(|| self.claim(object, page.0).ok()) else {
            return self.memory().release(frame);
        };
        let end = self.objects[&object].supplied_below.saturating_sub(page.0 * PAGE_BYTES).min(PAGE_BYTES);
        self.memory().write(frame, end as usize, &ZEROS[end as usize..]);
        self.put(claim, frame, Origin::Asked(NOW));
    }

    /// A page that was needed cannot be supplied: accesses to it trap.
    pub fn fail(&mut self, object: ObjectId, page: PageIndex) {
        if let Some(claim) = self.objects.get_mut(&object).and_then(|entry| entry.claims.remove(&page.0)) {
            claim.fail();
            self.shared.budget.release(PAGE_BYTES);
        }
    }

    /// Lets a page that has failed be needed again. Says whether it had.
    pub fn retry(&mut self, object: ObjectId, page: PageIndex) -> bool {
        let entry = self.objects.get(&object);
        entry.and_then(|entry| entry.at(page.0)).is_some_and(|(block, page)| block.retry(page))
    }

    /// Takes the frames of those of `pages` that the pager has, or that are zeros. Says how many.
    pub fn evict(&mut self, object: ObjectId, pages: PageRange) -> u64 {
        let Some(entry) = self.objects.get_mut(&object) else { return 0 };
        let mut evicted = 0;
        // They show the frames that go.
        for &snapshot in &entry.snapshots {
            self.shared.memory.tell(Notice::Replaced(snapshot, pages));
        }
        entry.blocks.retain(|number, block| {
            let first = number * BLOCK_PAGES;
            let inside = |page: u64| page.clamp(first, first + BLOCK_PAGES) - first;
            let part = PageRange { start: inside(pages.start), end: inside(pages.end) };
            evicted += block.evict_all(part, NOW).pages;
            !block.give_back_tables(0)
        });
        evicted
    }

    /// The frame of a page, once it is as wished: for a fault that stores, it may be stored to from then on, until the next
    /// notice. If it is to be changed, snapshots have their copy. A snapshot shows pages of its origin, which have not
    /// changed since, where it has none of its own.
    pub(super) fn reach(&mut self, object: ObjectId, page: u64, intent: Intent) -> Result<FrameNumber, Stop> {
        let changes = matches!(intent, Intent::Store(_) | Intent::Change);
        let entry = self.objects.get(&object).ok_or(Trap::Failed)?;
        if !entry.has(page) {
            return Err(Trap::Beyond.into());
        }
        let decision = decide(entry.word(page), intent);
        match (decision, entry.origin) {
            (_, Some(_)) if changes => Err(Trap::Denied.into()),
            (Decision::Claim, Some(origin)) => self.reach(origin, page, intent),
            (Decision::Claim, None) if page < PAGE.pages_for(entry.supplied_below) => {
                let claim = self.claim(object, page)?;
                self.objects.get_mut(&object).map(|entry| entry.claims.insert(page, claim));
                Err(Stop::Need(object, PageIndex(page)))
            }
            (Decision::Claim, None) => {
                let frame = self.memory().zeroed().ok_or(Stop::NoFrame)?;
                self.place(object, page, frame, Origin::Asked(NOW))?;
                self.reach(object, page, intent)
            }
            (Decision::Done | Decision::Show | Decision::Open, _) => {
                if changes {
                    self.save(object, page)?;
                }
                let entry = &self.objects[&object];
                if let (Decision::Open, Some((block, index))) = (decision, entry.at(page)) {
                    block.open_to_store(index, ()).map_err(|_| busy(object, page))?;
                }
                Ok(entry.frame(page))
            }
            (Decision::Wait(WaitFor::Filler) | Decision::Demand, _) => {
                Err(Stop::Need(object, PageIndex(page)))
            }
            (Decision::Wait(_) | Decision::Look, _) => Err(busy(object, page)),
            (Decision::Trap, _) => Err(Trap::Failed.into()),
        }
    }

    /// Claims a page that is absent, and reserves its frame.
    fn claim(&mut self, object: ObjectId, page: u64) -> Result<FillClaim<Block<M>>, Stop> {
        let entry = self.objects.get_mut(&object).ok_or(Trap::Failed)?;
        let number = page / BLOCK_PAGES;
        if entry.at(page).is_none() {
            let block = new_block(&self.shared, object, number, entry.length_in(number));
            entry.blocks.insert(number, block.map_err(|_| Stop::NoFrame)?);
        }
        if !self.shared.budget.try_reserve(PAGE_BYTES) {
            return Err(Stop::NoFrame);
        }
        let claim = entry.blocks[&number].claim(PageIndex(page % BLOCK_PAGES), Placement::AtOnce);
        claim.map_err(|_| {
            self.shared.budget.release(PAGE_BYTES);
            busy(object, page)
        })
    }

    /// Puts `frame` in place as `page`, which is absent. If that cannot be, the frame is given back.
    fn place(&mut self, object: ObjectId, page: u64, frame: FrameNumber, origin: Origin) -> Result<(), Stop> {
        let claim = self.claim(object, page).inspect_err(|_| self.memory().release(frame))?;
        self.put(claim, frame, origin);
        Ok(())
    }

    fn put(&self, claim: FillClaim<Block<M>>, frame: FrameNumber, origin: Origin) {
        assert!(claim.place_frame(frame, origin).is_ok(), "a frame that is there can be moved in");
    }

    /// `bytes` more of `object` are mapped. Shared anonymous memory becomes an object when it is.
    pub(super) fn retain(&mut self, object: ObjectId, bytes: u64) {
        let entry = self.objects.entry(object).or_insert_with(|| Object::new(bytes, None));
        entry.references = entry.references.saturating_add(bytes);
    }

    /// `bytes` of `object` are mapped no more.
    pub(super) fn release(&mut self, object: ObjectId, bytes: u64) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        entry.references = entry.references.saturating_sub(bytes);
        if entry.references > 0 || !entry.snapshots.is_empty() {
            return;
        }
        let Some(gone) = self.objects.remove(&object) else { return };
        self.drop_claims(gone.claims);
        if let Some(origin) = gone.origin {
            if let Some(entry) = self.objects.get_mut(&origin) {
                entry.snapshots.retain(|&snapshot| snapshot != object);
            }
            self.release(origin, 0);
        }
    }

    /// Nobody is to supply these pages any more.
    fn drop_claims(&self, claims: BTreeMap<u64, FillClaim<Block<M>>>) {
        self.shared.budget.release(claims.len() as u64 * PAGE_BYTES);
    }
}

const ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// Somebody holds the page.
fn busy(object: ObjectId, page: u64) -> Stop {
    Stop::Busy(object, PageIndex(page))
}
