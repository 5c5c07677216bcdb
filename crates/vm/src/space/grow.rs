//! Stacks that become longer.

use super::index::PAGE;
use super::{AddressSpace, Change, Growth, Limited, Lock, Segment, SpaceError, Usage};
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

impl AddressSpace {
    /// Lets the stack above `address`, where nothing is mapped, reach down to it.
    ///
    /// Refused with nothing changed if there is none, if a segment below it that can be accessed would be nearer
    /// than [`Limits::guard_bytes`](super::Limits::guard_bytes), or at a limit.
    pub fn grow(&mut self, address: VirtAddr, changes: &mut Vec<Change>) -> Result<Segment, SpaceError> {
        let start = VirtAddr(address.0 - address.0 % PAGE);
        let hole = SpaceError::Hole { address };
        let stack = self.next(address).filter(|above| above.attributes.growth == Growth::Down);
        let stack = stack.filter(|above| start < above.start).ok_or(hole)?;
        if start < self.limits.low {
            return Err(SpaceError::TooLow { start });
        }
        if let Some(below) = self.before(stack.start.0)
            && below.attributes.growth == Growth::Fixed
            && below.attributes.prot != Prot::NONE
            && start.0 - below.end().0 < self.limits.guard_bytes
        {
            return Err(SpaceError::Taken { start: below.start, length: below.length });
        }
        if stack.end().0 - start.0 > self.limits.stack_bytes {
            return Err(SpaceError::LimitReached { what: Limited::Stack, limit: self.limits.stack_bytes });
        }
        let piece = Segment { start, length: stack.start.0 - start.0, ..stack };
        if stack.attributes.lock != Lock::Unlocked {
            self.check_locked(piece.length)?;
        }
        self.check_usage(Usage::of(&piece), Usage::default())?;
        self.put(piece);
        changes.push(Change::Mapped(piece));
        Ok(piece)
    }
}
