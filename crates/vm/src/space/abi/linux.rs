//! Linux on x86-64 and riscv64.

use super::super::{
    Advice, Charge, Dump, Growth, Guard, Lock, MapRequest, ObjectId, ObjectView, OnExec, OnFork, Pattern,
    ProtectFrom, RemapTo, SegmentContent, Sharing, SpaceError,
};
use super::{Errno, Numbers};
use memobj_core::address::{PageSize, VirtAddr};
use memobj_core::prot::{Access, Prot};

/// The flags of mmap(2).
pub const NUMBERS: Numbers = Numbers {
    prot_read: 1,
    prot_write: 2,
    prot_execute: 4,
    type_mask: 0xf,
    file: 0,
    anonymous: 0x20,
    shared: 1,
    private: 2,
    copy: 0,
    fixed: 0x10,
    fixed_free: 0x10_0000,
    free_needs_fixed: 0,
    low: 0x40,
    uncounted: 0x4000,
    grows_down: 0x100,
    locked: 0x2000,
    inherit: 0,
};

/// MAP_SHARED_VALIDATE: shared, and flags that are not known are an error.
pub const SHARED_VALIDATE: u32 = 3;
/// MAP_DROPPABLE: anonymous memory that may be lost.
pub const DROPPABLE: u32 = 8;
/// MAP_POPULATE: make the pages resident.
pub const POPULATE: u32 = 0x8000;
/// MAP_NONBLOCK: do not, whatever MAP_POPULATE says.
pub const NONBLOCK: u32 = 0x1_0000;
/// MAP_HUGETLB: huge pages from the pool of the administrator.
pub const HUGETLB: u32 = 0x4_0000;
/// What MAP_SHARED_VALIDATE lets pass. The sizes of huge pages are among it, and with them bits 26 to 30.
const LEGACY: u32 = 0x7c07_f9f3;
/// PROT_SEM: valid, and without meaning.
const PROT_SEM: u32 = 8;
const PROT_GROWSDOWN: u32 = 0x100_0000;
const PROT_GROWSUP: u32 = 0x200_0000;

/// The arguments of mmap(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mmap {
    /// The address or hint.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// PROT_*.
    pub prot: u32,
    /// MAP_*.
    pub flags: u32,
    /// What the descriptor stands for, if it is open for anything.
    pub object: Option<ObjectView>,
    /// The object's byte.
    pub offset: u64,
    /// The name of the object that shared anonymous memory becomes.
    pub memory: ObjectId,
}

/// Whether the pages of a new segment are made resident at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Populate {
    /// They are not.
    No,
    /// They are, as far as that goes: failures do not count.
    Yes,
}

/// Translates mmap(2), and finds the errors that Linux looks for before the length.
pub fn mmap(call: &Mmap) -> Result<(MapRequest, Populate), Errno> {
    let Mmap { address, length, prot, flags, object, offset, memory } = *call;
    if !offset.is_multiple_of(PageSize::SMALL.bytes()) {
        return Err(Errno::EINVAL);
    }
    let has = |flag| NUMBERS.has(flags, flag);
    let source = match (has(NUMBERS.anonymous), object) {
        (true, _) => SegmentContent::Anonymous { memory },
        (false, Some(view)) => SegmentContent::Object { view, offset },
        (false, None) => return Err(Errno::EBADF),
    };
    if has(HUGETLB) {
        return Err(huge_error(flags));
    }
    let droppable = has(NUMBERS.anonymous) && flags & NUMBERS.type_mask == DROPPABLE;
    let request = MapRequest {
        length,
        place: NUMBERS.place(flags, address),
        source,
        prot: NUMBERS.prot(prot),
        sharing: sharing(flags),
        lock: if has(NUMBERS.locked) { Lock::Locked } else { Lock::Unlocked },
        growth: if has(NUMBERS.grows_down) { Growth::Down } else { Growth::Fixed },
        charge: if droppable || has(NUMBERS.uncounted) { Charge::Uncounted } else { Charge::Counted },
        on_fork: if droppable { OnFork::Wipe } else { OnFork::Inherit },
        on_exec: OnExec::Drop,
    };
    let populate = flags & (POPULATE | NONBLOCK) == POPULATE;
    Ok((request, if populate { Populate::Yes } else { Populate::No }))
}

/// There are no huge pages to be had: of an anonymous mapping the size is looked at first.
fn huge_error(flags: u32) -> Errno {
    let anonymous = flags & NUMBERS.anonymous != 0;
    match flags >> 26 {
        0 | 21 | 30 if anonymous => Errno::ENOMEM,
        _ => Errno::EINVAL,
    }
}

