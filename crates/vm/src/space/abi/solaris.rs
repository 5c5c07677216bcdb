//! Solaris and illumos.

use super::super::{
    Charge, Growth, Lock, MapRequest, ObjectId, ObjectView, OnExec, OnFork, SegmentContent, Sharing,
    SpaceError,
};
use super::{Errno, Numbers};
use memobj_core::address::PageSize;

/// The flags of mmap(2).
pub const NUMBERS: Numbers = Numbers {
    prot_read: 1,
    prot_write: 2,
    prot_execute: 4,
    type_mask: 0xf,
    file: 0,
    anonymous: 0x100,
    shared: 1,
    private: 2,
    copy: 0,
    fixed: 0x10,
    fixed_free: 0,
    free_needs_fixed: 0,
    low: 0x80,
    uncounted: 0x40,
    grows_down: 0,
    locked: 0,
    inherit: 0,
};

/// Translates mmap(2), with the errors that illumos finds before it looks for room, in its order: the descriptor, the
/// type, the length and the offset, a descriptor that anonymous memory must not have.
pub fn mmap(
    (address, length): (u64, u64),
    prot: u32,
    flags: u32,
    (object, offset): (Option<ObjectView>, u64),
    memory: ObjectId,
) -> Result<MapRequest, Errno> {
    let anonymous = NUMBERS.has(flags, NUMBERS.anonymous);
    if !anonymous && object.is_none() {
        return Err(Errno::EBADF);
    }
    let sharing = match flags & NUMBERS.type_mask {
        1 => Ok::<_, SpaceError>(Sharing::Shared),
        2 => Ok(Sharing::Private),
        _ => return Err(Errno::EINVAL),
    };
    if length == 0 || !offset.is_multiple_of(PageSize::SMALL.bytes()) {
        return Err(Errno::EINVAL);
    }
    let source = match (anonymous, object) {
        (true, Some(_)) => return Err(Errno::EINVAL),
        (true, None) => SegmentContent::Anonymous { memory },
        (false, Some(view)) => SegmentContent::Object { view, offset },
        (false, None) => return Err(Errno::EBADF),
    };
    let charge = if flags & NUMBERS.uncounted != 0 { Charge::Uncounted } else { Charge::Counted };
    Ok(MapRequest {
        length,
        place: NUMBERS.place(flags, address),
        source,
        prot: NUMBERS.prot(prot),
        sharing,
        lock: Lock::Unlocked,
        growth: Growth::Fixed,
        charge,
        on_fork: OnFork::Inherit,
        on_exec: OnExec::Drop,
    })
}
