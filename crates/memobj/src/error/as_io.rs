//! Errors of this library as errors of the standard library.

use std::error::Error;
use std::io;

use super::{
    AccessError, AdmitError, CacheError, ErrorKind, MapError, OpenError, PageError, PinHolder, SupplyError,
    WriteError,
};

/// An error that says which kind of [`io::Error`] it is, and whether the same call can succeed later.
pub(crate) trait Classified {
    /// The kind.
    fn io_kind(&self) -> io::ErrorKind;

    /// Whether the call can succeed later, without anybody changing what was asked for.
    fn may_pass(&self) -> bool;
}

/// Gives [`Classified`] errors their public methods. The error itself is kept in the [`io::Error`].
macro_rules! as_io_error {
    ($($error:ty),* $(,)?) => {
        $(
            impl $error {
                /// Whether the same call can succeed later, without anybody changing what was asked for: after a
                /// failure that may pass, or once others have let go of what they hold.
                pub fn may_retry(&self) -> bool {
                    $crate::error::Classified::may_pass(self)
                }
            }

            impl From<$error> for std::io::Error {
                /// The kind is the nearest that there is. The error is kept: [`get_ref`](std::io::Error::get_ref).
                fn from(error: $error) -> Self {
                    Self::new($crate::error::Classified::io_kind(&error), error)
                }
            }
        )*
    };
}
pub(crate) use as_io_error;

as_io_error!(AccessError, AdmitError, CacheError, MapError, OpenError, PageError, SupplyError, WriteError,);

/// The nearest kind of a failure, of which `source` is the cause.
fn nearest(kind: ErrorKind, source: Option<&(dyn Error + 'static)>) -> io::ErrorKind {
    match kind {
        ErrorKind::Io => source
            .and_then(|source| source.downcast_ref::<io::Error>())
            .map_or(io::ErrorKind::Other, io::Error::kind),
        ErrorKind::Integrity => io::ErrorKind::InvalidData,
        ErrorKind::Truncated => io::ErrorKind::UnexpectedEof,
        ErrorKind::Stale => io::ErrorKind::StaleNetworkFileHandle,
        ErrorKind::NoSpace => io::ErrorKind::StorageFull,
        ErrorKind::Timeout => io::ErrorKind::TimedOut,
        ErrorKind::Denied => io::ErrorKind::PermissionDenied,
        ErrorKind::Detached => io::ErrorKind::NotConnected,
    }
}

/// Whether what the system refused can be granted later.
pub(crate) fn system_may_pass(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let is_transfer = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    let is_shortage = matches!(
        error.kind(),
        Kind::OutOfMemory
            | Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::Interrupted
            | Kind::WouldBlock
            | Kind::TimedOut
            | Kind::ResourceBusy
    );
    is_transfer || is_shortage
}

impl Classified for SupplyError {
    fn io_kind(&self) -> io::ErrorKind {
        nearest(self.kind, self.source())
    }

    fn may_pass(&self) -> bool {
        self.kind.may_retry()
    }
}

impl Classified for PageError {
    fn io_kind(&self) -> io::ErrorKind {
        nearest(self.kind, self.source())
    }

    fn may_pass(&self) -> bool {
        self.kind.may_retry()
    }
}

impl Classified for WriteError {
    fn io_kind(&self) -> io::ErrorKind {
        nearest(self.kind, self.source())
    }

    /// What is lost is reported until it is discarded, and a thread that waits for itself waits for ever.
    fn may_pass(&self) -> bool {
        self.kind.may_retry() && !self.lost && self.pinned_by != Some(PinHolder::ThisThread)
    }
}

impl Classified for AccessError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::OutOfRange { .. } | Self::Layout { .. } => io::ErrorKind::InvalidInput,
            Self::Page(error) => error.io_kind(),
            Self::Write(error) => error.io_kind(),
            Self::PinsExceedBudget { .. }
            | Self::TooManyPins
            | Self::Pinned { .. }
            | Self::InUse
            | Self::Conflict { .. }
            | Self::TransactionsExceedBudget { .. } => io::ErrorKind::ResourceBusy,
            Self::Deadlock { .. } => io::ErrorKind::Deadlock,
            Self::PinOnly => io::ErrorKind::Unsupported,
            Self::ReadOnly => io::ErrorKind::PermissionDenied,
            Self::Detached => io::ErrorKind::NotConnected,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Page(error) => error.may_pass(),
            Self::Write(error) => error.may_pass(),
            // More than pins may hold at all is refused for good.
            Self::PinsExceedBudget { wanted_bytes, limit_bytes } => wanted_bytes <= limit_bytes,
            // What others have changed is free once their transactions have ended.
            Self::TooManyPins
            | Self::InUse
            | Self::Conflict { .. }
            | Self::TransactionsExceedBudget { .. } => true,
            Self::Pinned { by, .. } => *by != PinHolder::ThisThread,
            Self::OutOfRange { .. }
            | Self::Layout { .. }
            | Self::PinOnly
            | Self::ReadOnly
            | Self::Deadlock { .. }
            | Self::Detached => false,
        }
    }
}

