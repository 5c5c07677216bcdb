//! Units: reads in flight, and pages that are ready but not in place.

use std::io;
use std::sync::Arc;

use memobj_core::address::{PageIndex, PageRange};
use memobj_linux::area::{FillClaim, Placement};
use memobj_linux::region::SMALL;
use memobj_linux::ring::{Direction, Target, Transfer};

use super::{Driver, LARGE_CHUNKS};
use crate::allocator::Patience;
use crate::pagers::File;
use crate::pages::{Arrived, FillReason};
use crate::parts::{KeptUnit, ObjectParts};

/// Pages of a prefetch that are looked at before faults get their turn.
const PREFETCH_AT_ONCE: u64 = 4096;

/// Why a unit is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Somebody waits.
    Demand,
    /// Somebody said that it will be needed.
    Prefetch,
    /// The engine guesses. `hold` keeps it out of place until it is wanted, which tells how far the reader is.
    Ahead { hold: bool },
}

impl Purpose {
    fn reason(self) -> FillReason {
        match self {
            Purpose::Demand => FillReason::Demand,
            Purpose::Prefetch | Purpose::Ahead { .. } => FillReason::InAdvance,
        }
    }

    fn is_waited_for(self) -> bool {
        self.reason() != FillReason::InAdvance
    }
}

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) parts: Arc<ObjectParts>,
    pages: PageRange,
    /// While a pager has the request, its job has the claim.
    claim: Option<FillClaim>,
    purpose: Purpose,
    wanted: bool,
    /// What was read, once it is here and held.
    ready: Option<Target>,
    in_flight: bool,
    /// What a pager's bytes take of the memory of requests.
    room: Option<Box<dyn std::any::Any + Send>>,
}

impl Unit {
    fn of(parts: &Arc<ObjectParts>, pages: PageRange, claim: Option<FillClaim>, purpose: Purpose) -> Self {
        let parts = Arc::clone(parts);
        Self { parts, pages, claim, purpose, wanted: false, ready: None, in_flight: true, room: None }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether it is read into a frame of the pool.
    fn has_frame(&self) -> bool {
        self.parts.area.pool().is_some()
    }
}

impl Driver {
    /// Starts to read `claim`, or queues it until there is room.
    pub(super) fn start(&mut self, parts: &Arc<ObjectParts>, claim: FillClaim, purpose: Purpose) {
        if let Err(claim) = self.try_start(parts, claim, purpose) {
            self.backlog.push_back((Arc::clone(parts), claim, purpose));
        }
    }

    pub(super) fn try_start(
        &mut self,
        parts: &Arc<ObjectParts>,
        claim: FillClaim,
        purpose: Purpose,
    ) -> Result<(), FillClaim> {
        let Some(file) = parts.object.file() else { return self.ask_pager(parts, claim, purpose) };
        let Some(target) = self.target(parts, &claim, purpose) else { return Err(claim) };
        let range = claim.bytes();
        let len = (range.len() as usize).next_multiple_of(SMALL);
        let id = self.next_unit;
        self.next_unit += 1;
        self.ring.start(Transfer {
            direction: Direction::Read,
            file: file.descriptor().clone(),
            offset: range.start,
            target,
            len,
            token: id,
        });
        self.units.insert(id, Unit::of(parts, claim.pages(), Some(claim), purpose));
        Ok(())
    }

    /// Has the pager asked for `claim`. What is to be held comes back to this thread.
    fn ask_pager(
        &mut self,
        parts: &Arc<ObjectParts>,
        claim: FillClaim,
        purpose: Purpose,
    ) -> Result<(), FillClaim> {
        let reason = purpose.reason();
        if reason == FillReason::InAdvance && self.shared.workers.is_busy(claim.frame_bytes()) {
            return Err(claim);
        }
        if purpose != (Purpose::Ahead { hold: true }) {
            parts.fill.call_pager(claim, reason);
            return Ok(());
        }
        let number = self.next_unit;
        self.next_unit += 1;
        self.units.insert(number, Unit::of(parts, claim.pages(), None, purpose));
        let unit = KeptUnit::new(&self.shared.requests, number);
        let fill = &parts.fill;
        let wanted = claim.pages();
        fill.workers.submit(Arc::clone(fill), (claim, wanted), reason, Some(Box::new(unit)));
        Ok(())
    }

