//! Failures on purpose.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar};
use std::time::Duration;

use super::{BlockingPager, PagerReports, by_calls};
use crate::error::{ErrorKind, SupplyError};
use crate::locks::{Guard, Rank, RankedMutex};
use crate::options::setters;

/// Which of a pager's operations fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// [`BlockingPager::supply`].
    Supply,
    /// [`BlockingPager::write_back`].
    WriteBack,
    /// [`BlockingPager::sync`]; it has no range, every injection strikes.
    Sync,
    /// [`BlockingPager::set_length`]; as with sync.
    SetLength,
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Inject {
    /// It fails with an input/output error.
    Error,
    /// It fails with an error of this kind.
    Fail(ErrorKind),
    /// A supply answers fewer bytes than asked for, and leaves rubbish behind them. A write takes a part of its
    /// bytes, in units of 4 KiB, and says that there is no space for the rest. Others fail for want of space.
    Short,
    /// A supply answers more bytes than asked for. Others do what they are asked, and then say that they failed.
    Long,
    /// It panics.
    Panic,
    /// It answers right, but late.
    Delay(Duration),
    /// It does not answer before the object is closed.
    Hang,
}

/// One planned failure.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Injection {
    /// The bytes at which it strikes, where the operation has a range.
    pub range: Range<u64>,
    /// What happens.
    pub action: Inject,
    /// How often, at most; `None` is always.
    pub times: Option<u32>,
}

impl Injection {
    /// `action` at each call that has a byte of `range`, always.
    #[must_use]
    pub const fn new(range: Range<u64>, action: Inject) -> Self {
        Self { range, action, times: None }
    }

    setters!(only range: Range<u64>, action: Inject, times: impl Into<Option<u32>>);
}

/// Wraps a pager and makes it fail as planned.
pub struct Faulty<P> {
    inner: P,
    seed: u64,
    plan: RankedMutex<Vec<(Operation, Injection)>>,
    detached: (RankedMutex<bool>, Condvar),
    hanging: AtomicUsize,
}

impl<P: fmt::Debug> fmt::Debug for Faulty<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl<P: BlockingPager> Faulty<P> {
    /// `inner`, with these failures of supplies. `seed` decides lengths of short answers.
    pub fn new(inner: P, plan: Vec<Injection>, seed: u64) -> Self {
        let plan = plan.into_iter().map(|injection| (Operation::Supply, injection)).collect();
        let detached = (RankedMutex::new(Rank::Faulty, false), Condvar::new());
        Self {
            inner,
            seed,
            plan: RankedMutex::new(Rank::Faulty, plan),
            detached,
            hanging: AtomicUsize::new(0),
        }
    }

    /// `inner`, which fails with an input/output error at `range`, always.
    pub fn failing(inner: P, range: Range<u64>) -> Self {
        Self::new(inner, vec![Injection::new(range, Inject::Error)], 0)
    }

    /// Plans one more failure, of any operation, also while the object is mapped.
    pub fn inject(&self, operation: Operation, injection: Injection) {
        self.plan().push((operation, injection));
    }

    /// Forgets all planned failures of `operation`. Calls that hang go on hanging.
    pub fn heal(&self, operation: Operation) {
        self.plan().retain(|(planned, _)| *planned != operation);
    }

    /// Calls that [hang](Inject::Hang) now.
    pub fn hanging(&self) -> usize {
        self.hanging.load(Ordering::Acquire)
    }

