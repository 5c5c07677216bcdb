//! What tests of memobj and of pagers share: a conformance suite that every pager runs, and watched pagers.
#![forbid(unsafe_code)]

pub mod conformance;
mod counted;
mod gate;
mod random;

pub use counted::{Calls, Counted};
pub use gate::{Gate, Gated};
pub use random::{Random, known_byte};
