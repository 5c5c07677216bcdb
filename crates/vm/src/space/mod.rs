//! Address spaces: ordered sets of segments, and what may be done to them.
//!
//! ```text
//!   low                                                            high
//!    |  gap  | segment | segment |        gap        | segment | gap |
//!              3+0x0     7+0x4000                      3+0x1000
//! ```
//!
//! This is the specification of mapping: each verb does what the system call of its name does on Linux, with the
//! errors in the same order and the same partial effects; `docs/address-spaces.md` has the semantics and where we
//! decided otherwise, and the tests of the simulator compare with the kernel they run on. Nothing here touches
//! memory. A verb reports [`Change`]s, and a host applies them to page tables, to its own process, or to another
//! one; [`fault`](crate::fault) does it for hosts that own their page tables. The numbers of system calls are
//! translated by [`abi`].
//!
//! Every verb costs O(log n) and the segments that it touches. Segments that continue one another are always one
//! segment, so equal mappings are equal values, whatever led to them. One tree holds the segments and the lengths of
//! the gaps between them: about 85 bytes for each segment, 120 at most.

pub mod abi;
mod advise;
mod attributes;
mod change;
mod error;
mod find;
mod fork;
mod grow;
mod index;
mod limits;
mod lock;
mod map;
mod place;
mod protect;
mod remap;
mod request;
mod revert;
mod segment;
mod sync;
mod tree;
mod unmap;

#[cfg(all(test, not(loom)))]
mod tests;

pub use advise::Advice;
pub use attributes::{Attributes, Charge, Dump, Growth, Guard, Lock, OnExec, OnFork, Pattern, Sharing};
pub use change::Change;
pub use error::SpaceError;
pub use index::AddressSpace;
pub use limits::{Limited, Limits, Loads, Usage};
pub use protect::ProtectFrom;
pub use remap::RemapTo;
pub use request::{MapRequest, ObjectKind, ObjectView, Place, SegmentContent};
pub use segment::{Backing, ObjectId, Segment};
pub use sync::{Invalidate, SyncMode};