impl Classified for CacheError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::BudgetTooSmall { .. } | Self::BudgetExceedsMemory { .. } => io::ErrorKind::InvalidInput,
            Self::System { source, .. } => source.kind(),
        }
    }

    fn may_pass(&self) -> bool {
        matches!(self, Self::System { source, .. } if system_may_pass(source))
    }
}

impl Classified for OpenError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::File { source, .. } | Self::Log { source, .. } => source.kind(),
            Self::NotAFile { .. } | Self::LengthUntold { .. } => io::ErrorKind::InvalidInput,
            Self::ForeignLog { .. } => io::ErrorKind::PermissionDenied,
            Self::Locked { .. } => io::ErrorKind::ResourceBusy,
            Self::NotWritable { .. } => io::ErrorKind::Unsupported,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::File { source, .. } | Self::Log { source, .. } => system_may_pass(source),
            Self::Locked { .. } => true,
            Self::NotAFile { .. }
            | Self::LengthUntold { .. }
            | Self::ForeignLog { .. }
            | Self::NotWritable { .. } => false,
        }
    }
}

impl Classified for MapError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::OutOfRange { .. } | Self::BadAddress { .. } => io::ErrorKind::InvalidInput,
            Self::OtherDelivery { .. } | Self::MappedElsewhere { .. } => io::ErrorKind::ResourceBusy,
            Self::AddressTaken { .. } => io::ErrorKind::AddrInUse,
            Self::TooManyObjects { .. } => io::ErrorKind::QuotaExceeded,
            Self::NoUserfaultfd { source } | Self::System { source, .. } => source.kind(),
            Self::Unsupported { .. } => io::ErrorKind::Unsupported,
            Self::Detached => io::ErrorKind::NotConnected,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::OtherDelivery { .. }
            | Self::MappedElsewhere { .. }
            | Self::AddressTaken { .. }
            | Self::TooManyObjects { .. } => true,
            Self::System { source, .. } => system_may_pass(source),
            Self::OutOfRange { .. }
            | Self::BadAddress { .. }
            | Self::NoUserfaultfd { .. }
            | Self::Unsupported { .. }
            | Self::Detached => false,
        }
    }
}

impl Classified for AdmitError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::NotShared => io::ErrorKind::Unsupported,
            Self::InUse => io::ErrorKind::ResourceBusy,
            Self::TooManyGuests => io::ErrorKind::QuotaExceeded,
            Self::Map(error) => error.io_kind(),
            Self::TimedOut => io::ErrorKind::TimedOut,
            Self::HungUp => io::ErrorKind::ConnectionAborted,
            Self::Peer { .. } => io::ErrorKind::InvalidData,
            Self::System { source, .. } => source.kind(),
            Self::Detached => io::ErrorKind::NotConnected,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::InUse | Self::TooManyGuests | Self::TimedOut => true,
            Self::Map(error) => error.may_pass(),
            Self::System { source, .. } => system_may_pass(source),
            Self::NotShared | Self::HungUp | Self::Peer { .. } | Self::Detached => false,
        }
    }
}
