//! The part of memobj that knows no operating system.
//!
//! ```text
//!   object pages        PageIndex; each page has one PageWord:
//!        |
//!        |     Absent -> Filling -> Clean -> Evicting -> Absent
//!        |                  `-> Failed -> Absent (retry)
//!        |
//!   Budget + reclaim    how many bytes of frames may exist, and which page gives its frame back
//! ```
//!
//! Address spaces stand on it (`memobj-vm`); the commit log is `memobj-log`. Everything here is data and transitions.
//! Threads, memory, time and I/O belong to the hosts: the Linux engine (`memobj`), the simulator, or a kernel. The crate
//! needs `alloc` only.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod address;
pub mod budget;
pub mod decide;
pub mod page_word;
#[cfg(not(loom))]
pub mod pages;
pub mod pin_budget;
pub mod prot;
pub mod reclaim;
