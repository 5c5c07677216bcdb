//! Changing objects: writing, cutting, extending, punching holes.
//!
//! Whatever needs a page that is not here is refused before it changes anything, with the page it needs; the host
//! has it supplied and tries again.

use super::super::{Frames, Notice, ObjectPage};
use super::{Blocked, ObjectTable, PAGE, from_page, zero};
use crate::address::PageRange;
use crate::space::ObjectId;
use alloc::vec::Vec;

impl<F: Frames> ObjectTable<F> {
    /// Reads bytes at `offset`, up to the end of the object, and says how many.
    pub fn read_at(
        &mut self,
        frames: &mut F,
        object: ObjectId,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, Blocked<F::Frame>> {
        let length = self.length(object).unwrap_or(0).saturating_sub(offset).min(into.len() as u64) as usize;
        let mut done = 0;
        while done < length {
            let (page, from, count) = piece(offset + done as u64, (length - done) as u64);
            match self.own_page(frames, object, page) {
                ObjectPage::Here(frame) => frames.read(frame, from, &mut into[done..done + count]),
                blocked => return Err(blocked),
            }
            done += count;
        }
        Ok(length)
    }

    /// Writes `bytes` at `offset`; the object becomes longer if it ends before their end.
    pub fn write_at(
        &mut self,
        frames: &mut F,
        object: ObjectId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Blocked<F::Frame>> {
        let old = self.length(object).ok_or(ObjectPage::Failed)?;
        let end = offset.checked_add(bytes.len() as u64).ok_or(ObjectPage::Beyond)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let last = PAGE.pages_for(old.min(end));
        for page in offset / PAGE.bytes()..last {
            self.page_to_change(frames, object, page)?;
        }
        if offset > old {
            self.zero_tail(frames, object, offset)?;
        }
        if let Some(entry) = self.objects.get_mut(&object) {
            entry.length = old.max(end);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (page, to, count) = piece(offset + done as u64, (bytes.len() - done) as u64);
            let frame = self.page_to_change(frames, object, page)?;
            frames.write(frame, to, &bytes[done..done + count]);
            done += count;
        }
        Ok(())
    }

    /// Cuts or extends the object to `length` bytes.
    pub fn set_length(
        &mut self,
        frames: &mut F,
        object: ObjectId,
        length: u64,
    ) -> Result<(), Blocked<F::Frame>> {
        let old = self.length(object).ok_or(ObjectPage::Failed)?;
        if length > old {
            self.zero_tail(frames, object, u64::MAX)?;
        } else {
            self.cut(frames, object, length)?;
        }
        if let Some(entry) = self.objects.get_mut(&object) {
            entry.length = length;
            entry.supplied_below = entry.supplied_below.min(length);
        }
        Ok(())
    }

    fn cut(&mut self, frames: &mut F, object: ObjectId, length: u64) -> Result<(), Blocked<F::Frame>> {
        let first = PAGE.pages_for(length);
        self.push_from(frames, object, length / PAGE.bytes())?;
        let Some(entry) = self.objects.get_mut(&object) else { return Ok(()) };
        for frame in entry.pages.split_off(&first).into_values() {
            frames.release(frame);
        }
        if let Some(&frame) = entry.pages.get(&(length / PAGE.bytes())) {
            zero(frames, frame, length % PAGE.bytes(), PAGE.bytes());
        }
        self.notices.push(Notice::Cut(object, from_page(first)));
        Ok(())
    }

    /// Zeros what was stored past the end, in the last page, as far as `end`.
    fn zero_tail(&mut self, frames: &mut F, object: ObjectId, end: u64) -> Result<(), Blocked<F::Frame>> {
        let length = self.length(object).unwrap_or(0);
        let page = length / PAGE.bytes();
        let present = self.objects.get(&object).is_some_and(|entry| entry.pages.contains_key(&page));
        if length.is_multiple_of(PAGE.bytes()) || !present {
            return Ok(());
        }
        let frame = self.page_to_change(frames, object, page)?;
        zero(frames, frame, length % PAGE.bytes(), end.saturating_sub(page * PAGE.bytes()));
        Ok(())
    }

    /// What writing back does to the last page: what lies past the end of the object goes.
    pub fn written_back(&mut self, frames: &mut F, object: ObjectId) -> Result<(), Blocked<F::Frame>> {
        self.zero_tail(frames, object, u64::MAX)
    }

    /// Makes the bytes `[start, end)` zeros; the length stays. Private copies of their pages stay, too.
    pub fn punch(
        &mut self,
        frames: &mut F,
        object: ObjectId,
        (start, end): (u64, u64),
    ) -> Result<(), Blocked<F::Frame>> {
        let length = self.length(object).unwrap_or(0);
        // What begins past the end is no part of the object; what passes it takes the rest of the last page along.
        let end = match end {
            _ if start >= length => return Ok(()),
            _ if end > length => PAGE.pages_for(length) * PAGE.bytes(),
            end => end,
        };
        let mut pages: Vec<(F::Frame, u64, u64)> = Vec::new();
        let mut at = start;
        while at < end {
            let (page, from, count) = piece(at, end - at);
            let frame = self.page_to_change(frames, object, page)?;
            pages.push((frame, from as u64, (from + count) as u64));
            at += count as u64;
        }
        for (frame, from, to) in pages {
            zero(frames, frame, from, to);
        }
        let range =
            PageRange { start: start / PAGE.bytes(), end: PAGE.pages_for(end).max(start / PAGE.bytes()) };
        self.notices.push(Notice::Replaced(object, range));
        Ok(())
    }
}

/// The part of `length` bytes at `offset` that lies in the first page: page, byte in it, count.
fn piece(offset: u64, length: u64) -> (u64, usize, usize) {
    let from = offset % PAGE.bytes();
    (offset / PAGE.bytes(), from as usize, length.min(PAGE.bytes() - from) as usize)
}
