//! Resolving faults, for hosts that own their page tables: a kernel, a software MMU.
//!
//! ```text
//!   fault(address, access)
//!     segment?  protection?  guard?            else a trap
//!     private page of the space                  -> map it; a store copies it first while others share it
//!     anonymous                                  -> a zeroed frame
//!     page of the object    beyond its end       -> a trap
//!                           not here             -> Need: the host has it supplied and faults again
//!                           here                 -> map it; a store into a private segment copies it
//! ```
//!
//! Three things come from the host: [`Frames`], the [`Mmu`] of the space, and [`Objects`]. [`ObjectTable`] is the
//! last for hosts whose writes all go through it; it keeps what copy segments show by copying a page before it
//! changes. Nothing here blocks: a page that somebody else has to supply is an answer.
//!
//! What an object does to its pages (it became shorter, a hole was punched) reaches the spaces as [`Notice`]s, which
//! the host passes to each of them before anybody uses memory again.

mod apply;
mod copy;
mod host;
mod objects;
mod paged;
mod populate;
mod resolve;

pub use host::{Frames, Host, Mmu, Notice, ObjectPage, Objects, Stop, Trap, Want};
pub use objects::{Fill, ObjectTable};
pub use paged::{PagedSpace, VerbError};
