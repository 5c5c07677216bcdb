//! Pagers whose calls return when they are done.

use std::ops::Range;
use std::sync::Arc;

use super::{Description, LengthRequest, Pager, PagerReports, SupplyRequest, SyncRequest, WriteRequest};
use crate::error::SupplyError;

/// A pager of few lines: its calls block, and return what they did.
///
/// [`Blocking`] makes a [`Pager`] of it. The engine calls it from workers, never in a signal handler and never on a thread
/// that others wait for, so it may block, lock, allocate and use the network. `supply` is called with none of the
/// engine's locks held. `write_back`, `sync` and `set_length` are called while syncs and changes of length of the same
/// object wait: they must not ask for one, nor map the object. A pager may be called at once from several threads for disjoint
/// ranges. A range is asked for again while an earlier call for it still runs only after that call has overrun its time,
/// or the object was mapped anew. A pager is not told of mappings.
pub trait BlockingPager: Send + Sync {
    /// Bytes of the object. Only [`set_length`](Self::set_length) changes it.
    fn length(&self) -> u64;

    /// Fills `buffer`, which is as long as `range`, with the bytes of `range` and returns how many it filled.
    ///
    /// `range` is not empty, starts at a multiple of 4 KiB and ends at one or at the object's end. Anything but
    /// the full length is taken as a failure, never as zeros; so is a panic. May block.
    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError>;

    /// Whether the object can be written: whether [`write_back`](Self::write_back) is more than a refusal.
    fn is_writable(&self) -> bool {
        false
    }

    /// Takes `bytes`, which are as long as `range`, for the bytes of `range`.
    ///
    /// `range` starts at a multiple of 4 KiB and ends at one or at the object's end. Anything but `Ok` leaves the
    /// pages Dirty: they are offered again. May be called at once from several threads for disjoint ranges, and
    /// while ranges beside it are supplied. What is supplied afterwards has these bytes; they need not survive a
    /// crash before [`sync`](Self::sync) has returned. May block.
    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        let _ = (range, bytes);
        Err(SupplyError::new(crate::ErrorKind::Denied))
    }

    /// Makes durable what was taken before this call, and the length. May block.
    ///
    /// After an error the engine offers what it still has of these bytes again, and takes the rest for lost. `Stale` is
    /// for a pager that has all bytes, of an object that nobody will find again: nothing is offered again then.
    fn sync(&self) -> Result<(), SupplyError> {
        Ok(())
    }

    /// Cuts the object off at `length`, or extends it with zeros. May block.
    fn set_length(&self, length: u64) -> Result<(), SupplyError> {
        let _ = length;
        Err(SupplyError::new(crate::ErrorKind::Denied))
    }

    /// Whether no byte of the object ever changes, whatever becomes of it elsewhere. Then it is its own copy for copy
    /// segments of a space. The engine relies on it.
    fn is_immutable(&self) -> bool {
        false
    }

    /// What [`Description::version`] says. Asked for once.
    fn version(&self) -> Option<Arc<str>> {
        None
    }

    /// What [`Description::block_bytes`] says, for blocks larger than a page.
    fn block_bytes(&self) -> u64 {
        4096
    }

    /// What [`Pager::attach`] says.
    fn attach(&self, reports: PagerReports) {
        drop(reports);
    }

    /// What [`Pager::counters`] says.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The object is closed: end every `supply` that still runs, with an error. Called once; must not block.
    fn detach(&self) {}
}

/// A [`Pager`] that calls a [`BlockingPager`] and answers what it returns.
///
/// Each call occupies a worker of the cache ([`CacheOptions::workers`](crate::CacheOptions::workers)) until it returns.
#[derive(Clone, Debug, Default)]
pub struct Blocking<P>(pub P);

impl<P: BlockingPager> Pager for Blocking<P> {
    fn describe(&self) -> Description {
        let calls = Description::new(self.0.length());
        let calls = calls.block_bytes(self.0.block_bytes()).depth(usize::MAX).blocking();
        let calls = match self.0.version() {
            Some(version) => calls.version(version),
            None => calls,
        };
        let calls = if self.0.is_writable() { calls.writable() } else { calls };
        if self.0.is_immutable() { calls.immutable() } else { calls }
    }

