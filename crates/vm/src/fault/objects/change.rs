//! Changing objects: writing, cutting, extending, punching holes, writing back.
//!
//! Whatever needs a page that is not here, or that somebody keeps as it is, is refused before it changes anything, with
//! that page; the host has it supplied, or waits, and tries again.

use core::ops::Range;

use super::{BLOCK_PAGES, Block, Fill, NOW, ObjectTable, PAGE, PAGE_BYTES, busy};
use crate::fault::{Memory, Notice, Stop, Trap};
use crate::space::ObjectId;
use memobj_core::address::PageRange;
use memobj_core::decide::Intent;
use memobj_core::page_word::Word;
use memobj_core::pages::WriteClaim;

impl<M: Memory> ObjectTable<M> {
    /// Reads bytes at `offset`, up to the end of the object, and says how many.
    pub fn read_at(&mut self, object: ObjectId, offset: u64, into: &mut [u8]) -> Result<usize, Stop> {
        let length = self.length(object).unwrap_or(0).saturating_sub(offset).min(into.len() as u64) as usize;
        for (page, at, part) in pieces(offset, length) {
            let frame = self.reach(object, page, Intent::Presence)?;
            self.memory().read(frame, at, &mut into[part]);
        }
        Ok(length)
    }

    /// Writes `bytes` at `offset`; the object becomes longer if it ends before their end.
    pub fn write_at(&mut self, object: ObjectId, offset: u64, bytes: &[u8]) -> Result<(), Stop> {
        let old = self.length_to_change(object)?;
        let end = offset.checked_add(bytes.len() as u64).ok_or(Trap::Beyond)?;
        if bytes.is_empty() {
            return Ok(());
        }
        for page in offset / PAGE_BYTES..PAGE.pages_for(old.min(end)) {
            self.reach(object, page, Intent::Change)?;
        }
        if offset > old {
            self.zero_tail(object, offset)?;
        }
        self.put_length(object, old.max(end));
        for (page, at, part) in pieces(offset, bytes.len()) {
            self.reach(object, page, Intent::Change)?;
            self.store(object, page, at, &bytes[part])?;
        }
        Ok(())
    }

    /// The length of what is not a snapshot.
    fn length_to_change(&self, object: ObjectId) -> Result<u64, Trap> {
        let entry = self.objects.get(&object).ok_or(Trap::Failed)?;
        if entry.origin.is_some() { Err(Trap::Denied) } else { Ok(entry.length) }
    }

    /// Stores to one page, which is resident and saved.
    fn store(&mut self, object: ObjectId, page: u64, at: usize, bytes: &[u8]) -> Result<(), Stop> {
        let Some((block, index)) = self.objects.get(&object).and_then(|entry| entry.at(page)) else {
            return Err(Trap::Failed.into());
        };
        block.store_bytes(index.0 * PAGE_BYTES + at as u64, bytes).map_err(|_| busy(object, page))
    }

    /// Cuts or extends the object to `length` bytes.
    pub fn set_length(&mut self, object: ObjectId, length: u64) -> Result<(), Stop> {
        let old = self.length_to_change(object)?;
        if length > old {
            self.zero_tail(object, u64::MAX)?;
        } else {
            self.cut(object, length)?;
        }
        self.put_length(object, length);
        Ok(())
    }

