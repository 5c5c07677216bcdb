//! Pagers: who has the bytes.
//!
//! ```text
//!   Pager          answers requests, from any thread, in any order      supply(SupplyRequest), write_back, sync, set_length
//!     ^               object stores, network protocols, event loops
//!   Blocking<P>    calls a BlockingPager, and answers what it returns   supply(range, &mut buffer) -> Result
//!                     your own twenty lines
//! ```
//!
//! [`File`] reads and writes a local file, [`Bytes`] and [`Zero`] have them in memory and are read only, [`Faulty`]
//! wraps any blocking one and makes it fail on purpose. Your own needs [`length`](BlockingPager::length) and
//! [`supply`](BlockingPager::supply); if it takes writes, [`is_writable`](BlockingPager::is_writable),
//! [`write_back`](BlockingPager::write_back), [`sync`](BlockingPager::sync) and
//! [`set_length`](BlockingPager::set_length) too. One that has many requests under way at once, without a thread for
//! each, is a [`Pager`].

mod awaited;
mod blocking;
mod bytes;
mod create;
mod description;
mod faulty;
mod file;
mod filled;
mod interest;
mod log_file;
mod logged;
mod reports;
mod request;
mod storage;
mod told_length;
mod zero;

use std::sync::Arc;

pub use awaited::Awaited;
pub(crate) use blocking::by_calls;
pub use blocking::{Blocking, BlockingPager};
pub use bytes::Bytes;
pub(crate) use create::create;
pub use description::Description;
pub(crate) use description::Local;
pub use faulty::{Faulty, Inject, Injection, Operation};
pub use file::File;
pub(crate) use interest::Hook;
pub use interest::SupplyControl;
pub use log_file::ForeignLog;
pub(crate) use log_file::{open_in_place, recover};
pub(crate) use logged::Logged;
pub use reports::PagerReports;
pub(crate) use request::SupplyTo;
pub use request::{LengthRequest, SupplyRequest, SyncRequest, WriteRequest};
pub use zero::Zero;

use crate::error::SupplyError;
pub use crate::options::CacheUse;

/// Supplies an object's pages, and takes them back if it can be written.
///
/// The engine asks for ranges that ascend, as many at once as [`Description::depth`] says, and neighbours as one. A pager
/// keeps each request, and answers it when it has the bytes, from any thread: it should not block in these calls. Those
/// that would rather block are [`BlockingPager`]s. The engine makes the calls on workers: never in a signal handler, never
/// on a thread that others wait for, and with none of its locks held. Calls for one object are made one at a time; but when the
/// object is mapped anew, or is in use through a private mapping, two can run at once. A call that panics or blocks
/// harms nobody but its own object.
///
/// Deadlines, retries and failure policies are the engine's: a pager answers each request once, as it went.
///
/// ```
/// use memobj::pagers::{Description, Pager, SupplyRequest};
///
/// /// Supplies ones, on a thread that takes what it is sent.
/// struct Ones(std::sync::mpsc::Sender<SupplyRequest>);
///
/// impl Pager for Ones {
///     fn describe(&self) -> Description {
///         Description::new(1 << 20).block_bytes(64 << 10).depth(16)
///     }
///     fn supply(&self, request: SupplyRequest) {
///         // A request that cannot be sent is dropped, which fails it.
///         let _ = self.0.send(request);
///     }
/// }
///
/// let (sender, requests) = std::sync::mpsc::channel::<SupplyRequest>();
/// std::thread::spawn(move || {
///     for mut request in requests {
///         let range = request.range();
///         let filled = request.fill(range.start, &vec![1; (range.end - range.start) as usize]);
///         filled.map_or_else(drop, |()| request.done());
///     }
/// });
/// let cache = memobj::Cache::new(Default::default())?;
/// let object = cache.object("ones", Ones(sender), Default::default())?;
/// let mapping = object.map(0..object.len(), Default::default())?;
/// assert_eq!(mapping.pin(123_456..123_458)?[..], [1, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Pager: Send + Sync {
    /// What the pager declares. Asked for once, when an object is made of it, on the thread that makes it; the answer holds as
    /// long as the pager lives, but for the length, which [`set_length`](Self::set_length) changes.
    fn describe(&self) -> Description;

    /// Hands the pager what it reports to. Called once, when an object was made of the pager and before the first request.
    fn attach(&self, reports: PagerReports) {
        drop(reports);
    }

    /// What the pager counts of itself, each number with a name of small letters and underscores that says the unit:
    /// `network_read_bytes`. Must not block. See [`MemoryObject::pager_counters`](crate::MemoryObject::pager_counters).
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Is to answer `request` with the bytes of its range.
    fn supply(&self, request: SupplyRequest);

    /// Is to take the bytes of `request`. Anything but [`done`](WriteRequest::done) leaves the pages Dirty: they are offered
    /// again, with the bytes that they have then. What is supplied after `done` has these bytes; they need not survive a crash
    /// before a [`sync`](Self::sync) has been answered. There is no time-out that takes a write back: its pages wait for the answer.
    fn write_back(&self, request: WriteRequest) {
        request.fail(SupplyError::new(crate::ErrorKind::Denied));
    }

    /// Is to make durable what it took before this call, and the length.
    ///
    /// After an error the engine offers what it still has of these bytes again, and takes the rest for lost. `Stale` is
    /// for a pager that has all bytes, of an object that nobody will find again: nothing is offered again then. Nor is it after
    /// an error of a pager that [keeps](SupplyError::keeps_written) what it took.
    fn sync(&self, request: SyncRequest) {
        request.done();
    }

    /// Is to cut the object off at the new length, or to extend it with zeros.
    fn set_length(&self, request: LengthRequest) {
        request.fail(SupplyError::new(crate::ErrorKind::Denied));
    }

    /// The object is closed: answer or drop every request that is still under way, soon. Called once; must not block.
    fn detach(&self) {}
}

/// What a pager that is reached through a pointer answers: what the pager behind it does.
macro_rules! forward {
    ($pointer:ident) => {
        impl<P: Pager + ?Sized> Pager for $pointer<P> {
            fn describe(&self) -> Description {
                (**self).describe()
            }
            fn attach(&self, reports: PagerReports) {
                (**self).attach(reports);
            }
            fn counters(&self) -> Vec<(&'static str, u64)> {
                (**self).counters()
            }
            fn supply(&self, request: SupplyRequest) {
                (**self).supply(request);
            }
            fn write_back(&self, request: WriteRequest) {
                (**self).write_back(request);
            }
            fn sync(&self, request: SyncRequest) {
                (**self).sync(request);
            }
            fn set_length(&self, request: LengthRequest) {
                (**self).set_length(request);
            }
            fn detach(&self) {
                (**self).detach();
            }
        }
    };
}

forward!(Box);
forward!(Arc);
