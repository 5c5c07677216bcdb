//! Appending: spills, commits, and uncommitted truncation.

use super::buffer::Buffer;
use super::content::Location;
use super::error::{Action, AppendError, Failure, on_log};
use super::format::{BLOCK_BYTES, Mark, NO_CUT, PAGE_LIMIT};
use super::log::{CommitLog, Condition, Kind};
use super::prepare::{Record, build};
use super::storage::Storage;
use memobj_core::address::PageIndex;

const PAGE: u64 = BLOCK_BYTES as u64;

/// The record of a commit, built, with its room made sure of, neither written nor known to the log. It must be
/// given back to `finish_commit`; a log whose commit was dropped accepts nothing until it is opened anew.
#[derive(Debug)]
pub struct CommitInFlight<S: Storage> {
    buffer: Buffer,
    record: Record,
    outcome: Option<Result<(), Failure<S::Error>>>,
}

impl<S: Storage> CommitInFlight<S> {
    /// Writes the record in one piece and syncs once. Needs no lock; blocks. `log` is the log storage that
    /// [`CommitLog::storages`] names. What came of it is told by `finish_commit`; a second call does nothing.
    pub fn write(&mut self, log: &S) {
        if self.outcome.is_none() {
            let written = self.record.write(log, &self.buffer);
            self.outcome = Some(written.and_then(|()| on_log(Action::Sync, log.sync())));
        }
    }
}

impl<S: Storage> CommitLog<S> {
    /// Appends the images of `pages`, which ascend; `image` is called once for each, in order, and fills one page.
    ///
    /// A spill is written and not synced. A commit makes durable, and committed, these pages, all that was spilled
    /// since the last commit, and the length; images beyond the length vanish, and the last page is zero beyond
    /// it. All of its room, in the log and in place, is made sure of before anything is written. If nothing has to
    /// be reserved (the log grows by 1 MiB at a time, with a sync), a commit of at most [`RECORD_PAGES`](super::RECORD_PAGES) pages (and one less than a chunk has
    /// blocks) is one write and one sync; of more, several writes and one sync.
    ///
    /// Blocks. Until it returned Ok the caller keeps the pages dirty. [`AppendError`] says what holds after each
    /// error. To release the host's lock while a commit is written, use `begin_commit`.
    ///
    /// # Panics
    ///
    /// If `pages` do not ascend, or lie beyond the length of the commit.
    pub fn append(
        &mut self,
        pages: &[PageIndex],
        kind: Kind,
        image: impl FnMut(PageIndex, &mut [u8]),
    ) -> Result<(), AppendError<S::Error>> {
        match kind {
            Kind::Spill => self.spill(pages, image),
            Kind::Commit { length } => {
                let mut commit = self.begin_commit(pages, length, image)?;
                commit.write(&self.log);
                self.finish_commit(commit)
            }
        }
    }

    /// The first part of a commit: makes sure of its room, writes what does not fit one record, and builds the
    /// record with the mark. `append` describes arguments and panics. Needs the exclusive lock; blocks for room.
    /// The images are copied before it returns, so the pages may be changed (and be dirty again) while the
    /// record is written.
    ///
    /// Errors: `Failed` is possible only when the log grows, or when there are more pages than one record holds.
    pub fn begin_commit(
        &mut self,
        pages: &[PageIndex],
        length: u64,
        mut image: impl FnMut(PageIndex, &mut [u8]),
    ) -> Result<CommitInFlight<S>, AppendError<S::Error>> {
        self.ready()?;
        check_pages(pages, length.div_ceil(PAGE));
        let tail = self.tail_to_rewrite(pages, length);
        let count = pages.len() + usize::from(tail.is_some());
        self.log_room(count)?;
        self.data_room(pages, tail, length)?;
        let most = self.layout.record_pages();
        let first = (count.max(1) - 1) / most * most;
        for pages in pages[..first].chunks(most) {
            self.spill_one(pages, &mut image)?;
        }
        let mut header = self.next_header();
        header.mark = Mark::Commit { length };
        header.pending_cut = length;
        header.committed_cut = header.committed_cut.min(length);
        let rest = (first..count).map(|at| pages.get(at).map_or(tail.unwrap_or_default(), |page| page.0));
        let mut buffer = core::mem::take(&mut self.buffer);
        let built = build(&mut buffer, &mut header, rest, length, |page, into| {
            if tail == Some(page) {
                return self.read_page(PageIndex(page), into);
            }
            image(PageIndex(page), into);
            Ok(())
        });
        if let Err(error) = built {
            self.buffer = buffer;
            return Err(AppendError::Unread(error));
        }
        self.condition = Condition::InFlight;
        let record = Record { block: self.place(count - first), header };
        Ok(CommitInFlight { buffer, record, outcome: None })
    }

