//! Which faults a range tells of.

use std::ops::BitOr;

use super::abi;

/// A set of kinds of faults, joined by `|`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Modes(u64);

impl Modes {
    /// Accesses to pages that do not exist.
    pub const MISSING: Self = Self(abi::REGISTER_MISSING);
    /// Stores to pages that are write-protected.
    pub const WRITE_PROTECT: Self = Self(abi::REGISTER_WP);
    /// Accesses to pages that the file has and the range does not show. Memory files only.
    pub const MINOR: Self = Self(abi::REGISTER_MINOR);

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }
}

impl BitOr for Modes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
