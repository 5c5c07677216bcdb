//! Changing what segments allow.

use super::index::{check_aligned, round_up};
use super::{AddressSpace, Attributes, Change, Growth, Segment, SpaceError, Usage};
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

/// Where a protection starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectFrom {
    /// Where the caller says.
    Start,
    /// Where the stack starts that the caller's range lies in.
    StackStart,
}

impl AddressSpace {
    /// Gives the `length` bytes at `start`, rounded up to pages, the protection `prot`, or finds what was wrong with
    /// its bits, which is looked at after the range.
    ///
    /// Segment by segment, upward. If it is refused at the first hole, at a segment that cannot have the protection,
    /// or at a limit, what lies below has changed already: `changes` has it. A hole at the start changes nothing.
    pub fn protect(
        &mut self,
        start: VirtAddr,
        length: u64,
        prot: Result<Prot, SpaceError>,
        from: ProtectFrom,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        check_aligned(start.0)?;
        if length == 0 {
            return Ok(());
        }
        let end =
            round_up(length).filter(|&length| length > 0).and_then(|length| start.0.checked_add(length));
        let end = end.ok_or(SpaceError::OutOfRange { start, length })?;
        let prot = prot?;
        let start = match from {
            ProtectFrom::Start => start.0,
            ProtectFrom::StackStart => self.stack_start(start, end)?,
        };
        self.walk(start, end, changes, |space, part, changes| space.protect_part(part, prot, changes))
    }

    fn stack_start(&self, start: VirtAddr, end: u64) -> Result<u64, SpaceError> {
        match self.next(start) {
            Some(segment) if segment.start.0 >= end => Err(SpaceError::Hole { address: start }),
            Some(segment) if segment.attributes.growth == Growth::Down => Ok(segment.start.0),
            Some(segment) => Err(SpaceError::WrongKind { start: segment.start }),
            None => Err(SpaceError::Hole { address: start }),
        }
    }

    fn protect_part(
        &mut self,
        part: Segment,
        prot: Prot,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        let max_prot = part.attributes.max_prot;
        if !max_prot.contains(prot) {
            return Err(SpaceError::ProtDenied { start: part.start, max_prot });
        }
        let attributes = Attributes { prot, ..part.attributes };
        let after = Segment { attributes, ..part };
        let more = Usage::of(&after).minus(Usage::of(&part));
        self.check_usage(more, Usage::default())?;
        self.change(part, attributes, changes)
    }

    /// Gives `part` other attributes, and says so.
    pub(super) fn change(
        &mut self,
        part: Segment,
        attributes: Attributes,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        let after = Segment { attributes, ..part };
        self.alter(part, after)?;
        changes.push(Change::Changed { before: part, after });
        Ok(())
    }

    /// Does `verb` to the parts in `[start, end)`, upward, until it is refused or there is a hole.
    pub(super) fn walk(
        &mut self,
        start: u64,
        end: u64,
        changes: &mut Vec<Change>,
        mut verb: impl FnMut(&mut Self, Segment, &mut Vec<Change>) -> Result<(), SpaceError>,
    ) -> Result<(), SpaceError> {
        let mut at = start;
        for part in self.collect(start, end) {
            if part.start.0 != at {
                break;
            }
            verb(self, part, changes)?;
            at = part.end().0;
        }
        if at < end { Err(SpaceError::Hole { address: VirtAddr(at) }) } else { Ok(()) }
    }
}
