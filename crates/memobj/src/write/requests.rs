//! What a pager that must be asked is asked for changes: to take pages, to make them durable, to change its length.
//!
//! ```text
//!   sync, cleaner --> lock, copy --> WriteRequest --> worker: Pager::write_back --> answered, on any thread: taken, or Dirty
//!                       as many under way as the pager's depth, in the order of offsets         again; the window opens
//! ```
//!
//! A write is never taken back: its pages stay WritingBack until the pager answers, so two writes of one page never pass each
//! other. Who waits for it stops waiting when nothing has been answered for as long as the object's time-out says.

use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use memobj_core::address::PageRange;
use memobj_linux::region::SMALL;

use super::commit::Quiet;
use super::transfer::Offer;
use super::{WriteStep, Writes};
use crate::clock::EngineClock;
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::event::Event;
use crate::locks::{Rank, RankedMutex};
use crate::options::FailurePolicy;
use crate::pagers::{Pager, WriteRequest};
use crate::pages::{AnswerTo, ObjectCore, answer_channel};

/// Calls at once of a pager that blocks.
const BLOCKING_DEPTH: usize = 4;
/// The deepest pager whose depth is used.
const MOST_DEPTH: usize = 256;
/// Pages of one request to a pager that names no block.
const RUN_PAGES: u64 = 64;
/// Bytes under way at least, and as a share of the budget.
const LEAST_BYTES: u64 = 1 << 20;
const SHARE: u64 = 16;
/// How often who waits for answers looks whether the cache still serves.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Writes of one object that its pager has not answered.
#[derive(Debug)]
pub(super) struct Window {
    state: RankedMutex<UnderWay>,
    answered: Condvar,
    depth: usize,
    most_bytes: u64,
    /// The most pages of one request.
    run_pages: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    requests: usize,
    bytes: u64,
    /// Answers so far.
    answers: u64,
}

/// What became of the writes of one call.
#[derive(Debug, Default)]
pub(super) struct Outcome(std::sync::Mutex<(usize, Option<WriteError>)>);

impl Outcome {
    fn lock(&self) -> std::sync::MutexGuard<'_, (usize, Option<WriteError>)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The first error, if there was one.
    pub(super) fn error(&self) -> Option<WriteError> {
        self.lock().1.clone()
    }

    fn left(&self) -> usize {
        self.lock().0
    }

    fn started(&self) {
        self.lock().0 += 1;
    }

    fn ended(&self, error: Option<WriteError>) {
        let mut state = self.lock();
        state.0 -= 1;
        if let Some(error) = error {
            state.1.get_or_insert(error);
        }
    }
}

impl Window {
    pub(super) fn new(object: &ObjectCore, budget_bytes: u64, block_pages: u64) -> Self {
        let description = &object.description;
        let depth = match (&object.log, description.is_blocking()) {
            (Some(_), _) => 1,
            (None, true) => BLOCKING_DEPTH.min(description.depth_limit()),
            (None, false) => MOST_DEPTH.min(description.depth_limit()),
        };
        Self {
            state: RankedMutex::new(Rank::WriteFailures, UnderWay::default()),
            answered: Condvar::new(),
            depth,
            most_bytes: (budget_bytes / SHARE).max(LEAST_BYTES),
            run_pages: if block_pages > 1 { block_pages } else { RUN_PAGES },
        }
    }

    /// Whether a request more may be under way.
    fn is_open(&self) -> bool {
        self.free_pages(*self.state.lock()) > 0
    }

    /// The pages of a request that may be started now. One may always be under way.
    fn free_pages(&self, state: UnderWay) -> u64 {
        if state.requests >= self.depth {
            return 0;
        }
        let pages = self.most_bytes.saturating_sub(state.bytes) / SMALL as u64;
        let pages = if state.requests == 0 { pages.max(1) } else { pages };
        pages.min(self.run_pages)
    }

    /// Takes a place for one request, and room for as many pages as it may have. Several threads start writes at once.
    fn enter(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let pages = self.free_pages(*state);
        if pages == 0 {
            return None;
        }
        state.requests += 1;
        state.bytes += pages * SMALL as u64;
        Some(pages)
    }

    /// Gives back what a request does not use of its room.
    fn trim(&self, bytes: u64) {
        self.state.lock().bytes -= bytes;
    }

    /// Bytes under way.
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    fn leave(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.requests -= 1;
        state.bytes -= bytes;
        state.answers += 1;
        self.answered.notify_all();
    }

    /// Waits until `enough`, or nothing has been answered for `limit`: then it is `false`.
    fn wait(&self, clock: &EngineClock, limit: Option<Duration>, enough: &dyn Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        let end = |now: Instant| limit.and_then(|limit| now.checked_add(limit));
        let (mut seen, mut until) = (state.answers, end(clock.now()));
        loop {
            drop(state);
            if enough() {
                return true;
            }
            state = self.state.lock();
            let now = clock.now();
            if state.answers != seen {
                (seen, until) = (state.answers, end(now));
                continue;
            }
            let left = until.map_or(LOOK_AGAIN, |until| until.saturating_duration_since(now));
            if left.is_zero() {
                return false;
            }
            state = state.wait_within(&self.answered, clock.nap(left).min(LOOK_AGAIN));
        }
    }
}

