//! Resolving faults, for hosts that own their page tables: a kernel, a software MMU.
//!
//! ```text
//!   fault(address, access)
//!     segment?  protection?  guard?            else a trap
//!     private page of the space                  -> map it; a store copies it first while others share it
//!     anonymous                                  -> a zeroed frame
//!     page of the object    beyond its end       -> a trap
//!                           `decide` about its word
//!                             Show               -> map it; a store into a private segment copies it
//!                             Open               -> snapshots get a copy; open it: Dirty; map it to be stored to
//!                             Claim              -> zeros: place a frame. A pager's: keep the claim, and answer Need;
//!                                                   the host supplies or fails the page, and faults again
//!                             Wait               -> Need, while it is claimed; else Busy
//!                             Trap               -> a trap, until it is retried
//! ```
//!
//! Objects keep their pages in [`Pages`](memobj_core::pages::Pages), the protocol that the engine runs, with a host for page
//! tables:
//!
//! ```text
//!   PagedSpace     one for each space: segments, private pages, guards
//!      |  page(object, page, access) -> a frame, or Stop                ^ notices
//!   ObjectTable    all objects: length, references, snapshots, claims   |
//!      |  blocks of 2 MiB, made with their first page                   |
//!   Pages<Block>   512 page words: claim, place, open, protect, write   |
//!      |           back, evict, hold, discard                           |
//!   Block          which frame holds a page; protect and drop ----------'
//!      |
//!   Memory         of the host: frames, and the spaces that hear notices
//! ```
//!
//! Blocks make the words as many as the pages in use need, however long an object is. A block is given back once all its
//! pages are absent. Its memory is 11 KiB, and that there is none is an answer; what Rust cannot refuse yet are some
//! hundred bytes for its `Arc` and its place in a tree.
//!
//! Who has the table of objects has all pages but for three: claimed pages, which it keeps the claims of; pages on their way
//! to the pager, which whoever writes them has the claims of; and pinned ones. So a fault may map what `decide` said, and
//! nothing here blocks: a page that somebody else has to supply is an answer. Copy segments are private segments of
//! snapshots; what a snapshot has of its own is Dirty for ever, and all else is a page of its origin.
//!
//! What happens to pages of an object (it became shorter, pages are protected or evicted) reaches the spaces as
//! [`Notice`]s, which the host passes to each of them before anybody uses memory again.

mod apply;
mod copy;
mod host;
mod objects;
mod paged;
mod populate;
mod resolve;

pub use host::{FrameNumber, Memory, Mmu, Notice, Stop, Trap};
pub use objects::{Block, Fill, ObjectTable};
pub use paged::{Attached, PagedSpace, VerbError};
