//! What can go wrong.

use std::error::Error;
use std::fmt;
use std::io;

use memobj_core::address::VirtAddr;
use memobj_vm::fault::Trap;
use memobj_vm::space::SpaceError;

use super::NoCopy;
use crate::error::{Classified, MapError, PageError, as_io_error, system_may_pass};

/// Why a verb was refused, wholly or from some address on.
#[derive(Debug)]
#[non_exhaustive]
pub enum VerbError {
    /// The address space cannot be changed so. In the order in which Linux looks for errors, and with its partial
    /// effects: [`SpaceError`], and `docs/address-spaces.md`.
    Space(SpaceError),
    /// The object cannot be mapped here.
    Map(MapError),
    /// There is no copy to be had that keeps its bytes.
    NoCopy(NoCopy),
    /// Not to be had in spaces of this process.
    Unsupported {
        /// What is not.
        what: &'static str,
    },
    /// The kernel refused something, mostly for want of memory or of mappings (`vm.max_map_count`). What the verb had
    /// done before stays done, and the table says what is there; rarely, a range that was to be replaced is free.
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The space belongs to another process: this one was forked from it.
    Detached,
}

impl From<SpaceError> for VerbError {
    fn from(error: SpaceError) -> Self {
        Self::Space(error)
    }
}

impl From<MapError> for VerbError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<NoCopy> for VerbError {
    fn from(error: NoCopy) -> Self {
        Self::NoCopy(error)
    }
}

impl fmt::Display for VerbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Space(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::NoCopy(error) => error.fmt(f),
            Self::Unsupported { what } => write!(f, "spaces of this process have no {what}"),
            Self::System { what, source } => write!(f, "{what}: {source}"),
            Self::Detached => f.write_str("the space belongs to the process that this one was forked from"),
        }
    }
}

impl Error for VerbError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Space(error) => Some(error),
            Self::Map(error) => Some(error),
            Self::NoCopy(error) => Some(error),
            Self::System { source, .. } => Some(source),
            Self::Unsupported { .. } | Self::Detached => None,
        }
    }
}

/// Why bytes of a space could not be copied. What was copied before stays copied.
#[derive(Debug)]
#[non_exhaustive]
pub enum TouchError {
    /// A plain access would trap there.
    Trap {
        /// The first address at which it would.
        address: VirtAddr,
        /// Why.
        trap: Trap,
    },
    /// A page of the object behind could not be supplied.
    Page {
        /// The first address that was wanted of it.
        address: VirtAddr,
        /// Why.
        error: PageError,
    },
    /// The kernel refused it, for want of memory for instance.
    System {
        /// The address.
        address: VirtAddr,
        /// Why.
        source: io::Error,
    },
    /// The space belongs to another process: this one was forked from it.
    Detached,
}

impl fmt::Display for TouchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap { address, trap } => {
                let why = match trap {
                    Trap::Unmapped => "nothing is mapped",
                    Trap::Denied => "the segment does not allow it",
                    Trap::Beyond => "the object has ended",
                    Trap::Failed => "its page has failed",
                };
                write!(f, "access at {:#x}: {why}", address.0)
            }
            Self::Page { address, error } => write!(f, "access at {:#x}: {error}", address.0),
            Self::System { address, source } => write!(f, "access at {:#x}: {source}", address.0),
            Self::Detached => f.write_str("the space belongs to the process that this one was forked from"),
        }
    }
}

as_io_error!(VerbError, TouchError);

impl Classified for VerbError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Space(_) => io::ErrorKind::InvalidInput,
            Self::Map(error) => error.io_kind(),
            Self::NoCopy(error) => error.io_kind(),
            Self::Unsupported { .. } => io::ErrorKind::Unsupported,
            Self::System { source, .. } => source.kind(),
            Self::Detached => io::ErrorKind::NotConnected,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Map(error) => error.may_pass(),
            Self::NoCopy(error) => error.may_pass(),
            Self::System { source, .. } => system_may_pass(source),
            Self::Space(_) | Self::Unsupported { .. } | Self::Detached => false,
        }
    }
}

impl Classified for TouchError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Trap { .. } => io::ErrorKind::InvalidInput,
            Self::Page { error, .. } => error.io_kind(),
            Self::System { source, .. } => source.kind(),
            Self::Detached => io::ErrorKind::NotConnected,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Page { error, .. } => error.may_pass(),
            Self::System { source, .. } => system_may_pass(source),
            Self::Trap { .. } | Self::Detached => false,
        }
    }
}

impl Error for TouchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Page { error, .. } => Some(error),
            Self::System { source, .. } => Some(source),
            Self::Trap { .. } | Self::Detached => None,
        }
    }
}
