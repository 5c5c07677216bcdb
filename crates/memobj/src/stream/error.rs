//! Why a stream has no bytes to give, or could not be closed.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;

use crate::error::{AccessError, Classified, MapError, PageError, WriteError, as_io_error};

/// Why a stream has no bytes to give, or could not be closed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamError {
    /// A guard of the same stream is in the way: waiting for it could be waiting for oneself. Free it first.
    Held {
        /// The bytes asked for, in the object; whole pages of them count.
        wanted: Range<u64>,
        /// The pages in the way, as bytes of the object.
        held: Range<u64>,
    },
    /// The bytes could not be pinned.
    Access(AccessError),
    /// The object could not be extended, or changes are not durable.
    Write(WriteError),
    /// The object could not be mapped.
    Map(MapError),
}

impl StreamError {
    /// The bytes of the object that are concerned; an empty range where no bytes are.
    pub fn range(&self) -> Range<u64> {
        match self {
            Self::Held { held, .. } => held.clone(),
            Self::Access(error) => error.range(),
            Self::Write(error) => error.range(),
            Self::Map(_) => 0..0,
        }
    }

    /// The page's error, if a page could not be supplied.
    pub fn page_error(&self) -> Option<&PageError> {
        match self {
            Self::Access(error) => error.page_error(),
            _ => None,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { wanted, held } => write!(
                f,
                "allocate [{}, {}): the stream has not freed [{}, {}) yet",
                wanted.start, wanted.end, held.start, held.end
            ),
            Self::Access(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl Error for StreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Access(error) => error.source(),
            Self::Write(error) => error.source(),
            Self::Map(error) => error.source(),
        }
    }
}

as_io_error!(StreamError);

impl Classified for StreamError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Held { .. } => io::ErrorKind::ResourceBusy,
            Self::Access(error) => error.io_kind(),
            Self::Write(error) => error.io_kind(),
            Self::Map(error) => error.io_kind(),
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Held { .. } => true,
            Self::Access(error) => error.may_pass(),
            Self::Write(error) => error.may_pass(),
            Self::Map(error) => error.may_pass(),
        }
    }
}

impl From<AccessError> for StreamError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Write(error) => Self::Write(error),
            error => Self::Access(error),
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<MapError> for StreamError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}