    fn attach(&self, reports: PagerReports) {
        self.0.attach(reports);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.0.counters()
    }

    fn supply(&self, request: SupplyRequest) {
        request.answer(|range, buffer| self.0.supply(range, buffer));
    }

    fn write_back(&self, request: WriteRequest) {
        request.answer(|range, bytes| self.0.write_back(range, bytes));
    }

    fn sync(&self, request: SyncRequest) {
        request.answer(self.0.sync());
    }

    fn set_length(&self, request: LengthRequest) {
        let length = request.length();
        request.answer(self.0.set_length(length));
    }

    fn detach(&self) {
        self.0.detach();
    }
}

/// What a pager that is reached through a pointer answers: what the pager behind it does.
macro_rules! forward {
    ($([$($lifetime:tt)?] $pointer:ty),*) => {$(
        impl<$($lifetime,)? P: BlockingPager + ?Sized> BlockingPager for $pointer {
            fn length(&self) -> u64 {
                (**self).length()
            }
            fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
                (**self).supply(range, buffer)
            }
            fn is_writable(&self) -> bool {
                (**self).is_writable()
            }
            fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
                (**self).write_back(range, bytes)
            }
            fn sync(&self) -> Result<(), SupplyError> {
                (**self).sync()
            }
            fn set_length(&self, length: u64) -> Result<(), SupplyError> {
                (**self).set_length(length)
            }
            fn is_immutable(&self) -> bool {
                (**self).is_immutable()
            }
            fn block_bytes(&self) -> u64 {
                (**self).block_bytes()
            }
            fn version(&self) -> Option<Arc<str>> {
                (**self).version()
            }
            fn attach(&self, reports: PagerReports) {
                (**self).attach(reports);
            }
            fn counters(&self) -> Vec<(&'static str, u64)> {
                (**self).counters()
            }
            fn detach(&self) {
                (**self).detach();
            }
        }
    )*};
}

forward!([] Box<P>, [] Arc<P>, ['a] &'a P);

/// Implements [`Pager`] for a type by its own [`BlockingPager`]: `by_calls!(Type)`, `by_calls!([P: Bound] Type<P>)`, and with
/// what it says of itself besides.
macro_rules! by_calls {
    ([$($parameters:tt)*] $type:ty, $describe:expr) => {
        impl<$($parameters)*> $crate::pagers::Pager for $type {
            fn describe(&self) -> $crate::pagers::Description {
                let describe: fn(&Self, $crate::pagers::Description) -> $crate::pagers::Description = $describe;
                describe(self, $crate::pagers::Pager::describe(&$crate::pagers::Blocking(self)))
            }
            fn attach(&self, reports: $crate::pagers::PagerReports) {
                $crate::pagers::BlockingPager::attach(self, reports);
            }
            fn counters(&self) -> Vec<(&'static str, u64)> {
                $crate::pagers::BlockingPager::counters(self)
            }
            fn supply(&self, request: $crate::pagers::SupplyRequest) {
                $crate::pagers::Pager::supply(&$crate::pagers::Blocking(self), request);
            }
            fn write_back(&self, request: $crate::pagers::WriteRequest) {
                $crate::pagers::Pager::write_back(&$crate::pagers::Blocking(self), request);
            }
            fn sync(&self, request: $crate::pagers::SyncRequest) {
                $crate::pagers::Pager::sync(&$crate::pagers::Blocking(self), request);
            }
            fn set_length(&self, request: $crate::pagers::LengthRequest) {
                $crate::pagers::Pager::set_length(&$crate::pagers::Blocking(self), request);
            }
            fn detach(&self) {
                $crate::pagers::BlockingPager::detach(self);
            }
        }
    };
    ($type:ty) => {
        $crate::pagers::by_calls!([] $type, |_, description| description);
    };
}

pub(crate) use by_calls;
