//! What tests of memobj and of pagers share: a conformance suite that every pager runs, objects whose every byte is
//! known, pagers that are watched or blocked, processes that have a test to themselves, and a storage whose power
//! can be cut.
//!
//! Everything here panics when something is wrong: it is for tests only.
#![forbid(unsafe_code)]

/// Implements `Pager` for a type by its own [`BlockingPager`](memobj::pagers::BlockingPager).
macro_rules! by_calls {
    ([$($parameters:tt)*] $type:ty) => {
        impl<$($parameters)*> memobj::pagers::Pager for $type {
            fn describe(&self) -> memobj::pagers::Description {
                memobj::pagers::Pager::describe(&memobj::pagers::Blocking(self))
            }
            fn supply(&self, request: memobj::pagers::SupplyRequest) {
                memobj::pagers::Pager::supply(&memobj::pagers::Blocking(self), request);
            }
            fn write_back(&self, request: memobj::pagers::WriteRequest) {
                memobj::pagers::Pager::write_back(&memobj::pagers::Blocking(self), request);
            }
            fn sync(&self, request: memobj::pagers::SyncRequest) {
                memobj::pagers::Pager::sync(&memobj::pagers::Blocking(self), request);
            }
            fn set_length(&self, request: memobj::pagers::LengthRequest) {
                memobj::pagers::Pager::set_length(&memobj::pagers::Blocking(self), request);
            }
            fn detach(&self) {
                memobj::pagers::BlockingPager::detach(self);
            }
        }
    };
}

pub mod conformance;
mod counted;
mod disk;
pub mod fixture;
mod gate;
mod kept;
pub mod process;
pub mod random;
pub mod space;
pub mod storage;
pub mod threads;
pub mod time;
pub mod watchdog;
pub mod writable_fixture;

pub use counted::{Calls, Counted};
pub use disk::Disk;
pub use gate::{Gate, Gated};
pub use kept::Kept;
pub use random::{Random, known_byte};
