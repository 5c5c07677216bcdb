//! Making pages resident before they are used.

use super::{Attached, Memory, Mmu, Stop, VerbError};
use crate::space::{Loads, Lock, Segment, SpaceError};
use alloc::vec::Vec;
use memobj_core::address::{PageSize, VirtAddr};
use memobj_core::prot::{Access, Prot};

const PAGE: u64 = PageSize::SMALL.bytes();

/// How the page of a segment is brought in when nobody says for what: private ones that can be stored to are copied.
fn usual(segment: &Segment) -> Access {
    if segment.attributes.is_private_writable() { Access::Write } else { Access::Read }
}

impl<M: Memory, U: Mmu> Attached<'_, M, U> {
    /// Makes the `length` bytes at `start` resident as `access` would, upward until that fails.
    ///
    /// The protection has to be stated: what can be loaded only because it can be stored to does not count.
    pub(super) fn populate(&mut self, start: VirtAddr, length: u64, access: Access) -> Result<(), VerbError> {
        let out = SpaceError::OutOfRange { start, length };
        if !start.0.is_multiple_of(PAGE) {
            return Err(SpaceError::Misaligned { value: start.0 }.into());
        }
        let rounded = length.checked_next_multiple_of(PAGE).ok_or(out)?;
        let end = start.0.checked_add(rounded).ok_or(out)?;
        let mut at = start;
        while at.0 < end {
            let segment = self.space.lookup(at).ok_or(SpaceError::Hole { address: at })?;
            if !segment.attributes.prot.allows(access) {
                return Err(SpaceError::WrongKind { start: segment.start }.into());
            }
            self.bring_in(&segment, at, access)?;
            at.0 += PAGE;
        }
        Ok(())
    }

    /// Makes what was just locked resident, until that fails.
    pub(super) fn populate_locked(&mut self, start: VirtAddr, length: u64) -> Result<(), VerbError> {
        // The lock was accepted, so the range does not wrap, or is empty.
        let first = start.0 - start.0 % PAGE;
        let end =
            length.checked_add(start.0 - first).and_then(|bytes| first.checked_add(bytes)).unwrap_or(first);
        for part in self.parts(first, end) {
            if part.attributes.lock == Lock::Locked {
                self.populate_part(&part)?;
            }
        }
        Ok(())
    }

    /// Makes what can be made so resident; a page that cannot be leaves the rest of its segment as it is.
    pub(super) fn populate_all(&mut self, start: VirtAddr, length: u64) {
        for part in self.parts(start.0, start.0.saturating_add(length)) {
            if part.attributes.lock != Lock::OnFault {
                // Whoever needs the page will be told.
                let _ = self.populate_part(&part);
            }
        }
    }

    fn parts(&self, start: u64, end: u64) -> Vec<Segment> {
        let range = self.space.iter_range(VirtAddr(start), end - start);
        range.filter_map(|segment| segment.part(VirtAddr(start), VirtAddr(end))).collect()
    }

    fn populate_part(&mut self, part: &Segment) -> Result<(), VerbError> {
        let limits = self.space.limits();
        // A protection key keeps the kernel out, too.
        let is_kept_out = limits.loads == Loads::ImpliedByStores
            && !limits.effective(part.attributes.prot).allows(Access::Read);
        if part.attributes.prot == Prot::NONE || is_kept_out {
            return Err(SpaceError::NotResident { address: part.start }.into());
        }
        let mut at = part.start;
        while at < part.end() {
            self.bring_in(part, at, usual(part))?;
            at.0 += PAGE;
        }
        Ok(())
    }

    fn bring_in(&mut self, segment: &Segment, address: VirtAddr, access: Access) -> Result<(), VerbError> {
        match self.make_present(segment, address, access) {
            Ok(_) => Ok(()),
            Err(Stop::Trap(_)) => Err(SpaceError::NotResident { address }.into()),
            Err(stop) => Err(VerbError::Stop(stop)),
        }
    }
}
