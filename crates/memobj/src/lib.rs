//! memobj maps anything into memory, under a hard budget, and tells you when it fails.
//!
//! * A *pager* has the bytes: a local file, memory, or code of yours.
//! * A *memory object* is what is mapped. Its bytes are divided into *pages* of 4 KiB or 2 MiB.
//! * A *frame* is memory that holds a page. The frames of all objects of a *cache* stay within its budget.
//! * A *mapping* gives access to a range of an object: by pins, copies, or plain loads and stores.
//!
//! ```text
//!   your threads          Mapping       pin -> Pinned (&[u8]) | read_at  (copy) | as_ptr, words, touch_at (touch)
//!                            |          pin_mut -> &mut [u8]  | write_at        | as_mut_ptr, shared_words
//!                            |          a window of
//!   what is mapped        MemoryObject  length, name, failure policy; a page is Absent, Clean, Dirty or Failed,
//!                            |          or on its way from one to another
//!                            |          Absent pages are asked of,            Clean and Dirty pages
//!                            |          Dirty pages are written back to       are held by
//!                            v                                               v
//!   who has the bytes     Pager         supply and write back, or fail     frames, all within
//!                         File | Bytes | Zero | Faulty | yours             the budget of the Cache
//! ```
//!
//! Start with a [`Cache`], which has the budget. [`Cache::open_file`] or [`Cache::object`] makes a
//! [`MemoryObject`], [`MemoryObject::map`] a [`Mapping`], and [`Mapping::pin`] hands out bytes:
//!
//! ```
//! use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions};
//!
//! let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
//! let object = cache.open_file("Cargo.toml", ObjectOptions::default())?;
//! let mapping = object.map(0..object.len(), MapOptions::default())?;
//! assert!(mapping.pin(0..9)?.starts_with(b"[package]"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | If you want | look at |
//! |---|---|
//! | bytes that come from elsewhere | [`pagers::Pager`], [`SupplyError`] |
//! | to write, durably after a sync | [`Writing::InPlace`], [`Mapping::write_at`], [`Mapping::pin_mut`], [`Mapping::sync`], [`MemoryObject::close`] |
//! | all changes to be durable together, or none | [`Writing::Atomic`], [`MemoryObject::commit`], [`Mapping::discard`] |
//! | stores that nobody else sees | [`Sharing::Private`] |
//! | an address of your own choice, the same in every process | [`MapOptions::at`] |
//! | plain stores, or words that threads share | [`Mapping::as_mut_ptr`], [`Mapping::shared_words`] |
//! | another process to map an object, and to store to it | [`MemoryObject::admit`], [`RemoteMapping`] |
//! | to go through an object piece by piece, or to append to one, without copies | [`stream::Stream`] |
//! | a new file | [`Cache::create_file`], [`ObjectOptions::create`] |
//! | another length | [`MemoryObject::set_len`], [`ObjectOptions::max_len`] |
//! | to know what failed, and to continue | [`AccessError`], [`PageError`], [`ErrorKind`], [`Mapping::errors`], [`Mapping::retry`] |
//! | to know what was not written | [`WriteError`], [`Event::WriteFailed`], [`Event::DroppedDirty`] |
//! | failures to be retried or waited out | [`FailurePolicy`], [`ObjectOptions`] |
//! | failures in the background | [`Cache::events`], [`Events::pollable`] |
//! | many scattered ranges at once | [`Mapping::pin_ranges`], [`Mapping::prefetch`] |
//! | to say how you will read | [`Mapping::advise`], [`FrameSize`] |
//! | system calls on mapped memory, the fastest fault, or no faults at all | [`Delivery`] |
//! | counters | [`Cache::metrics`], [`MemoryObject::metrics`] |
//! | the segments of an ELF file, mapped by one call | [`image::map_image`] |
//! | addresses of your own choice, segments that are protected, moved and copied on write | [`space::Space`] |
//! | to see what the machine offers | [`doctor::report`] |
//!
//! Handles are cheap to clone and may be dropped in any order; the last one gives everything back. Call
//! [`MemoryObject::close`] before you drop the last handle of an object with changes: it tells whether they are durable.
//!
//! # What blocks
//!
//! Every access can block: on a pager, on a disk, on pins of other threads. [`Mapping::prefetch`], [`Mapping::advise`],
//! [`Cache::metrics`] and [`Cache::events`] do not. In asynchronous code call memobj from threads that may block; see
//! [`guide::asynchronous`].
//!
//! # Where it runs
//!
//! x86-64 Linux 6.6 or newer (6.8 for frames of 2 MiB), as root and as an ordinary user. [`doctor::report`] says what is
//! missing on a machine, and what is used instead. Without userfaultfd pins and copies work, plain loads do not.
//!
//! # More
//!
//! The [`guide`] has more: [`guide::writing`] says what sync and commit promise and what each kind of end loses,
//! [`guide::failures`] what a failure looks like. In the folder `docs` of the project: `choosing-access.md` (which access,
//! and what it costs), `budget.md` (what counts), `limits.md` (what does not work).
//!
//! Features: `images` and `spaces`, on by default, are the modules of these names; `zerocopy` adds `Mapping::pin_as`,
//! `tracing` adds `Events::trace_all`, `serde` makes metrics serializable.
#![forbid(unsafe_code)]

mod allocator;
mod batch;
mod buffers;
mod cache;
mod clock;
mod demand;
pub mod doctor;
mod driver;
mod engine;
mod error;
mod event;
mod fault;
mod guest;
pub mod guide;
mod handles;
mod health;
#[cfg(feature = "images")]
pub mod image;
mod kept;
mod lend;
mod machine;
mod mapping;
mod metrics;
mod object;
mod options;
pub mod pagers;
mod pages;
mod parts;
mod pins;
mod place;
mod private;
mod ranges;
mod remote;
mod reporter;
mod sequences;
#[cfg(feature = "spaces")]
pub mod space;
pub mod stream;
mod threads;
#[cfg(feature = "tracing")]
mod traced;
mod transaction;
mod workers;
mod write;

use memobj_linux::locks;

pub use cache::Cache;
pub use clock::EngineClock;
pub use error::{
    AccessError, AdmitError, CacheError, ErrorKind, MapError, Neighbour, OpenError, PageError, PinHolder,
    SupplyError, WriteError, WriteStep,
};
pub use event::{Event, Events, PollableEvents};
pub use guest::{AdmitOptions, Guest, GuestEnd, GuestProt, KeptGuest};
pub use kept::{Inheritance, KeptObject};
pub use lend::{AtOnce, LentFrames, PendingPage};
#[cfg(feature = "zerocopy")]
pub use mapping::PinnedAs;
pub use mapping::{
    Cursor, GlanceWords, Mapping, PinRef, Pinned, PinnedMut, PinnedSlice, Reader, SharedWords, VolatileWords,
    Writer,
};
pub use metrics::{FaultLoopMetrics, Metrics, ObjectMetrics, PagerCalls};
pub use object::MemoryObject;
pub use options::{
    Advice, CacheOptions, CacheUse, Create, Delivery, FailurePolicy, FrameSize, FrameVisibility, MapOptions,
    ObjectOptions, Reads, Sharing, Writing,
};
pub use remote::{RemoteError, RemoteMapping};
pub use transaction::{Transaction, TransactionBytes};

/// The examples of the README, compiled and run as tests. Those of the other documents are tests of [`guide`].
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
