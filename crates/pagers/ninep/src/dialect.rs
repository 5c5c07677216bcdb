//! The dialects of 9P.

use std::fmt;

/// A dialect of 9P. What a pager uses of them differs in errors, times and syncs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Dialect {
    /// `9P2000`, of Plan 9: errors are words, times are seconds, a Twstat that changes nothing is a sync.
    Plan9,
    /// `9P2000.u`: the same, with numbers of errors and of users.
    Unix,
    /// `9P2000.L`, of Linux: errors are numbers, times have nanoseconds, Tfsync.
    Linux,
}

impl Dialect {
    /// All, the one that says most first: in this order they are tried.
    pub const ALL: [Dialect; 3] = [Dialect::Linux, Dialect::Unix, Dialect::Plan9];

    /// The name in Tversion.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Plan9 => "9P2000",
            Dialect::Unix => "9P2000.u",
            Dialect::Linux => "9P2000.L",
        }
    }

    /// The dialect that Rversion names.
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name().as_bytes() == name)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
