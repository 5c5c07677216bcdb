//! Commit: all changes of an object since its last commit, together or not at all.
//!
//! ```text
//!   wait for writes in flight --> close the gate --> lock and protect all that is Dirty --> open the gate
//!        --> copy it into one record --> let stores go on --> one write, one sync --> Clean
//! ```
//!
//! A store that came before the gate was closed is in the commit; one that came later waits at the gate or at its
//! page, and is in the next. So what is committed is what each thread had stored up to one moment. Threads that ask
//! at once share a commit: whoever finds that one began after it asked is done with it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::page_word::State;
use memobj_sys::area::{FillClaim, WriteClaim, WriteRun};
use memobj_sys::region::SMALL;

use super::{WriteState, WriteStep};
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::event::Event;
use crate::pagers::Logged;
use crate::store::FrameStore;

const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long a commit keeps the gate closed to wait for stores that are on their way through.
const CLOSING: Duration = Duration::from_millis(20);
/// How long a commit waits for pages that are pinned for writing, if the object has no time-out of its own.
const PATIENCE: Duration = Duration::from_secs(30);

impl FrameStore {
    /// Commits. See `MemoryObject::commit`.
    pub(crate) fn commit(self: &Arc<Self>, writes: &WriteState, log: &Arc<Logged>) -> Result<(), WriteError> {
        let asked = writes.commits_begun.load(Ordering::SeqCst);
        let _turn = writes.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = writes.shared_commit(asked) {
            return ended;
        }
        let number = writes.commits_begun.fetch_add(1, Ordering::SeqCst) + 1;
        let ended = self.commit_alone(writes, log);
        writes.last_commit(number, &ended);
        if log.wants_checkpoint() {
            self.checkpoint_aside(log);
        }
        ended
    }

    fn commit_alone(self: &Arc<Self>, writes: &WriteState, log: &Arc<Logged>) -> Result<(), WriteError> {
        let Held { quiet: _quiet, runs, .. } =
            self.hold_changes(writes, WriteStep::Commit, |_| Ok(Vec::new()))?;
        if runs.is_empty() && !log.has_uncommitted() {
            return Ok(());
        }
        let pages: Vec<PageIndex> = runs.iter().flat_map(|run| run.pages().iter()).collect();
        let mut at = 0;
        let begun = log.begin_commit(&pages, |page, into| {
            while !runs[at].pages().contains(page) {
                at += 1;
            }
            runs[at].copy_page(page, into);
        });
        let commit = begun.map_err(|error| self.commit_error(&error))?;
        // From here on stores to these pages go on.
        let claims: Vec<WriteClaim> = runs.into_iter().map(WriteRun::copied).collect();
        commit.finish().map_err(|error| self.commit_error(&error))?;
        claims.into_iter().for_each(|claim| self.committed(claim));
        Ok(())
    }

    fn committed(&self, claim: WriteClaim) {
        self.cache.counters.written_pages.add(claim.pages().len());
        self.cache.counters.written_bytes.add(claim.bytes().len());
        claim.written();
        self.cache.cleaner.made_progress();
    }

