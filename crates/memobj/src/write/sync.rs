//! Sync: everything that is Dirty goes to the pager, and the pager makes it durable.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_sys::ring::{Owner, Ring};

use super::WriteStep;
use super::transfer::{DEPTH, Writer};
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::locks::{self, ReadGuard};
use crate::pagers::{File, Source};
use crate::store::{FrameStore, WriteState};

const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The pause before a page that could not be protected is tried again.
const SOON: Duration = Duration::from_millis(1);
const CALL_PAGES: u64 = 256;
/// How long the end of the process waits for whoever changes a length.
const AT_EXIT: Duration = Duration::from_secs(1);

/// What becomes of pages that are pinned for writing while they are to be written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PinnedPages {
    AreWaitedFor,
    /// At the end of the process: the pins may never end.
    AreLeft,
}

impl FrameStore {
    /// Makes durable what was stored to `bytes` before this call. See `Mapping::sync`.
    pub(crate) fn sync(self: &Arc<Self>, writes: &WriteState, bytes: ByteRange) -> Result<(), WriteError> {
        if let Some(log) = &self.object.log {
            return self.commit(writes, log);
        }
        let range = bytes.start..bytes.end;
        let failed_before = writes.trouble().failed_syncs;
        let unreported = writes.trouble().unreported.take();
        let written = self.write_back(writes, bytes, PinnedPages::AreWaitedFor);
        // What this call has met itself, it reports itself.
        if written.is_err() {
            writes.trouble().unreported = None;
        }
        let durable = self.make_durable(writes, &range);
        written.and(durable)?;
        self.sync_failed_since(writes, failed_before, &range)?;
        if let Some(lost) = self.lost_in(writes, &range) {
            return Err(lost);
        }
        // An earlier failure that has healed meanwhile is told once all the same.
        unreported.map_or(Ok(()), Err)
    }

    /// Another sync has failed beside this one, and what this one wrote may have been among what it did not make
    /// durable: it is Dirty again.
    fn sync_failed_since(
        &self,
        writes: &WriteState,
        failed_before: u64,
        range: &Range<u64>,
    ) -> Result<(), WriteError> {
        let trouble = writes.trouble();
        match &trouble.sync_failure {
            Some(error) if trouble.failed_syncs != failed_before => {
                Err(self.write_error(WriteStep::Sync, range.clone(), error))
            }
            _ => Ok(()),
        }
    }

    /// Hands what is Dirty in `bytes` to the pager and waits until it has it. Of pages that are pinned for writing it does
    /// what `pinned` says. Locks are held only while writes are started.
    pub(crate) fn write_back(
        self: &Arc<Self>,
        writes: &WriteState,
        bytes: ByteRange,
        pinned: PinnedPages,
    ) -> Result<(), WriteError> {
        let pages = self.area.page_size().pages_of(bytes.below(self.area.length()));
        match self.object.source() {
            Source::File(file) => self.write_to_file(writes, file, pages, pinned),
            _ => self.write_by_calls(writes, pages, pinned),
        }
    }

