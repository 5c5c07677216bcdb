//! `memobj-bench clients`: many clients of `memobj serve`, and one beside clients that do what clients do not do.
//!
//! ```text
//!   run        what is measured, one after the other
//!   many       a thousand clients: memory of the server, time until the first byte
//!   limit      more clients than there are descriptors
//!   beside     faults of a good client, alone and beside each kind of hostile one
//!   hostile    those kinds, each in a process of its own
//!   server     `memobj serve`, and what the kernel says about it
//! ```

mod beside;
pub mod hostile;
mod limit;
mod many;
pub mod options;
pub mod run;
mod server;
