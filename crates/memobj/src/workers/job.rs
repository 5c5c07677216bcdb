//! One range that a pager is asked for: its request, its answer, its retries.
//!
//! ```text
//!   queued (a value) --> picked, merged with what follows --> under way (shared) --> answered --> in place, or kept
//!                             request with its buffer              |             '--> later again | one by one | failed
//!                                                                  '--> overdue, cancelled: an answer finds nobody
//! ```
//!
//! Whoever takes the claim out of a job decides its pages.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use memobj_core::address::{ByteRange, PageRange};
use memobj_linux::area::FillClaim;
use memobj_linux::region::{Chunk, SMALL};
use memobj_linux::ring::Target;

use super::Shared;
use super::memory::Reserved;
use crate::allocator::Patience;
use crate::clock::EngineClock;
use crate::error::{ErrorKind, SupplyError};
use crate::event::Event;
use crate::locks::{Rank, RankedMutex};
use crate::options::FailurePolicy;
use crate::pagers::{Hook, SupplyRequest, SupplyTo};
use crate::pages::{Arrived, Fill, FillReason, Keep, split};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often who waits for the parts of a page looks whether it is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a job needs while its pages are undecided.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) fill: Arc<Fill>,
    pub(super) claim: FillClaim,
}

/// What is known of a job's object when its frames are gone.
#[derive(Clone, Debug)]
struct Terms {
    name: Arc<str>,
    /// Of its mapped pages: [`Fill::number`].
    key: u64,
    object: u64,
    clock: EngineClock,
    policy: FailurePolicy,
    timeout: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Job {
    live: RankedMutex<Option<Live>>,
    terms: Terms,
    /// Behind the end of the object they have no bytes.
    pub(super) pages: PageRange,
    /// Those of them that somebody asked for, from the first to the last; the others came along.
    pub(super) wanted: PageRange,
    bytes: ByteRange,
    reason: FillReason,
    /// Who keeps the bytes ready instead of their being put in place.
    keep: Option<Box<dyn Keep>>,
    /// Its page is asked for by itself, to have its own answer.
    is_alone: bool,
    /// Requests made before this one.
    tries: u32,
    /// When the first request was made; the time before it, in the queue, is not the pager's.
    first_try: OnceLock<Instant>,
    queued: Instant,
    number: u64,
    deadline: Option<Instant>,
    /// Why the page fails, while the pager is asked which part of it is to blame.
    known: RankedMutex<Option<SupplyError>>,
    hook: RankedMutex<HookSlot>,
    /// Room for the buffer, from the request to the answer.
    reserved: RankedMutex<Option<Reserved>>,
}

/// What a pager wants to be told when nobody waits any more.
enum HookSlot {
    None,
    Some(Hook),
    /// It is answered, or was told.
    Over,
}

impl std::fmt::Debug for HookSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookSlot")
    }
}

/// What is to be done after a job.
pub(super) enum Next {
    Done,
    Later(Instant, Box<Job>),
    Now(Vec<Job>),
    /// There was no room for its bytes: a worker waits for some.
    Place(Chunk),
    /// The page failed; a worker finds out which part of it is to blame.
    Locate(SupplyError),
}

impl Job {
    pub(super) fn new(
        fill: Arc<Fill>,
        claim: FillClaim,
        reason: FillReason,
        keep: Option<Box<dyn Keep>>,
    ) -> Self {
        let object = &fill.object;
        let terms = Terms {
            name: Arc::clone(&object.name),
            key: fill.number,
            object: object.number,
            clock: object.clock.clone(),
            policy: object.options.policy,
            timeout: object.options.supply_timeout,
        };
        let (pages, bytes, queued) = (claim.pages(), claim.bytes(), terms.clock.now());
        Self {
            live: RankedMutex::new(Rank::Job, Some(Live { fill, claim })),
            terms,
            pages,
            wanted: pages,
            bytes,
            reason,
            keep,
            is_alone: false,
            tries: 0,
            first_try: OnceLock::new(),
            queued,
            number: 0,
            deadline: None,
            known: RankedMutex::new(Rank::Job, None),
            hook: RankedMutex::new(Rank::Job, HookSlot::None),
            reserved: RankedMutex::new(Rank::Job, None),
        }
    }

