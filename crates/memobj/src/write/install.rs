//! What a transaction has collected becomes the object's: all of it at one moment.
//!
//! ```text
//!   a page of a transaction:  claim --> room for a copy --> pin for reading --> copy
//!                             the pin keeps stores of others off, and the page where it is
//!   its commit:               go through the gate --> make all pins exclusive, or none --> store all copies
//!                             --> let go of the pages --> leave the gate --> commit as everybody does
//! ```
//!
//! A commit closes the gate and waits until nobody is inside. So it has all of a transaction or nothing of it.

use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::Word;
use memobj_linux::area::{CopyBudget, PinSet, StoreRefused, UpgradeRefused};
use memobj_linux::region::SMALL;

use super::claims::ClaimRefused;
use super::store::{LOOK_AGAIN, MutPinShare};
use super::{WriteStep, Writes};
use crate::allocator::Patience;
use crate::clock::Deadline;
use crate::error::{AccessError, ErrorKind, SupplyError, WriteError};
use crate::pages::bytes_of;

/// Looks at a page that others pin, one after the other, before pauses between them: a copy is over soon.
const SOON: u32 = 64;
const PAUSE: Duration = Duration::from_millis(1);

/// An open transaction in the table of its object, until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    writes: Arc<Writes>,
    number: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A lock that the parent held while it forked would be held in the child for ever.
        if self.writes.waits.owner.is_this_process() {
            self.writes.claims.end(self.number);
        }
    }
}

/// Bytes of the budget for copies of a transaction, given back on drop. They can be neither evicted nor cleaned: they count
/// as pinned for writing.
#[derive(Debug)]
pub(crate) struct CopyRoom {
    _room: CopyBudget,
    _share: MutPinShare,
}

impl Writes {
    /// A new transaction, without pages.
    pub(crate) fn begin(self: &Arc<Self>) -> Claim {
        Claim { writes: Arc::clone(self), number: self.claims.begin() }
    }

    /// Gives `runs` of pages to the transaction of `claim`, all of them or none; or says why not.
    pub(crate) fn claim_pages(&self, claim: &Claim, runs: &[PageRange]) -> Result<(), AccessError> {
        self.pace()?;
        let taken = self.claims.take(claim.number, runs, self.object.pin_deadline());
        taken.map_err(|refused| match refused {
            ClaimRefused::Held(page, by) => AccessError::Conflict { range: bytes_of(&self.area, page), by },
            ClaimRefused::Deadlock(page) => AccessError::Deadlock { range: bytes_of(&self.area, page) },
        })
    }

    /// The transaction of `claim` does not keep `runs`, which it was given last.
    pub(crate) fn give_pages_back(&self, claim: &Claim, runs: &[PageRange]) {
        self.claims.give_runs_back(claim.number, runs);
    }

    /// Room for copies of `bytes` bytes.
    pub(crate) fn room_for_copies(&self, bytes: u64) -> Result<CopyRoom, AccessError> {
        let allocator = &self.fill.allocator;
        let too_large =
            |limit_bytes| AccessError::TransactionsExceedBudget { wanted_bytes: bytes, limit_bytes };
        let share = MutPinShare::reserve(&allocator.mut_pins, bytes)
            .ok_or_else(|| too_large(allocator.mut_pins.limit()))?;
        // First of what pins may hold, which leaves room: so the wait for the budget ends.
        if !allocator.pins.try_reserve(bytes) {
            return Err(too_large(allocator.pins.limit()));
        }
        if !self.fill.reserve(bytes, Patience::Endless) {
            allocator.pins.release(bytes);
            return Err(AccessError::Detached);
        }
        Ok(CopyRoom { _room: CopyBudget::reserved(Arc::clone(&self.area), bytes), _share: share })
    }

