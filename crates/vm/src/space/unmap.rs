//! Taking segments away.

use super::index::check_aligned;
use super::{AddressSpace, Change, SpaceError};
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;

impl AddressSpace {
    /// Frees the `length` bytes at `start`, rounded up to pages.
    ///
    /// Holes in the range do not matter. Segments that reach out of it are split, which can make one segment more
    /// than before and be refused for that. On an error nothing has changed.
    pub fn unmap(
        &mut self,
        start: VirtAddr,
        length: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        check_aligned(start.0)?;
        match self.limits.high.0.checked_sub(start.0) {
            Some(room) if length <= room => {}
            _ => return Err(SpaceError::OutOfRange { start, length }),
        }
        if length == 0 {
            return Err(SpaceError::Empty);
        }
        // The limit is a multiple of pages, so this stays below it.
        let end = start.0 + length.next_multiple_of(super::index::PAGE);
        self.check_hole(start.0, end)?;
        self.clear(start.0, end, changes);
        Ok(())
    }

    /// Whether `[start, end)` can be freed: inside one segment that makes one more.
    pub(super) fn check_hole(&self, start: u64, end: u64) -> Result<(), SpaceError> {
        match self.lookup(VirtAddr(start)) {
            Some(around) if around.start.0 < start && end < around.end().0 => self.check_count(1),
            _ => Ok(()),
        }
    }

    /// Frees `[start, end)`.
    pub(super) fn clear(&mut self, start: u64, end: u64, changes: &mut Vec<Change>) {
        for part in self.collect(start, end) {
            self.take(part);
            changes.push(Change::Unmapped(part));
        }
    }
}
