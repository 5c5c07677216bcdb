//! The error numbers that stand for errors.

use super::super::SpaceError;

/// The name of an error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are POSIX's")]
pub enum Errno {
    EPERM,
    EBADF,
    EAGAIN,
    ENOMEM,
    EACCES,
    EFAULT,
    EBUSY,
    EEXIST,
    ENODEV,
    EINVAL,
    EOVERFLOW,
    EOPNOTSUPP,
}

/// The call that an error is an answer to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    /// mmap.
    Map,
    /// munmap.
    Unmap,
    /// mprotect.
    Protect,
    /// mremap.
    Remap,
    /// madvise.
    Advise,
    /// mlock, munlock, mlockall.
    Lock,
    /// msync.
    Sync,
}

/// What Linux answers to `verb` for `error`.
pub const fn errno(verb: Verb, error: &SpaceError) -> Errno {
    use Errno::*;
    match error {
        SpaceError::TooLong { .. } if !matches!(verb, Verb::Remap) => ENOMEM,
        SpaceError::OutOfRange { .. } if matches!(verb, Verb::Map | Verb::Protect | Verb::Sync) => ENOMEM,
        SpaceError::NoRoom { .. } | SpaceError::TooManySegments { .. } | SpaceError::LimitReached { .. } => {
            ENOMEM
        }
        SpaceError::TooLow { .. } => EPERM,
        SpaceError::Taken { .. } => EEXIST,
        SpaceError::LockForbidden => EPERM,
        SpaceError::LockLimit { .. } if matches!(verb, Verb::Lock) => ENOMEM,
        SpaceError::LockLimit { .. } => EAGAIN,
        SpaceError::OffsetTooLarge { .. } if matches!(verb, Verb::Map) => EOVERFLOW,
        SpaceError::UnknownFlags => EOPNOTSUPP,
        SpaceError::ObjectDenied { .. } | SpaceError::AppendOnly | SpaceError::ProtDenied { .. } => EACCES,
        SpaceError::NoExecute | SpaceError::Sealed => EPERM,
        SpaceError::NotMappable => ENODEV,
        SpaceError::Hole { .. } if matches!(verb, Verb::Remap) => EFAULT,
        SpaceError::Hole { .. } => ENOMEM,
        SpaceError::SeveralSegments { .. } => EFAULT,
        SpaceError::IsLocked { .. } if matches!(verb, Verb::Sync) => EBUSY,
        SpaceError::NotResident { .. } if matches!(verb, Verb::Lock) => ENOMEM,
        SpaceError::NotResident { .. } => EFAULT,
        SpaceError::Empty
        | SpaceError::Misaligned { .. }
        | SpaceError::TooLong { .. }
        | SpaceError::OutOfRange { .. }
        | SpaceError::OffsetTooLarge { .. }
        | SpaceError::BadFlags
        | SpaceError::WrongKind { .. }
        | SpaceError::IsLocked { .. }
        | SpaceError::Overlaps
        | SpaceError::KeptResized => EINVAL,
    }
}

impl Errno {
    /// The number on Linux, the same on all architectures that matter here.
    pub const fn linux(self) -> i32 {
        match self {
            Errno::EPERM => 1,
            Errno::EBADF => 9,
            Errno::EAGAIN => 11,
            Errno::ENOMEM => 12,
            Errno::EACCES => 13,
            Errno::EFAULT => 14,
            Errno::EBUSY => 16,
            Errno::EEXIST => 17,
            Errno::ENODEV => 19,
            Errno::EINVAL => 22,
            Errno::EOVERFLOW => 75,
            Errno::EOPNOTSUPP => 95,
        }
    }

    /// The number on Solaris and illumos.
    pub const fn solaris(self) -> i32 {
        match self {
            Errno::EOVERFLOW => 79,
            Errno::EOPNOTSUPP => 122,
            other => other.linux(),
        }
    }
}