    /// The pager underneath.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    fn plan(&self) -> Guard<'_, Vec<(Operation, Injection)>> {
        self.plan.lock()
    }

    /// Takes the next planned failure of `operation` that strikes in `range`; everywhere, if there is none.
    fn next(&self, operation: Operation, range: Option<&Range<u64>>) -> Option<Inject> {
        let mut plan = self.plan();
        let overlaps = |planned: &Range<u64>| {
            range.is_none_or(|range| planned.start < range.end && range.start < planned.end)
        };
        let strikes = |(planned, injection): &&mut (Operation, Injection)| {
            *planned == operation && overlaps(&injection.range) && injection.times != Some(0)
        };
        let (_, planned) = plan.iter_mut().find(strikes)?;
        if let Some(times) = &mut planned.times {
            *times -= 1;
        }
        Some(planned.action)
    }

    /// Answers a call that returns nothing but success. `part` is what a short one does, `whole` the call itself.
    fn answer(
        &self,
        inject: Option<Inject>,
        part: impl FnOnce() -> Result<(), SupplyError>,
        whole: impl FnOnce() -> Result<(), SupplyError>,
    ) -> Result<(), SupplyError> {
        let detached = || SupplyError::new(ErrorKind::Detached);
        match inject {
            None => whole(),
            Some(Inject::Error) => Err(SupplyError::new(ErrorKind::Io)),
            Some(Inject::Fail(kind)) => Err(SupplyError::new(kind)),
            Some(Inject::Short) => part().and(Err(SupplyError::new(ErrorKind::NoSpace))),
            Some(Inject::Long) => whole().and(Err(SupplyError::new(ErrorKind::Io))),
            Some(Inject::Panic) => panic!("injected panic"),
            Some(Inject::Delay(time)) if self.pause(Some(time)) => Err(detached()),
            Some(Inject::Delay(_)) => whole(),
            Some(Inject::Hang) => {
                self.pause(None);
                Err(detached())
            }
        }
    }

    /// Waits for `limit` or the end of the object; says whether the object ended.
    fn pause(&self, limit: Option<Duration>) -> bool {
        let guard = self.detached.0.lock();
        let hangs = usize::from(limit.is_none());
        self.hanging.fetch_add(hangs, Ordering::AcqRel);
        let ended = guard.wait_while(&self.detached.1, limit.unwrap_or(Duration::MAX), |ended| !*ended);
        self.hanging.fetch_sub(hangs, Ordering::AcqRel);
        *ended
    }
}

impl<P: BlockingPager> BlockingPager for Faulty<P> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn is_immutable(&self) -> bool {
        self.inner.is_immutable()
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        match self.next(Operation::Supply, Some(&range)) {
            None => self.inner.supply(range, buffer),
            Some(Inject::Error) => Err(SupplyError::new(ErrorKind::Io)),
            Some(Inject::Fail(kind)) => Err(SupplyError::new(kind)),
            Some(Inject::Short) => {
                let keep = short_length(self.seed ^ range.start, buffer.len());
                self.inner.supply(range, buffer)?;
                buffer[keep..].fill(0xdb);
                Ok(keep)
            }
            Some(Inject::Long) => {
                let filled = self.inner.supply(range, buffer)?;
                Ok(filled + 1)
            }
            Some(Inject::Panic) => panic!("injected panic at [{}, {})", range.start, range.end),
            Some(Inject::Delay(time)) => {
                if self.pause(Some(time)) {
                    return Err(SupplyError::new(ErrorKind::Detached));
                }
                self.inner.supply(range, buffer)
            }
            Some(Inject::Hang) => {
                self.pause(None);
                Err(SupplyError::new(ErrorKind::Detached))
            }
        }
    }

    fn is_writable(&self) -> bool {
        self.inner.is_writable()
    }

    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        let inject = self.next(Operation::WriteBack, Some(&range));
        let keep = short_length(self.seed ^ range.start, bytes.len().max(1)) / 4096 * 4096;
        let part = || match keep {
            0 => Ok(()),
            keep => self.inner.write_back(range.start..range.start + keep as u64, &bytes[..keep]),
        };
        self.answer(inject, part, || self.inner.write_back(range.clone(), bytes))
    }

    fn sync(&self) -> Result<(), SupplyError> {
        self.answer(self.next(Operation::Sync, None), || Ok(()), || self.inner.sync())
    }

    fn set_length(&self, length: u64) -> Result<(), SupplyError> {
        let inject = self.next(Operation::SetLength, None);
        self.answer(inject, || Ok(()), || self.inner.set_length(length))
    }

    fn block_bytes(&self) -> u64 {
        self.inner.block_bytes()
    }

    fn version(&self) -> Option<Arc<str>> {
        self.inner.version()
    }

    fn attach(&self, reports: PagerReports) {
        self.inner.attach(reports);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.inner.counters()
    }

    fn detach(&self) {
        *self.detached.0.lock() = true;
        self.detached.1.notify_all();
        self.inner.detach();
    }
}

by_calls!([P: BlockingPager] Faulty<P>, |_, description| description);

/// A length below `len` that depends on `seed` only (the finaliser of splitmix64).
fn short_length(seed: u64, len: usize) -> usize {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % len as u64) as usize
}
