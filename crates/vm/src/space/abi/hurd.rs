//! The GNU Hurd: the numbers of 4.3BSD, where the type is that of the object and private is what is meant when
//! nothing is said.

use super::super::{
    Charge, Growth, Lock, MapRequest, ObjectId, ObjectView, OnExec, OnFork, SegmentContent, Sharing,
    SpaceError,
};
use super::{Errno, Numbers};
use memobj_core::address::PageSize;

/// The flags of mmap.
pub const NUMBERS: Numbers = Numbers {
    prot_read: 4,
    prot_write: 2,
    prot_execute: 1,
    type_mask: 0xf,
    file: 1,
    anonymous: 2,
    shared: 0x10,
    private: 0,
    copy: 0x20,
    fixed: 0x100,
    fixed_free: 0x4000,
    free_needs_fixed: 0x100,
    low: 0x1000,
    uncounted: 0x2000,
    grows_down: 0,
    locked: 0,
    inherit: 0x800,
};

/// Translates mmap, with the Hurd's errors in its order: a hint has to be aligned, as offsets have; `EXCL` needs
/// `FIXED`; the object has to be of a known type and there.
///
/// `MAP_COPY` means here what its manual says: the bytes at the time of mapping.
pub fn mmap(
    (address, length): (u64, u64),
    prot: u32,
    flags: u32,
    (object, offset): (Option<ObjectView>, u64),
    memory: ObjectId,
) -> Result<MapRequest, Errno> {
    let page = PageSize::SMALL.bytes();
    if !address.is_multiple_of(page) || !offset.is_multiple_of(page) {
        return Err(Errno::EINVAL);
    }
    if flags & NUMBERS.fixed_free != 0 && flags & NUMBERS.fixed == 0 {
        return Err(Errno::EINVAL);
    }
    let source = match (flags & NUMBERS.type_mask, object) {
        (2, _) => SegmentContent::Anonymous { memory },
        (0 | 1, Some(view)) => SegmentContent::Object { view, offset },
        (0 | 1, None) => return Err(Errno::EBADF),
        _ => return Err(Errno::EINVAL),
    };
    let charge = if flags & NUMBERS.uncounted != 0 { Charge::Uncounted } else { Charge::Counted };
    let on_exec = if flags & NUMBERS.inherit != 0 { OnExec::Keep } else { OnExec::Drop };
    Ok(MapRequest {
        length,
        place: NUMBERS.place(flags, address),
        source,
        prot: NUMBERS.prot(prot),
        sharing: sharing(flags),
        lock: Lock::Unlocked,
        growth: Growth::Fixed,
        charge,
        on_fork: OnFork::Inherit,
        on_exec,
    })
}

fn sharing(flags: u32) -> Result<Sharing, SpaceError> {
    match (flags & NUMBERS.shared != 0, flags & NUMBERS.copy != 0) {
        (true, true) => Err(SpaceError::BadFlags),
        (true, false) => Ok(Sharing::Shared),
        (false, true) => Ok(Sharing::Copy),
        (false, false) => Ok(Sharing::Private),
    }
}
