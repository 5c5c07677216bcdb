//! Placing segments.

use super::index::{check_aligned, check_length};
use super::{AddressSpace, MapError, Segment, Unplaced};
use crate::address::VirtAddr;
use alloc::vec::Vec;

impl AddressSpace {
    /// Places `segment` at its address.
    ///
    /// Refused with [`MapError::Overlap`] if any of its addresses is taken; on an error nothing has changed.
    pub fn map(&mut self, segment: Segment) -> Result<(), MapError> {
        let end = self.check_segment(&segment)?;
        if let Some(other) = self.overlapping(segment.start.0, end).next() {
            return Err(MapError::Overlap { start: other.start, length: other.length });
        }
        self.place(segment, end).map(drop)
    }

    /// Places `segment` at its address instead of what is there, and returns the pieces that it replaced.
    ///
    /// On an error nothing has changed.
    pub fn map_replacing(&mut self, segment: Segment) -> Result<Vec<Segment>, MapError> {
        let end = self.check_segment(&segment)?;
        self.place(segment, end)
    }

    /// Places `wanted` at the start of the shortest gap that is long enough, the lowest of several, and
    /// returns where. On an error nothing has changed.
    pub fn map_anywhere(&mut self, wanted: Unplaced) -> Result<VirtAddr, MapError> {
        check_unplaced(&wanted)?;
        let length = wanted.length;
        let gap = self.gaps.range((length, 0)..).next();
        let &(_, start) = gap.ok_or(MapError::NoGap { length })?;
        self.place(wanted.at(VirtAddr(start)), start + length)?;
        Ok(VirtAddr(start))
    }

    fn place(&mut self, segment: Segment, end: u64) -> Result<Vec<Segment>, MapError> {
        let removed = self.cut(segment.start.0, end);
        self.join(segment);
        self.settle(segment.start.0, end, removed)
    }

    fn check_segment(&self, segment: &Segment) -> Result<u64, MapError> {
        let end = self.check(segment.start, segment.length)?;
        check_unplaced(&segment.unplaced())?;
        Ok(end)
    }
}

fn check_unplaced(wanted: &Unplaced) -> Result<(), MapError> {
    let Unplaced { length, offset, .. } = *wanted;
    check_length(length)?;
    check_aligned(offset.0)?;
    match offset.checked_add(length) {
        Some(_) => Ok(()),
        None => Err(MapError::OffsetTooLarge { offset, length }),
    }
}
