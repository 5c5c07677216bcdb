//! Locking segments.

use super::index::{PAGE, round_up};
use super::{AddressSpace, Attributes, Change, Lock, Segment, SpaceError};
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;

impl AddressSpace {
    /// Locks the pages of the `length` bytes at `start`, which need not be aligned.
    ///
    /// Upward until there is a hole; what lies below it stays locked. The host makes the pages resident afterwards,
    /// if there was no error; locks do not nest.
    pub fn lock(
        &mut self,
        start: VirtAddr,
        length: u64,
        lock: Lock,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        let limit = self.limits.locked_bytes;
        if lock != Lock::Unlocked && limit == 0 {
            return Err(SpaceError::LockForbidden);
        }
        let first = start.0 - start.0 % PAGE;
        // As on Linux, what cannot be rounded up comes to nothing.
        let pages = length.checked_add(start.0 - first).and_then(round_up).unwrap_or(0);
        let end = first.checked_add(pages);
        if lock != Lock::Unlocked {
            let parts = self.parts(first, end.unwrap_or(u64::MAX));
            let already: u64 = parts.filter(is_locked).map(|part| part.length).sum();
            self.check_locked(pages.saturating_sub(already))?;
        }
        let end = end.ok_or(SpaceError::OutOfRange { start, length })?;
        self.walk(first, end, changes, |space, part, changes| space.lock_part(part, lock, changes))
    }

    /// Locks or unlocks all segments, and settles what becomes of those that are mapped later.
    pub fn lock_all(
        &mut self,
        now: Option<Lock>,
        later: Lock,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        let locks = later != Lock::Unlocked || now.is_some_and(|now| now != Lock::Unlocked);
        let limit = self.limits.locked_bytes;
        if locks && limit == 0 {
            return Err(SpaceError::LockForbidden);
        }
        if now.is_some_and(|now| now != Lock::Unlocked) && self.usage.address_bytes > limit {
            return Err(SpaceError::LockLimit { limit });
        }
        self.lock_later = later;
        let Some(now) = now else { return Ok(()) };
        for part in self.collect(0, u64::MAX) {
            self.lock_part(part, now, changes)?;
        }
        Ok(())
    }

    fn lock_part(&mut self, part: Segment, lock: Lock, changes: &mut Vec<Change>) -> Result<(), SpaceError> {
        self.change(part, Attributes { lock, ..part.attributes }, changes)
    }
}

fn is_locked(part: &Segment) -> bool {
    part.attributes.lock != Lock::Unlocked
}