    /// The last part of a commit: takes notice of what came of it. Needs the exclusive lock; no input or output.
    ///
    /// Errors: `Unknown` if the write or the sync failed, or never began; the log then needs repair.
    pub fn finish_commit(&mut self, commit: CommitInFlight<S>) -> Result<(), AppendError<S::Error>> {
        self.buffer = commit.buffer;
        self.condition = Condition::NeedsRepair;
        match commit.outcome {
            None => Err(AppendError::NeedsRepair),
            Some(Err(failure)) => Err(AppendError::Unknown(failure)),
            Some(Ok(())) => {
                self.applied(&commit.record);
                self.condition = Condition::Sound;
                Ok(())
            }
        }
    }

    /// The object was cut to `length` bytes, uncommitted as yet: older bytes beyond it are gone, those spilled
    /// later are not. The host calls this whenever it shrinks an object that it may spill or grow again before
    /// the next commit. Writes one record, without a sync; blocks. Errors as for a spill.
    pub fn truncate(&mut self, length: u64) -> Result<(), AppendError<S::Error>> {
        self.ready()?;
        let tail = (!length.is_multiple_of(PAGE)).then_some(length / PAGE);
        self.log_room(1)?;
        let mut header = self.next_header();
        header.pending_cut = length;
        header.committed_cut = header.committed_cut.min(length);
        self.write_spill(header, tail.into_iter(), length, |log, page, into| {
            log.read_page(PageIndex(page), into)
        })
    }

    fn spill(
        &mut self,
        pages: &[PageIndex],
        mut image: impl FnMut(PageIndex, &mut [u8]),
    ) -> Result<(), AppendError<S::Error>> {
        self.ready()?;
        check_pages(pages, PAGE_LIMIT);
        self.log_room(pages.len())?;
        for pages in pages.chunks(self.layout.record_pages()) {
            self.spill_one(pages, &mut image)?;
        }
        Ok(())
    }

    fn spill_one(
        &mut self,
        pages: &[PageIndex],
        image: &mut impl FnMut(PageIndex, &mut [u8]),
    ) -> Result<(), AppendError<S::Error>> {
        let header = self.next_header();
        self.write_spill(header, pages.iter().map(|page| page.0), NO_CUT, |_, page, into| {
            image(PageIndex(page), into);
            Ok(())
        })
    }

    /// Whether an append may begin.
    pub(super) fn ready(&self) -> Result<(), AppendError<S::Error>> {
        match self.condition {
            Condition::Sound => Ok(()),
            Condition::InFlight => Err(AppendError::Busy),
            Condition::NeedsRepair => Err(AppendError::NeedsRepair),
        }
    }

    /// The page that `length` cuts, if it is not among `pages` and may hold more than zeros beyond `length`.
    fn tail_to_rewrite(&self, pages: &[PageIndex], length: u64) -> Option<u64> {
        let tail = length / PAGE;
        let is_given = pages.last().is_some_and(|last| last.0 == tail);
        let was_longer = length < self.content.committed_length || self.content.pending.contains_key(&tail);
        let holds_bytes = self.content.locate(tail) != Location::Data { length_bytes: 0 };
        (!length.is_multiple_of(PAGE) && !is_given && was_longer && holds_bytes).then_some(tail)
    }

    /// Makes sure of the room in place of all that a commit commits.
    fn data_room(
        &mut self,
        pages: &[PageIndex],
        tail: Option<u64>,
        length: u64,
    ) -> Result<(), AppendError<S::Error>> {
        let end = length.div_ceil(PAGE);
        let pending = self.content.pending.range(..end).map(|(&page, _)| page);
        let all = pending.chain(pages.iter().map(|page| page.0)).chain(tail);
        self.allocated.data(&self.data, all).map_err(|failure| {
            if failure.action == Action::Sync {
                self.data_failures += 1;
            }
            AppendError::Refused(failure)
        })
    }
}

/// Callers pass pages that ascend and lie below `end`.
fn check_pages(pages: &[PageIndex], end: u64) {
    assert!(pages.windows(2).all(|pair| pair[0] < pair[1]), "pages do not ascend");
    let last = pages.last().map_or(0, |last| last.0);
    assert!(pages.is_empty() || last < end.min(PAGE_LIMIT), "page {last} lies beyond the end");
}
