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
use memobj_sys::area::{WriteClaim, WriteRun};
use memobj_sys::region::SMALL;

use super::{WriteState, WriteStep};
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::event::Event;
use crate::pagers::Logged;
use crate::store::FrameStore;

const LOOK_AGAIN: Duration = Duration::from_millis(1);
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
        let until = Instant::now() + self.object.options.supply_timeout.unwrap_or(PATIENCE);
        let _quiet = self.stop_write_back(writes, until)?;
        let runs = self.lock_changes(writes, until)?;
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
            if Instant::now() >= until {
                return Err(self.commit_error(&SupplyError::new(ErrorKind::Timeout)));
            }
            self.cache.cleaner.wait_for_progress(LOOK_AGAIN);
        }
        Ok(Quiet(writes))
    }

    /// Locks every page that has changes, at one moment.
    fn lock_changes(
        self: &Arc<Self>,
        writes: &WriteState,
        until: Instant,
    ) -> Result<Vec<WriteRun>, WriteError> {
        loop {
            let closed = writes.gate.close();
            let mut runs = Vec::new();
            let mut in_the_way = None;
            let mut from = 0;
            while let Some(block) = self.area.next_unclean_block(from) {
                let all = PageRange { start: 0, end: self.area.pages() };
                let part = self.part(block, all);
                runs.extend(self.area.lock_dirty(part, u64::MAX, u64::MAX));
                let locked = |page: PageIndex| runs.iter().rev().any(|run| run.pages().contains(page));
                in_the_way = in_the_way.or_else(|| {
                    part.iter().find(|page| {
                        let word = self.area.word(*page);
                        word.state() == State::Dirty
                            || word.is_writing()
                            || word.state() == State::Changing && !locked(*page)
                    })
                });
                if in_the_way.is_some() {
                    break;
                }
                from = block + 1;
            }
            drop(closed);
            let Some(page) = in_the_way else { return Ok(runs) };
            drop(runs);
            if Instant::now() >= until {
                let start = page.0 * SMALL as u64;
                let why = std::io::Error::new(std::io::ErrorKind::WouldBlock, "a page is pinned for writing");
                let error = SupplyError::because(ErrorKind::Timeout, why);
                return Err(self.write_error(WriteStep::Commit, start..start + SMALL as u64, &error));
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
        }
    }

    /// Drops all changes since the last commit, by whatever means they are kept. Returns the pages that had some.
    pub(crate) fn abandon(
        self: &Arc<Self>,
        writes: &WriteState,
        log: &Arc<Logged>,
    ) -> Result<u64, WriteError> {
        let until = Instant::now() + self.object.options.supply_timeout.unwrap_or(PATIENCE);
        let _turn = writes.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _quiet = self.stop_write_back(writes, until)?;
        let all = PageRange { start: 0, end: self.area.pages() };
        let mut dropped = self.discard_pages(all)?;
        let (spilled, length) = log.abandon();
        self.area.set_length(length);
        self.object.set_length(length);
        for page in spilled.into_iter().map(PageIndex) {
            dropped += 1;
            self.forget_resident(page, until)?;
        }
        Ok(dropped)
    }

    /// Sees to it that a page that was read from the log before it was dropped there is read anew.
    fn forget_resident(&self, page: PageIndex, until: Instant) -> Result<(), WriteError> {
        loop {
            let word = self.area.word(page);
            if matches!(word.state(), State::Absent | State::Failed) {
                return Ok(());
            }
            self.area.evict_all(PageRange::one(page), self.cache.clock.now());
            if Instant::now() >= until {
                let start = page.0 * SMALL as u64;
                let why = std::io::Error::new(std::io::ErrorKind::WouldBlock, "a page is pinned");
                let error = SupplyError::because(ErrorKind::Timeout, why);
                return Err(self.write_error(WriteStep::Discard, start..start + SMALL as u64, &error));
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
        }
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

/// No page is offered to the log while this lives.
struct Quiet<'a>(&'a WriteState);

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