    /// What a pager was asked for as `number` is here, or never will be: then whoever wants it asks by himself.
    pub(super) fn arrived(&mut self, number: u64, arrived: Option<Arrived>) {
        let Some(Arrived { claim, target, room }) = arrived else {
            self.units.remove(&number);
            return;
        };
        let Some(unit) = self.units.get_mut(&number) else { return };
        unit.claim = Some(claim);
        unit.room = Some(room);
        self.is_ready(number, target);
    }

    /// The bytes of a unit are here.
    fn is_ready(&mut self, id: u64, target: Target) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.in_flight = false;
        unit.ready = Some(target);
        if unit.purpose != (Purpose::Ahead { hold: true }) || unit.wanted || self.holds_too_much() {
            self.place(id);
        }
    }

    fn target(&mut self, parts: &ObjectParts, claim: &FillClaim, purpose: Purpose) -> Option<Target> {
        let Some(pool) = parts.area.pool() else {
            if parts.fill.is_large() {
                return self.large_chunk(purpose);
            }
            return match claim.pages().len() {
                1 => self.pages.take().map(Target::Chunk),
                _ => self.runs.take().map(Target::Chunk).or_else(|| {
                    // Readers that stopped halfway leave units held.
                    self.release_held();
                    self.runs.take().map(Target::Chunk)
                }),
            };
        };
        let most = (pool.capacity() / 4).max(2);
        let holding = self.units.values().filter(|unit| unit.has_frame()).count();
        if !purpose.is_waited_for() && holding >= most {
            return None;
        }
        let frame = self.shared.allocator.try_take_frame(pool);
        if frame.is_none() && purpose.is_waited_for() {
            self.release_held();
            return self.shared.allocator.try_take_frame(pool).map(Target::Frame);
        }
        frame.map(Target::Frame)
    }

    fn large_chunk(&mut self, purpose: Purpose) -> Option<Target> {
        let taken =
            self.units.values().filter(|unit| unit.parts.fill.is_large() && !unit.has_frame()).count();
        // Guesses leave something for those who wait.
        if purpose != Purpose::Demand && taken + 2 > LARGE_CHUNKS {
            return None;
        }
        let chunk = self.large.take().or_else(|| {
            self.release_held();
            self.large.take()
        });
        chunk.map(Target::Chunk)
    }

    /// Puts everything in place that is kept ready, so that its frames can be reclaimed.
    pub(super) fn release_held(&mut self) {
        let held: Vec<u64> =
            self.units.iter().filter(|(_, unit)| unit.ready.is_some()).map(|(id, _)| *id).collect();
        for id in held {
            self.place(id);
        }
    }

    /// A read ended. `checked` remembers files whose version was compared in this round already.
    pub(super) fn read_ended(
        &mut self,
        id: u64,
        target: Target,
        result: io::Result<usize>,
        checked: &mut Vec<(usize, bool)>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.in_flight = false;
        let wanted = unit.claim.as_ref().map_or(0, |claim| claim.bytes().len());
        let arrived = result.is_ok_and(|count| count as u64 >= wanted);
        if !(arrived && is_current(&unit.parts, checked)) {
            return self.failed(id);
        }
        self.is_ready(id, target);
    }

    /// Frames out of place can neither be pinned nor reclaimed: with pins they must leave some of the budget.
    fn holds_too_much(&self) -> bool {
        let Some(pool) = self.shared.allocator.existing_pool() else { return false };
        let held = self.units.values().filter(|unit| unit.ready.is_some() && unit.has_frame()).count();
        held > (pool.capacity() / 16).max(1)
    }