impl Writes {
    /// How long the pager may take to answer.
    fn answer_limit(&self) -> Option<Duration> {
        let options = &self.object.options;
        options.supply_timeout.filter(|_| options.policy != FailurePolicy::WaitForEver)
    }

    /// Has a worker ask the pager, and waits for the answer as long as the object's time-out says. A call that takes longer
    /// goes on without anybody waiting.
    pub(super) fn ask_aside(
        &self,
        ask: impl FnOnce(&dyn Pager, AnswerTo) + Send + 'static,
    ) -> Result<(), SupplyError> {
        let (to, answer) = answer_channel();
        let object = Arc::clone(&self.object);
        self.fill.workers.call(&self.fill, Box::new(move || ask(&*object.pager, to)));
        self.object.wait_for(&answer).inspect_err(|error| {
            if matches!(error.kind, ErrorKind::Timeout | ErrorKind::Detached) {
                self.tell_no_answer();
            }
        })
    }

    fn tell_no_answer(&self) {
        let object = self.object.name.to_string();
        self.fill.reporter.event(Event::PagerDidNotReturn { object });
    }

    /// Offers what is Dirty in `pages`, all of one block, to the pager, as far as the window is open. Says up to which page
    /// it came, and how many pages it offered. `quiet` ends when all of them are answered.
    pub(super) fn offer_some(
        self: &Arc<Self>,
        pages: PageRange,
        outcome: Option<&Arc<Outcome>>,
        quiet: Option<&Arc<Quiet>>,
    ) -> Result<(u64, u64), SupplyError> {
        let (mut next, mut offered) = (pages.start, 0);
        while next < pages.end {
            let Some(most) = self.window.enter() else { break };
            // One run at a time: what is locked and not offered would hold stores up.
            let copied = self.copy_first_dirty(PageRange { start: next, end: pages.end }, most);
            let Ok(Some((offer, buffer))) = copied else {
                self.window.leave(most * SMALL as u64);
                return copied.map(|_| (pages.end, offered));
            };
            self.window.trim(most * SMALL as u64 - offer.claim.bytes().len());
            next = offer.claim.pages().end;
            offered += offer.claim.pages().len();
            self.send(offer, buffer, outcome, quiet);
        }
        Ok((next, offered))
    }

    fn send(
        self: &Arc<Self>,
        offer: Offer,
        buffer: Vec<u8>,
        outcome: Option<&Arc<Outcome>>,
        quiet: Option<&Arc<Quiet>>,
    ) {
        let bytes = offer.claim.bytes();
        if let Some(outcome) = outcome {
            outcome.started();
        }
        let (writes, outcome, quiet) = (Arc::clone(self), outcome.cloned(), quiet.cloned());
        let to = Box::new(move |answer| writes.answered(offer, answer, outcome, quiet));
        let request = WriteRequest::to(bytes.start..bytes.end, buffer, to);
        let object = Arc::clone(&self.object);
        self.fill.workers.call(&self.fill, Box::new(move || object.pager.write_back(request)));
    }

    /// The pager has answered a write. On any thread.
    fn answered(
        &self,
        offer: Offer,
        answer: Result<(), SupplyError>,
        outcome: Option<Arc<Outcome>>,
        quiet: Option<Arc<Quiet>>,
    ) {
        let bytes = offer.claim.bytes().len();
        let error = match answer {
            Ok(()) => {
                self.accept(offer);
                None
            }
            Err(error) => Some(self.did_not_take(offer.claim, &error)),
        };
        drop(quiet);
        if let Some(outcome) = outcome {
            outcome.ended(error);
        }
        self.window.leave(bytes);
        self.fill.allocator.unwritten.eventfd.notify();
    }

    /// Waits until the window is open, or until all writes of `outcome` are answered.
    fn wait_for_answers(&self, enough: &dyn Fn() -> bool, range: PageRange) -> Result<(), WriteError> {
        if self.window.wait(&self.object.clock, self.answer_limit(), enough) {
            return Ok(());
        }
        self.tell_no_answer();
        let range = range.start << 12..range.end << 12;
        Err(self.object.write_error(WriteStep::WriteBack, range, &SupplyError::new(ErrorKind::Timeout)))
    }

    /// Waits until a request more may be under way, or one of `outcome` has failed.
    pub(super) fn wait_for_window(&self, outcome: &Outcome, pages: PageRange) -> Result<(), WriteError> {
        self.wait_for_answers(&|| self.window.is_open() || outcome.error().is_some(), pages)
    }

    /// Waits until all writes of `outcome` are answered; the first error.
    pub(super) fn wait_for_outcome(&self, outcome: &Outcome, pages: PageRange) -> Result<(), WriteError> {
        self.wait_for_answers(&|| outcome.left() == 0, pages)?;
        outcome.error().map_or(Ok(()), Err)
    }
}