    /// The right to start writes. At the end of the process it is not waited for long: who has it may be who ends it.
    fn right_to_start<'a>(&self, writes: &'a WriteState, pinned: PinnedPages) -> Option<ReadGuard<'a, ()>> {
        if pinned == PinnedPages::AreWaitedFor {
            return Some(writes.resizing.read());
        }
        let until = Instant::now() + AT_EXIT;
        loop {
            match writes.resizing.try_read() {
                Some(right) => return Some(right),
                None if Instant::now() >= until => return None,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn write_to_file(
        self: &Arc<Self>,
        writes: &WriteState,
        file: &File,
        pages: PageRange,
        pinned: PinnedPages,
    ) -> Result<(), WriteError> {
        if self.area.unclean_pages() == 0 {
            return Ok(());
        }
        let ring = Ring::new(DEPTH, self.cache.buffers.mechanism, Owner::OneAtATime);
        let writer = ring.and_then(Writer::new);
        let mut writer = writer.map_err(|error| self.no_room(pages, error))?;
        let mut first = None;
        let mut left: VecDeque<PageIndex> = VecDeque::new();
        let mut from = self.block_of(pages.start);
        while let Some(block) = self.area.next_unclean_block(from) {
            let part = self.part(block, pages);
            if part.is_empty() {
                break;
            }
            self.write_part(writes, &mut writer, (file, pinned), part, &mut first);
            left.extend(part.iter().filter(|page| self.is_unwritten(*page)));
            from = block + 1;
        }
        self.drain(&mut writer, 0, &mut first);
        if first.is_none() {
            first = self.write_rest(writes, &mut writer, (file, pinned), left).err();
        }
        self.drain(&mut writer, 0, &mut first);
        first.map_or(Ok(()), Err)
    }

    /// Starts writes of what is Dirty in `part`, each page once, in as many rounds as there is room in the queue. How
    /// many pages: none where they cannot be protected now.
    fn write_part(
        self: &Arc<Self>,
        writes: &WriteState,
        writer: &mut Writer,
        (file, pinned): (&File, PinnedPages),
        part: PageRange,
        first: &mut Option<WriteError>,
    ) -> u64 {
        let (mut next, mut pages) = (part.start, 0);
        while next < part.end && first.is_none() {
            let Some(right) = self.right_to_start(writes, pinned) else { return pages };
            let started = writer.start(self, file, PageRange { start: next, end: part.end });
            drop(right);
            next = started.next;
            pages += started.pages;
            if next < part.end && writer.ring.in_flight() > 0 {
                self.take(writer, first);
            }
        }
        pages
    }

    /// Pages that somebody held at the first look: each is waited for, and written if it still has to be.
    fn write_rest(
        self: &Arc<Self>,
        writes: &WriteState,
        writer: &mut Writer,
        (file, pinned): (&File, PinnedPages),
        left: VecDeque<PageIndex>,
    ) -> Result<(), WriteError> {
        let until = self.pin_deadline();
        for page in left {
            while self.is_unwritten(page) && !self.is_left(page, pinned) {
                let mut first = None;
                if self.is_writable_now(page) {
                    // What is stored from here on need not be in it: one write is enough.
                    let started =
                        self.write_part(writes, writer, (file, pinned), PageRange::one(page), &mut first);
                    self.drain(writer, 0, &mut first);
                    match first {
                        Some(error) => return Err(error),
                        None if started > 0 || pinned == PinnedPages::AreLeft => break,
                        // It could not be protected.
                        None => std::thread::sleep(SOON),
                    }
                }
                if until.is_over(self) {
                    return Err(self.held_too_long(page));
                }
                self.area.wait_as_writer(page, Some(LOOK_AGAIN));
                self.refused_meanwhile(writes, page)?;
            }
        }
        Ok(())
    }

    /// The write of `page` that was waited for has failed.
    fn refused_meanwhile(&self, writes: &WriteState, page: PageIndex) -> Result<(), WriteError> {
        let start = page.0 << self.area.page_size().shift();
        let mut trouble = writes.trouble();
        let met = trouble.unreported.as_ref().is_some_and(|error| error.range().contains(&start));
        if met { trouble.unreported.take().map_or(Ok(()), Err) } else { Ok(()) }
    }

    /// Dirty, and nobody in the way of a write.
    fn is_writable_now(&self, page: PageIndex) -> bool {
        self.area.word(page).may_be_written()
    }

    /// Pinned for writing, and not waited for.
    fn is_left(&self, page: PageIndex, pinned: PinnedPages) -> bool {
        pinned == PinnedPages::AreLeft && self.area.word(page).is_pinned_mut()
    }

    pub(super) fn is_unwritten(&self, page: PageIndex) -> bool {
        self.area.word(page).is_unwritten()
    }

    fn take(&self, writer: &mut Writer, first: &mut Option<WriteError>) {
        for (_, error) in writer.finish(None).errors {
            first.get_or_insert(error);
        }
    }

    fn drain(&self, writer: &mut Writer, down_to: usize, first: &mut Option<WriteError>) {
        while writer.ring.in_flight() > down_to {
            self.take(writer, first);
        }
        for (_, error) in writer.finish(Some(Duration::ZERO)).errors {
            first.get_or_insert(error);
        }
    }

    fn no_room(&self, pages: PageRange, error: std::io::Error) -> WriteError {
        let shift = self.area.page_size().shift();
        self.write_error(WriteStep::WriteBack, pages.start << shift..pages.end << shift, &error.into())
    }

    fn held_too_long(&self, page: PageIndex) -> WriteError {
        let start = page.0 << self.area.page_size().shift();
        let range = start..start + self.area.page_size().bytes();
        self.waited_too_long(WriteStep::WriteBack, range, page)
    }

    /// For pagers that must be called: on a thread that may be left behind.
    fn write_by_calls(
        self: &Arc<Self>,
        writes: &WriteState,
        pages: PageRange,
        pinned: PinnedPages,
    ) -> Result<(), WriteError> {
        let until = self.pin_deadline();
        let mut from = self.block_of(pages.start);
        while let Some(block) = self.area.next_unclean_block(from) {
            let part = self.part(block, pages);
            if part.is_empty() {
                break;
            }
            self.call_for_part(writes, part, pinned)?;
            for page in part.iter() {
                while self.is_unwritten(page) && !self.is_left(page, pinned) {
                    if self.is_writable_now(page) {
                        let taken = self.call_for_part(writes, PageRange::one(page), pinned)?;
                        if taken > 0 || pinned == PinnedPages::AreLeft {
                            break;
                        }
                        std::thread::sleep(SOON);
                    }
                    if until.is_over(self) {
                        return Err(self.held_too_long(page));
                    }
                    self.area.wait_as_writer(page, Some(LOOK_AGAIN));
                }
            }
            from = block + 1;
        }
        Ok(())
    }

    /// Offers what is Dirty in `part` and can be protected to the pager. Returns how many runs of pages it took.
    fn call_for_part(
        self: &Arc<Self>,
        writes: &WriteState,
        part: PageRange,
        pinned: PinnedPages,
    ) -> Result<usize, WriteError> {
        let range = part.start << 12..part.end << 12;
        let refused = |error: SupplyError| self.write_error(WriteStep::WriteBack, range.clone(), &error);
        let (mut from, mut taken) = (part.start, 0);
        while from < part.end {
            let next = (from + CALL_PAGES).min(part.end);
            let Some(right) = self.right_to_start(writes, pinned) else { return Ok(taken) };
            let copies =
                self.copy_dirty(PageRange { start: from, end: next }, CALL_PAGES).map_err(refused)?;
            taken += copies.len();
            drop(right);
            if !copies.is_empty()
                && let Some(error) = self.call_aside(move |store| Ok(store.offer(copies))).map_err(refused)?
            {
                return Err(error);
            }
            from = next;
        }
        Ok(taken)
    }

    /// Has the pager make durable what it took. What it fails to is offered again if memory still has it, and told
    /// as lost by every sync if not.
    pub(super) fn make_durable(
        self: &Arc<Self>,
        writes: &WriteState,
        range: &Range<u64>,
    ) -> Result<(), WriteError> {
        let _turn = writes.turn.lock();
        let mut pages = writes.unsynced.take();
        let synced = match self.object.source() {
            Source::File(_) => locks::outside(|| self.object.pager.sync()),
            _ => self.call_aside(|store| store.object.pager.sync()),
        };
        let Err(error) = synced else { return Ok(()) };
        if error.kind != ErrorKind::Stale {
            // What the pager took while it was failing may have been part of it: see `took`.
            let mut trouble = writes.trouble();
            trouble.failed_syncs += 1;
            trouble.sync_failure = Some(error.clone());
            pages.extend(writes.unsynced.take());
        }
        for run in pages {
            self.offer_again(writes, run, &error);
        }
        Err(self.write_error(WriteStep::Sync, range.clone(), &error))
    }

    fn offer_again(&self, writes: &WriteState, run: PageRange, error: &SupplyError) {
        // The file is whole, it only has no name: there is nothing to offer again.
        if error.kind == ErrorKind::Stale {
            return writes.unsynced.add(run);
        }
        for page in run.iter() {
            let again = self.is_unwritten(page) || self.area.make_dirty(page);
            if !again {
                let start = page.0 << self.area.page_size().shift();
                let end = (start + self.area.page_size().bytes()).min(self.area.length());
                self.add_lost(writes, WriteStep::Sync, start..end.max(start), error);
            }
        }
    }
}
