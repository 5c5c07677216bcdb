//! Taking segments away.

use super::{AddressSpace, MapError, Segment};
use crate::address::VirtAddr;
use alloc::vec::Vec;

impl AddressSpace {
    /// Frees the `length` bytes at `start` and returns the pieces that were there, lowest first.
    ///
    /// Holes in the range do not matter. Segments that reach out of it are split, which can make one segment
    /// more than before and be refused for that. On an error nothing has changed.
    pub fn unmap(&mut self, start: VirtAddr, length: u64) -> Result<Vec<Segment>, MapError> {
        let end = self.check(start, length)?;
        let removed = self.cut(start.0, end);
        self.settle(start.0, end, removed)
    }
}