    fn put_length(&mut self, object: ObjectId, length: u64) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        let first = entry.length.min(length) / PAGE_BYTES / BLOCK_PAGES;
        entry.length = length;
        entry.supplied_below = entry.supplied_below.min(length);
        for (&number, block) in entry.blocks.range(first..) {
            block.set_length(entry.length_in(number));
        }
    }

    /// Drops what lies from `length` on. Whole blocks go with what is left of them elsewhere.
    fn cut(&mut self, object: ObjectId, length: u64) -> Result<(), Stop> {
        let first = PAGE.pages_for(length);
        self.save_from(object, length / PAGE_BYTES)?;
        self.look_for_busy(object, length / PAGE_BYTES)?;
        self.zero(object, length / PAGE_BYTES, (length % PAGE_BYTES) as usize..PAGE_BYTES as usize)?;
        self.memory().tell(Notice::Cut(object, PageRange { start: first, end: u64::MAX }));
        let Some(entry) = self.objects.get_mut(&object) else { return Ok(()) };
        let claims = entry.claims.split_off(&first);
        drop(entry.blocks.split_off(&first.div_ceil(BLOCK_PAGES)));
        for page in first..first.next_multiple_of(BLOCK_PAGES) {
            let Some((block, index)) = entry.at(page) else { break };
            let is_gone = !block.word(index).is_resident() || block.discard(index, NOW);
            assert!(is_gone, "page {page} is pinned or written, and was not when it was looked for");
            block.retry(index);
        }
        self.drop_claims(claims);
        Ok(())
    }

    /// Refuses a change of the pages from `first` on while somebody has pinned one, or writes it.
    fn look_for_busy(&self, object: ObjectId, first: u64) -> Result<(), Stop> {
        let is_busy = |word: Word| word.is_busy() && !word.is_coming_or_going();
        let mut words = self.objects.get(&object).into_iter().flat_map(|entry| entry.words_from(first));
        words.find(|(_, word)| is_busy(*word)).map_or(Ok(()), |(page, _)| Err(busy(object, page)))
    }

    /// Zeros what was stored past the end, in the last page, as far as `end`.
    fn zero_tail(&mut self, object: ObjectId, end: u64) -> Result<(), Stop> {
        let length = self.length(object).unwrap_or(0);
        let page = length / PAGE_BYTES;
        if length.is_multiple_of(PAGE_BYTES) || !self.objects[&object].word(page).is_resident() {
            return Ok(());
        }
        self.reach(object, page, Intent::Change)?;
        let end = (end - page * PAGE_BYTES).min(PAGE_BYTES);
        self.zero(object, page, (length % PAGE_BYTES) as usize..end as usize)
    }

    /// Zeros bytes of a page, if it is resident. Snapshots have their copy.
    fn zero(&mut self, object: ObjectId, page: u64, bytes: Range<usize>) -> Result<(), Stop> {
        match self.objects.get(&object).and_then(|entry| entry.at(page)) {
            Some((block, index)) if block.word(index).is_resident() && bytes.start > 0 => {
                let held = block.hold(index).map_err(|_| busy(object, page));
                held?.zero(bytes).map_err(|_| busy(object, page))
            }
            _ => Ok(()),
        }
    }

    /// Makes the bytes `[start, end)` zeros; the length stays. Private copies of their pages stay, too.
    pub fn punch(&mut self, object: ObjectId, (start, end): (u64, u64)) -> Result<(), Stop> {
        let length = self.length(object).unwrap_or(0);
        // What begins past the end is no part of the object; what passes it takes the rest of the last page along.
        let end = match end {
            _ if start >= length => return Ok(()),
            _ if end > length => PAGE.pages_for(length) * PAGE_BYTES,
            end => end,
        };
        let count = (end - start) as usize;
        for (page, ..) in pieces(start, count) {
            self.reach(object, page, Intent::Change)?;
        }
        for (page, at, part) in pieces(start, count) {
            self.store(object, page, at, &super::ZEROS[..part.len()])?;
        }
        Ok(())
    }

    /// Has changes written that the pager does not have, if there is a pager. Calls `write` for each piece, with its offset,
    /// a copy of its bytes and its claim. The claim is answered when they are written, or dropped if they cannot be. A store
    /// after the copy is another change. What lies past the end of the object goes.
    pub fn write_back(
        &mut self,
        object: ObjectId,
        mut write: impl FnMut(u64, &[u8], WriteClaim<Block<M>>),
    ) -> Result<(), Stop> {
        // A snapshot is written nowhere, and stays as it is.
        let Some(entry) = self.objects.get(&object).filter(|entry| entry.origin.is_none()) else {
            return Ok(());
        };
        if entry.word(entry.length / PAGE_BYTES).is_unwritten() {
            self.zero_tail(object, u64::MAX)?;
        }
        let Some(entry) = self.objects.get_mut(&object).filter(|entry| entry.fill == Fill::Pager) else {
            return Ok(());
        };
        let mut copy = super::ZEROS;
        for (&number, block) in &entry.blocks {
            let (runs, _) = block.lock_dirty(block.block_range(0), BLOCK_PAGES, 1);
            for run in runs {
                let (bytes, start) = (run.bytes(), number * BLOCK_PAGES * PAGE_BYTES + run.bytes().start);
                let Some(claim) = run.copy(&mut copy) else { continue };
                entry.supplied_below = entry.supplied_below.max(start + bytes.len());
                write(start, &copy[..bytes.len() as usize], claim);
            }
        }
        Ok(())
    }
}

/// The parts of `length` bytes at `offset` that lie in one page each: page, byte in it, which of them.
pub(super) fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = offset + done as u64;
        let part = done..length.min(done + (PAGE_BYTES - at % PAGE_BYTES) as usize);
        done = part.end;
        (!part.is_empty()).then_some((at / PAGE_BYTES, (at % PAGE_BYTES) as usize, part))
    })
}