    /// Waits until no thread offers pages to the log, and keeps further ones away.
    fn stop_write_back<'a>(&self, writes: &'a WriteState, until: Instant) -> Result<Quiet<'a>, WriteError> {
        while writes.in_call.swap(true, Ordering::AcqRel) {
            if self.cache.now() >= until {
                return Err(self.commit_error(&SupplyError::new(ErrorKind::Timeout)));
            }
            self.cache.cleaner.wait_for_progress(LOOK_AGAIN);
        }
        Ok(Quiet(writes))
    }

    /// Locks every page that has changes, at one moment, and holds what `more` does. Waits for what is in the way: pins,
    /// mostly.
    pub(super) fn hold_changes<'a>(
        self: &Arc<Self>,
        writes: &'a WriteState,
        step: WriteStep,
        more: impl Fn(&[WriteRun]) -> Result<Vec<FillClaim>, PageIndex>,
    ) -> Result<Held<'a>, WriteError> {
        let until = self.cache.now() + self.object.options.supply_timeout.unwrap_or(PATIENCE);
        loop {
            let quiet = self.stop_write_back(writes, until)?;
            let in_the_way = match writes.gate.close(CLOSING) {
                None => None,
                Some(_closed) => match self.lock_all().and_then(|runs| Ok((more(&runs)?, runs))) {
                    Ok((claims, runs)) => return Ok(Held { quiet, runs, claims }),
                    Err(page) => Some(page),
                },
            };
            // Who waits inside the gate may wait for pages to be written.
            drop(quiet);
            if self.cache.now() >= until {
                return Err(self.in_the_way(step, in_the_way));
            }
            match in_the_way {
                Some(page) => drop(self.area.wait_as_writer(page, Some(LOOK_AGAIN))),
                None => self.cache.cleaner.wait_for_progress(LOOK_AGAIN),
            }
        }
    }

    /// Locks all pages that have changes, or says which cannot be.
    fn lock_all(self: &Arc<Self>) -> Result<Vec<WriteRun>, PageIndex> {
        let mut runs = Vec::new();
        let mut from = 0;
        while let Some(block) = self.area.next_unclean_block(from) {
            let part = self.part(block, PageRange { start: 0, end: self.area.pages() });
            runs.extend(self.area.lock_dirty(part, u64::MAX, u64::MAX));
            let in_the_way = part.iter().find(|page| {
                let word = self.area.word(*page);
                match word.state() {
                    State::Dirty => true,
                    State::Changing => !is_locked(&runs, *page),
                    _ => word.is_writing(),
                }
            });
            match in_the_way {
                Some(page) => return Err(page),
                None => from = block + 1,
            }
        }
        Ok(runs)
    }

    fn in_the_way(&self, step: WriteStep, page: Option<PageIndex>) -> WriteError {
        let (range, why) = match page {
            Some(page) => (page.0 * SMALL as u64..(page.0 + 1) * SMALL as u64, "a page is pinned"),
            None => (0..self.area.length(), "a store waits for memory"),
        };
        let why = std::io::Error::new(std::io::ErrorKind::WouldBlock, why);
        self.write_error(step, range, &SupplyError::because(ErrorKind::Timeout, why))
    }

    /// Copies what is committed in place, on a thread of its own. A failure loses nothing; it is told, and tried
    /// again after later commits.
    fn checkpoint_aside(self: &Arc<Self>, log: &Arc<Logged>) {
        let (store, log) = (Arc::clone(self), Arc::clone(log));
        let body = move || {
            if let Err(error) = log.checkpoint() {
                store.cache.tell(Event::WriteFailed(store.write_error(
                    WriteStep::WriteBack,
                    0..store.area.length(),
                    &error,
                )));
            }
        };
        // Without a thread the log grows until there is one.
        let _ = std::thread::Builder::new().name("memobj-checkpoint".into()).spawn(body);
    }
}

/// Every page that has changes, locked; and no page is offered to the log while this lives.
pub(super) struct Held<'a> {
    pub(super) quiet: Quiet<'a>,
    pub(super) runs: Vec<WriteRun>,
    pub(super) claims: Vec<FillClaim>,
}

/// Whether one of `runs`, which ascend, has `page`.
pub(super) fn is_locked(runs: &[WriteRun], page: PageIndex) -> bool {
    let at = runs.partition_point(|run| run.pages().end <= page.0);
    runs.get(at).is_some_and(|run| run.pages().contains(page))
}

/// No page is offered to the log while this lives.
pub(super) struct Quiet<'a>(&'a WriteState);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.in_call.store(false, Ordering::Release);
    }
}

impl WriteState {
    /// What a commit came to that began after `asked` were begun.
    fn shared_commit(&self, asked: u64) -> Option<Result<(), WriteError>> {
        let trouble = self.trouble();
        let (number, ended) = trouble.last_commit.as_ref()?;
        (*number > asked).then(|| ended.clone())
    }

    fn last_commit(&self, number: u64, ended: &Result<(), WriteError>) {
        self.trouble().last_commit = Some((number, ended.clone()));
    }
}
