//! The form of a table of flags.

use super::super::{Growth, Place, Sharing};
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

/// The flags of one system. A number that is 0 is not known there, but for `private` and `file`, which can be what
/// is meant when nothing is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each field is the flag of its name")]
pub struct Numbers {
    pub prot_read: u32,
    pub prot_write: u32,
    pub prot_execute: u32,
    pub type_mask: u32,
    pub file: u32,
    pub anonymous: u32,
    pub shared: u32,
    pub private: u32,
    pub copy: u32,
    pub fixed: u32,
    /// Together with `fixed` if `free_needs_fixed`.
    pub fixed_free: u32,
    pub free_needs_fixed: u32,
    pub low: u32,
    pub uncounted: u32,
    pub grows_down: u32,
    pub locked: u32,
    pub inherit: u32,
}

/// What a segment's flags are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Who sees the stores.
    pub sharing: Sharing,
    /// Whether an object is behind it.
    pub object: super::super::Backing,
    /// Where it was placed.
    pub place: Place,
    /// Whether it grows.
    pub growth: Growth,
}

impl Numbers {
    /// The protection that `bits` stand for; others are ignored.
    pub const fn prot(&self, bits: u32) -> Prot {
        let mut prot = Prot::NONE;
        if bits & self.prot_read != 0 {
            prot = prot.union(Prot::READ);
        }
        if bits & self.prot_write != 0 {
            prot = prot.union(Prot::WRITE);
        }
        if bits & self.prot_execute != 0 {
            prot = prot.union(Prot::EXECUTE);
        }
        prot
    }

    /// The bits that stand for `prot`.
    pub const fn prot_bits(&self, prot: Prot) -> u32 {
        let mut bits = 0;
        if prot.contains(Prot::READ) {
            bits |= self.prot_read;
        }
        if prot.contains(Prot::WRITE) {
            bits |= self.prot_write;
        }
        if prot.contains(Prot::EXECUTE) {
            bits |= self.prot_execute;
        }
        bits
    }

    /// Whether all bits of `flag` are in `flags`, and the system has it.
    pub const fn has(&self, flags: u32, flag: u32) -> bool {
        flag != 0 && flags & flag == flag
    }

    /// Where `flags` place what was asked for at `address`.
    pub const fn place(&self, flags: u32, address: u64) -> Place {
        let free = self.has(flags, self.fixed_free) && flags & self.free_needs_fixed == self.free_needs_fixed;
        if free {
            Place::FixedFree(VirtAddr(address))
        } else if self.has(flags, self.fixed) {
            Place::Fixed(VirtAddr(address))
        } else if self.has(flags, self.low) {
            Place::Low
        } else if address != 0 {
            Place::Hint(VirtAddr(address))
        } else {
            Place::Anywhere
        }
    }

    /// The flags that stand for `taken`; a sharing that the system does not know is `None`.
    pub fn flags(&self, taken: Taken) -> Option<u32> {
        let sharing = match taken.sharing {
            Sharing::Shared => self.shared,
            Sharing::Private => self.private,
            Sharing::Copy if self.copy != 0 => self.copy,
            Sharing::Copy => return None,
        };
        let object = match taken.object {
            super::super::Backing::Object { .. } => self.file,
            _ => self.anonymous,
        };
        let place = match taken.place {
            Place::Anywhere | Place::Hint(_) => 0,
            Place::Low => self.low,
            Place::Fixed(_) => self.fixed,
            Place::FixedFree(_) => self.fixed_free | self.free_needs_fixed,
        };
        let growth = if taken.growth == Growth::Down { self.grows_down } else { 0 };
        Some(sharing | object | place | growth)
    }
}
