//! A second tier for slow pagers: their blocks on disk.
//!
//! ```text
//!   memobj engine                       frames: the first tier
//!      |  SupplyRequest
//!      v
//!   DiskCached<P> ---- hit ----> aa/<digest>/<number>     blocks of one version, each with its checksum
//!      |  miss: whole blocks          ^
//!      v                              |  keeper thread: within the budget, by a temporary name and a link
//!   P, the inner pager ---- answer ---'  after the request was answered
//! ```
//!
//! ```no_run
//! use memobj_disk_cache::{DiskCache, DiskCacheOptions};
//! # fn example(store: impl memobj::pagers::Pager + 'static) -> Result<(), Box<dyn std::error::Error>> {
//! let disk = DiskCache::open("/var/cache/me/blocks", DiskCacheOptions::new().budget_bytes(10 << 30))?;
//! let cache = memobj::Cache::new(Default::default())?;
//! let pager = disk.pager(store, "s3://bucket/key");
//! let object = cache.object("s3://bucket/key", pager, Default::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing that happens to the disk is an error of an object. What cannot be read is a miss, what cannot be written is
//! not kept, and both are counted. A block that is not what was written is removed, reported once as
//! [`Event::CopyDamaged`](memobj::Event::CopyDamaged), and asked of the inner pager.
#![forbid(unsafe_code)]

mod cache;
mod cached;
mod counters;
mod directory;
mod evict;
mod fetch;
mod format;
mod identity;
mod keeper;
mod lock_file;
mod object;
mod object_core;
mod options;
mod pending;
mod pool;
mod read;
mod scan;
mod shared;
mod store;
mod table;
mod usage;

pub use cache::DiskCache;
pub use cached::{DiskCached, Keeping};
pub use options::DiskCacheOptions;
