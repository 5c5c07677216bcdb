//! Address spaces: ordered sets of segments.
//!
//! ```text
//!   low                                                            high
//!    |  gap  | segment | segment |        gap        | segment | gap |
//!              3+0x0     7+0x4000                      3+0x1000
//! ```
//!
//! Nothing here touches memory: a host applies what a verb returns to page tables, to its own process, or to
//! another one. Every verb costs O(log n) and the segments that it touches, and a verb that fails has changed
//! nothing. Segments that continue one another are always one segment, so equal mappings are equal values,
//! whatever led to them.
//!
//! Two indices: segments by start, gaps by (length, start). Memory per segment: 40 bytes in the first and, as
//! there is at most one gap more than segments, 16 in the second, plus node headers; nodes of these trees are
//! two thirds full on average and hardly less than half, which makes about 90 bytes and hardly more than 120.

mod error;
mod find;
mod index;
mod map;
mod segment;
mod unmap;

#[cfg(all(test, not(loom)))]
mod tests;

pub use error::MapError;
pub use index::{AddressSpace, Limits};
pub use segment::{ObjectId, Segment, Sharing, Unplaced};
