//! Copying committed pages in place, so that their part of the log can be used again.

use alloc::vec::Vec;
use core::ops::Range;

use super::buffer::Buffer;
use super::content::Image;
use super::error::{Action, CheckpointError, Failure, StepError, on_data, on_log};
use super::format::{BLOCK_BYTES, LogHeader, NO_CUT};
use super::layout::{Cursor, offset};
use super::log::{CommitLog, Condition, read_image};
use super::storage::Storage;
use memobj_core::address::{ByteRange, PageIndex};

const PAGE: u64 = BLOCK_BYTES as u64;
/// Blocks of the log that one step looks at, at most: 1 MiB.
const STEP_PAGES: usize = 256;
/// Pages that one step zeros at most: 64 MiB, mostly holes.
const ZERO_PAGES: u64 = 16384;

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// There are more steps.
    More,
    /// All is copied and synced: `finish_checkpoint` is next.
    Done,
}

/// What the end of a checkpoint came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// The plan has more steps; run them and finish again. There is an end to this.
    Again,
    /// The space is free for new records.
    Released,
}

/// A checkpoint under way: which images go in place. It holds no lock and borrows nothing.
#[derive(Debug)]
pub struct Checkpoint {
    /// Images to copy, in the order of the log.
    pub(super) entries: Vec<(u64, Image)>,
    next: usize,
    /// Pages in place that must read as zeros.
    zero: Range<u64>,
    zero_next: u64,
    /// Length of the data storage while the plan runs.
    length: u64,
    /// Something was changed that needs a sync.
    needs_sync: bool,
    /// The piece that was copied last is not synced. A sync of all pieces together would keep the device busy, and
    /// commits that sync the log would wait for it.
    piece_is_unsynced: bool,
    /// The log has taken notice of it.
    is_settled: bool,
    data_failures: u64,
    buffer: Buffer,
}

impl Checkpoint {
    /// Does the next piece: at most 1 MiB is copied, 64 MiB zeroed, or one sync made. Needs no lock; blocks. `log` and `data` are
    /// the storages that [`CommitLog::storages`] names. May run at once with anything but `repair`.
    ///
    /// Errors: nothing is lost; the same piece is tried by the next call. A failed sync sends the plan back to its
    /// beginning, since what it had written may be gone.
    pub fn step<S: Storage>(&mut self, log: &S, data: &S) -> Result<Progress, StepError<S::Error>> {
        if self.zero_next < self.zero.end {
            self.zero(data).map_err(StepError::Storage)?;
        } else if self.next < self.entries.len() && !self.piece_is_unsynced {
            self.copy(log, data)?;
            self.piece_is_unsynced = true;
        } else if self.needs_sync {
            if let Err(failure) = on_data(Action::Sync, data.sync()) {
                self.restart();
                return Err(StepError::Storage(failure));
            }
            self.piece_is_unsynced = false;
            self.needs_sync = self.next < self.entries.len();
        }
        Ok(if self.is_done() { Progress::Done } else { Progress::More })
    }

    fn is_done(&self) -> bool {
        self.zero_next >= self.zero.end && self.next >= self.entries.len() && !self.needs_sync
    }

    fn restart(&mut self) {
        self.next = 0;
        self.zero_next = self.zero.start;
        self.needs_sync = true;
        self.piece_is_unsynced = false;
    }

    /// Zeros the next pages.
    fn zero<S: Storage>(&mut self, data: &S) -> Result<(), Failure<S::Error>> {
        let first = self.zero_next;
        let end = self.zero.end.min(first + ZERO_PAGES);
        let range = ByteRange { start: offset(first), end: offset(end).min(self.length) };
        on_data(Action::Zero, data.zero(range))?;
        self.zero_next = end;
        Ok(())
    }

