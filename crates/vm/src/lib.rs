//! Address spaces, without an operating system.
//!
//! ```text
//!   space    AddressSpace: an ordered set of segments; map, unmap, protect, remap, fork, with Linux's errors and order
//!      |  a segment places a range of an object; a fault finds the segment
//!   fault    PagedSpace: faults of a space resolved on memobj_core's pages, shown in page tables of the host
//!
//!   image    what of an ELF file is mapped where: a plan from its headers
//! ```
//!
//! Everything here is data and transitions. Memory, page tables and time belong to the host: the Linux engine
//! (`memobj`), the simulator, or a kernel. The crate needs `alloc` and a reader of ELF headers.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod fault;
pub mod image;
pub mod space;
