//! memobj maps anything into memory, and tells you when it fails.
//!
//! ```text
//!   your threads          Mapping       pin -> Pinned (&[u8]) | read_at (copy) | as_ptr, words, touch_at (touch)
//!                            |          a window of
//!   what is mapped        MemoryObject  length, name, failure policy; each page is Absent, Filling, Clean,
//!                            |          Evicting or Failed
//!                            |          Absent pages are asked of            Clean pages are held by
//!                            v                                              v
//!   who has the bytes     Pager         supply, or fail                   frames, all within
//!                         File | Bytes | Zero | Faulty | yours            the budget of the Cache
//! ```
//!
//! Begin with a [`Cache`], which is the budget. [`Cache::open_file`] or [`Cache::object`] makes a
//! [`MemoryObject`], [`MemoryObject::map`] a [`Mapping`], and [`Mapping::pin`] hands out bytes:
//!
//! ```
//! use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions};
//!
//! let cache = Cache::new(CacheOptions { budget_bytes: 1 << 20, ..Default::default() })?;
//! let object = cache.open_file("Cargo.toml", ObjectOptions::default())?;
//! let mapping = object.map(0..object.len(), MapOptions::default())?;
//! assert!(mapping.pin(0..9)?.starts_with(b"[package]"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | If you want | look at |
//! |---|---|
//! | bytes that come from elsewhere | [`pagers::Pager`], [`SupplyError`] |
//! | to know what failed, and to go on | [`AccessError`], [`PageError`], [`ErrorKind`], [`Mapping::errors`], [`Mapping::retry`] |
//! | failures to be retried or waited out | [`FailurePolicy`], [`ObjectOptions`] |
//! | failures that nobody waits for | [`Cache::events`] |
//! | many scattered ranges at once | [`Mapping::pin_ranges`], [`Mapping::prefetch`] |
//! | to say how you will read | [`Mapping::advise`], [`FrameSize`] |
//! | system calls on mapped memory, or the fastest fault | [`Delivery`] |
//! | to see what happened | [`Cache::metrics`] |
//! | to see what the machine offers | [`doctor::report`] |
//!
//! Handles are cheap to clone and may be dropped in any order; the last one gives everything back.
#![forbid(unsafe_code)]

mod batch;
mod cache;
pub mod doctor;
mod driver;
mod error;
mod event;
mod fault;
mod mapping;
mod metrics;
mod object;
mod options;
pub mod pagers;
mod reclaim;
mod store;
mod streams;
mod workers;
mod write;

pub use cache::Cache;
pub use error::{
    AccessError, CacheError, ErrorKind, MapError, OpenError, PageError, SupplyError, WriteError, WriteStep,
};
pub use event::{Event, Events};
pub use mapping::{Mapping, Pinned, PinnedMut, SharedWords};
pub use memobj_sys::volatile::VolatileWords;
pub use metrics::Metrics;
pub use object::MemoryObject;
pub use options::{
    Advice, CacheOptions, Delivery, FailurePolicy, FrameSize, MapOptions, ObjectOptions, Reads, Sharing,
    Store, Writing,
};

/// The examples of the documents, compiled and run as tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/failures.md")]
    struct Failures;
}
