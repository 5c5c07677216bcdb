//! Objects for copy segments: the bytes of one instant, whatever becomes of where they came from.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io;

use memobj_linux::file::{clone_unnamed, write_full};

use super::{Space, VerbError};
use crate::error::{AccessError, Classified, ErrorKind, as_io_error, system_may_pass};
use crate::object::MemoryObject;
use crate::options::{Delivery, FrameSize, FrameVisibility, MapOptions, Sharing, Writing};
use crate::pagers::{self, Pager};

/// Bytes that are copied at once.
const CHUNK: u64 = 1 << 20;

/// Why a copy segment cannot be had. A mapping of it could not keep its promise.
#[derive(Debug)]
#[non_exhaustive]
pub enum NoCopy {
    /// Its bytes can change while they are copied: it can be written by this process.
    Writable,
    /// There is neither a pager that never changes nor a reflink, and there are too many bytes to copy.
    TooLong {
        /// How many.
        bytes: u64,
        /// How many may be copied: [`SpaceOptions::copy_bytes`](super::SpaceOptions::copy_bytes).
        limit_bytes: u64,
    },
    /// The object has changed since it was opened, or did while it was copied.
    Stale,
    /// A byte of it could not be read.
    Read(AccessError),
    /// There is no temporary file to be had, or not enough room.
    File(io::Error),
}

impl fmt::Display for NoCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writable => f.write_str("an object that can be written cannot be copied at one instant"),
            Self::TooLong { bytes, limit_bytes } => write!(
                f,
                "a copy of {bytes} bytes is more than the {limit_bytes} that may be copied, and the file system has no reflinks"
            ),
            Self::Stale => f.write_str("the object has changed since it was opened"),
            Self::Read(error) => write!(f, "copy the object: {error}"),
            Self::File(error) => write!(f, "keep a copy of the object: {error}"),
        }
    }
}

impl Error for NoCopy {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::File(error) => Some(error),
            Self::Writable | Self::TooLong { .. } | Self::Stale => None,
        }
    }
}

as_io_error!(NoCopy);

impl Classified for NoCopy {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Writable => io::ErrorKind::Unsupported,
            Self::TooLong { .. } => io::ErrorKind::FileTooLarge,
            Self::Stale => io::ErrorKind::StaleNetworkFileHandle,
            Self::Read(error) => error.io_kind(),
            Self::File(error) => error.kind(),
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Read(error) => error.may_pass(),
            Self::File(error) => system_may_pass(error),
            Self::Writable | Self::TooLong { .. } | Self::Stale => false,
        }
    }
}

impl From<io::Error> for NoCopy {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl Space {
    /// An object that has the `length` bytes of `object` at `offset` as they are now, at the same place, and can lend
    /// its frames.
    pub(super) fn copy_of(
        &self,
        object: &MemoryObject,
        offset: u64,
        length: u64,
    ) -> Result<MemoryObject, VerbError> {
        let core = &object.handle().core;
        if core.options.writing != Writing::ReadOnly {
            return Err(NoCopy::Writable.into());
        }
        let lends =
            (core.options.visibility, core.options.frames) == (FrameVisibility::Shared, FrameSize::Small);
        if core.description.is_immutable() && lends {
            return Ok(object.clone());
        }
        // While an object is only pinned, nobody can borrow its frames.
        let _lent = if lends { Some(object.lend_frames()?) } else { None };
        let file = match clone_of(core.origin())? {
            Some(clone) => clone,
            None => self.bytes_of(object, offset, length)?,
        };
        let pager = pagers::File::of_unnamed(&file).map_err(NoCopy::File)?;
        let options = core.options.clone().visibility(FrameVisibility::Shared).frames(FrameSize::Small);
        let description = pager.describe();
        let pager = Box::new(pager);
        Ok(MemoryObject::new(object.handle().cache.clone(), object.name(), pager, description, options, None))
    }

    /// A temporary file with these bytes of `object`, and holes elsewhere.
    fn bytes_of(&self, object: &MemoryObject, offset: u64, length: u64) -> Result<File, VerbError> {
        let end = offset.saturating_add(length).next_multiple_of(4096).min(object.len());
        let bytes = end.saturating_sub(offset);
        let limit_bytes = self.copy_limit();
        if bytes > limit_bytes {
            return Err(NoCopy::TooLong { bytes, limit_bytes }.into());
        }
        let file = tempfile::tempfile().map_err(NoCopy::File)?;
        file.set_len(object.len()).map_err(NoCopy::File)?;
        let pins = MapOptions::new().delivery(Delivery::PinOnly).sharing(Sharing::Shared);
        let mapping = object.map(0..object.len(), pins)?;
        let mut buffer = vec![0; CHUNK.min(bytes) as usize];
        let mut at = offset;
        while at < end {
            let part = &mut buffer[..(end - at).min(CHUNK) as usize];
            mapping.read_at(at, part).map_err(unreadable)?;
            let written = write_full(&file, part, at).map_err(NoCopy::File)?;
            at += written as u64;
        }
        match object.handle().core.origin() {
            Some(origin) if !origin.is_current() => Err(NoCopy::Stale.into()),
            _ => Ok(file),
        }
    }
}

/// A reflink of `origin`, if its file system has reflinks.
fn clone_of(origin: Option<&pagers::File>) -> Result<Option<File>, NoCopy> {
    let Some(origin) = origin else { return Ok(None) };
    let Ok(clone) = clone_unnamed(origin) else { return Ok(None) };
    // The clone is of one instant; it has to be one before the file changed.
    if origin.is_current() { Ok(Some(clone)) } else { Err(NoCopy::Stale) }
}

fn unreadable(error: AccessError) -> NoCopy {
    match error.page_error() {
        Some(page) if page.kind() == ErrorKind::Stale => NoCopy::Stale,
        _ => NoCopy::Read(error),
    }
}
