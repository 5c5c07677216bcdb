//! Address spaces in software, and the kernel of this machine as their oracle.
//!
//! ```text
//!   history of orders ---> Machine     core's address space and fault resolution over software frames and a
//!           |                          software page table that caches translations until they are flushed
//!           |
//!           |------------> the kernel  in a forked process with nothing free but a window (memobj_linux::oracle)
//!           |
//!           '------------> a space     of this process, over objects with the same bytes (memobj::space); of histories
//!                                      that it can carry out
//!
//!   every answer: value or error number, signal, bytes, marks of all pages, table of mappings
//! ```
//!
//! [`compare`] runs a history on both and says where they differ; [`DIFFERENCES`] are those that are meant.

mod compare;
mod differences;
mod disk;
mod frames;
mod generate;
mod machine;
mod mapped;
mod mmu;
mod real;
mod script;
mod table;

pub use compare::{Mismatch, Outcome, compare, compare_three, unfit};
pub use differences::{DIFFERENCES, Difference};
pub use frames::SoftFrames;
pub use generate::{histories, space_histories};
pub use machine::{FILES, Machine, WINDOW_START, file_bytes};
pub use mapped::check_mapped;
pub use mmu::SoftMmu;
pub use real::{RealObjects, RealSpace};
pub use script::{History, parse};