    /// Copies the next images: those that lie within one window of the log are read at once.
    fn copy<S: Storage>(&mut self, log: &S, data: &S) -> Result<(), StepError<S::Error>> {
        let rest = &self.entries[self.next..];
        let first = rest[0].1.block;
        let window = |&&(_, image): &&(u64, Image)| ((image.block - first) as usize) < STEP_PAGES;
        let count = rest.iter().take_while(window).count();
        let images = &rest[..count];
        let blocks = (images[count - 1].1.block - first) as usize + 1;
        let bytes = &mut self.buffer.blocks(STEP_PAGES)[..blocks * BLOCK_BYTES];
        let read = on_log(Action::Read, log.read_at(images[0].1.offset(), bytes));
        read.map_err(StepError::Storage)?;
        let at = |image: Image| (image.block - first) as usize * BLOCK_BYTES;
        for &(page, image) in images {
            if !image.matches(&bytes[at(image)..][..BLOCK_BYTES]) {
                return Err(StepError::Lost { page: PageIndex(page) });
            }
        }
        let length = self.length;
        // Neighbours that are neighbours in the log too go with one write.
        for run in images.chunk_by(|a, b| a.0 + 1 == b.0 && a.1.block + 1 == b.1.block) {
            let inside = inside(length, run[0].0, run.len());
            let bytes = &bytes[at(run[0].1)..][..inside];
            on_data(Action::Write, data.write_at(offset(run[0].0), bytes)).map_err(StepError::Storage)?;
        }
        self.next += count;
        Ok(())
    }
}

/// The bytes of `pages` pages from `first` on that lie below `length`.
fn inside(length: u64, first: u64, pages: usize) -> usize {
    length.saturating_sub(offset(first)).min((pages * BLOCK_BYTES) as u64) as usize
}

impl<S: Storage> CommitLog<S> {
    /// Begins a checkpoint of all that is committed now, or goes on with one that was cancelled. From here on
    /// appends go to the other segment. `None` if there is nothing to do. Needs the exclusive lock; sets the
    /// length of the data storage, otherwise no input or output.
    pub fn begin_checkpoint(&mut self) -> Result<Option<Checkpoint>, CheckpointError<S::Error>> {
        self.ready()?;
        if self.plan_is_out {
            return Err(CheckpointError::Busy);
        }
        if self.frozen.is_none() {
            if self.cursor == self.active_start.0 {
                return Ok(None);
            }
            self.frozen = Some(self.cursor.segment);
            self.cursor = Cursor { segment: self.cursor.segment.other(), block: 0 };
            self.active_start = (self.cursor, self.sequence);
        }
        let plan = self.plan().map_err(CheckpointError::Refused)?;
        self.plan_is_out = true;
        Ok(Some(plan))
    }

    /// Ends a checkpoint whose steps are done: its pages are read in place from now on. Answers `Again` if there
    /// is more to do: pages of the segment that were committed meanwhile, uncommitted images to carry over into
    /// the other segment (at most one record for each call, not synced), or writes that a failed sync elsewhere
    /// may have taken with it. Needs the exclusive lock; blocks, with one small write and one sync of the log in
    /// the end.
    ///
    /// Errors: the plan stays valid, to be finished again or cancelled.
    pub fn finish_checkpoint(&mut self, plan: &mut Checkpoint) -> Result<Finish, CheckpointError<S::Error>> {
        self.ready()?;
        if !self.plan_is_out {
            return Err(CheckpointError::NotRunning);
        }
        if plan.data_failures != self.data_failures {
            plan.data_failures = self.data_failures;
            plan.restart();
        }
        if !plan.is_done() {
            return Ok(Finish::Again);
        }
        self.settle(plan);
        let is_rest = self.carry_over()?;
        let next = self.plan().map_err(CheckpointError::Refused)?;
        if is_rest || !next.is_done() {
            *plan = next;
            return Ok(Finish::Again);
        }
        self.release()?;
        Ok(Finish::Released)
    }

    /// Gives a checkpoint up; no step of it may run after. `begin_checkpoint` starts over with the same segment.
    /// Works in every state.
    pub fn cancel_checkpoint(&mut self, plan: Checkpoint) {
        drop(plan);
        self.plan_is_out = false;
    }

