//! The frame store of one mapped object: the meeting point of pager, area and cache.

mod asked;
mod ended;
mod errors;
mod guest;
mod look;
mod lost;
mod object_core;
mod request;
mod shared;
mod writes;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex, PageRange, PageSize};
use memobj_sys::area::{Area, FillClaim, Origin, Writes};
use memobj_sys::region::{SMALL, ZeroedTable};
use memobj_sys::ring::Target;
use memobj_sys::slots::{AddressTable, SlotTable};

use crate::error::{ErrorKind, PageError, SupplyError};
use crate::event::Event;
use crate::options::Advice;
use crate::pagers::Source;
use crate::room::Patience;
use crate::streams::Streams;

pub(crate) use asked::Asked;
pub(crate) use ended::split;
use errors::Errors;
pub(crate) use guest::GuestState;
pub use guest::{GuestEnd, GuestProt};
pub(crate) use object_core::ObjectCore;
pub(crate) use request::{Request, Requests};
pub(crate) use shared::{CacheShared, system};
pub(crate) use writes::{Inside, User, WriteState};

/// All frame stores of the process, for the signal handler and the fault readers.
pub(crate) static STORES: SlotTable<FrameStore> = SlotTable::new();
/// From an address to a slot of [`STORES`].
pub(crate) static ADDRESSES: AddressTable = AddressTable::new();

/// What was said when the object was opened holds.
const ADVICE_AS_OPENED: u8 = 0;
const ADVICE_RANDOM: u8 = 1;
const ADVICE_SEQUENTIAL: u8 = 2;
const ADVICE_NORMAL: u8 = 3;

fn advice_code(advice: Advice) -> u8 {
    match advice {
        Advice::Random => ADVICE_RANDOM,
        Advice::Sequential => ADVICE_SEQUENTIAL,
        Advice::Normal | Advice::WillNeed | Advice::DontNeed => ADVICE_NORMAL,
    }
}

/// Threads that call pagers.
pub(crate) trait CallPagers: std::fmt::Debug + Send + Sync {
    /// Calls the pager of `store` for the pages of `claim`, soon.
    fn submit(&self, store: Arc<FrameStore>, claim: FillClaim, asked: Asked);
    /// Whether so much is queued that guesses and advance wishes should wait.
    fn is_busy(&self) -> bool;
    /// Waits until less is queued; for callers that can ask for any number of pages.
    fn wait_for_room(&self);
}

#[derive(Debug)]
pub(crate) struct FrameStore {
    pub(crate) this: Weak<FrameStore>,
    pub(crate) cache: Arc<CacheShared>,
    pub(crate) object: Arc<ObjectCore>,
    pub(crate) area: Arc<Area>,
    pub(crate) streams: Streams,
    /// One byte for each 2 MiB: what the caller said of it.
    advice: ZeroedTable<AtomicU8>,
    errors: Errors,
    pub(crate) closed: AtomicBool,
    /// What objects that can be written need besides.
    pub(crate) writes: Option<WriteState>,
}

impl Drop for FrameStore {
    fn drop(&mut self) {
        // What pagers gave as causes is dropped where the pagers are.
        let errors = self.errors.take();
        self.cache.disposal.drop_aside((errors, self.writes.take()));
    }
}

/// What became of a claim.
pub(crate) enum Placed {
    Yes,
    /// The bytes could not be put in place; the claim is still there.
    No(FillClaim),
}

impl FrameStore {
    pub(crate) fn new(
        cache: Arc<CacheShared>,
        object: Arc<ObjectCore>,
        area: Arc<Area>,
    ) -> std::io::Result<Arc<Self>> {
        let advice = ZeroedTable::new((area.capacity() >> 21) as usize + 1)?;
        let pages = area.page_size().pages_for(area.capacity());
        let writes = match area.writes() {
            Writes::Yes => Some(WriteState::new(pages)?),
            Writes::No => None,
        };
        Ok(Arc::new_cyclic(|this| Self {
            this: this.clone(),
            cache,
            object,
            area,
            streams: Streams::default(),
            advice,
            errors: Errors::new(),
            closed: AtomicBool::new(false),
            writes,
        }))
    }

