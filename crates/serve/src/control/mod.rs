//! The control connection: see `docs/serve-protocol.md`.
//!
//! ```text
//!   Server          accepts clients of one socket            peer
//!     Session       one client, one thread                   input, output, words
//!       requests    verbs that are answered at once          refusal: why not
//!       long        verbs that can take long: a thread each
//!       mappings    guests: memory of the client
//!       Record      what it has, for the next server         queue, take_over
//!       lists       of clients and objects, for who looks after the server
//!     Objects       what is open, whoever opened it          exports, read_only
//!     Lender        files whose frames are lent              borrow: the verbs
//!     events        of the cache, to those they are about
//!     Quota         bounds all of it
//!   Client          the other side
//!   Borrower        the same for those who borrow frames: many requests under way at once
//! ```
//!
//! Locks stand alone: none is held while the engine is called, but for the state of an object that is opened or closed.

/// Setters of options, each by the name of its field, and `new`.
macro_rules! setters {
    ($options:ident => $($field:ident: $type:ty),* $(,)?) => {
        impl $options {
            /// The defaults, to be changed by the setters.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

mod borrow;
mod borrower;
mod client;
mod events;
mod exports;
mod input;
mod lend;
mod lists;
mod long;
mod mappings;
mod objects;
mod output;
mod queue;
mod quota;
mod read_only;
mod record;
mod refusal;
mod requests;
mod server;
mod session;
mod take_over;
mod words;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use crate::peer::Allowed;
pub use borrower::{Borrowed, Borrower, Connecting, LoanFailure, LoanKind};
pub use client::{Answer, Client, ClientError};
pub use exports::{Access, Exports, OpenFailure, Opener};
pub use lend::{Lend, LentPager, object_name};
pub use quota::{Quota, descriptors_for};
pub use server::{MoreStats, Server, ServerHandle, ServerOptions, Statistics};
pub use words::{LONGEST_LINE, decode, encode};

/// Has the calling thread give way to those that resolve faults: requests of one client are not to delay another's faults.
fn give_way() {
    const NICE: i32 = 5;
    // Refused for nothing that is there: who gives way needs no right.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

/// Locks `mutex`, also after a thread has panicked with it: what it guards is whole at every moment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
