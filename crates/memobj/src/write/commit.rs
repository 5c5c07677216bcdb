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

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use memobj_core::address::{PageIndex, PageRange};
use memobj_linux::area::{FillClaim, WriteClaim, WriteRun};

use super::{WriteStep, Writes};
use crate::clock::Deadline;
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::event::Event;
use crate::pagers::Logged;
use crate::threads::{self, Serves};

const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long a commit keeps the gate closed to wait for stores that are on their way through.
const CLOSING: Duration = Duration::from_millis(20);

impl Writes {
    /// Commits. See `MemoryObject::commit`.
    pub(crate) fn commit(self: &Arc<Self>, log: &Arc<Logged>) -> Result<(), WriteError> {
        let asked = self.commits_begun.load(Ordering::SeqCst);
        let until = self.object.pin_deadline();
        loop {
            let turn = self.turn.lock();
            if let Some(ended) = self.shared_commit(asked) {
                return ended;
            }
            let number = self.commits_begun.fetch_add(1, Ordering::SeqCst) + 1;
            let held = match self.hold_changes(until, |_| Ok(Vec::new()))? {
                Ok(held) => held,
                // Whoever is in the way may need the turn to go on.
                Err(in_the_way) => {
                    drop(turn);
                    self.wait_to_hold(WriteStep::Commit, in_the_way, until)?;
                    continue;
                }
            };
            let (begun, beside_checkpoint) = (Instant::now(), log.is_copying());
            let ended = self.commit_alone(held, log);
            if beside_checkpoint {
                let counter = &self.fill.reporter.of_cache().longest_commit_beside_checkpoint_ns;
                counter.raise_to(begun.elapsed().as_nanos() as u64);
            }
            self.write_failures.lock().last_commit = Some((number, ended.clone()));
            if log.wants_checkpoint() {
                self.checkpoint_aside(log);
            }
            return ended;
        }
    }

    /// What a commit came to that began after `asked` were begun.
    fn shared_commit(&self, asked: u64) -> Option<Result<(), WriteError>> {
        let write_failures = self.write_failures.lock();
        let (number, ended) = write_failures.last_commit.as_ref()?;
        (*number > asked).then(|| ended.clone())
    }

    fn commit_alone(&self, held: LockedChanges, log: &Arc<Logged>) -> Result<(), WriteError> {
        let LockedChanges { quiet: _quiet, runs, .. } = held;
        // Without them it would be a part of the changes.
        if let Some(lost) = self.errors.lost.overlapping(&(0..u64::MAX)) {
            return Err(lost);
        }
        if runs.is_empty() && !log.has_uncommitted() {
            return Ok(());
        }
        let pages: Vec<PageIndex> = runs.iter().flat_map(|run| run.pages().iter()).collect();
        let (mut at, mut is_whole) = (0, true);
        let begun = log.begin_commit(&pages, |page, into| {
            while !runs[at].pages().contains(page) {
                at += 1;
            }
            is_whole &= runs[at].copy_page(page, into);
        });
        let failed = |error| self.error_of_all(WriteStep::Commit, &error);
        let commit = begun.map_err(failed)?;
        if !is_whole {
            // Dropped, the commit is one that failed.
            let why = std::io::Error::other("the memory of a page was dropped while it was copied");
            let error = SupplyError::because(ErrorKind::Integrity, why);
            return Err(self.error_of_all(WriteStep::Commit, &error));
        }
        // From here on stores to these pages go on.
        let claims: Vec<WriteClaim> = runs.into_iter().map(WriteRun::copied).collect();
        commit.finish().map_err(failed)?;
        claims.into_iter().for_each(|claim| self.committed(claim));
        Ok(())
    }

    fn committed(&self, claim: WriteClaim) {
        self.fill.reporter.counters.written_pages.add(claim.pages().len());
        self.fill.reporter.counters.written_bytes.add(claim.bytes().len());
        claim.written();
        self.fill.allocator.unwritten.made_progress();
    }

    /// Waits until no thread offers pages to the log, and keeps further ones away.
    fn stop_write_back(self: &Arc<Self>, until: Deadline<'_>) -> Result<Quiet, WriteError> {
        loop {
            if let Some(quiet) = Quiet::of(self) {
                return Ok(quiet);
            }
            if until.is_over() {
                let error = self.error_of_all(WriteStep::Commit, &SupplyError::new(ErrorKind::Timeout));
                return Err(error.because("a page is being written"));
            }
            self.fill.allocator.unwritten.wait_for_progress(LOOK_AGAIN);
        }
    }