    pub(super) fn is_demand(&self) -> bool {
        self.reason != FillReason::InAdvance
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.terms.name)
    }

    /// Names the mapped pages that it is of.
    pub(super) fn key(&self) -> u64 {
        self.terms.key
    }

    /// Names the object, which can be mapped anew.
    pub(super) fn object(&self) -> u64 {
        self.terms.object
    }

    /// Adds the pages of `next`, which follow, if they can be asked for together, in at most `most` pages. Else it comes back.
    pub(super) fn join(&mut self, mut next: Job, most: u64) -> Option<Job> {
        let is_alone = |job: &Job| job.is_alone || job.keep.is_some() || job.tries > 0;
        if next.has_reserved() != self.has_reserved() {
            return Some(next);
        }
        let alike = self.reason == next.reason && !is_alone(self) && !is_alone(&next);
        let (Some(live), Some(other)) = (self.live.get_mut(), next.live.get_mut().take()) else {
            return Some(next);
        };
        let fits = live.claim.pages().len() + other.claim.pages().len() <= most;
        let refused = match alike && fits {
            true => live.claim.join(other.claim),
            false => Some(other.claim),
        };
        match refused {
            Some(claim) => *next.live.get_mut() = Some(Live { claim, fill: other.fill }),
            None => {
                (self.pages, self.bytes) = (live.claim.pages(), live.claim.bytes());
                let (start, end) =
                    (self.wanted.start.min(next.wanted.start), self.wanted.end.max(next.wanted.end));
                self.wanted = PageRange { start, end };
                if let (Some(own), Some(other)) = (self.reserved.get_mut(), next.reserved.get_mut().take()) {
                    own.join(other);
                }
                return None;
            }
        }
        Some(next)
    }

    /// Bytes of a buffer for it.
    pub(super) fn buffer_bytes(&self) -> u64 {
        (self.bytes.len()).next_multiple_of(SMALL as u64).max(SMALL as u64)
    }

    /// Has room for its buffer.
    pub(super) fn keep_reserved(&mut self, reserved: Reserved) {
        *self.reserved.get_mut() = Some(reserved);
    }

    /// Whether it has room for its buffer.
    pub(super) fn has_reserved(&mut self) -> bool {
        self.reserved.get_mut().is_some()
    }

    /// A request is made of it now, with this number.
    pub(super) fn begin(&mut self, number: u64) {
        self.number = number;
        let now = self.terms.clock.now();
        self.deadline = self.deadline_of_call(*self.first_try.get_or_init(|| now), now);
    }

    /// The number of the request.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The frames that its pages are of, while these are undecided.
    pub(super) fn fill(&self) -> Option<Arc<Fill>> {
        self.live.lock().as_ref().map(|live| Arc::clone(&live.fill))
    }

    /// When the wait for the request ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// When it was queued.
    pub(super) fn queued(&self) -> Instant {
        self.queued
    }

    /// When the wait for a thread ends, if it comes to that.
    pub(super) fn queue_deadline(&self) -> Option<Instant> {
        self.deadline_of_call(*self.first_try.get().unwrap_or(&self.queued), self.queued)
    }

    fn deadline_of_call(&self, first_try: Instant, start: Instant) -> Option<Instant> {
        if self.terms.policy == FailurePolicy::WaitForEver {
            return None;
        }
        let call = self.terms.timeout.and_then(|timeout| start.checked_add(timeout));
        let policy = match self.terms.policy {
            FailurePolicy::RetryFor(limit) => first_try.checked_add(limit),
            _ => None,
        };
        call.into_iter().chain(policy).min()
    }

    fn take_live(&self) -> Option<Live> {
        self.live.lock().take()
    }

    /// Nobody waits any more. The claim, to be dropped where no lock is held; the hook, to be called.
    pub(super) fn cancel(&self) -> (Option<Live>, Option<Hook>) {
        let live = self.take_live();
        self.tell_keeper(None);
        (live, self.end_hook())
    }

    /// The hook of the pager, which from now on is never called by the job.
    pub(super) fn end_hook(&self) -> Option<Hook> {
        match std::mem::replace(&mut *self.hook.lock(), HookSlot::Over) {
            HookSlot::Some(hook) => Some(hook),
            HookSlot::None | HookSlot::Over => None,
        }
    }

    /// A thread has ended by a panic: the cache supplies nothing any more.
    pub(super) fn tell_thread_ended(&self, thread: &'static str) {
        if let Some(fill) = self.fill() {
            fill.health.thread_ended(thread);
        }
    }

    /// Nobody waits for it, and it is not asked for.
    pub(super) fn forget(&self) {
        drop(self.take_live());
        self.tell_keeper(None);
    }

    /// The pages fail without an answer of the pager.
    pub(super) fn give_up(&self, error: &SupplyError) {
        let Some(Live { fill, claim }) = self.take_live() else { return };
        self.tell_keeper(None);
        if self.is_demand() {
            for claim in split(claim) {
                let bytes = claim.bytes();
                fill.errors.fail(claim, error, self.tries, bytes);
            }
        }
    }

    fn tell_keeper(&self, arrived: Option<Arrived>) {
        if let Some(keep) = &self.keep {
            keep.keep(arrived);
        }
    }

    /// Asks the pager. `Some`: the job has ended without a request.
    pub(super) fn ask(
        self: &Arc<Self>,
        buffer: std::io::Result<Chunk>,
        shared: &Weak<Shared>,
    ) -> Option<Next> {
        let live = self.live.lock();
        let Some(Live { fill, claim }) = &*live else { return Some(Next::Done) };
        if fill.is_closed() {
            drop(live);
            drop(self.take_live());
            self.tell_keeper(None);
            return Some(Next::Done);
        }
        // Behind the end: a page of zeros would stay if the object got its length back.
        let is_cut_off = self.bytes.is_empty() || fill.is_cut_off(claim, self.buffer_bytes());
        let object = Arc::clone(&fill.object);
        drop(live);
        if is_cut_off {
            return Some(self.failed(SupplyError::new(ErrorKind::Truncated)));
        }
        let buffer = match buffer {
            Ok(buffer) => buffer,
            Err(error) => return Some(self.failed(SupplyError::because(ErrorKind::NoSpace, error))),
        };
        let to = ToJob { job: Arc::clone(self), shared: Weak::clone(shared) };
        let request = SupplyRequest::to(self.bytes.start..self.bytes.end, buffer, Box::new(to));
        // A request that is dropped by the panic fails.
        let _ = catch_unwind(AssertUnwindSafe(|| object.pager.supply(request)));
        None
    }

    /// The bytes are here: they are put in place, or kept ready.
    fn arrived(&self, mut buffer: Chunk) -> Next {
        let len = self.bytes.len() as usize;
        let end = self.buffer_bytes() as usize;
        buffer[len..end].fill(0);
        let Some(Live { fill, claim }) = self.take_live() else { return Next::Done };
        if fill.is_closed() {
            self.tell_keeper(None);
            return Next::Done;
        }
        if self.keep.is_some() {
            let reserved = self.reserved.lock().take();
            let room = Box::new(reserved);
            self.tell_keeper(Some(Arrived { claim, target: Target::Chunk(buffer), room }));
            return Next::Done;
        }
        self.place(fill, claim, buffer, Patience::Short)
    }

    /// A worker waits for room.
    pub(super) fn place_later(&self, buffer: Chunk) -> Next {
        let Some(Live { fill, claim }) = self.take_live() else { return Next::Done };
        if fill.is_closed() {
            return Next::Done;
        }
        self.place(fill, claim, buffer, Patience::Endless)
    }

    fn place(&self, fill: Arc<Fill>, claim: FillClaim, buffer: Chunk, patience: Patience) -> Next {
        match fill.place_bytes(claim, &buffer[..self.buffer_bytes() as usize], self.reason, patience) {
            Ok(()) => Next::Done,
            Err(claim) => {
                *self.live.lock() = Some(Live { fill, claim });
                match patience {
                    Patience::Short => Next::Place(buffer),
                    Patience::Endless => self.failed(SupplyError::new(ErrorKind::NoSpace)),
                }
            }
        }
    }

    /// The supervisor's verdict on a request that took too long.
    pub(super) fn overran(&self) -> Next {
        let Some(live) = self.take_live() else { return Next::Done };
        live.fill.health.may_panic(super::CLOCK);
        let known = self.known.lock().take();
        self.settle(live, known.unwrap_or_else(|| SupplyError::new(ErrorKind::Timeout)), self.bytes)
    }

    /// The pager has failed.
    pub(super) fn failed(&self, error: SupplyError) -> Next {
        if self.is_to_be_located(&error) {
            // The job stays undecided: whoever ends its wait meanwhile has the reason.
            *self.known.lock() = Some(error.clone());
            return match self.live.lock().is_some() {
                true => Next::Locate(error),
                false => Next::Done,
            };
        }
        self.take_live().map_or(Next::Done, |live| self.settle(live, error, self.bytes))
    }

    /// Whether a part of the page is to blame for its failure, and it is to be found out which.
    fn is_to_be_located(&self, error: &SupplyError) -> bool {
        let is_large = || self.live.lock().as_ref().is_some_and(|live| live.fill.is_large());
        is_of_a_part(error)
            && self.bytes.len() > SMALL as u64
            && self.is_demand()
            && self.retry_at(error).is_none()
            && is_large()
    }

    /// Retries, fails or forgets.
    fn settle(&self, live: Live, error: SupplyError, blamed: ByteRange) -> Next {
        let Live { fill, claim } = live;
        if fill.is_closed() || self.keep.is_some() {
            drop(claim);
            self.tell_keeper(None);
            return Next::Done;
        }
        if claim.pages().len() > 1 && !self.is_demand() && error.kind == ErrorKind::Timeout {
            // Whoever wants one of the pages asks for it alone, rather than wait for another guess to time out.
            return Next::Done;
        }
        if claim.pages().len() > 1 && error.retry_after.is_none() {
            return Next::Now(self.one_by_one(&fill, claim));
        }
        if claim.pages().len() > 1 && self.retry_at(&error).is_none() {
            // The server wants to be left alone: no part is asked for. What nobody asked for is absent again.
            for claim in split(claim).into_iter().filter(|single| self.is_wanted(single)) {
                let bytes = claim.bytes();
                fill.errors.fail(claim, &error, self.tries + 1, bytes);
            }
            return Next::Done;
        }
        let tries = self.tries + 1;
        if let Some(at) = self.retry_at(&error) {
            let range = self.bytes.start..self.bytes.end;
            fill.reporter.counters.retries.add(1);
            fill.reporter.event(Event::Retrying(fill.errors.error(range, &error, tries)));
            return Next::Later(at, Box::new(self.again(fill, claim, tries)));
        }
        if self.is_demand() {
            fill.errors.fail(claim, &error, tries, blamed);
        }
        Next::Done
    }

    /// Fails the page, and blames the part of it that is to blame. On a worker: the job stays undecided meanwhile, so that
    /// the supervisor can end the wait.
    pub(super) fn locate(&self, error: SupplyError) -> Next {
        let blamed = self.part_to_blame();
        self.take_live().map_or(Next::Done, |live| self.settle(live, error, blamed))
    }

    /// Halves are asked for until one page of 4 KiB is left.
    fn part_to_blame(&self) -> ByteRange {
        let mut range = self.bytes;
        while range.len() > SMALL as u64 {
            let pages = range.len().div_ceil(SMALL as u64);
            let middle = range.start + pages / 2 * SMALL as u64;
            let halves =
                [(range.start, middle), (middle, range.end)].map(|(start, end)| ByteRange { start, end });
            match halves.into_iter().find(|half| self.fails(*half)) {
                Some(half) => range = half,
                None => return range,
            }
        }
        range
    }

    /// Whether the pager cannot supply `part`, either.
    fn fails(&self, part: ByteRange) -> bool {
        let Some(object) = self.live.lock().as_ref().map(|live| Arc::clone(&live.fill.object)) else {
            return false;
        };
        let (sender, answer) = sync_channel(1);
        let request = SupplyRequest::new(part.start..part.end, move |answer| {
            let _ = sender.send(answer.is_err());
        });
        let Ok(request) = request else { return false };
        let _ = catch_unwind(AssertUnwindSafe(|| object.pager.supply(request)));
        loop {
            match answer.recv_timeout(LOOK_AGAIN) {
                Ok(failed) => return failed,
                Err(RecvTimeoutError::Timeout) if self.live.lock().is_some() => {}
                Err(_) => return false,
            }
        }
    }

    /// Whether the page is one that somebody asked for, and waits for.
    fn is_wanted(&self, single: &FillClaim) -> bool {
        let page = single.pages().start;
        self.is_demand() && self.wanted.start <= page && page < self.wanted.end
    }

    /// The claim's pages as jobs of their own, so that each page gets the answer that is its own. Pages that came along with those
    /// that somebody asked for are absent again: whoever wants one asks for it.
    fn one_by_one(&self, fill: &Arc<Fill>, claim: FillClaim) -> Vec<Job> {
        let job = |single| Job { is_alone: true, ..Job::new(Arc::clone(fill), single, self.reason, None) };
        let is_asked = |single: &FillClaim| !self.is_demand() || self.is_wanted(single);
        split(claim).into_iter().filter(is_asked).map(job).collect()
    }

    fn again(&self, fill: Arc<Fill>, claim: FillClaim, tries: u32) -> Job {
        let first_try = self.first_try.clone();
        Job { tries, first_try, wanted: self.wanted, ..Job::new(fill, claim, self.reason, None) }
    }

    fn retry_at(&self, error: &SupplyError) -> Option<Instant> {
        if !error.kind.may_retry() || !self.is_demand() {
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.tries.min(10)).min(LONGEST_PAUSE);
        let pause = pause.max(error.retry_after.unwrap_or_default());
        let at = self.terms.clock.now() + pause;
        match self.terms.policy {
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

/// Whether parts of a page can be to blame for it.
fn is_of_a_part(error: &SupplyError) -> bool {
    !matches!(error.kind, ErrorKind::Timeout | ErrorKind::Stale | ErrorKind::Detached | ErrorKind::NoSpace)
}

/// Hears the answer to the request of a job.
struct ToJob {
    job: Arc<Job>,
    shared: Weak<Shared>,
}

impl SupplyTo for ToJob {
    fn answered(&self, buffer: Chunk, answer: Result<(), SupplyError>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let next = match answer {
            Ok(()) => self.job.arrived(buffer),
            Err(error) => self.job.failed(error),
        };
        shared.answered(&self.job, next);
    }

    fn is_wanted(&self) -> bool {
        self.job.live.lock().as_ref().is_some_and(|live| !live.fill.is_closed())
    }

    fn deadline(&self) -> Option<Instant> {
        self.job.deadline()
    }

    fn when_unwanted(&self, hook: Hook) {
        if !self.is_wanted() {
            if let Some(shared) = self.shared.upgrade() {
                shared.call_hook(&self.job, hook);
            }
            return;
        }
        let mut slot = self.job.hook.lock();
        let rest = match &mut *slot {
            HookSlot::Over => Some(hook),
            kept => {
                let HookSlot::Some(old) = std::mem::replace(kept, HookSlot::Some(hook)) else { return };
                drop(slot);
                return drop(old);
            }
        };
        drop(slot);
        if let (Some(hook), Some(shared)) = (rest, self.shared.upgrade()) {
            shared.call_hook(&self.job, hook);
        }
    }

    fn is_urgent(&self) -> bool {
        self.job.is_demand()
    }
}

impl Job {
    /// The room for its buffer is free again.
    pub(super) fn give_back_room(&self) {
        // Not under the lock: who waits for room is told.
        let reserved = self.reserved.lock().take();
        drop(reserved);
    }
}