    /// Stores `pieces`, each in one page, to pages that `sets` have pinned, all at one moment for every commit. On error
    /// nothing was stored; but for memory that traps, after which no commit succeeds before a discard.
    pub(crate) fn install(&self, mut sets: Vec<PinSet>, pieces: &[(u64, &[u8])]) -> Result<(), WriteError> {
        let until = self.object.pin_deadline();
        let mut looks = 0;
        let (inside, pages) = loop {
            let Some(inside) = self.gate.enter() else {
                self.gate.wait(LOOK_AGAIN);
                continue;
            };
            match self.area.make_exclusive(sets) {
                Ok(pages) => break (inside, pages),
                Err((_, UpgradeRefused::FrameGone(page))) => return Err(self.lost_before_commit(page)),
                Err((pinned, UpgradeRefused::NotNow(page, word))) => {
                    drop(inside);
                    sets = pinned;
                    self.wait_to_install(page, word, &mut looks, until)?;
                }
            }
        };
        let stored = pieces.iter().try_for_each(|(offset, bytes)| pages.store(*offset, bytes));
        let stored = stored.map_err(|refused| self.stored_in_part(refused, pieces));
        drop(pages);
        drop(inside);
        self.fill.allocator.unwritten.wake_if_enough();
        stored
    }

    fn wait_to_install(
        &self,
        page: PageIndex,
        word: Word,
        looks: &mut u32,
        until: Deadline<'_>,
    ) -> Result<(), WriteError> {
        if until.is_over() {
            return Err(self.waits.held_too_long(WriteStep::Commit, page));
        }
        if word.is_absent() || word.has_failed() {
            // Its frame was dropped from outside. It had no changes, or it has failed.
            let obtained = self.make_writable(word, page, false, &mut None);
            return obtained.map_err(|error| self.no_page(page, error));
        }
        *looks += 1;
        if *looks < SOON {
            std::thread::yield_now();
        } else {
            self.area.wait_as_writer(page, Some(PAUSE));
        }
        Ok(())
    }

    fn no_page(&self, page: PageIndex, error: AccessError) -> WriteError {
        let kind = error.page_error().map_or(ErrorKind::Io, |error| error.kind());
        let error = SupplyError::because(kind, error);
        self.object.write_error(WriteStep::Commit, bytes_of(&self.area, page), &error)
    }

    /// The frame of a page of a transaction was dropped. Others may have stored to it since.
    fn lost_before_commit(&self, page: PageIndex) -> WriteError {
        let range = bytes_of(&self.area, page);
        self.errors.look(page, range.start);
        let error = SupplyError::new(ErrorKind::Integrity);
        let error = self.object.write_error(WriteStep::Commit, range, &error);
        error.because("somebody has dropped the memory of a page of the transaction")
    }

    /// A part of a transaction is in the object, and the rest cannot come: no commit may have it.
    fn stored_in_part(&self, refused: StoreRefused, pieces: &[(u64, &[u8])]) -> WriteError {
        let at = match refused {
            StoreRefused::Trapped(at) => at,
            StoreRefused::NotNow(_) => pieces.first().map_or(0, |(offset, _)| *offset),
        };
        let why = std::io::Error::other("the memory that holds the page traps");
        let error = SupplyError::because(ErrorKind::Io, why);
        let page = bytes_of(&self.area, PageIndex(at / SMALL as u64));
        self.errors.lost.add(WriteStep::Commit, page, &error)
    }

    /// An error of a whole commit.
    pub(crate) fn error_of_commit(&self, error: &SupplyError) -> WriteError {
        self.error_of_all(WriteStep::Commit, error)
    }

    /// Memory of a transaction's page traps, at byte `at` of the object.
    pub(crate) fn error_of_trap(&self, at: u64) -> WriteError {
        self.no_page(PageIndex(at / SMALL as u64), self.waits.trapped_at(at))
    }

    /// An error of the copies of `bytes`.
    pub(crate) fn error_of_copy(&self, bytes: ByteRange, error: &SupplyError) -> WriteError {
        self.object.write_error(WriteStep::Commit, bytes.start..bytes.end, error)
    }

    /// The bytes that the object has of `pages`.
    pub(crate) fn bytes_of_pages(&self, pages: PageRange) -> ByteRange {
        let page = SMALL as u64;
        ByteRange { start: pages.start * page, end: pages.end * page }.below(self.area.length())
    }
}
