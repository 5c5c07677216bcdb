//! Going on after a write or a sync of the log failed.

use alloc::vec::Vec;

use super::content::Image;
use super::error::{Action, AppendError, Failure, ReadError, RepairError, on_log};
use super::format::{LogHeader, Mark, NO_CUT, RecordHeader, next_salt};
use super::layout::Cursor;
use super::log::{CommitLog, Condition, read_image};
use super::prepare::{Record, build};
use super::storage::Storage;

/// A chain that is being written beside the old one.
struct NewChain {
    salt: u64,
    start: (Cursor, u64),
    images: Vec<(u64, Image)>,
}

impl<S: Storage> CommitLog<S> {
    /// Makes a log that needs repair sound again. After Ok a commit whose outcome was unknown has certainly not
    /// happened; its pages, which the caller kept, can be committed again. Spilled images are kept.
    ///
    /// Everything committed is put in place and synced; spilled images are read back, verified, and written anew
    /// behind the end of the log under another salt; then a header that leaves the old chain behind is written
    /// and synced. Nothing of the old chain is overwritten before. Needs the exclusive lock; blocks for as long as
    /// that takes. A sound log is left as it is.
    ///
    /// Errors: the log still needs repair, the outcome of the commit is still unknown.
    pub fn repair(&mut self) -> Result<(), RepairError<S::Error>> {
        match self.condition {
            Condition::Sound => return Ok(()),
            Condition::InFlight => return Err(RepairError::Busy),
            Condition::NeedsRepair if self.plan_is_out => return Err(RepairError::Busy),
            Condition::NeedsRepair => {}
        }
        self.all_in_place()?;
        let chain = self.write_pending_anew()?;
        on_log(Action::Sync, self.log.sync())?;
        let (start, sequence) = chain.start;
        let header = LogHeader {
            number: self.header.number + 1,
            salt: chain.salt,
            segment: start.segment.number(),
            block: start.block,
            sequence,
            length: self.data_length,
            settled: sequence,
            ..self.header
        };
        self.write_header(header)?;
        self.content.pending.extend(chain.images);
        self.active_start = chain.start;
        self.frozen = None;
        self.abandoned = false;
        self.condition = Condition::Sound;
        Ok(())
    }

    /// Writes records of everything pending (and of the length, if the data storage is longer than that), not synced, after the end of the active segment.
    fn write_pending_anew(&mut self) -> Result<NewChain, RepairError<S::Error>> {
        self.repairs += 1;
        let salt = next_salt(self.header.salt, self.repairs);
        let mut chain = NewChain { salt, start: (self.cursor, self.sequence), images: Vec::new() };
        let pages: Vec<u64> = self.content.pending.keys().copied().collect();
        self.log_room(pages.len() + self.layout.record_pages()).map_err(room_error)?;
        let length = self.content.committed_length;
        if self.data_length > length {
            self.write_anew(&mut chain, &[], Mark::Commit { length })?;
        }
        if pages.is_empty() && self.content.pending_cut != NO_CUT {
            self.write_anew(&mut chain, &[], Mark::Spill)?;
        }
        for pages in pages.chunks(self.layout.record_pages()) {
            self.write_anew(&mut chain, pages, Mark::Spill)?;
        }
        Ok(chain)
    }

    /// Writes one record of the new chain: pending pages, or, before them, the length committed last.
    fn write_anew(
        &mut self,
        chain: &mut NewChain,
        pages: &[u64],
        mark: Mark,
    ) -> Result<(), RepairError<S::Error>> {
        let mut header = RecordHeader { salt: chain.salt, abandons: false, mark, ..self.next_header() };
        if let Mark::Commit { length } = mark {
            header.pending_cut = length;
            header.committed_cut = length;
        }
        let mut buffer = core::mem::take(&mut self.buffer);
        let built = build(&mut buffer, &mut header, pages.iter().copied(), NO_CUT, |page, into| {
            match self.content.pending.get(&page) {
                Some(&image) => read_image(&self.log, page, image, into),
                None => unreachable!("page {page} was pending a moment ago"),
            }
        });
        let written = built.map_err(read_error).and_then(|()| {
            let record = Record { block: self.place(pages.len()), header };
            record.write(&self.log, &buffer)?;
            Ok(record)
        });
        self.buffer = buffer;
        let record = written?;
        let images = (record.block + 1..).zip(&record.header.entries);
        chain.images.extend(
            images.map(|(at, entry)| (entry.page, Image { block: at as u32, check: entry.sum as u32 })),
        );
        self.sequence += 1;
        Ok(())
    }
}

fn read_error<E>(error: ReadError<E>) -> RepairError<E> {
    match error {
        ReadError::Storage(failure) => RepairError::Storage(failure),
        ReadError::Lost { page } => RepairError::Lost { page },
    }
}

fn room_error<E>(error: AppendError<E>) -> RepairError<E> {
    match error {
        AppendError::Refused(failure) | AppendError::Failed(failure) => RepairError::Storage(failure),
        _ => RepairError::Full,
    }
}

impl<E> From<Failure<E>> for RepairError<E> {
    fn from(failure: Failure<E>) -> Self {
        RepairError::Storage(failure)
    }
}