    /// What is to be done to have all committed pages of the frozen segment in place, or of both if none is.
    pub(super) fn plan(&mut self) -> Result<Checkpoint, Failure<S::Error>> {
        let old = on_data(Action::Length, self.data.length())?;
        let length = self.content.committed_length;
        // Repair leaves a file too long: a commit in doubt may need the room. The next checkpoint cuts it.
        let is_kept = old > length && self.condition == Condition::NeedsRepair;
        if old != length && !is_kept {
            self.length_is_unsynced = true;
            self.allocated.forget_data(length);
            on_data(Action::SetLength, self.data.set_length(length))?;
        }
        self.data_length = if is_kept { old } else { length };
        self.content.cut_since_plan = NO_CUT;
        let is_frozen = |image: Image| {
            self.frozen.is_none_or(|segment| self.layout.segment_of(u64::from(image.block)) == segment)
        };
        let committed = self.content.committed.iter().map(|(&page, &image)| (page, image));
        let mut entries: Vec<_> = committed.filter(|&(_, image)| is_frozen(image)).collect();
        // In the order of the log: reading is then sequential, and whoever writes sorts anyway.
        entries.sort_unstable_by_key(|&(_, image)| image.block);
        let zero = self.content.data_end.div_ceil(PAGE)..old.min(length).div_ceil(PAGE);
        Ok(Checkpoint {
            needs_sync: self.length_is_unsynced || !entries.is_empty() || !zero.is_empty(),
            piece_is_unsynced: false,
            is_settled: false,
            entries,
            next: 0,
            zero_next: zero.start,
            zero,
            length: self.data_length,
            data_failures: self.data_failures,
            buffer: Buffer::default(),
        })
    }

    /// The pages of `plan` are in place and durable.
    pub(super) fn settle(&mut self, plan: &mut Checkpoint) {
        if core::mem::replace(&mut plan.is_settled, true) {
            return;
        }
        for (page, image) in plan.entries.drain(..) {
            if self.content.committed.get(&page) == Some(&image) {
                self.content.committed.remove(&page);
            }
        }
        plan.next = 0;
        self.length_is_unsynced = false;
        self.content.data_end =
            self.data_length.min(self.content.cut_since_plan).min(self.content.committed_length);
    }

    /// Writes uncommitted images of the frozen segment into the active one, at most one record. Whether there
    /// are more.
    fn carry_over(&mut self) -> Result<bool, CheckpointError<S::Error>> {
        let Some(frozen) = self.frozen else { return Ok(false) };
        let most = self.layout.record_pages();
        let is_frozen = |image: &Image| self.layout.segment_of(u64::from(image.block)) == frozen;
        let pending = self.content.pending.iter().filter(|(_, image)| is_frozen(image));
        let pages: Vec<u64> = pending.map(|(&page, _)| page).take(most + 1).collect();
        // An uncommitted truncation is carried by every record, but there may be none yet.
        let truncation_alone = self.content.pending_cut != NO_CUT && self.sequence == self.active_start.1;
        if pages.is_empty() && !truncation_alone {
            return Ok(false);
        }
        let carried = &pages[..pages.len().min(most)];
        self.log_room(carried.len())?;
        let header = self.next_header();
        self.write_spill(header, carried.iter().copied(), NO_CUT, |log, page, into| {
            match log.content.pending.get(&page) {
                Some(&image) => read_image(&log.log, page, image, into),
                None => unreachable!("page {page} was pending a moment ago"),
            }
        })?;
        Ok(pages.len() > most)
    }

    /// Moves the beginning of the chain to the active segment.
    fn release(&mut self) -> Result<(), CheckpointError<S::Error>> {
        let (start, sequence) = self.active_start;
        let header = LogHeader {
            number: self.header.number + 1,
            segment: start.segment.number(),
            block: start.block,
            sequence,
            length: self.data_length,
            settled: self.sequence,
            ..self.header
        };
        self.plan_is_out = false;
        if let Err(failure) = self.write_header(header) {
            self.condition = Condition::NeedsRepair;
            return Err(CheckpointError::Failed(failure));
        }
        self.frozen = None;
        Ok(())
    }
}
