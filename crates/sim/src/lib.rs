//! What tests of memobj and of pagers share: a conformance suite that every pager runs, objects whose every byte is
//! known, pagers that are watched or held up, processes that have a test to themselves, and a storage whose power
//! can be cut.
//!
//! Everything here panics when something is wrong: it is for tests only.
#![forbid(unsafe_code)]

pub mod conformance;
mod counted;
mod disk;
pub mod fixture;
mod gate;
pub mod process;
pub mod random;
pub mod rig;
pub mod space;
pub mod storage;
pub mod threads;
pub mod time;
pub mod watchdog;

pub use counted::{Calls, Counted};
pub use disk::Disk;
pub use gate::{Gate, Gated};
pub use random::{Random, known_byte};
