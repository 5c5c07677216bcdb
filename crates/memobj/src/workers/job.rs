//! One pager call, its retries and its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use memobj_core::address::ByteRange;
use memobj_linux::area::FillClaim;
use memobj_linux::pool::FramePool;
use memobj_linux::region::{Chunk, ChunkPool, SMALL};
use memobj_linux::ring::Target;

use crate::error::{ErrorKind, SupplyError};
use crate::event::Event;
use crate::locks::{Rank, RankedMutex};
use crate::options::FailurePolicy;
use crate::pages::{Asked, Fill, split};
use crate::room::Patience;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Job {
    pub(super) fill: Arc<Fill>,
    /// Whoever takes it decides the pages.
    claim: RankedMutex<Option<FillClaim>>,
    bytes: ByteRange,
    asked: Asked,
    /// Calls made before this one.
    tries: u32,
    /// When the first call started; the time before it, in the queue, is not the pager's.
    first_try: OnceLock<Instant>,
    queued: Instant,
    /// Why the page fails, while the pager is asked which part of it is to blame.
    known: RankedMutex<Option<SupplyError>>,
}

/// What is to be done after a job.
pub(super) enum Next {
    Done,
    Later(Instant, Arc<Job>),
    Now(Vec<Arc<Job>>),
}

/// Memory that one worker uses for call after call.
#[derive(Default)]
pub(super) struct Buffer(Option<Chunk>);

impl Buffer {
    fn of(&mut self, len: usize) -> std::io::Result<&mut Chunk> {
        if self.0.as_ref().is_none_or(|chunk| chunk.len() < len) {
            self.0 = None;
            let pool = ChunkPool::new(1, len.next_multiple_of(SMALL))?;
            self.0 = pool.take();
        }
        self.0.as_mut().ok_or_else(|| std::io::ErrorKind::OutOfMemory.into())
    }
}

impl Job {
    pub(super) fn new(fill: Arc<Fill>, claim: FillClaim, asked: Asked) -> Self {
        let (bytes, queued) = (claim.bytes(), fill.object.clock.now());
        Self {
            fill,
            claim: RankedMutex::new(Rank::Job, Some(claim)),
            bytes,
            asked,
            tries: 0,
            first_try: OnceLock::new(),
            queued,
            known: RankedMutex::new(Rank::Job, None),
        }
    }

    pub(super) fn is_demand(&self) -> bool {
        self.asked != Asked::InAdvance
    }

    /// Nobody will call the pager.
    pub(super) fn give_up(&self, error: &SupplyError) {
        let Some(claim) = self.take_claim().filter(|_| self.is_demand()) else { return };
        for claim in split(claim) {
            let bytes = claim.bytes();
            self.fill.errors.fail(claim, error, self.tries, bytes);
        }
    }

    pub(super) fn is_of_same_object(&self, other: &Job) -> bool {
        Arc::ptr_eq(&self.fill.object, &other.fill.object)
    }

