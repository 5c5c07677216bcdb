//! Serves memory objects to other processes: one process, one cache, one budget.
//!
//! ```text
//!   vm        memory of virtual machines: pages are copied into it when they are touched    Firecracker's handshake
//!   keep      a process beside keeps what the next server needs when this one has died
//!   control   a program says in lines of text what it wants mapped, and hears of errors     docs/serve-protocol.md
//! ```
//!
//! What nobody else hears are events of the crate `tracing`, for the subscriber of the thread that makes a server. They have
//! what they are about as fields: `client`, `process`, `user`, `group`, `why`, `object`, `start`, `end`, `kind`; of machines
//! `process`. Lost bytes are errors; who is refused, dropped or ended is a warning.
#![forbid(unsafe_code)]

pub mod control;
pub mod keep;
mod listen;
mod log;
mod peer;
pub mod vm;

pub use listen::{Listening, OpenTo, Place, place_of};
