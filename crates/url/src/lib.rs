//! Objects of servers as memory objects, by their URLs.
//!
//! ```text
//!   cache.open("s3://bucket/key", options)
//!      |  scheme                                         crate
//!      |-- s3, gs, az, http, https ----------------------> memobj-object-store
//!      |-- 9p, 9p+unix ----------------------------------> memobj-9p
//!      '-- file -----------------------------------------> memobj itself
//!                 with a disk cache: DiskCached around it    memobj-disk-cache
//! ```
//!
//! ```no_run
//! use memobj::{Cache, CacheOptions, FailurePolicy, MapOptions, ObjectOptions};
//! use memobj_url::{Open, UrlOptions};
//!
//! let cache = Cache::new(CacheOptions::new().budget_bytes(64 << 20))?;
//! // Faults wait for as long as the server is away.
//! let object = ObjectOptions::new().policy(FailurePolicy::WaitForEver);
//! let model = cache.open("s3://models/llama.safetensors", UrlOptions::new().object(object))?;
//! let mapping = model.map_all(MapOptions::new())?;
//! println!("{:?}", &mapping.pin(0..8)?[..]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`folder`] opens a prefix of a bucket, or a folder of a 9P server, as a tree of such objects.
//!
//! Each scheme is behind a feature: `object-store`, `9p`; `disk-cache` is the second tier. All are on by default.
#![forbid(unsafe_code)]

mod error;
mod folder;
mod open;
mod options;
mod scheme;

pub use error::UrlError;
pub use folder::{UrlEntry, UrlEntryKind, UrlFolder, folder};
#[cfg(feature = "9p")]
pub use memobj_9p as ninep;
#[cfg(feature = "disk-cache")]
pub use memobj_disk_cache as disk_cache;
#[cfg(feature = "object-store")]
pub use memobj_object_store as object_store;
#[cfg(feature = "object-store")]
pub use open::conditions;
pub use open::{Open, pager, shown};
pub use options::UrlOptions;
pub use scheme::{Scheme, is_url, names_folder, path_of_file};
