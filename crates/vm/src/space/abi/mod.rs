//! The numbers of system calls: one table for each system that knows them.
//!
//! The same name has other numbers elsewhere (PROT_READ is 1 on Linux and 4 on the Hurd), so no two systems share a
//! table, and nothing outside this module knows a number. Translation is part of the order of errors: what is wrong
//! with an argument is found where the system looks for it, before the space is asked or in the middle of a verb;
//! for that, requests can carry an error.

mod errno;
pub mod hurd;
pub mod linux;
mod numbers;
pub mod solaris;

pub use errno::{Errno, Verb, errno};
pub use numbers::{Numbers, Taken};

#[cfg(all(test, not(loom)))]
mod tests;
