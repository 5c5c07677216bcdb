//! Files of 9P servers as memory objects of memobj.
//!
//! ```text
//!   memobj (frames, budget, retries, deadlines)
//!      |  SupplyRequest, WriteRequest, SyncRequest
//!      v
//!   NinePager      pager: jobs, keeper thread, reader thread
//!      |             session: connect, version, attach, walk, open, stat
//!      |             version: same file as was opened?     tags, message, frames, wire: 9P itself
//!      v
//!   9P server      9P2000, 9P2000.u, 9P2000.L, over TCP or a Unix socket
//! ```
//!
//! ```no_run
//! use memobj::{Cache, MapOptions, ObjectOptions};
//! use memobj_9p::{NineOptions, NinePager};
//!
//! let pager = NinePager::open("9p://server/pub/data.bin?version=strict", NineOptions::new())?;
//! let cache = Cache::new(Default::default())?;
//! let object = cache.object("data.bin", pager, ObjectOptions::default())?;
//! let mapping = object.map(.., MapOptions::default())?;
//! assert_eq!(mapping.pin(0..4)?.len(), 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # URLs
//!
//! `9p://host:port/path?options` (port 564 if none is named) and `9p+unix:///path/of/socket?path=/path&options`. Options:
//! `aname=`, `uname=` (a name, or the number of a user), `version=strict|mtime|none`, `msize=` (bytes), `dialect=2000|u|L`.
//! Percent signs are decoded.
//!
//! # Versions
//!
//! qid.version is 0 in all servers we know. A version is therefore the qid, the length and the time of the last change, and
//! the data version of servers that have one. See [`VersionCheck`] for when it is compared, and for what it cannot see. A
//! file that changed is [`Stale`](memobj::ErrorKind::Stale) from then on, also if it changes back. The path of a qid is a
//! part of the version: a server that names the same file by another one after a restart needs `version=none`.
//!
//! Changes of our own move the time of the last change, to a value that we do not know. The time is compared only when none
//! of ours lies between two looks at it, and taken as it is otherwise: a change by others between two of ours is not seen.
//! Who writes to a file should be the only one.
//!
//! # Writes
//!
//! A write is answered when the server has it, and durable when a sync was answered: Tfsync in 9P2000.L, and in the others
//! a Twstat that changes nothing, which stat(5) defines so. A server that refuses it cannot promise durability, and the sync
//! fails with what the server said. A change of the length is synced before it is answered.
//!
//! A server that restarts may lose what it answered and did not sync. The connection is lost then; it can be lost for other
//! reasons, which cannot be told apart. So, when a connection is lost between the answer to a write and that to the next
//! sync, the **next sync fails** with [`Io`](memobj::ErrorKind::Io): the engine offers again what it has of these bytes, and reports the
//! rest as lost. Until then these bytes are not supplied, as the server may have older ones: such a request fails with Io.
//! No answer to a sync is `Stale`, which would say that nothing is lost. What was not answered is sent again: a write at an
//! offset can be done twice.
#![forbid(unsafe_code)]

mod address;
mod attributes;
mod counters;
mod dialect;
mod exchange;
mod folder;
mod frames;
#[cfg(test)]
mod fuzz_tests;
mod location;
mod message;
mod open_error;
mod options;
mod pager;
pub mod proxy;
mod ranges;
mod server_error;
mod session;
mod stream;
mod tags;
mod version;
mod wire;

pub use address::{Address, AddressError, DEFAULT_PORT};
pub use dialect::Dialect;
pub use folder::{MOST_ENTRIES, NineEntry, NineEntryKind, NineFolder};
pub use open_error::{OpenError, OpenStep};
pub use options::{NineOptions, VersionCheck};
pub use pager::NinePager;
pub use server_error::ServerError;
