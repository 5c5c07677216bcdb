//! The part of memobj that knows no operating system.
//!
//! ```text
//!   AddressSpace        ordered set of segments: what mapping is, with its errors; fault resolves what they show
//!        | a segment places a range of
//!   object pages        PageIndex; each page has one PageWord:
//!        |
//!        |     Absent -> Filling -> Clean -> Evicting -> Absent
//!        |                  `-> Failed -> Absent (retry)
//!        |
//!   Budget + reclaim    how many bytes of frames may exist, and which page gives its frame back
//!
//!   CommitLog           changes of an object become durable together or not at all
//!
//!   image               what of an ELF file is mapped where: a plan from its headers
//! ```
//!
//! Everything here is data and transitions. Threads, memory, time and I/O belong to the hosts: the Linux
//! engine (`memobj`), the simulator, or a kernel. The crate needs `alloc`, a checksum and a reader of ELF headers.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod address;
pub mod budget;
pub mod commit_log;
pub mod decide;
pub mod error;
#[cfg(not(loom))]
pub mod fault;
pub mod image;
pub mod page_word;
#[cfg(not(loom))]
pub mod pages;
pub mod pin_budget;
pub mod prot;
pub mod reclaim;
pub mod space;
