//! Why pages of one object failed, and which of its changes are lost.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::decide::{Decision, Fault, Intent, decide};
use memobj_linux::area::{Area, FillClaim, GonePage, Looked, Mark};

use super::lost::Lost;
use super::{ObjectCore, bytes_of};
use crate::allocator::FrameAllocator;
use crate::clock::Deadline;
use crate::error::{ErrorKind, PageError, SupplyError, WriteStep};
use crate::event::Event;
use crate::locks::{Rank, RankedMutex};
use crate::reporter::ObjectTell;

/// Errors that one object keeps in detail; beyond, pages still fail but share a general message.
const KEPT_ERRORS: usize = 4096;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The errors of the pages that are Failed. Who fills fails pages here; who finds a page Failed asks here why.
///
/// A page whose error is known is Failed, or becomes so this moment. Under the lock a page that is Failed stays so.
#[derive(Debug)]
pub(crate) struct Errors {
    area: Arc<Area>,
    object: Arc<ObjectCore>,
    allocator: Arc<FrameAllocator>,
    reporter: Arc<ObjectTell>,
    pub(crate) lost: Lost,
    table: RankedMutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    pages: BTreeMap<u64, PageError>,
    /// Pages failed whose errors found no place.
    overflowed: bool,
    last: Option<PageError>,
}

impl Drop for Errors {
    fn drop(&mut self) {
        // What pagers gave as causes is dropped where the pagers are.
        let causes = (std::mem::take(self.table.get_mut()), self.lost.take());
        self.object.disposal.drop_aside(causes);
    }
}

impl Errors {
    pub(crate) fn new(
        area: &Arc<Area>,
        object: &Arc<ObjectCore>,
        allocator: &Arc<FrameAllocator>,
    ) -> std::io::Result<Self> {
        let marks = area.kept().map(|kept| kept.marks(Mark::Lost)).transpose()?;
        Ok(Self {
            area: Arc::clone(area),
            object: Arc::clone(object),
            allocator: Arc::clone(allocator),
            reporter: Arc::clone(&object.reporter),
            lost: Lost::new(&object.name, marks),
            table: RankedMutex::new(Rank::Errors, Table::default()),
        })
    }

    /// Takes note of what another process has left: pages that are Failed, as their changes are lost, and ranges of which it
    /// had said that they are. Returns how many bytes may be lost.
    pub(crate) fn inherit(&self, failed: &[PageRange], said: &[PageRange]) -> u64 {
        let error = Lost::left_behind();
        let mut bytes = 0;
        let mut add = |step, pages: &PageRange| {
            let shift = self.area.page_size().shift();
            let range = pages.start << shift..(pages.end << shift).min(self.area.length());
            if range.start < range.end {
                bytes += range.end - range.start;
                self.lost.add(step, range, &error);
            }
        };
        failed.iter().for_each(|run| add(WriteStep::WriteBack, run));
        let has_failed = |page: PageIndex| failed.iter().any(|run| run.contains(page));
        for page in said.iter().flat_map(|run| run.iter()).filter(|page| !has_failed(*page)) {
            add(WriteStep::Sync, &PageRange::one(page));
        }
        for page in failed.iter().flat_map(|run| run.iter()) {
            let bytes = bytes_of(&self.area, page);
            self.keep(page, self.error(bytes.start..bytes.end, &error, 0));
        }
        bytes
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
        self.keep(page, report.clone());
        claim.fail();
        if was_behind_the_end && page.0 < self.area.pages() {
            // The object got its length back this moment. A later change of length finds the page by its error.
            self.retry_page(page);
            return;
        }
        self.reporter.event(Event::PageFailed(report));
    }

    /// Records why `page` is about to be Failed.
    fn keep(&self, page: PageIndex, report: PageError) {
        let mut table = self.table.lock();
        if table.pages.len() < KEPT_ERRORS {
            table.pages.insert(page.0, report.clone());
        } else {
            table.overflowed = true;
        }
        table.last = Some(report);
        self.reporter.counters.failed_pages.add(1);
    }

    /// An access found no page where the word says that there is one: either it was placed this moment, or somebody
    /// dropped our frame behind our back (madvise from outside). Then the word must not say resident for ever: what
    /// the pager has is obtained again, and changes that nobody else has are lost. Not for signal handlers.
    pub(crate) fn look(&self, page: PageIndex, offset: u64) {
        if decide(self.area.word(page), Intent::Load(Fault::Missing)) == Decision::Look
            && let Looked::Gone(gone) = self.area.look(page, offset, self.allocator.ages.now())
        {
            self.lose(gone);
        }
    }

    /// The memory of a page was dropped while it had changes. It fails, and that is told.
    pub(crate) fn lose(&self, gone: GonePage) {
        let bytes = gone.bytes();
        let range = bytes.start..bytes.end;
        let error = Lost::answer();
        // Before the page is Failed: a sync that finds nothing Dirty finds it here.
        let lost = self.lost.add(WriteStep::WriteBack, range.clone(), &error);
        self.keep(gone.page(), self.error(range, &error, 0));
        gone.fail();
        self.reporter.event(Event::WriteFailed(lost));
        self.allocator.unwritten.made_progress();
    }

