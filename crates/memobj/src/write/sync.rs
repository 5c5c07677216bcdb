//! Sync: everything that is Dirty goes to the pager, and the pager makes it durable.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_linux::ring::{Ring, RingUser};

use super::requests::Outcome;
use super::transfer::{DEPTH, Writer};
use super::{WriteStep, Writes};
use crate::clock::Deadline;
use crate::error::{SupplyError, WriteError};
use crate::locks::{self, ReadGuard};
use crate::pagers::{BlockingPager, File, SyncRequest};
use crate::pages::bytes_of;

const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The pause before a page that could not be protected is tried again.
const SOON: Duration = Duration::from_millis(1);
/// How long the end of the process waits for whoever changes a length.
const AT_EXIT: Duration = Duration::from_secs(1);

/// What becomes of pages that are pinned for writing while they are to be written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PinnedPages {
    AreWaitedFor,
    /// At the end of the process: the pins may never end.
    AreLeft,
}

impl Writes {
    /// Makes durable what was stored to `bytes` before this call. See `Mapping::sync`.
    pub(crate) fn sync(self: &Arc<Self>, bytes: ByteRange) -> Result<(), WriteError> {
        if let Some(log) = &self.object.log {
            return self.commit(log);
        }
        let range = bytes.start..bytes.end;
        let failed_before = self.write_failures.lock().failed_syncs;
        let unreported = self.write_failures.lock().unreported.take();
        let written = self.write_back(bytes, PinnedPages::AreWaitedFor);
        // What this call has met itself, it reports itself.
        if written.is_err() {
            self.write_failures.lock().unreported = None;
        }
        let durable = self.make_durable(&range);
        written.and(durable)?;
        self.sync_failed_since(failed_before, &range)?;
        if let Some(lost) = self.errors.lost.overlapping(&range) {
            return Err(lost);
        }
        // An earlier failure that has healed meanwhile is told once all the same.
        unreported.map_or(Ok(()), Err)
    }

    /// Another sync has failed beside this one, and what this one wrote may have been among what it did not make
    /// durable: it is Dirty again.
    fn sync_failed_since(&self, failed_before: u64, range: &Range<u64>) -> Result<(), WriteError> {
        let write_failures = self.write_failures.lock();
        match &write_failures.sync_failure {
            Some(error) if write_failures.failed_syncs != failed_before => {
                Err(self.object.write_error(WriteStep::Sync, range.clone(), error))
            }
            _ => Ok(()),
        }
    }

    /// Hands what is Dirty in `bytes` to the pager and waits until it has it. Of pages that are pinned for writing it does
    /// what `pinned` says. Locks are held only while writes are started.
    pub(crate) fn write_back(
        self: &Arc<Self>,
        bytes: ByteRange,
        pinned: PinnedPages,
    ) -> Result<(), WriteError> {
        let pages = self.area.page_size().pages_of(bytes.below(self.area.length()));
        match self.object.file() {
            Some(file) => self.write_to_file(file, pages, pinned),
            None => self.write_by_requests(pages, pinned),
        }
    }

