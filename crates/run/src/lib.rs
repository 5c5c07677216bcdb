//! Runs unmodified programs whose file mappings are segments of memory objects.
//!
//! ```text
//!   Supervisor    traces the program and all that comes from it
//!     exec          mappings that the kernel has made become private mappings of lent frames
//!     mmap          of a file: the frames of its memory object are mapped instead
//!     fork          what the child inherits is registered before it runs
//!   Faults        hears of missing pages in the event loop of the process, has them obtained, and wakes the sleeper
//!   Files         one memory object for each version of a file, in one cache with one budget; or its frames are a
//!                 server's (`via`)
//!   History       what was touched, by whom, and when: for reports, and for records, which plan what to prefetch
//! ```
//!
//! Stores are the kernel's business: a private page that is stored to becomes the process's own copy. Clean pages exist
//! once, in the frames of the object, however many processes map them.
#![forbid(unsafe_code)]
#![cfg(target_arch = "x86_64")]

mod descriptor_budget;
mod error;
mod faults;
mod files;
mod frames;
mod front;
pub mod history;
mod history_builder;
mod lender;
mod map_target;
mod objects;
mod options;
mod pages;
mod program_space;
pub mod record;
pub mod report;
mod say;
mod supervisor;
mod thrash;
mod via;

pub use error::RunError;
pub use front::{FrontEnds, MakeOptions, run_in_front, run_in_front_with};
pub use map_target::{Entry, EntryKind, LookUp, MapTarget, ObjectFolder, OpenedObject};
pub use objects::{ObjectsOnDemand, objects_on_demand};
pub use options::{
    CopyProgress, Counting, FileInjections, LEAST_BUDGET_BYTES, Messages, NameMap, ObjectAccess, Options,
};
pub use supervisor::{Outcome, Progress, Supervisor};