    /// When the wait for a call that starts now ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let now = self.fill.object.clock.now();
        self.deadline_of_call(*self.first_try.get_or_init(|| now), now)
    }

    /// When the wait for a thread ends, if it comes to that.
    pub(super) fn queue_deadline(&self) -> Option<Instant> {
        self.deadline_of_call(*self.first_try.get().unwrap_or(&self.queued), self.queued)
    }

    fn deadline_of_call(&self, first_try: Instant, start: Instant) -> Option<Instant> {
        let options = &self.fill.object.options;
        if options.policy == FailurePolicy::WaitForEver {
            return None;
        }
        let call = options.supply_timeout.and_then(|timeout| start.checked_add(timeout));
        let policy = match options.policy {
            FailurePolicy::RetryFor(limit) => first_try.checked_add(limit),
            _ => None,
        };
        call.into_iter().chain(policy).min()
    }

    fn take_claim(&self) -> Option<FillClaim> {
        self.claim.lock().take()
    }

    /// Calls the pager and decides the pages, unless the supervisor has done so meanwhile.
    pub(super) fn run(&self, buffer: &mut Buffer) -> Next {
        if self.fill.is_closed() {
            drop(self.take_claim());
            return Next::Done;
        }
        let answer = match self.fill.area.pool() {
            // Called into memory of its own: a call that hangs must not keep a frame of the budget.
            Some(pool) => match self.call_into_frame(pool, &mut Buffer::default()) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    drop(self.take_claim());
                    return Next::Done;
                }
                Err(error) => Err(error),
            },
            // A worker does not keep the memory of large calls.
            None if self.fill.is_large() => self.call_into(&mut Buffer::default()),
            None => self.call_into(buffer),
        };
        match answer {
            Ok(()) => Next::Done,
            Err(error) => {
                let blamed = self.blamed(&error);
                self.take_claim().map_or(Next::Done, |claim| self.settle(claim, error, blamed))
            }
        }
    }

    /// `false` if the object was unmapped meanwhile.
    fn call_into_frame(&self, pool: &Arc<FramePool>, buffer: &mut Buffer) -> Result<bool, SupplyError> {
        let len = self.bytes.len() as usize;
        let chunk = buffer.of(len)?;
        self.call(self.bytes, chunk)?;
        let Some(frame) = self.fill.take_frame(pool) else {
            return Ok(false);
        };
        let mut target = Target::Frame(frame);
        target.as_mut_slice()[..len].copy_from_slice(&chunk[..len]);
        self.place(|claim| self.fill.place_target(claim, target, self.asked, Patience::Endless))?;
        Ok(true)
    }

    fn call_into(&self, buffer: &mut Buffer) -> Result<(), SupplyError> {
        let len = (self.bytes.len() as usize).next_multiple_of(SMALL);
        let claim = self.claim.lock();
        let is_cut_off = claim.as_ref().is_some_and(|claim| self.fill.is_cut_off(claim, len as u64));
        drop(claim);
        if is_cut_off {
            return Err(SupplyError::new(ErrorKind::Truncated));
        }
        let chunk = buffer.of(len)?;
        self.call(self.bytes, chunk)?;
        chunk[self.bytes.len() as usize..len].fill(0);
        self.fill.tell.counters.read_bytes.add(self.bytes.len());
        self.place(|claim| self.fill.place_copy(claim, &chunk[..len], self.asked, Patience::Endless))
    }

    fn place(&self, put: impl FnOnce(FillClaim) -> Result<(), FillClaim>) -> Result<(), SupplyError> {
        let Some(claim) = self.take_claim() else { return Ok(()) };
        put(claim).map_err(|claim| {
            *self.claim.lock() = Some(claim);
            SupplyError::new(ErrorKind::NoSpace)
        })
    }

    /// One call: anything but the full range is an error.
    fn call(&self, bytes: ByteRange, buffer: &mut [u8]) -> Result<(), SupplyError> {
        if bytes.is_empty() {
            // Behind the end: a page of zeros would stay if the object got its length back.
            return Err(SupplyError::new(ErrorKind::Truncated));
        }
        let len = bytes.len() as usize;
        let pager = &self.fill.object.pager;
        let range = bytes.start..bytes.end;
        let answer = catch_unwind(AssertUnwindSafe(|| pager.supply(range, &mut buffer[..len])));
        match answer {
            Ok(Ok(count)) if count == len => Ok(()),
            Ok(Ok(count)) if count < len => Err(SupplyError::new(ErrorKind::Truncated)),
            Ok(Ok(_)) | Err(_) => Err(SupplyError::new(ErrorKind::Integrity)),
            Ok(Err(error)) => Err(error),
        }
    }

    /// The supervisor's verdict on a call that took too long.
    pub(super) fn overran(&self) -> Next {
        self.fill.health.may_panic(super::CLOCK);
        let Some(claim) = self.take_claim() else { return Next::Done };
        let known = self.known.lock().take();
        self.settle(claim, known.unwrap_or_else(|| SupplyError::new(ErrorKind::Timeout)), self.bytes)
    }

    /// Which bytes `error` is to be blamed on. This can take long: the claim stays in the job meanwhile, so that
    /// the supervisor can end the wait.
    fn blamed(&self, error: &SupplyError) -> ByteRange {
        if !self.fill.is_large() || self.asked == Asked::InAdvance || self.retry_at(error).is_some() {
            return self.bytes;
        }
        *self.known.lock() = Some(error.clone());
        self.locate(error)
    }

    /// Retries, fails or forgets.
    fn settle(&self, claim: FillClaim, error: SupplyError, blamed: ByteRange) -> Next {
        if self.fill.is_closed() {
            return Next::Done;
        }
        if claim.pages().len() > 1 && self.asked == Asked::InAdvance && error.kind == ErrorKind::Timeout {
            // Whoever wants one of the pages asks for it alone, rather than wait for another guess to time out.
            return Next::Done;
        }
        if claim.pages().len() > 1 {
            return Next::Now(self.one_by_one(claim));
        }
        let tries = self.tries + 1;
        if let Some(at) = self.retry_at(&error) {
            let range = self.bytes.start..self.bytes.end;
            self.fill.tell.counters.retries.add(1);
            self.fill.tell.event(Event::Retrying(self.fill.errors.error(range, &error, tries)));
            return Next::Later(at, Arc::new(self.again(claim, tries)));
        }
        if self.asked != Asked::InAdvance {
            self.fill.errors.fail(claim, &error, tries, blamed);
        }
        Next::Done
    }

    /// Of a large page that fails, the part that is to blame: halves are asked for until one page of 4 KiB is left.
    fn locate(&self, error: &SupplyError) -> ByteRange {
        let mut range = self.bytes;
        if matches!(
            error.kind,
            ErrorKind::Timeout | ErrorKind::Stale | ErrorKind::Detached | ErrorKind::NoSpace
        ) {
            return range;
        }
        let mut buffer = Buffer::default();
        while range.len() > SMALL as u64 {
            let pages = range.len().div_ceil(SMALL as u64);
            let middle = range.start + pages / 2 * SMALL as u64;
            let halves =
                [(range.start, middle), (middle, range.end)].map(|(start, end)| ByteRange { start, end });
            let Ok(chunk) = buffer.of(self.bytes.len() as usize) else { return range };
            match halves.into_iter().find(|half| self.call(*half, chunk).is_err()) {
                Some(half) => range = half,
                None => return range,
            }
        }
        range
    }

    /// The claim's pages as jobs of their own, so that each page gets the answer that is its own.
    fn one_by_one(&self, claim: FillClaim) -> Vec<Arc<Job>> {
        let job = |single| Arc::new(Job::new(Arc::clone(&self.fill), single, self.asked));
        split(claim).into_iter().map(job).collect()
    }

    fn again(&self, claim: FillClaim, tries: u32) -> Job {
        let first_try = self.first_try.clone();
        Job { tries, first_try, ..Job::new(Arc::clone(&self.fill), claim, self.asked) }
    }

    fn retry_at(&self, error: &SupplyError) -> Option<Instant> {
        if !error.kind.may_retry() || self.asked == Asked::InAdvance {
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.tries.min(10)).min(LONGEST_PAUSE);
        let at = self.fill.object.clock.now() + pause;
        match self.fill.object.options.policy {
            FailurePolicy::FailAtOnce => None,
            FailurePolicy::RetryFor(limit) => {
                let first_try = *self.first_try.get().unwrap_or(&self.queued);
                let end = first_try.checked_add(limit);
                end.is_none_or(|end| at < end).then_some(at)
            }
            FailurePolicy::WaitForEver => Some(at),
        }
    }
}