    /// Puts a unit in place that is ready.
    fn place(&mut self, id: u64) {
        let Some(unit) = self.units.remove(&id) else { return };
        let (Some(target), Some(claim)) = (unit.ready, unit.claim) else { return };
        if unit.parts.is_closed() {
            return;
        }
        let counters = &unit.parts.object.reporter.counters;
        let pages = claim.pages().len();
        let reason = match unit.purpose {
            Purpose::Ahead { .. } | Purpose::Prefetch if unit.wanted => FillReason::Demand,
            purpose => purpose.reason(),
        };
        match unit.parts.fill.place_target(claim, target, reason, Patience::Short) {
            Ok(()) => match unit.purpose {
                Purpose::Demand => {}
                Purpose::Prefetch => counters.prefetched_pages.add(pages),
                Purpose::Ahead { .. } => counters.read_ahead_pages.add(pages),
            },
            Err(claim) => unit.parts.fill.call_pager(claim, reason),
        }
    }

    /// A guess that failed is forgotten: whoever comes to the page asks for it by itself, and gets its error.
    fn failed(&mut self, id: u64) {
        let Some(unit) = self.units.remove(&id) else { return };
        let Some(claim) = unit.claim else { return };
        match unit.purpose {
            Purpose::Demand => unit.parts.fill.call_pager(claim, FillReason::Demand),
            Purpose::Prefetch => unit.parts.fill.call_pager(claim, FillReason::InAdvance),
            Purpose::Ahead { .. } => {
                let key = Arc::as_ptr(&unit.parts) as usize;
                self.read_aheads.retain(|reader| !reader.belongs_to(key));
            }
        }
    }

    /// Somebody waits for `page`, which a unit may be holding.
    pub(super) fn place_wanted(&mut self, parts: &Arc<ObjectParts>, page: PageIndex) {
        let found = self
            .units
            .iter_mut()
            .find(|(_, unit)| unit.pages.contains(page) && Arc::ptr_eq(&unit.parts, parts));
        let Some((id, unit)) = found else { return };
        let id = *id;
        unit.wanted = true;
        if unit.ready.is_some() {
            self.place(id);
        }
        self.advance(parts, page, true);
    }

    /// Starts what waits for room, in order.
    pub(super) fn try_backlog(&mut self) {
        while let Some((parts, claim, purpose)) = self.backlog.pop_front() {
            if parts.is_closed() {
                continue;
            }
            if let Err(claim) = self.try_start(&parts, claim, purpose) {
                self.backlog.push_front((parts, claim, purpose));
                return;
            }
        }
        while let Some((parts, pages)) = self.prefetches.pop_front() {
            let Some(parts) = parts.upgrade() else { continue };
            if let Some(rest) = self.prefetch(&parts, pages) {
                self.prefetches.push_front((Arc::downgrade(&parts), rest));
                return;
            }
        }
    }

    /// Starts to read the absent pages of `pages`; returns the rest when there is no room.
    fn prefetch(&mut self, parts: &Arc<ObjectParts>, pages: PageRange) -> Option<PageRange> {
        let most = parts.fill.run_pages();
        let mut next = pages.start;
        while next < pages.end && !self.shared.health.refuses() {
            // Faults wait behind this: a bit at a time.
            if next - pages.start >= PREFETCH_AT_ONCE {
                return Some(PageRange { start: next, end: pages.end });
            }
            let run = PageRange { start: next, end: (next + most).min(pages.end) };
            if !parts.area.word(PageIndex(next)).is_absent() {
                next += 1;
                continue;
            }
            let Some(claim) = parts.area.claim_run(run, Placement::AtOnce) else { continue };
            let end = claim.pages().end;
            let claim = match parts.fill.fill_inline(claim, FillReason::InAdvance, Patience::Short) {
                Ok(()) => {
                    next = end;
                    continue;
                }
                Err(claim) => claim,
            };
            if self.try_start(parts, claim, Purpose::Prefetch).is_err() {
                return Some(PageRange { start: next, end: pages.end });
            }
            next = end;
        }
        None
    }
}

/// Whether the file of `parts` is still the one that was opened. `checked` remembers the answers of this round.
pub(super) fn is_current(parts: &Arc<ObjectParts>, checked: &mut Vec<(usize, bool)>) -> bool {
    let key = Arc::as_ptr(parts) as usize;
    if let Some((_, current)) = checked.iter().find(|(known, _)| *known == key) {
        return *current;
    }
    let current = parts.object.file().is_none_or(File::is_current);
    checked.push((key, current));
    current
}
