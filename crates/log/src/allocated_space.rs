//! Room that was obtained ahead, in the log and in place, so that neither a commit half done nor a checkpoint nor
//! a recovery can meet a full disk.

use alloc::collections::BTreeMap;

use super::error::{Action, Failure, on_data, on_log};
use super::format::BLOCK_BYTES;
use super::layout::{Cursor, Layout, offset};
use super::storage::{Reserved, Storage};
use memobj_core::address::ByteRange;

/// Room in place is obtained by units of 64 KiB.
const UNIT_BYTES: u64 = 64 << 10;
const UNIT_PAGES: u64 = UNIT_BYTES / BLOCK_BYTES as u64;
/// Room in the log is obtained by 1 MiB, if a chunk is as large.
const LOG_STEP_BLOCKS: u64 = 256;

/// What is known to be there.
#[derive(Debug, Default)]
pub(super) struct AllocatedSpace {
    /// Blocks at the beginning of each segment.
    segments: [u64; 2],
    /// Units in place: 64 to a word.
    units: BTreeMap<u64, u64>,
    /// Blocks were added in place and are not known to survive a crash.
    unsynced: bool,
}

impl AllocatedSpace {
    /// Makes sure of the blocks of a segment below `end`, and that the log storage is as long; across a crash too,
    /// because recovery writes records anew. If the sync fails, so may have other writes of the log.
    pub(super) fn log<S: Storage>(
        &mut self,
        log: &S,
        layout: Layout,
        end: Cursor,
    ) -> Result<(), Failure<S::Error>> {
        let known = self.segments[end.segment.number() as usize];
        if known >= end.block {
            return Ok(());
        }
        let step = end.block.next_multiple_of(LOG_STEP_BLOCKS);
        let exact = |block| Cursor { block, ..end };
        let reached = match obtain(log, layout, known, exact(step)) {
            Ok(()) => step,
            Err(_) => obtain(log, layout, known, end).map(|()| end.block)?,
        };
        on_log(Action::Sync, log.sync())?;
        self.segments[end.segment.number() as usize] = reached;
        Ok(())
    }

    /// Makes sure of the room of `pages` (ascending) in place, across a crash too. If the sync fails, so may have
    /// other writes of the data storage.
    pub(super) fn data<S: Storage>(
        &mut self,
        data: &S,
        pages: impl Iterator<Item = u64>,
    ) -> Result<(), Failure<S::Error>> {
        let mut run: Option<(u64, u64)> = None;
        for unit in pages.map(|page| page / UNIT_PAGES) {
            match run {
                Some((_, end)) if end == unit + 1 => {}
                _ if self.has(unit) => {}
                Some((start, end)) if end == unit => run = Some((start, unit + 1)),
                _ => {
                    self.units_of(data, run)?;
                    run = Some((unit, unit + 1));
                }
            }
        }
        self.units_of(data, run)?;
        if self.unsynced {
            on_data(Action::Sync, data.sync())?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// The data storage was cut to `length` bytes: room beyond is gone.
    pub(super) fn forget_data(&mut self, length: u64) {
        let first = length / UNIT_BYTES;
        self.units.retain(|&word, _| word <= first / 64);
        if let Some(bits) = self.units.get_mut(&(first / 64)) {
            *bits &= (1 << (first % 64)) - 1;
        }
    }

    fn has(&self, unit: u64) -> bool {
        self.units.get(&(unit / 64)).is_some_and(|bits| bits >> (unit % 64) & 1 == 1)
    }

    fn units_of<S: Storage>(&mut self, data: &S, run: Option<(u64, u64)>) -> Result<(), Failure<S::Error>> {
        let Some((start, end)) = run else { return Ok(()) };
        let range = ByteRange { start: start * UNIT_BYTES, end: end.saturating_mul(UNIT_BYTES) };
        if on_data(Action::Reserve, data.reserve(range))? == Reserved::New {
            self.unsynced = true;
        }
        for unit in start..end {
            *self.units.entry(unit / 64).or_default() |= 1 << (unit % 64);
        }
        Ok(())
    }
}

/// Reserves blocks `[from, to.block)` of a segment, and sets the length of the log storage.
fn obtain<S: Storage>(log: &S, layout: Layout, from: u64, to: Cursor) -> Result<(), Failure<S::Error>> {
    let mut block = from;
    let mut length = 0;
    while block < to.block {
        let piece_end = layout.piece_end(block, to.block);
        let start = offset(layout.block(Cursor { block, ..to }));
        length = start + offset(piece_end - block);
        on_log(Action::Reserve, log.reserve(ByteRange { start, end: length }))?;
        block = piece_end;
    }
    if on_log(Action::Length, log.length())? < length {
        on_log(Action::SetLength, log.set_length(length))?;
    }
    Ok(())
}
