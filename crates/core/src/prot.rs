//! What a segment allows, and what somebody tried.

use core::fmt;
use core::ops::BitOr;

/// What the bytes of a segment may be used for: a set of [`Access`] kinds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Prot(u8);

/// One attempt to use a byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

impl Prot {
    /// Nothing is allowed.
    pub const NONE: Prot = Prot(0);
    /// Loads.
    pub const READ: Prot = Prot(1);
    /// Stores.
    pub const WRITE: Prot = Prot(2);
    /// Instruction fetches.
    pub const EXECUTE: Prot = Prot(4);

    /// Everything that either allows.
    pub const fn union(self, other: Prot) -> Prot {
        Prot(self.0 | other.0)
    }

    /// Everything that this allows and `other` does not.
    pub const fn without(self, other: Prot) -> Prot {
        Prot(self.0 & !other.0)
    }

    /// Whether everything that `other` allows is allowed.
    pub const fn contains(self, other: Prot) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether `access` is allowed.
    ///
    /// ```
    /// use memobj_core::prot::{Access, Prot};
    /// assert!((Prot::READ | Prot::EXECUTE).allows(Access::Execute));
    /// assert!(!Prot::READ.allows(Access::Write));
    /// ```
    pub const fn allows(self, access: Access) -> bool {
        self.contains(match access {
            Access::Read => Prot::READ,
            Access::Write => Prot::WRITE,
            Access::Execute => Prot::EXECUTE,
        })
    }
}

impl BitOr for Prot {
    type Output = Prot;

    fn bitor(self, other: Prot) -> Prot {
        self.union(other)
    }
}

impl fmt::Display for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Prot::READ, "r"), (Prot::WRITE, "w"), (Prot::EXECUTE, "x")] {
            f.write_str(if self.contains(bit) { letter } else { "-" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prot({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_set_allows_what_is_in_it() {
        let cases =
            [(Access::Read, Prot::READ), (Access::Write, Prot::WRITE), (Access::Execute, Prot::EXECUTE)];
        for (access, alone) in cases {
            for bits in 0..8 {
                assert_eq!(Prot(bits).allows(access), bits & alone.0 != 0);
            }
        }
        assert_eq!((Prot::READ | Prot::EXECUTE).to_string(), "r-x");
        assert_eq!(Prot::NONE.to_string(), "---");
    }
}