    /// Locks every page that has changes, at one moment, and holds what `more` does; or says what is in the way, pins
    /// mostly: a page, or a store that waits inside the gate. The caller has the turn, lets it go, and waits.
    pub(super) fn hold_changes(
        self: &Arc<Self>,
        until: Deadline<'_>,
        more: impl Fn(&[WriteRun]) -> Result<Vec<FillClaim>, PageIndex>,
    ) -> Result<Result<LockedChanges, Option<PageIndex>>, WriteError> {
        let quiet = self.stop_write_back(until)?;
        let Some(_closed) = self.gate.close(CLOSING) else { return Ok(Err(None)) };
        Ok(match self.lock_all().and_then(|runs| Ok((more(&runs)?, runs))) {
            Ok((claims, runs)) => Ok(LockedChanges { quiet, runs, claims }),
            Err(page) => Err(Some(page)),
        })
    }

    /// Waits until what was in the way may be gone.
    pub(super) fn wait_to_hold(
        &self,
        step: WriteStep,
        in_the_way: Option<PageIndex>,
        until: Deadline<'_>,
    ) -> Result<(), WriteError> {
        if until.is_over() {
            return Err(self.in_the_way(step, in_the_way));
        }
        match in_the_way {
            Some(page) => self.waits.wait_to_hold(page, LOOK_AGAIN),
            // Who waits inside the gate may wait for pages to be written.
            None => self.fill.allocator.unwritten.wait_for_progress(LOOK_AGAIN),
        }
        Ok(())
    }

    /// Locks all pages that have changes, or says which cannot be.
    fn lock_all(&self) -> Result<Vec<WriteRun>, PageIndex> {
        let mut runs = Vec::new();
        for part in self.unclean_parts(PageRange { start: 0, end: self.area.pages() }) {
            runs.extend(self.lock_dirty(part, u64::MAX, u64::MAX));
            let in_the_way =
                part.iter().find(|page| self.area.word(*page).is_unwritten() && !is_locked(&runs, *page));
            if let Some(page) = in_the_way {
                return Err(page);
            }
        }
        Ok(runs)
    }

    fn in_the_way(&self, step: WriteStep, page: Option<PageIndex>) -> WriteError {
        match page {
            Some(page) => self.waits.held_too_long(step, page),
            None => {
                let error = self.error_of_all(step, &SupplyError::new(ErrorKind::Timeout));
                error.because("a store waits for memory")
            }
        }
    }

    /// Copies what is committed in place, on a thread of its own. A failure loses nothing; it is told, and tried
    /// again after later commits.
    fn checkpoint_aside(self: &Arc<Self>, log: &Arc<Logged>) {
        let (writes, log) = (Arc::clone(self), Arc::clone(log));
        let body = move || {
            let begun = Instant::now();
            match log.checkpoint() {
                Ok(()) => {
                    writes.fill.reporter.of_cache().checkpoints.add(1);
                    writes.fill.reporter.of_cache().checkpoint_ns.add(begun.elapsed().as_nanos() as u64);
                }
                Err(error) => {
                    let error = writes.error_of_all(WriteStep::WriteBack, &error);
                    writes.fill.reporter.event(Event::WriteFailed(error));
                }
            }
        };
        // Without a thread the log grows until there is one.
        let _ = threads::start("memobj-checkpoint", Serves::One, body);
    }
}

/// Every page that has changes, locked; and no page is offered to the log while this lives.
pub(super) struct LockedChanges {
    pub(super) quiet: Quiet,
    pub(super) runs: Vec<WriteRun>,
    pub(super) claims: Vec<FillClaim>,
}

/// Whether one of `runs`, which ascend, has `page`.
pub(super) fn is_locked(runs: &[WriteRun], page: PageIndex) -> bool {
    let at = runs.partition_point(|run| run.pages().end <= page.0);
    runs.get(at).is_some_and(|run| run.pages().contains(page))
}

/// Nobody else offers pages to a pager that must be called, or to the log, while this lives.
pub(super) struct Quiet(Arc<Writes>);

impl Quiet {
    /// `None` if somebody does now.
    pub(super) fn of(writes: &Arc<Writes>) -> Option<Self> {
        (!writes.in_call.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(writes)))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.0.in_call.store(false, Ordering::Release);
    }
}
