//! Serves memory objects to other processes: one process, one cache, one budget.
//!
//! ```text
//!   vm        memory of virtual machines: pages are copied into it when they are touched    Firecracker's handshake
//!   control   a program says in lines of text what it wants mapped, and hears of errors     docs/serve-protocol.md
//! ```
#![forbid(unsafe_code)]

pub mod control;
pub mod vm;
