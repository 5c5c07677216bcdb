//! Why a file was not mapped as an image.

use std::fmt;
use std::io;

use memobj_vm::image::{AddressRange, ImageError};

use crate::error::{Classified, MapError, as_io_error, system_may_pass};

/// Why a file was not mapped as an image. Nothing of it is mapped then.
#[derive(Debug)]
#[non_exhaustive]
pub enum MapImageError {
    /// The descriptor only names the file (`O_PATH`), or is none. EBADF in C.
    NotOpen,
    /// The file is not open for reading. EACCES in C.
    NotReadable,
    /// Not a regular file. ENODEV in C.
    NotMappable,
    /// The object cannot be mapped in a space. Of files it is never told.
    Object(MapError),
    /// The planner refused the file.
    Plan(ImageError),
    /// Bytes of the file could not be read.
    Read(io::Error),
    /// Something is mapped where the image must be. EADDRINUSE in C.
    InUse {
        /// What was to be taken.
        range: AddressRange,
    },
    /// No room for the image. ENOMEM in C.
    NoRoom {
        /// How long it is.
        length_bytes: u64,
    },
    /// Another process has locked a part of the file (fcntl(2)). EAGAIN in C.
    Locked,
    /// The file may not be executed. EACCES in C.
    NoExec,
    /// The file ends before the bytes of a segment do. EFAULT in C.
    FileEnds {
        /// Where the bytes were to go.
        range: AddressRange,
    },
    /// A segment could not be mapped or filled.
    Map {
        /// Which part of it.
        range: AddressRange,
        /// Why.
        source: io::Error,
    },
}

impl MapImageError {
    /// Why addresses that were asked for by name cannot be had.
    pub(super) fn of_range(range: AddressRange, source: io::Error) -> Self {
        match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::EXIST) => Self::InUse { range },
            Some(rustix::io::Errno::NOMEM) => Self::NoRoom { length_bytes: range.length_bytes() },
            _ => Self::Map { range, source },
        }
    }
}

as_io_error!(MapImageError);

impl Classified for MapImageError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::NotOpen | Self::NotMappable | Self::FileEnds { .. } => io::ErrorKind::InvalidInput,
            Self::NotReadable | Self::NoExec => io::ErrorKind::PermissionDenied,
            Self::Object(error) => error.io_kind(),
            Self::Plan(_) => io::ErrorKind::InvalidData,
            Self::Read(error) => error.kind(),
            Self::InUse { .. } => io::ErrorKind::AddrInUse,
            Self::NoRoom { .. } => io::ErrorKind::OutOfMemory,
            Self::Locked => io::ErrorKind::WouldBlock,
            Self::Map { source, .. } => source.kind(),
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Object(error) => error.may_pass(),
            Self::Read(error) | Self::Map { source: error, .. } => system_may_pass(error),
            Self::InUse { .. } | Self::NoRoom { .. } | Self::Locked => true,
            Self::NotOpen
            | Self::NotReadable
            | Self::NotMappable
            | Self::Plan(_)
            | Self::NoExec
            | Self::FileEnds { .. } => false,
        }
    }
}

impl From<ImageError> for MapImageError {
    fn from(error: ImageError) -> Self {
        Self::Plan(error)
    }
}

impl fmt::Display for MapImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapImageError::NotOpen => f.write_str("not an open file"),
            MapImageError::NotReadable => f.write_str("not open for reading"),
            MapImageError::NotMappable => f.write_str("not a regular file"),
            MapImageError::Object(error) => error.fmt(f),
            MapImageError::Plan(error) => error.fmt(f),
            MapImageError::Read(error) => write!(f, "read the headers: {error}"),
            MapImageError::InUse { range } => write!(f, "something is mapped in {range} already"),
            MapImageError::NoRoom { length_bytes } => {
                write!(f, "no room for {length_bytes:#x} bytes of address space")
            }
            MapImageError::Locked => f.write_str("another process has locked the file"),
            MapImageError::NoExec => f.write_str("the file may not be executed"),
            MapImageError::FileEnds { range } => {
                write!(f, "the file ends before its segment, of which {range} is a part, does")
            }
            MapImageError::Map { range, source } => write!(f, "map {range}: {source}"),
        }
    }
}

impl std::error::Error for MapImageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MapImageError::Object(error) => Some(error),
            MapImageError::Plan(error) => Some(error),
            MapImageError::Read(error) | MapImageError::Map { source: error, .. } => Some(error),
            _ => None,
        }
    }
}
