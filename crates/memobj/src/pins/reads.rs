//! Pins for reading.

use std::sync::Arc;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::decide::{Decision, Intent, decide};
use memobj_linux::area::{PinError, PinSet, PinnedBytes};

use super::{Ask, NotedPin, Waits, note_pin};
use crate::batch::fill_missing;
use crate::error::AccessError;
use crate::pages::{Pattern, bytes_of};

/// What one pass over the pages of a batch of pins found.
#[derive(Default)]
struct Pass {
    absent: Vec<PageRange>,
    owned_by_others: Option<PageIndex>,
}

impl Pass {
    /// Whether every page so far could be pinned.
    fn is_clear(&self) -> bool {
        self.absent.is_empty() && self.owned_by_others.is_none()
    }

    fn add_absent(&mut self, page: PageIndex) {
        match self.absent.last_mut() {
            Some(run) if run.end == page.0 => run.end += 1,
            _ => self.absent.push(PageRange::one(page)),
        }
    }
}

/// Pins pages of one object for mappings, many at once, whatever that takes.
#[derive(Debug)]
pub(crate) struct Pins {
    pub(crate) waits: Arc<Waits>,
    pub(crate) pattern: Pattern,
}

impl Pins {
    /// Pins the pages of all of `bytes`, or none. `OutOfRange`, with offsets in the object, if it is cut off meanwhile.
    pub(crate) fn pin_all(&self, bytes: &[ByteRange]) -> Result<Vec<PinSet>, AccessError> {
        let sets = self.pin_pages_of(bytes);
        sets.map_err(|error| bytes.iter().find_map(|bytes| self.waits.cut_off(*bytes)).unwrap_or(error))
    }

    /// Pins the pages of `bytes`, as `pin_all` does.
    pub(crate) fn pin_set(&self, bytes: ByteRange) -> Result<PinSet, AccessError> {
        self.pin_all(&[bytes])?.pop().ok_or_else(|| self.waits.out_of_range(bytes))
    }

    /// What `set` pins, shown, and noted as pinned by the calling thread.
    pub(crate) fn note(&self, set: PinSet, bytes: ByteRange) -> Result<(PinnedBytes, NotedPin), AccessError> {
        let noted = note_pin(&self.waits.area, set.pages());
        let copy_budget = self.waits.copy_budget_for(bytes)?;
        let shown = PinnedBytes::new(set, bytes, copy_budget);
        Ok((shown.map_err(|why| self.waits.not_pinned(bytes, why))?, noted))
    }

    fn pin_pages_of(&self, bytes: &[ByteRange]) -> Result<Vec<PinSet>, AccessError> {
        let page_size = self.waits.area.page_size();
        let ranges: Vec<PageRange> = bytes.iter().map(|range| page_size.pages_of(*range)).collect();
        let wanted_bytes = distinct_pages(&ranges).saturating_mul(page_size.bytes());
        let limit_bytes = self.waits.fill.allocator.pins.limit();
        if wanted_bytes > limit_bytes {
            return Err(AccessError::PinsExceedBudget { wanted_bytes, limit_bytes });
        }
        let sets = ranges.iter().map(|range| PinSet::new(Arc::clone(&self.waits.area), *range));
        let length = self.waits.area.length();
        let mut sets: Vec<PinSet> =
            sets.collect::<Option<_>>().ok_or(AccessError::OutOfRange { range: 0..length, length })?;
        let refused = |error| match error {
            PinError::OverBudget => AccessError::PinsExceedBudget { wanted_bytes, limit_bytes },
            _ => AccessError::TooManyPins,
        };
        let mut first_pass = true;
        let mut pinned_until = None;
        loop {
            if let Some(error) = bytes.iter().find_map(|bytes| self.waits.cut_off(*bytes)) {
                return Err(error);
            }
            let pass = self.try_pins(&mut sets, &refused)?;
            if sets.iter().all(|set| set.missing() == 0) {
                return Ok(sets);
            }
            if let (true, Some(first), Some(last)) = (first_pass, pass.absent.first(), pass.absent.last()) {
                self.watch_sequence(PageRange { start: first.start, end: last.end });
                first_pass = false;
            }
            if !pass.absent.is_empty() {
                fill_missing(&self.waits.fill, &pass.absent, &mut |placed| pin_placed(&mut sets, placed));
            } else if let Some(page) = pass.owned_by_others {
                self.waits.wait_to_pin(page, &mut pinned_until)?;
            }
        }
    }

    fn try_pins(
        &self,
        sets: &mut [PinSet],
        refused: &dyn Fn(PinError) -> AccessError,
    ) -> Result<Pass, AccessError> {
        let mut pass = Pass::default();
        for set in sets.iter_mut().filter(|set| set.missing() > 0) {
            for page in set.pages().iter() {
                match set.try_pin(page) {
                    Ok(()) => {}
                    Err(PinError::NotClean(word)) => match decide(word, Intent::Pin) {
                        // The error is the first page's in order: what is before must be decided first.
                        Decision::Trap if pass.is_clear() => match self.waits.fill.errors.of(page) {
                            Some(error) => return Err(error.into()),
                            None => pass.owned_by_others = Some(page),
                        },
                        Decision::Trap => return Ok(pass),
                        Decision::Claim => pass.add_absent(page),
                        decision => {
                            if decision == Decision::Demand {
                                self.waits.driver.ask(Ask::Demand(page));
                            }
                            pass.owned_by_others.get_or_insert(page);
                        }
                    },
                    Err(PinError::FrameGone) => {
                        // Its bytes are lost: the next pass finds it Failed.
                        self.waits.fill.errors.look(page, bytes_of(&self.waits.area, page).start);
                        pass.owned_by_others.get_or_insert(page);
                    }
                    Err(error) => return Err(refused(error)),
                }
            }
        }
        Ok(pass)
    }

    /// Pins and copies read ahead like faults: a miss that goes on from others starts a stream behind it.
    fn watch_sequence(&self, missed: PageRange) {
        if missed.end < self.waits.area.pages() && self.pattern.is_sequential(missed) {
            self.waits.driver.ask(Ask::Ahead(PageIndex(missed.end - 1)));
        }
    }
}

/// Pins pages the moment they are in place, before the reclaim hand can come by.
fn pin_placed(sets: &mut [PinSet], placed: PageRange) {
    for set in sets {
        let pages = set.pages();
        let both = PageRange { start: pages.start.max(placed.start), end: pages.end.min(placed.end) };
        for page in both.start..both.end.max(both.start) {
            // What is refused here is refused again, and told, in the next pass.
            let _ = set.try_pin(PageIndex(page));
        }
    }
}

/// How many pages `ranges` hold together, each counted once.
fn distinct_pages(ranges: &[PageRange]) -> u64 {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut covered_to = 0;
    sorted.iter().fold(0u64, |sum, range| {
        let start = range.start.max(covered_to);
        covered_to = covered_to.max(range.end);
        sum + range.end.saturating_sub(start)
    })
}