    /// The right to start writes. At the end of the process it is not waited for long: who has it may be who ends it.
    fn right_to_start(&self, pinned: PinnedPages) -> Option<ReadGuard<'_, ()>> {
        while self.is_held_back() {
            if pinned == PinnedPages::AreLeft {
                return None;
            }
            std::thread::sleep(SOON);
        }
        if pinned == PinnedPages::AreWaitedFor {
            return Some(self.resizing.read());
        }
        let until = Instant::now() + AT_EXIT;
        loop {
            match self.resizing.try_read() {
                Some(right) => return Some(right),
                None if Instant::now() >= until => return None,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn write_to_file(
        self: &Arc<Self>,
        file: &File,
        pages: PageRange,
        pinned: PinnedPages,
    ) -> Result<(), WriteError> {
        if self.area.unclean_pages() == 0 {
            return Ok(());
        }
        let ring = Ring::new(DEPTH, self.fill.buffers.mechanism, RingUser::OneAtATime);
        let writer = ring.and_then(Writer::new);
        let shift = self.area.page_size().shift();
        let range = pages.start << shift..pages.end << shift;
        let no_room = |error| self.object.write_error(WriteStep::WriteBack, range, &SupplyError::from(error));
        let mut writer = writer.map_err(no_room)?;
        let mut first = None;
        let mut left: Vec<PageIndex> = Vec::new();
        for part in self.unclean_parts(pages) {
            self.write_part(&mut writer, (file, pinned), part, &mut first);
            left.extend(part.iter().filter(|page| self.is_unwritten(*page)));
        }
        drain(&mut writer, &mut first);
        if first.is_none() {
            let until = self.object.pin_deadline();
            let mut write = |page| {
                let mut first = None;
                let started = self.write_part(&mut writer, (file, pinned), page, &mut first);
                drain(&mut writer, &mut first);
                first.map_or(Ok(started), Err)
            };
            let mut rest = left.into_iter().map(|page| {
                self.write_when_free(page, (until, pinned), &mut write, &|| self.refused_meanwhile(page))
            });
            first = rest.find_map(Result::err);
        }
        drain(&mut writer, &mut first);
        first.map_or(Ok(()), Err)
    }

    /// Starts writes of what is Dirty in `part`, each page once, in as many rounds as there is room in the queue. How
    /// many pages: none where they cannot be protected now.
    fn write_part(
        self: &Arc<Self>,
        writer: &mut Writer,
        (file, pinned): (&File, PinnedPages),
        part: PageRange,
        first: &mut Option<WriteError>,
    ) -> u64 {
        let (mut next, mut pages) = (part.start, 0);
        while next < part.end && first.is_none() {
            let Some(right) = self.right_to_start(pinned) else { return pages };
            let started = writer.start(self, file, PageRange { start: next, end: part.end });
            drop(right);
            next = started.next;
            pages += started.pages;
            if next < part.end && writer.ring.in_flight() > 0 {
                take(writer, None, first);
            }
        }
        pages
    }

    /// A page that somebody held at the first look is waited for, and written by `write` if it still has to be. That says
    /// how many it wrote: none that could not be protected. `waited` is asked after each wait.
    fn write_when_free(
        &self,
        page: PageIndex,
        (until, pinned): (Deadline<'_>, PinnedPages),
        write: &mut dyn FnMut(PageRange) -> Result<u64, WriteError>,
        waited: &dyn Fn() -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        while self.is_unwritten(page) && !self.is_left(page, pinned) {
            if self.area.word(page).may_be_written() {
                // What is stored from here on need not be in it: one write is enough.
                if write(PageRange::one(page))? > 0 || pinned == PinnedPages::AreLeft {
                    break;
                }
                std::thread::sleep(SOON);
            }
            if until.is_over() {
                return Err(self.waits.held_too_long(WriteStep::WriteBack, page));
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
            waited()?;
        }
        Ok(())
    }

    /// The write of `page` that was waited for has failed.
    fn refused_meanwhile(&self, page: PageIndex) -> Result<(), WriteError> {
        let start = bytes_of(&self.area, page).start;
        let mut write_failures = self.write_failures.lock();
        let met = write_failures.unreported.as_ref().is_some_and(|error| error.range().contains(&start));
        if met { write_failures.unreported.take().map_or(Ok(()), Err) } else { Ok(()) }
    }

    /// Pinned for writing, and not waited for.
    fn is_left(&self, page: PageIndex, pinned: PinnedPages) -> bool {
        pinned == PinnedPages::AreLeft && self.area.word(page).is_pinned_mut()
    }

    fn is_unwritten(&self, page: PageIndex) -> bool {
        self.area.word(page).is_unwritten()
    }

    /// For pagers that must be asked.
    fn write_by_requests(self: &Arc<Self>, pages: PageRange, pinned: PinnedPages) -> Result<(), WriteError> {
        let outcome = Arc::new(Outcome::default());
        let mut left: Vec<PageIndex> = Vec::new();
        for part in self.unclean_parts(pages) {
            self.request_part(part, pinned, &outcome)?;
            left.extend(part.iter().filter(|page| self.is_unwritten(*page)));
        }
        self.wait_for_outcome(&outcome, pages)?;
        let until = self.object.pin_deadline();
        let mut write = |page| {
            let outcome = Arc::new(Outcome::default());
            let offered = self.request_part(page, pinned, &outcome)?;
            self.wait_for_outcome(&outcome, page)?;
            Ok(offered)
        };
        left.into_iter().try_for_each(|page| {
            self.write_when_free(page, (until, pinned), &mut write, &|| self.refused_meanwhile(page))
        })
    }

    /// Offers what is Dirty in `part` and can be protected to the pager, as there is room. Returns how many pages.
    fn request_part(
        self: &Arc<Self>,
        part: PageRange,
        pinned: PinnedPages,
        outcome: &Arc<Outcome>,
    ) -> Result<u64, WriteError> {
        let refused = |error: SupplyError| {
            let range = part.start << 12..part.end << 12;
            self.object.write_error(WriteStep::WriteBack, range, &error)
        };
        let (mut next, mut offered) = (part.start, 0);
        while next < part.end && outcome.error().is_none() {
            let rest = PageRange { start: next, end: part.end };
            let Some(right) = self.right_to_start(pinned) else { return Ok(offered) };
            let (up_to, pages) = self.offer_some(rest, Some(outcome), None).map_err(refused)?;
            drop(right);
            offered += pages;
            next = up_to;
            if next < part.end {
                self.wait_for_window(outcome, rest)?;
            }
        }
        Ok(offered)
    }

    /// Has the pager make durable what it took. What it fails to is offered again if memory still has it, and told
    /// as lost by every sync if not.
    fn make_durable(self: &Arc<Self>, range: &Range<u64>) -> Result<(), WriteError> {
        let _turn = self.turn.lock();
        self.settle_pager_length(WriteStep::Sync)?;
        let mut pages = self.unsynced.take();
        let synced = match self.object.file() {
            Some(file) => locks::outside(|| file.sync()),
            None => self.ask_aside(|pager, to| pager.sync(SyncRequest::new(to))),
        };
        let Err(error) = synced else {
            self.unsynced.settle(&pages);
            return Ok(());
        };
        if !error.leaves_nothing_to_offer() {
            // What the pager accepted while it was failing may have been part of it: see `accept`.
            let mut write_failures = self.write_failures.lock();
            write_failures.failed_syncs += 1;
            write_failures.sync_failure = Some(error.clone());
            pages.extend(self.unsynced.take());
        }
        for run in &pages {
            self.offer_again(*run, &error);
        }
        self.unsynced.settle(&pages);
        Err(self.object.write_error(WriteStep::Sync, range.clone(), &error))
    }

    fn offer_again(&self, run: PageRange, error: &SupplyError) {
        // A file that is Stale is whole, it only has no name; other pagers say that they have the bytes.
        if error.leaves_nothing_to_offer() {
            return self.unsynced.add(run);
        }
        for page in run.iter() {
            let again = self.is_unwritten(page) || self.area.make_dirty(page);
            if !again {
                let Range { start, end } = bytes_of(&self.area, page);
                let end = end.min(self.area.length()).max(start);
                self.errors.lost.add(WriteStep::Sync, start..end, error);
            }
        }
    }
}

/// Takes what has ended; the first error, if there was none before. Waits as [`Writer::finish`] does.
fn take(writer: &mut Writer, limit: Option<Duration>, first: &mut Option<WriteError>) {
    for error in writer.finish(limit) {
        first.get_or_insert(error);
    }
}

/// Waits for all that is in flight.
fn drain(writer: &mut Writer, first: &mut Option<WriteError>) {
    while writer.ring.in_flight() > 0 {
        take(writer, None, first);
    }
    take(writer, Some(Duration::ZERO), first);
}
