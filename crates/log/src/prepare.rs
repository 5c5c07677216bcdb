//! Building and placing one record.

use alloc::vec::Vec;

use super::buffer::Buffer;
use super::error::{Action, AppendError, Failure, ReadError, on_log};
use super::format::{BLOCK_BYTES, Entry, Mark, RecordHeader, image_sum};
use super::layout::{Cursor, Layout, offset};
use super::log::{CommitLog, Condition};
use super::storage::Storage;

/// A record that is built, in a buffer, and has its place.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) header: RecordHeader,
    /// Block of the storage where the header goes.
    pub(super) block: u64,
}

impl Record {
    /// Blocks that it takes.
    pub(super) fn blocks(&self) -> usize {
        self.header.entries.len() + 1
    }

    /// Writes it in one piece.
    pub(super) fn write<S: Storage>(&self, log: &S, buffer: &Buffer) -> Result<(), Failure<S::Error>> {
        on_log(Action::Write, log.write_at(offset(self.block), buffer.filled(self.blocks())))
    }
}

/// Fills `buffer` with a record: the images of `pages` by `image`, zeroed from byte `end` of the object on.
pub(super) fn build<E>(
    buffer: &mut Buffer,
    header: &mut RecordHeader,
    pages: impl ExactSizeIterator<Item = u64>,
    end: u64,
    mut image: impl FnMut(u64, &mut [u8]) -> Result<(), ReadError<E>>,
) -> Result<(), ReadError<E>> {
    let (head, images) = buffer.blocks(pages.len() + 1).split_at_mut(BLOCK_BYTES);
    header.entries = Vec::with_capacity(pages.len());
    for (page, into) in pages.zip(images.chunks_exact_mut(BLOCK_BYTES)) {
        image(page, into)?;
        let inside = end.saturating_sub(offset(page)).min(BLOCK_BYTES as u64);
        into[inside as usize..].fill(0);
        header.entries.push(Entry { page, sum: image_sum(into) });
    }
    header.encode(head);
    Ok(())
}

/// Where records of `pages` pages in all, from `cursor` on, end. Full records first.
pub(super) fn end_of(layout: Layout, cursor: Cursor, pages: usize) -> Cursor {
    let most = layout.record_pages();
    let mut left = pages;
    let mut at = cursor;
    loop {
        let blocks = left.min(most) as u64 + 1;
        at = layout.fit(at, blocks);
        at.block += blocks;
        if left <= most {
            return at;
        }
        left -= most;
    }
}

impl<S: Storage> CommitLog<S> {
    /// The header of the next record, without pages and cutting nothing new.
    pub(super) fn next_header(&self) -> RecordHeader {
        RecordHeader {
            salt: self.header.salt,
            sequence: self.sequence,
            mark: Mark::Spill,
            abandons: self.abandoned,
            pending_cut: super::format::NO_CUT,
            committed_cut: self.content.pending_cut,
            entries: Vec::new(),
        }
    }

    /// Makes sure of the room for records of `pages` pages in all.
    pub(super) fn log_room(&mut self, pages: usize) -> Result<(), AppendError<S::Error>> {
        let end = end_of(self.layout, self.cursor, pages);
        if self.layout.block(end) > u64::from(u32::MAX) {
            return Err(AppendError::Full);
        }
        self.allocated.log(&self.log, self.layout, end).map_err(|failure| {
            if failure.action != Action::Sync {
                return AppendError::Refused(failure);
            }
            self.condition = Condition::NeedsRepair;
            AppendError::Failed(failure)
        })
    }

    /// Takes the next place for a record of `pages` pages; it is not used again if the write fails.
    pub(super) fn place(&mut self, pages: usize) -> u64 {
        let blocks = pages as u64 + 1;
        let at = self.layout.fit(self.cursor, blocks);
        self.cursor = Cursor { block: at.block + blocks, ..at };
        self.layout.block(at)
    }

    /// Counts a record that was written.
    pub(super) fn applied(&mut self, record: &Record) {
        self.content.apply(&record.header, record.block);
        self.sequence += 1;
        self.abandoned = false;
    }

    /// Builds and writes one record that commits nothing, without a sync. Its room has been made sure of. Nothing
    /// happened if building fails; if writing fails the log needs repair.
    pub(super) fn write_spill(
        &mut self,
        mut header: RecordHeader,
        pages: impl ExactSizeIterator<Item = u64>,
        end: u64,
        mut image: impl FnMut(&Self, u64, &mut [u8]) -> Result<(), ReadError<S::Error>>,
    ) -> Result<(), AppendError<S::Error>> {
        let count = pages.len();
        let mut buffer = core::mem::take(&mut self.buffer);
        let built = build(&mut buffer, &mut header, pages, end, |page, into| image(self, page, into));
        let written = built.map_err(AppendError::Unread).and_then(|()| {
            let record = Record { block: self.place(count), header };
            record.write(&self.log, &buffer).map(|()| record).map_err(AppendError::Failed)
        });
        self.buffer = buffer;
        match written {
            Ok(record) => self.applied(&record),
            Err(error) => {
                if matches!(error, AppendError::Failed(_)) {
                    self.condition = Condition::NeedsRepair;
                }
                return Err(error);
            }
        }
        Ok(())
    }
}
