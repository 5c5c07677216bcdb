//! `memobj-bench machines`: memory of virtual machines, restored from a snapshot.
//!
//! ```text
//!   run      the ways in turns              monitor   what stands for a machine
//!   kernel   a private mapping of the memory file, which the kernel serves
//!   demand   `memobj serve --firecracker`: pages are copied when they are touched
//!   replay   the same with the record of an earlier run
//! ```
//!
//! A machine touches a part of its pages, in an order of its own that is always the same.

mod monitor;
pub mod options;
pub mod run;
