//! Why two processes do not share an object.

use std::error::Error;
use std::fmt;
use std::io;

use super::MapError;

/// Why a guest could not be admitted, or could not attach.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdmitError {
    /// The frames of the object are not such that others can see them: that takes an object that can be written, with
    /// [`FrameVisibility::Shared`](crate::FrameVisibility::Shared), on a machine with userfaultfd.
    NotShared,
    /// Something of the object is pinned: a guest that may store is admitted when nothing is.
    InUse,
    /// The object has as many guests as it can have.
    TooManyGuests,
    /// The object cannot be mapped in the owner.
    Map(MapError),
    /// The other process did not do its part in time.
    TimedOut,
    /// The other process has hung up, or has ended.
    HungUp,
    /// The other process did something else than what was expected.
    Peer {
        /// What.
        why: String,
    },
    /// The system refused something.
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The cache belongs to another process: this one was forked from it.
    Detached,
}

impl AdmitError {
    /// An error of the line to the other process.
    pub(crate) fn of_line(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Self::HungUp
            }
            io::ErrorKind::InvalidData => Self::Peer { why: error.to_string() },
            _ => Self::System { what: "talk to the other process", source: error },
        }
    }
}

impl fmt::Display for AdmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotShared => {
                f.write_str("only objects that can be written and have shared frames take guests")
            }
            Self::InUse => f.write_str("pages of the object are pinned"),
            Self::TooManyGuests => f.write_str("the object has the maximum number of guests"),
            Self::Map(error) => error.fmt(f),
            Self::TimedOut => f.write_str("the other process did not answer in time"),
            Self::HungUp => f.write_str("the other process has hung up"),
            Self::Peer { why } => write!(f, "the other process sent {why}"),
            Self::System { what, source } => write!(f, "{what}: {source}"),
            Self::Detached => f.write_str("the cache belongs to the process that this one was forked from"),
        }
    }
}

impl Error for AdmitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Map(error) => Some(error),
            Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}