    /// Why reads of `page`, which is Failed, fail if its changes are lost.
    pub(crate) fn lost_changes(&self, page: PageIndex) -> Option<SupplyError> {
        self.lost.has_page_at(bytes_of(&self.area, page).start).then(Lost::answer)
    }

    pub(crate) fn error(&self, range: Range<u64>, error: &SupplyError, tries: u32) -> PageError {
        PageError {
            object: Arc::clone(&self.object.name),
            refused: range.clone(),
            range,
            kind: error.kind,
            tries,
            source: error.source.clone(),
        }
    }

    /// Why `page`, which was seen Failed, failed; `None` if it is being retried meanwhile. Where its error may have found
    /// no place, a general one.
    pub(crate) fn of(&self, page: PageIndex) -> Option<PageError> {
        let table = self.table.lock();
        let known = table.pages.get(&page.0).cloned();
        known.or_else(|| table.overflowed.then(|| self.unknown(page, table.last.as_ref())))
    }

    /// An error for a page that traps for no reason that is known.
    pub(crate) fn strange(&self, page: PageIndex) -> PageError {
        self.unknown(page, self.last().as_ref())
    }

    fn unknown(&self, page: PageIndex, last: Option<&PageError>) -> PageError {
        let bytes = bytes_of(&self.area, page);
        let range = bytes.start..bytes.end.min(self.area.length());
        // The table was full: of the errors that are left, the last is the likeliest to be this page's.
        match last {
            Some(last) => PageError { refused: range.clone(), range, ..last.clone() },
            None => self.error(range, &SupplyError::new(ErrorKind::Io), 1),
        }
    }

    pub(crate) fn known_in(&self, pages: PageRange) -> Vec<PageError> {
        self.table.lock().pages.range(pages.start..pages.end).map(|(_, error)| error.clone()).collect()
    }

    pub(crate) fn last(&self) -> Option<PageError> {
        self.table.lock().last.clone()
    }

    /// Pages among `pages` that have failed, and maybe some that have not.
    pub(crate) fn pages_in(&self, pages: PageRange) -> Vec<PageIndex> {
        let table = self.table.lock();
        match table.overflowed {
            false => table.pages.range(pages.start..pages.end).map(|(page, _)| PageIndex(*page)).collect(),
            // Only after an outage of thousands of pages are they looked for one by one.
            true => (pages.start..pages.end.min(self.area.pages())).map(PageIndex).collect(),
        }
    }

    /// Lets the failed pages among `pages` be asked for again; returns how many there were. Pages whose changes were lost
    /// stay Failed: only `discard` has them read as the pager has them.
    pub(crate) fn retry(&self, pages: PageRange) -> u64 {
        let asked_again = |page: &PageIndex| self.lost_changes(*page).is_none() && self.retry_page(*page);
        self.pages_in(pages).into_iter().filter(asked_again).count() as u64
    }

    /// Lets `page` be asked for again. `false` if it has not failed; or if it was lost, and is pinned or being written.
    pub(crate) fn retry_page(&self, page: PageIndex) -> bool {
        let is_coming = || self.area.word(page).is_coming_or_going();
        while is_coming() && self.table.lock().pages.contains_key(&page.0) {
            self.area.wait(page, Some(Duration::from_millis(1)));
        }
        let mut table = self.table.lock();
        let retries = self.area.word(page).has_failed() && self.area.retry(page);
        if retries {
            table.pages.remove(&page.0);
        }
        retries
    }

    /// Lets `page` be read as the pager has it; whether it was Failed. An error if it is held for too long.
    fn lift_page(&self, page: PageIndex, until: Deadline<'_>) -> Result<bool, PageIndex> {
        while !self.retry_page(page) {
            if !self.area.word(page).has_failed() {
                return Ok(false);
            }
            if until.is_over() {
                return Err(page);
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
        }
        Ok(true)
    }

    /// Lets pages of `range` whose changes are lost be read as the pager has them. Returns how many there were; or the
    /// first that is pinned, or still being written, for too long.
    pub(crate) fn lift(&self, range: &Range<u64>) -> Result<u64, PageIndex> {
        let until = self.object.pin_deadline();
        let mut lifted = 0;
        for lost in self.lost.all() {
            let bytes = ByteRange { start: lost.start.max(range.start), end: lost.end.min(range.end) };
            if bytes.start >= bytes.end {
                continue;
            }
            for page in self.pages_in(self.area.page_size().pages_of(bytes)) {
                lifted += u64::from(self.lift_page(page, until)?);
            }
        }
        Ok(lifted)
    }

    /// Makes `page` trap again where a fault has found it Failed, and wakes who sleeps on it: in a guest the poison of
    /// before can have been lifted late, and who drops memory from outside drops poison too. Whatever holds the page, its
    /// holder may be the one who sleeps. Not for signal handlers.
    pub(crate) fn trap_failed(&self, page: PageIndex) {
        // Only a retry takes a page out of Failed, and needs this lock.
        let _nobody_retries = self.table.lock();
        match self.area.word(page).has_failed() {
            true => self.area.trap_failed(page),
            // It faults again, and finds what the page is now.
            false => self.area.wake(PageRange::one(page)),
        }
    }
}