fn sharing(flags: u32) -> Result<Sharing, SpaceError> {
    let anonymous = flags & NUMBERS.anonymous != 0;
    match flags & NUMBERS.type_mask {
        1 => Ok(Sharing::Shared),
        2 => Ok(Sharing::Private),
        SHARED_VALIDATE if anonymous => Err(SpaceError::BadFlags),
        SHARED_VALIDATE if flags & !LEGACY != 0 => Err(SpaceError::UnknownFlags),
        SHARED_VALIDATE => Ok(Sharing::Shared),
        DROPPABLE if anonymous => Ok(Sharing::Private),
        _ => Err(SpaceError::BadFlags),
    }
}

/// Translates the protection of mprotect(2). Bits that are none are an error that Linux finds after the range; the
/// outer error comes before.
pub fn mprotect(bits: u32) -> Result<(Result<Prot, SpaceError>, ProtectFrom), Errno> {
    let from = match bits & (PROT_GROWSDOWN | PROT_GROWSUP) {
        0 => ProtectFrom::Start,
        PROT_GROWSDOWN => ProtectFrom::StackStart,
        // Nothing grows upward here.
        _ => return Err(Errno::EINVAL),
    };
    let known = 7 | PROT_SEM | PROT_GROWSDOWN;
    let prot = if bits & !known == 0 { Ok(NUMBERS.prot(bits)) } else { Err(SpaceError::BadFlags) };
    Ok((prot, from))
}

/// Translates the flags and the new address of mremap(2).
pub const fn mremap(flags: u32, new_address: u64) -> Result<RemapTo, Errno> {
    let to = VirtAddr(new_address);
    match flags {
        0 => Ok(RemapTo::Same),
        1 => Ok(RemapTo::Anywhere),
        3 => Ok(RemapTo::Fixed(to)),
        5 => Ok(RemapTo::Keep(to)),
        7 => Ok(RemapTo::KeepFixed(to)),
        _ => Err(Errno::EINVAL),
    }
}

/// The flags and the new address of mremap(2) that stand for `to`.
pub const fn mremap_bits(to: RemapTo) -> (u32, u64) {
    match to {
        RemapTo::Same => (0, 0),
        RemapTo::Anywhere => (1, 0),
        RemapTo::Fixed(to) => (3, to.0),
        RemapTo::Keep(to) => (5, to.0),
        RemapTo::KeepFixed(to) => (7, to.0),
    }
}

/// What madvise(2) can be told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Madvise {
    /// This.
    Advise(Advice),
    /// To make pages resident, as this access would.
    Populate(Access),
}

/// The advice of madvise(2), by number.
pub const ADVICE: [(i32, Madvise); 25] = [
    (0, Madvise::Advise(Advice::Use(Pattern::Normal))),
    (1, Madvise::Advise(Advice::Use(Pattern::Random))),
    (2, Madvise::Advise(Advice::Use(Pattern::Sequential))),
    (3, Madvise::Advise(Advice::Hint)),
    (4, Madvise::Advise(Advice::DontNeed)),
    (8, Madvise::Advise(Advice::Free)),
    (9, Madvise::Advise(Advice::Remove)),
    (10, Madvise::Advise(Advice::DontFork)),
    (11, Madvise::Advise(Advice::DoFork)),
    (12, Madvise::Advise(Advice::Hint)),
    (13, Madvise::Advise(Advice::Hint)),
    (14, Madvise::Advise(Advice::Hint)),
    (15, Madvise::Advise(Advice::Hint)),
    (16, Madvise::Advise(Advice::Dump(Dump::Excluded))),
    (17, Madvise::Advise(Advice::Dump(Dump::Included))),
    (18, Madvise::Advise(Advice::WipeOnFork)),
    (19, Madvise::Advise(Advice::KeepOnFork)),
    (20, Madvise::Advise(Advice::Cold)),
    (21, Madvise::Advise(Advice::Cold)),
    (22, Madvise::Populate(Access::Read)),
    (23, Madvise::Populate(Access::Write)),
    (24, Madvise::Advise(Advice::DontNeedLocked)),
    (25, Madvise::Advise(Advice::Hint)),
    (102, Madvise::Advise(Advice::Guard(Guard::Guarded))),
    (103, Madvise::Advise(Advice::Guard(Guard::Open))),
];

/// Translates the advice of madvise(2).
pub fn madvise(number: i32) -> Result<Madvise, SpaceError> {
    let found = ADVICE.iter().find(|(known, _)| *known == number);
    found.map(|&(_, advice)| advice).ok_or(SpaceError::BadFlags)
}

/// The lowest number of madvise(2) that stands for `advice`.
pub fn madvise_number(advice: Madvise) -> Option<i32> {
    ADVICE.iter().find(|(_, known)| *known == advice).map(|&(number, _)| number)
}
