//! Memory of virtual machines: the pages of a memory object are copied into it when they are touched, or before.
//!
//! ```text
//!   machine monitor                              this process
//!   ---------------                              ------------
//!   maps its memory, makes a userfaultfd
//!   connects; sends regions and userfaultfd ---> handshake, regions    checked, or the monitor is refused
//!   touches a page --------------- fault ------> faults    demand it of the object, copy it in place
//!   gives pages up (balloon) ----- event ------> machine   they are zero from now on, for faults and for prefetch
//!                                                prefetch  copies before: what a record tells of, then all
//!   ends --------- socket or process ends -----> server    forgets it
//! ```
//!
//! The object is mapped once: a page is read once for all machines, and stays within the budget of the cache. Its copies are
//! the machines' own memory.
//!
//! *Two rules keep bytes right.* Events are read, and what they say about ranges that were given up is noted, under the lock
//! of the machine (`turn`); and pages are put in place under the same lock, after a look at what was given up. And what was given
//! up, with the events of the last read, is in memory that a keeper keeps: who goes on after this process knows it.
//!
//! ServedObject: the handshake of Firecracker's `Uffd` backend (src/vmm/src/persist.rs of Firecracker 1.12).

mod event;
mod faults;
mod handshake;
mod machine;
mod object;
mod options;
mod places;
mod prefetch;
mod record;
mod regions;
mod server;
mod state;

pub use options::{OnFailure, Options, StartError, Statistics};
pub use record::{RecordError, Touches};
pub use server::{MachineServer, MachineServerHandle};
