//! Serves memory objects to other processes: one process, one cache, one budget.
//!
//! ```text
//!   vm        memory of virtual machines: pages are copied into it when they are touched    Firecracker's handshake
//!   keep      a process beside keeps what the next server needs when this one has died
//!   control   a program says in lines of text what it wants mapped, and hears of errors     docs/serve-protocol.md
//! ```
#![forbid(unsafe_code)]

pub mod control;
pub mod keep;
mod listen;
mod peer;
mod times;
pub mod vm;

pub use listen::{Listening, OpenTo, Place, place_of};
