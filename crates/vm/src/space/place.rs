//! Choosing addresses.

use super::index::{PAGE, check_aligned, round_up};
use super::{AddressSpace, Growth, Place, Segment, SpaceError};
use memobj_core::address::VirtAddr;

/// One past the addresses that [`Place::Low`] takes.
const LOW_END: u64 = 1 << 31;

impl AddressSpace {
    /// Where `length` bytes, a multiple of pages, would be placed.
    ///
    /// Without an address of the caller's this is the highest range that is free and leaves free what lies below a
    /// stack.
    pub fn choose(&self, place: Place, length: u64) -> Result<VirtAddr, SpaceError> {
        let high = self.limits.high.0;
        if length > high {
            return Err(SpaceError::TooLong { length });
        }
        match place {
            Place::Anywhere => self.highest(high, length),
            Place::Low => self.highest(high.min(LOW_END), length),
            Place::Hint(hint) => match self.hinted(hint.0, length) {
                Some(start) => Ok(start),
                None => self.highest(high, length),
            },
            Place::Fixed(start) => self.check_fixed(start, length),
            Place::FixedFree(start) => {
                self.check_fixed(start, length)?;
                match self.parts(start.0, start.0 + length).next() {
                    Some(part) => Err(SpaceError::Taken { start: part.start, length: part.length }),
                    None => Ok(start),
                }
            }
        }
    }

    fn check_fixed(&self, start: VirtAddr, length: u64) -> Result<VirtAddr, SpaceError> {
        if start.0 > self.limits.high.0 - length {
            return Err(SpaceError::OutOfRange { start, length });
        }
        check_aligned(start.0)?;
        if start < self.limits.fixed_low { Err(SpaceError::TooLow { start }) } else { Ok(start) }
    }

    /// The page of `hint`, if there is room; one below the lowest address stands for that.
    fn hinted(&self, hint: u64, length: u64) -> Option<VirtAddr> {
        let start = hint - hint % PAGE;
        if start == 0 || start.max(self.limits.low.0) > self.limits.high.0 - length {
            return None;
        }
        let start = start.max(self.limits.low.0);
        let free_to = self.next(VirtAddr(start)).map_or(self.limits.high.0, |next| self.guarded_start(&next));
        (start + length <= free_to).then_some(VirtAddr(start))
    }

    fn highest(&self, high: u64, length: u64) -> Result<VirtAddr, SpaceError> {
        let mut high = high;
        loop {
            let start = self.tree.highest_gap(self.limits.low.0, high, length);
            let start = start.ok_or(SpaceError::NoRoom { length })?;
            let end = start + length;
            match self.next(VirtAddr(end)).map(|next| self.guarded_start(&next)) {
                Some(guarded) if guarded < end => high = guarded,
                _ => return Ok(VirtAddr(start)),
            }
        }
    }

    /// Where `segment` starts with what has to stay free below it.
    fn guarded_start(&self, segment: &Segment) -> u64 {
        match segment.attributes.growth {
            Growth::Down => segment.start.0.saturating_sub(self.limits.guard_bytes),
            Growth::Fixed => segment.start.0,
        }
    }

    /// Whether `length` bytes at `start` are free and inside the limits.
    pub(super) fn is_free(&self, start: u64, length: u64) -> bool {
        let end = start.checked_add(length).filter(|&end| end <= self.limits.high.0);
        end.is_some_and(|end| self.parts(start, end).next().is_none())
    }
}

/// The length of what is to be mapped, in whole pages.
pub(super) fn mapped_length(length: u64) -> Result<u64, SpaceError> {
    match round_up(length) {
        Some(0) => Err(SpaceError::Empty),
        Some(length) => Ok(length),
        None => Err(SpaceError::TooLong { length }),
    }
}
