//! Abandon: back to the last commit, all of it or nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj_core::address::{PageIndex, PageRange};
use memobj_linux::area::{FillClaim, Placement, WriteRun};

use super::commit::{LockedChanges, is_locked};
use super::{WriteStep, Writes};
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::pagers::Logged;
use crate::pages::bytes_of;

const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long pages that others hold are waited for before all is let go, and tried again.
const SHORTLY: Duration = Duration::from_millis(50);

impl Writes {
    /// Drops all changes since the last commit, by whatever means they are kept. Returns the pages that had some. On
    /// `Timeout` nothing has changed: somebody pins such a page.
    pub(super) fn abandon(self: &Arc<Self>, log: &Logged) -> Result<u64, WriteError> {
        let until = self.object.pin_deadline();
        let (_turn, held) = loop {
            let turn = self.turn.lock();
            // Nobody reads from the log, or has read, what is dropped there: such pages are held, too.
            match self.hold_changes(until, |runs| self.hold_uncommitted(log, runs))? {
                Ok(held) => break (turn, held),
                Err(in_the_way) => {
                    drop(turn);
                    self.wait_to_hold(WriteStep::Discard, in_the_way, until)?;
                }
            }
        };
        let LockedChanges { quiet: _quiet, runs, claims } = held;
        let (spilled, length) = log.abandon();
        let only_spilled = spilled.iter().filter(|page| !is_locked(&runs, PageIndex(**page))).count() as u64;
        let dropped = runs.iter().map(|run| run.pages().len()).sum::<u64>() + only_spilled;
        let now = self.fill.allocator.ages.now();
        let mut kept = None;
        for run in runs {
            kept = kept.or(run.discard(now).err());
        }
        let old = self.area.length();
        match length < old {
            true => self.area.set_length(length),
            false => self.area.extend(length),
        }
        self.object.set_length(length);
        drop(claims);
        self.drop_behind(length, old);
        let lost = self.errors.lift(&(0..u64::MAX)).map_err(|page| self.could_not_drop(page))?;
        self.errors.lost.forget(&(0..u64::MAX));
        match kept {
            Some(page) => Err(self.could_not_drop(page)),
            None => Ok(dropped + lost),
        }
    }

    /// Holds the pages without changes in memory whose bytes are not those of the last commit, or were read as such.
    fn hold_uncommitted(&self, log: &Logged, runs: &[WriteRun]) -> Result<Vec<FillClaim>, PageIndex> {
        let (spilled, cut) = log.uncommitted();
        let end = self.area.pages();
        let cut = cut.min(end);
        let until = Instant::now() + SHORTLY;
        // Bytes that somebody pins for reading could be copied, but not dropped. New pins are not taken meanwhile.
        for page in runs.iter().flat_map(|run| run.pages().iter()) {
            while self.area.word(page).pins() > 0 {
                if Instant::now() >= until {
                    return Err(page);
                }
                std::thread::yield_now();
            }
        }
        let mut claims = Vec::new();
        for page in spilled.range(..cut) {
            self.hold_absent(PageRange::one(PageIndex(*page)), runs, &mut claims, until)?;
        }
        self.hold_absent(PageRange { start: cut, end }, runs, &mut claims, until)?;
        Ok(claims)
    }

    /// Evicts and holds those of `pages` that are not locked. Waits for those that others are filling: there may be
    /// many readers, and never a moment without.
    fn hold_absent(
        &self,
        pages: PageRange,
        runs: &[WriteRun],
        claims: &mut Vec<FillClaim>,
        until: Instant,
    ) -> Result<(), PageIndex> {
        self.area.evict_all(pages, self.fill.allocator.ages.now());
        let mut page = pages.start;
        while page < pages.end {
            let rest = PageRange { start: page, end: pages.end };
            if let Some(claim) = self.area.claim_run(rest, Placement::AtOnce) {
                // Who pins a page that has lost its frame is to get back what he had.
                if let Some(pinned) = claim.pages().iter().find(|page| self.area.word(*page).pins() > 0) {
                    return Err(pinned);
                }
                page = claim.pages().end;
                claims.push(claim);
                continue;
            }
            let index = PageIndex(page);
            if is_locked(runs, index) || self.area.word(index).has_failed() {
                page += 1;
                continue;
            }
            if Instant::now() >= until {
                return Err(index);
            }
            if self.area.evict_all(PageRange::one(index), self.fill.allocator.ages.now()).pages == 0 {
                self.area.wait_as_writer(index, Some(LOOK_AGAIN));
            }
        }
        Ok(())
    }

    fn could_not_drop(&self, page: PageIndex) -> WriteError {
        let range = bytes_of(&self.area, page);
        let why = std::io::Error::other("the system does not take back its frame");
        self.object.write_error(WriteStep::Discard, range, &SupplyError::because(ErrorKind::Io, why))
    }
}
