//! Pagers: who has the bytes.
//!
//! [`File`] reads and writes a local file, [`Bytes`] and [`Zero`] have them in memory and are read only, [`Faulty`]
//! wraps any other and makes it fail on purpose. Your own needs [`length`](Pager::length) and
//! [`supply`](Pager::supply); if it takes writes, [`is_writable`](Pager::is_writable),
//! [`write_back`](Pager::write_back), [`sync`](Pager::sync) and [`set_length`](Pager::set_length) too.

mod bytes;
mod create;
mod faulty;
mod file;
mod log_file;
mod logged;
mod storage;
mod told_length;
mod zero;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use bytes::Bytes;
pub(crate) use create::create;
pub use faulty::{Faulty, Inject, Injection, Operation};
pub use file::File;
pub use log_file::ForeignLog;
pub(crate) use log_file::{open_in_place, recover};
pub(crate) use logged::Logged;
pub use zero::Zero;

use crate::error::SupplyError;
pub use crate::options::CacheUse;

/// Supplies an object's pages, and takes them back if it can be written.
///
/// The engine calls a pager from threads of its own, never in a signal handler, so that a pager may block, lock,
/// allocate and use the network. (Of an object that was never mapped the caller's thread calls `sync` and
/// `set_length`.) `supply` is called with none of the engine's locks held. `write_back`, `sync` and `set_length` are
/// called while syncs and changes of length of the same object wait: they must not ask for one, nor map the object.
/// A pager may be called at once from several threads for disjoint ranges. A range is asked for again while an earlier call for it still runs only after that call has
/// overrun its time, or the object was mapped anew. A pager is not told of mappings.
pub trait Pager: Send + Sync {
    /// Bytes of the object. Only [`set_length`](Self::set_length) changes it.
    fn length(&self) -> u64;

    /// Fills `buffer`, which is as long as `range`, with the bytes of `range` and returns how many it filled.
    ///
    /// `range` is not empty, starts at a multiple of 4 KiB and ends at one or at the object's end. Anything but
    /// the full length is taken as a failure, never as zeros; so is a panic. May block.
    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError>;

    /// Whether the object can be written: whether [`write_back`](Self::write_back) is more than a refusal.
    fn is_writable(&self) -> bool {
        false
    }

    /// Takes `bytes`, which are as long as `range`, for the bytes of `range`.
    ///
    /// `range` starts at a multiple of 4 KiB and ends at one or at the object's end. Anything but `Ok` leaves the
    /// pages Dirty: they are offered again. May be called at once from several threads for disjoint ranges, and
    /// while ranges beside it are supplied. What is supplied afterwards has these bytes; they need not survive a
    /// crash before [`sync`](Self::sync) has returned. May block.
    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        let _ = (range, bytes);
        Err(SupplyError::new(crate::ErrorKind::Denied))
    }

    /// Makes durable what was taken before this call, and the length. May block.
    ///
    /// After an error the engine offers what it still has of these bytes again, and takes the rest for lost. `Stale` is
    /// for a pager that has all bytes, of an object that nobody will find again: nothing is offered again then.
    fn sync(&self) -> Result<(), SupplyError> {
        Ok(())
    }

    /// Cuts the object off at `length`, or extends it with zeros. May block.
    fn set_length(&self, length: u64) -> Result<(), SupplyError> {
        let _ = length;
        Err(SupplyError::new(crate::ErrorKind::Denied))
    }

    /// Whether no byte of the object ever changes, whatever becomes of it elsewhere: then it is its own copy, see
    /// [`Space`](crate::space::Space). What is said here is relied on.
    fn is_immutable(&self) -> bool {
        false
    }

    /// A shorter way to the bytes than `supply`, if the pager knows one.
    ///
    /// Asked for when an object is made of the pager, in the thread that makes it, and not again: the answer holds as long
    /// as the pager lives.
    fn source(&self) -> Source<'_> {
        Source::Call
    }

    /// The object is closed: end every `supply` that still runs, with an error. Called once; must not block.
    fn detach(&self) {}
}

/// How the engine may come by the bytes.
#[non_exhaustive]
pub enum Source<'a> {
    /// Only by calling [`Pager::supply`].
    Call,
    /// They are the first bytes of this slice.
    Memory(&'a [u8]),
    /// They are all zero.
    Zero,
    /// They are in a local file, which the engine reads itself, many pages at once.
    File(&'a File),
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call => f.write_str("Call"),
            Self::Zero => f.write_str("Zero"),
            Self::Memory(bytes) => write!(f, "Memory({} bytes)", bytes.len()),
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
        }
    }
}

/// What a pager that is reached through a pointer answers: what the pager behind it does.
macro_rules! forward {
    ($pointer:ident) => {
        impl<P: Pager + ?Sized> Pager for $pointer<P> {
            fn length(&self) -> u64 {
                (**self).length()
            }
            fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
                (**self).supply(range, buffer)
            }
            fn is_writable(&self) -> bool {
                (**self).is_writable()
            }
            fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
                (**self).write_back(range, bytes)
            }
            fn sync(&self) -> Result<(), SupplyError> {
                (**self).sync()
            }
            fn set_length(&self, length: u64) -> Result<(), SupplyError> {
                (**self).set_length(length)
            }
            fn is_immutable(&self) -> bool {
                (**self).is_immutable()
            }
            fn source(&self) -> Source<'_> {
                (**self).source()
            }
            fn detach(&self) {
                (**self).detach();
            }
        }
    };
}

forward!(Box);
forward!(Arc);
