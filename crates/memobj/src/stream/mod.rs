//! Alloc streams: bytes of an object are allocated, used in place, and freed; nothing is copied.
//!
//! The interface is that of the Alloc Stream Facility (Krieger, Stumm and Unrau, 1994), on pins:
//!
//! | there | here |
//! |---|---|
//! | `salloc(stream, mode, length)` | [`Stream::alloc`]: at the position, which moves on |
//! | `sallocAt(stream, mode, offset, length)` | [`Stream::alloc_at`]: the position stays |
//! | `sfree` | dropping the guard; it does no I/O, so it cannot fail |
//! | a short or empty allocation at the end | the same |
//! | errors at `sfree` or `sclose` | those of reading at the allocation, those of writing at [`Stream::close`] |
//!
//! ```
//! use memobj::stream::{ForReading, Stream};
//! # use memobj::{Cache, CacheOptions, ObjectOptions};
//! # let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
//! let object = cache.open_file("Cargo.toml", ObjectOptions::default())?;
//! let stream = Stream::open(&object)?;
//! let mut lines = 0;
//! loop {
//!     let bytes = stream.alloc(ForReading, 4096)?;
//!     if bytes.is_empty() {
//!         break;
//!     }
//!     lines += bytes.iter().filter(|byte| **byte == b'\n').count();
//! }
//! assert!(lines > 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/streams.md` says what happens to whom.

mod ahead;
mod error;
mod guard;
mod guards;
mod handle;
mod mode;

pub use error::StreamError;
pub use guard::{ReadBytes, WriteBytes};
pub use handle::{Growth, Stream, StreamOptions};
pub use mode::{ForReading, ForWriting, Mode};
