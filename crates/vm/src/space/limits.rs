//! How much an address space may hold, and how much it does.

use super::{Charge, Growth, Lock, Segment};
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

/// What an address space may hold. Numbers of bytes that are `u64::MAX` are no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The lowest address that is chosen; rounded up to a page.
    pub low: VirtAddr,
    /// The lowest address that a caller may choose: below `low` for privileged ones.
    pub fixed_low: VirtAddr,
    /// One past the highest address; rounded down to a page.
    pub high: VirtAddr,
    /// The most segments.
    pub segments: usize,
    /// The most bytes of addresses (RLIMIT_AS).
    pub address_bytes: u64,
    /// The most bytes that are private and can be stored to, but for stacks (RLIMIT_DATA).
    pub data_bytes: u64,
    /// The most locked bytes (RLIMIT_MEMLOCK); 0 forbids to lock.
    pub locked_bytes: u64,
    /// The most bytes for which memory is set aside (overcommit).
    pub charged_bytes: u64,
    /// The most bytes of one stack (RLIMIT_STACK).
    pub stack_bytes: u64,
    /// What has to stay free below a stack.
    pub guard_bytes: u64,
    /// What kinds of access a page table can keep apart.
    pub loads: Loads,
}

/// What a processor lets pass for a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loads {
    /// Loads need [`Prot::READ`].
    Stated,
    /// Whatever may be stored to or executed can be loaded: x86-64 without protection keys.
    Implied,
    /// Whatever may be stored to can be loaded. What may only be executed cannot: x86-64 with protection keys, of which
    /// Linux takes one for such memory (pkeys(7)).
    ImpliedByStores,
}

impl Limits {
    /// No limits but these addresses: a host that has none of its own.
    pub const fn between(low: VirtAddr, high: VirtAddr) -> Self {
        Self {
            low,
            fixed_low: low,
            high,
            segments: usize::MAX,
            address_bytes: u64::MAX,
            data_bytes: u64::MAX,
            locked_bytes: u64::MAX,
            charged_bytes: u64::MAX,
            stack_bytes: 8 << 20,
            guard_bytes: 256 << 12,
            loads: Loads::Stated,
        }
    }
}

/// What is counted against the limits, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Addresses.
    pub address_bytes: u64,
    /// Private and writable, but for stacks.
    pub data_bytes: u64,
    /// Locked.
    pub locked_bytes: u64,
    /// With memory set aside.
    pub charged_bytes: u64,
}

impl Usage {
    /// What one segment uses.
    pub fn of(segment: &Segment) -> Self {
        let (attributes, bytes) = (&segment.attributes, segment.length);
        let writable = attributes.is_private_writable();
        let count = |counts| if counts { bytes } else { 0 };
        Self {
            address_bytes: bytes,
            data_bytes: count(writable && attributes.growth == Growth::Fixed),
            locked_bytes: count(attributes.lock != Lock::Unlocked),
            charged_bytes: count(writable && attributes.charge == Charge::Counted),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    fn each(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            address_bytes: with(self.address_bytes, other.address_bytes),
            data_bytes: with(self.data_bytes, other.data_bytes),
            locked_bytes: with(self.locked_bytes, other.locked_bytes),
            charged_bytes: with(self.charged_bytes, other.charged_bytes),
        }
    }
}

/// A kind of memory that is limited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Limited {
    /// [`Limits::address_bytes`].
    Addresses,
    /// [`Limits::data_bytes`].
    Data,
    /// [`Limits::charged_bytes`].
    Charged,
    /// [`Limits::stack_bytes`].
    Stack,
}

impl Limits {
    /// Whether `more` fits beside `usage`, and if not, which limit it passes; a limit that was passed before counts
    /// only for who wants more of its kind.
    pub(super) fn check(&self, usage: Usage, more: Usage) -> Result<(), (Limited, u64)> {
        let limits = [
            (Limited::Addresses, usage.address_bytes, more.address_bytes, self.address_bytes),
            (Limited::Data, usage.data_bytes, more.data_bytes, self.data_bytes),
            (Limited::Charged, usage.charged_bytes, more.charged_bytes, self.charged_bytes),
        ];
        let passed = |&&(_, used, more, limit): &&(Limited, u64, u64, u64)| {
            more > 0 && used.checked_add(more).is_none_or(|all| all > limit)
        };
        match limits.iter().find(passed) {
            Some(&(what, _, _, limit)) => Err((what, limit)),
            None => Ok(()),
        }
    }

    /// What `prot` comes to on this processor.
    pub fn effective(&self, prot: Prot) -> Prot {
        match self.loads {
            Loads::Implied if prot != Prot::NONE => prot | Prot::READ,
            Loads::ImpliedByStores if prot.contains(Prot::WRITE) => prot | Prot::READ,
            _ => prot,
        }
    }
}
