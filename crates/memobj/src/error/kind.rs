//! The closed set of reasons why a page could not be had.

use std::fmt;

/// Why a pager could not answer, or why an answer was not taken.
///
/// The set is small on purpose: a caller decides on the kind, a human reads the source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The device, file system or server failed the transfer.
    Io,
    /// The answer was wrong: too long, a bad checksum, a pager that panicked.
    Integrity,
    /// The object ended before the range did, or the supply was short.
    Truncated,
    /// The object is no longer the version that was opened.
    Stale,
    /// There is no room: for the data on a device, or for the frames under the budget.
    NoSpace,
    /// No answer came within the time allowed.
    Timeout,
    /// The caller may not have this data.
    Denied,
    /// The object, its pager or its cache is shutting down or belongs to another process.
    Detached,
}

impl ErrorKind {
    /// Whether the same request can succeed later without anybody changing anything.
    ///
    /// ```
    /// use memobj::ErrorKind;
    /// assert!(ErrorKind::Io.may_retry());
    /// assert!(!ErrorKind::Stale.may_retry());
    /// ```
    pub const fn may_retry(self) -> bool {
        matches!(self, ErrorKind::Io | ErrorKind::Timeout | ErrorKind::NoSpace | ErrorKind::Truncated)
    }

    /// The words that error messages use.
    pub const fn message(self) -> &'static str {
        match self {
            ErrorKind::Io => "input/output error",
            ErrorKind::Integrity => "wrong answer from the pager",
            ErrorKind::Truncated => "the data ended early",
            ErrorKind::Stale => "the object changed since it was opened",
            ErrorKind::NoSpace => "no room",
            ErrorKind::Timeout => "timed out",
            ErrorKind::Denied => "permission denied",
            ErrorKind::Detached => "detached",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}
