//! Objects of object stores and web servers as memory objects.
//!
//! ```text
//!   memobj's engine
//!      |  SupplyRequest                          WriteRequest, SyncRequest, LengthRequest
//!      v                                            v
//!   pager        one task for each request       write/  spool: a temporary file; sync publishes a new version
//!      |                                            |
//!   reader       pieces of a range, digests         |
//!      |                                            |
//!   fetch        one ranged GET, hedged             |
//!      |                                            |
//!   answer       status, version, range, length: an answer is data only if all of them are right
//!      |                                            |
//!   store        forms the request; the crate object_store signs it
//!      |                                            |
//!   transport    sends it, counts bytes  <----------'
//!      |
//!   server       S3, Google Cloud Storage, Azure, HTTP
//! ```
//!
//! ```no_run
//! use memobj_object_store::{ObjectStoreOptions, ObjectStorePager};
//!
//! let pager = ObjectStorePager::open("s3://bucket/key", ObjectStoreOptions::new())?;
//! let cache = memobj::Cache::new(Default::default())?;
//! let object = cache.object("key", pager, Default::default())?;
//! let mapping = object.map(.., Default::default())?;
//! let bytes = mapping.pin(0..4096)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The engine retries, merges and waits; this crate answers each request once. `docs/network.md` says which answer of a
//! server is which [`ErrorKind`](memobj::ErrorKind). See the README for the rules.

#![forbid(unsafe_code)]

mod answer;
mod capture;
mod client;
mod conditions;
mod counters;
mod encoded;
mod error;
mod failure;
mod fetch;
mod file;
mod folder;
mod hedge;
mod location;
mod manifest;
mod open;
mod opening;
mod options;
mod overlap;
mod pager;
mod reader;
mod runtime;
mod shared;
mod shared_files;
mod silence;
mod store;
mod time;
mod transport;
mod tree;
mod version;
mod write;
mod xml;

pub use conditions::{ComparedBy, Conditions, conditions};
pub use error::{ObjectStoreError, Step};
pub use folder::{MOST_ENTRIES, ObjectStoreFolder, StoreEntry, StoreEntryKind};
pub use manifest::{Manifest, ManifestError};
pub use options::{Hedging, ObjectStoreOptions, VersionTrust};
pub use pager::ObjectStorePager;
pub use write::{LeftUpload, Unchanged, abort_upload, left_uploads};
