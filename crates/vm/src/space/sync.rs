//! Which segments are to be written back.

use super::index::{check_aligned, round_up};
use super::{AddressSpace, Change, Lock, Sharing, SpaceError};
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

/// How stored bytes are to reach their objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMode {
    /// Some time; nothing is done now.
    Later,
    /// Now.
    Now,
}

/// Whether copies of objects are to be brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidate {
    /// No.
    No,
    /// Yes, which is refused where pages are locked.
    Yes,
}

impl AddressSpace {
    /// Reports what of the `length` bytes at `start`, rounded up to pages, is to be written back.
    ///
    /// Goes on past holes, and reports one at the end, unless it is only to be done later. Nothing changes.
    pub fn sync(
        &self,
        start: VirtAddr,
        length: u64,
        mode: SyncMode,
        invalidate: Invalidate,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        check_aligned(start.0)?;
        // As on Linux, what cannot be rounded up comes to nothing.
        let end = start.0.checked_add(round_up(length).unwrap_or(0));
        let end = end.ok_or(SpaceError::OutOfRange { start, length })?;
        let (mut at, mut hole) = (start.0, None);
        for part in self.parts(start.0, end) {
            if part.start.0 != at {
                hole = hole.or(Some(at));
                if (mode, invalidate) == (SyncMode::Later, Invalidate::No) {
                    break;
                }
            }
            if invalidate == Invalidate::Yes && part.attributes.lock != Lock::Unlocked {
                return Err(SpaceError::IsLocked { start: part.start });
            }
            // What nobody could store to through this segment needs no writing back.
            let stores = part.attributes.max_prot.contains(Prot::WRITE);
            if mode == SyncMode::Now && part.attributes.sharing == Sharing::Shared && stores {
                changes.push(Change::Synced(part));
            }
            at = part.end().0;
        }
        match hole.or((at < end).then_some(at)) {
            Some(address) => Err(SpaceError::Hole { address: VirtAddr(address) }),
            None => Ok(()),
        }
    }
}