    /// The last mapping is gone: nobody may wait any longer.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_large(&self) -> bool {
        self.area.page_size() == PageSize::LARGE
    }

    /// Puts a copy of `bytes` (the claim's, padded to 4 KiB) in place. Safe in a signal handler.
    ///
    /// At most as much at once as pins leave free, or room for it might never come. If that fails on the way,
    /// pages behind the failure are absent again.
    pub(crate) fn place_copy(
        &self,
        claim: FillClaim,
        bytes: &[u8],
        asked: Asked,
        patience: Patience,
    ) -> Placed {
        let free = self.cache.room.budget.limit() - self.cache.room.pins.limit();
        let page_bytes = self.area.page_size().bytes();
        let most = (free / page_bytes).max(1);
        let (mut claim, mut bytes) = (claim, bytes);
        while claim.pages().len() > most {
            let rest = claim.split_off(PageIndex(claim.pages().start + most));
            if let Placed::No(claim) = self.place_copy_at_once(claim, bytes, asked, patience) {
                return Placed::No(claim);
            }
            (claim, bytes) = (rest, &bytes[(most * page_bytes) as usize..]);
        }
        self.place_copy_at_once(claim, bytes, asked, patience)
    }

    fn place_copy_at_once(&self, claim: FillClaim, bytes: &[u8], asked: Asked, patience: Patience) -> Placed {
        let pages = claim.pages().len();
        let reserved = claim.frame_bytes();
        if !self.cache.room.reserve(reserved, patience, &self.closed) {
            return Placed::No(claim);
        }
        // Counted first: whoever sees the page in place sees it counted.
        self.count_supplied(pages);
        match claim.place_copy(bytes, self.origin(asked)) {
            Ok(()) => Placed::Yes,
            Err((rest, _)) => {
                self.cache.room.budget.release(rest.frame_bytes());
                self.cache.tell.counters.supplied_pages.take_back(rest.pages().len());
                Placed::No(rest)
            }
        }
    }

    fn origin(&self, asked: Asked) -> Origin {
        let now = self.cache.room.ages.now();
        match asked {
            Asked::Demand => Origin::Asked(now),
            Asked::ToStore => Origin::ToStore(now),
            Asked::Store => Origin::Stored(now),
            Asked::InAdvance => Origin::InAdvance(now),
        }
    }

    pub(crate) fn count_supplied(&self, pages: u64) {
        self.cache.tell.counters.supplied_pages.add(pages);
        self.cache.room.ages.supplied(pages << self.area.page_size().shift());
    }

    /// Moves `frame` in place.
    pub(crate) fn place_frame(
        &self,
        claim: FillClaim,
        frame: memobj_sys::pool::Frame,
        asked: Asked,
    ) -> Placed {
        self.count_supplied(1);
        match claim.place_frame(frame, self.origin(asked)) {
            Ok(()) => Placed::Yes,
            Err((claim, _)) => {
                self.cache.tell.counters.supplied_pages.take_back(1);
                Placed::No(claim)
            }
        }
    }

    /// Puts what was read in place; what lies behind the end of the object becomes zero.
    pub(crate) fn place_target(
        &self,
        claim: FillClaim,
        mut target: Target,
        asked: Asked,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        let len = claim.bytes().len();
        let end = (len as usize).next_multiple_of(SMALL);
        if self.is_cut_off(&claim, end as u64) {
            return Err(claim);
        }
        target.as_mut_slice()[len as usize..end].fill(0);
        self.cache.tell.counters.read_bytes.add(len);
        let result = match target {
            Target::Chunk(chunk) => self.place_copy(claim, &chunk[..end], asked, patience),
            Target::Frame(frame) => self.place_frame(claim, frame, asked),
        };
        match result {
            Placed::Yes => Ok(()),
            Placed::No(claim) => Err(claim),
        }
    }

    /// Whether `claim` has pages behind its `len` bytes of the object: it was cut off after somebody wished for them.
    /// Objects with large pages keep their length.
    pub(crate) fn is_cut_off(&self, claim: &FillClaim, len: u64) -> bool {
        !self.is_large() && claim.pages().len() * SMALL as u64 > len
    }

    /// Leaves the claim to a worker, who calls the pager and knows the failure policy.
    pub(crate) fn call_pager(&self, claim: FillClaim, asked: Asked) {
        if let Some(store) = self.this.upgrade() {
            self.cache.workers.submit(store, claim, asked);
        }
    }

    /// Fills a claim of small pages from a source that needs no waiting. Safe in a signal handler.
    /// Gives the claim back when that is not possible.
    pub(crate) fn fill_inline(
        &self,
        claim: FillClaim,
        asked: Asked,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        if self.is_large() {
            return Err(claim);
        }
        let range = claim.bytes();
        let whole = range.len().is_multiple_of(SMALL as u64);
        // A pager's slice may be shorter than it says: then a worker asks it, and reports what it answers.
        let part = |bytes: &'_ [u8]| -> Option<std::ops::Range<usize>> {
            (range.end <= bytes.len() as u64).then_some(range.start as usize..range.end as usize)
        };
        let placed = match self.object.source() {
            Source::Zero if claim.pages().len() == 1 => self.place_copy(claim, &ZERO_PAGE.0, asked, patience),
            Source::Memory(bytes) => match part(bytes) {
                Some(part) if whole => {
                    self.cache.tell.counters.read_bytes.add(range.len());
                    self.place_copy(claim, &bytes[part], asked, patience)
                }
                Some(part) if claim.pages().len() == 1 => {
                    // Not on the stack: a signal handler's may be small.
                    let Some(mut page) = self.cache.buffers.bounce.take() else { return Err(claim) };
                    let (object, behind) = page.split_at_mut(part.len());
                    object.copy_from_slice(&bytes[part]);
                    behind.fill(0);
                    self.cache.tell.counters.read_bytes.add(range.len());
                    self.place_copy(claim, &page, asked, patience)
                }
                _ => return Err(claim),
            },
            _ => return Err(claim),
        };
        match placed {
            Placed::Yes => Ok(()),
            Placed::No(claim) => Err(claim),
        }
    }

    /// Records why the claim's one page fails, makes it trap, and tells whoever listens. `blamed` are those of
    /// its bytes that the pager refused. A page that lay behind the end and does so no more is let go of instead:
    /// whoever waits for it asks again.
    pub(crate) fn fail(&self, claim: FillClaim, error: &SupplyError, tries: u32, blamed: ByteRange) {
        debug_assert_eq!(claim.pages().len(), 1);
        let bytes = claim.bytes();
        let was_behind_the_end = error.kind == ErrorKind::Truncated && blamed.is_empty();
        if was_behind_the_end && !bytes.is_empty() {
            return;
        }
        let page = PageIndex(claim.pages().start);
        let report = PageError {
            refused: blamed.start..blamed.end,
            ..self.error(bytes.start..bytes.end, error, tries)
        };
        self.keep_error(page, report.clone());
        claim.fail();
        if was_behind_the_end && page.0 < self.area.pages() {
            // The object got its length back this moment. A later change of length finds the page by its error.
            self.retry_page(page);
            return;
        }
        self.cache.tell.event(Event::PageFailed(report));
    }

    /// Records why `page` is about to be Failed.
    pub(crate) fn keep_error(&self, page: PageIndex, report: PageError) {
        self.errors.keep(page, report);
        self.cache.tell.counters.failed_pages.add(1);
    }

    pub(crate) fn error(&self, range: std::ops::Range<u64>, error: &SupplyError, tries: u32) -> PageError {
        PageError {
            object: Arc::clone(&self.object.name),
            refused: range.clone(),
            range,
            kind: error.kind,
            tries,
            source: error.source.clone(),
        }
    }

    /// Why `page`, which was seen Failed, failed; `None` if it is being retried meanwhile.
    pub(crate) fn error_of(&self, page: PageIndex) -> Option<PageError> {
        self.errors.of(page, |last| self.unknown_error(page, last))
    }

    /// An error for a page that traps for no reason that is known.
    pub(crate) fn strange_error_of(&self, page: PageIndex) -> PageError {
        self.unknown_error(page, self.errors.last().as_ref())
    }

    fn unknown_error(&self, page: PageIndex, last: Option<&PageError>) -> PageError {
        let start = page.0 << self.area.page_size().shift();
        let end = (start + self.area.page_size().bytes()).min(self.area.length());
        let range = start..end;
        // The table was full: of the errors that are left, the last is the likeliest to be this page's.
        match last {
            Some(last) => PageError { refused: range.clone(), range, ..last.clone() },
            None => self.error(range, &SupplyError::new(ErrorKind::Io), 1),
        }
    }

    pub(crate) fn errors_in(&self, pages: PageRange) -> Vec<PageError> {
        self.errors.known_in(pages)
    }

    pub(crate) fn last_error(&self) -> Option<PageError> {
        self.errors.last()
    }

    /// Lets the failed pages among `pages` be asked for again; returns how many there were. Pages whose changes were lost
    /// stay Failed: only `discard` has them read as the pager has them.
    pub(crate) fn retry(&self, pages: PageRange) -> u64 {
        let asked_again = |page: &PageIndex| !self.has_lost_changes(*page) && self.retry_page(*page);
        self.pages_with_errors(pages).into_iter().filter(asked_again).count() as u64
    }

    /// Pages among `pages` that have failed, and maybe some that have not.
    pub(crate) fn pages_with_errors(&self, pages: PageRange) -> Vec<PageIndex> {
        self.errors.pages_in(pages).unwrap_or_else(|| {
            // Only after an outage of thousands of pages are they looked for one by one.
            (pages.start..pages.end.min(self.area.pages())).map(PageIndex).collect()
        })
    }

    /// Lets `page` be asked for again. `false` if it has not failed; or if it was lost, and is pinned or being written.
    pub(crate) fn retry_page(&self, page: PageIndex) -> bool {
        let is_coming = || self.area.word(page).is_coming_or_going();
        while is_coming() && self.errors.has(page) {
            self.area.wait(page, Some(Duration::from_millis(1)));
        }
        let retries = || self.area.word(page).has_failed() && self.area.retry(page);
        self.errors.forget_if(page, retries)
    }

    /// Makes `page` trap again where a fault has found it Failed, and wakes who sleeps on it: in a guest the poison of
    /// before can have been lifted late, and who drops memory from outside drops poison too. Whatever holds the page, its
    /// holder may be the one who sleeps. Not for signal handlers.
    pub(crate) fn trap_failed(&self, page: PageIndex) {
        // Only a retry takes a page out of Failed, and needs this lock.
        let _nobody_retries = self.errors.hold();
        match self.area.word(page).has_failed() {
            true => self.area.trap_failed(page),
            // It faults again, and finds what the page is now.
            false => self.area.wake(PageRange::one(page)),
        }
    }

    pub(crate) fn advise(&self, pages: PageRange, advice: Advice) {
        let code = advice_code(advice);
        let shift = self.area.page_size().shift();
        if pages.is_empty() {
            return;
        }
        if pages.start == 0 && pages.end >= self.area.pages() {
            self.object.advise_next(advice);
        }
        for block in (pages.start << shift) >> 21..=((pages.end << shift) - 1) >> 21 {
            if let Some(entry) = self.advice.get(block as usize) {
                entry.store(code, Ordering::Relaxed);
            }
        }
    }

    /// Notes a miss and says whether to read ahead of it. Safe in a signal handler.
    pub(crate) fn is_sequential(&self, pages: PageRange) -> bool {
        let block = (pages.start << self.area.page_size().shift()) >> 21;
        let said = self.advice.get(block as usize).map(|entry| entry.load(Ordering::Relaxed));
        let said = said.filter(|code| *code != ADVICE_AS_OPENED);
        match said.or(Some(advice_code(self.object.options.advice))) {
            Some(ADVICE_RANDOM) => false,
            Some(ADVICE_SEQUENTIAL) => true,
            _ => self.streams.note(pages),
        }
    }
}

#[repr(align(4096))]
pub(crate) struct AlignedPage(pub(crate) [u8; SMALL]);

pub(crate) static ZERO_PAGE: AlignedPage = AlignedPage([0; SMALL]);
