//! Pins.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::State;
use memobj_sys::area::{PinError, PinSet, PinnedBytes};

use super::Mapping;
use crate::driver::Request;
use crate::error::{AccessError, ErrorKind, PageError, SupplyError};
use crate::object::StoreHandle;
use crate::store::FrameStore;

/// How long a sleeper on a page word sleeps before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of an object that cannot be evicted and cannot change while this lives.
///
/// Dereferences to `&[u8]`. Pins count against a share of the budget (seven eighths), so that faults always find
/// room. In a child of fork the bytes are not mapped.
#[derive(Debug)]
pub struct Pinned {
    bytes: PinnedBytes,
    // Keeps the frame store registered.
    _store: Arc<StoreHandle>,
}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Mapping {
    /// Resolves every page of `range`, and hands out its bytes.
    ///
    /// Blocks until the pages are there or one has failed. No engine lock may be held by the caller (there is
    /// none to get hold of); other pins may.
    pub fn pin(&self, range: Range<u64>) -> Result<Pinned, AccessError> {
        let mut pins = self.pin_ranges(std::slice::from_ref(&range))?;
        pins.pop().ok_or(AccessError::OutOfRange { range, length: self.len() })
    }

    /// Pins many ranges together: their absent pages are read at once, in a deep queue. All or none.
    pub fn pin_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Pinned>, AccessError> {
        let store = self.frames();
        let bytes = ranges.iter().map(|range| self.object_bytes(range)).collect::<Result<Vec<_>, _>>()?;
        let sets = store.pin_all(&bytes)?;
        let pinned = sets.into_iter().zip(bytes).map(|(set, bytes)| {
            set.into_bytes(bytes).map(|bytes| Pinned { bytes, _store: Arc::clone(&self.store) })
        });
        pinned.collect::<Result<Vec<_>, PinSet>>().map_err(|_| AccessError::TooManyPins)
    }
}

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

impl FrameStore {
    fn pin_all(&self, bytes: &[ByteRange]) -> Result<Vec<PinSet>, AccessError> {
        let page_size = self.area.page_size();
        let ranges: Vec<PageRange> = bytes.iter().map(|range| page_size.pages_of(*range)).collect();
        let wanted_bytes = distinct_pages(&ranges).saturating_mul(page_size.bytes());
        let limit_bytes = self.cache.pin_budget.limit();
        if wanted_bytes > limit_bytes {
            return Err(AccessError::PinsExceedBudget { wanted_bytes, limit_bytes });
        }
        let mut sets: Vec<PinSet> =
            ranges.iter().map(|range| PinSet::new(Arc::clone(&self.area), *range)).collect();
        let refused = |error| match error {
            PinError::OverBudget => AccessError::PinsExceedBudget { wanted_bytes, limit_bytes },
            _ => AccessError::TooManyPins,
        };
        let mut first_pass = true;
        let mut pinned_until = None;
        loop {
            let pass = self.try_pins(&mut sets, &refused)?;
            if sets.iter().all(|set| set.missing() == 0) {
                return Ok(sets);
            }
            if let (true, Some(first), Some(last)) = (first_pass, pass.absent.first(), pass.absent.last()) {
                self.watch_sequence(PageRange { start: first.start, end: last.end });
                first_pass = false;
            }
            if !pass.absent.is_empty() {
                self.fill_missing(&pass.absent, &mut |placed| pin_placed(&mut sets, placed));
            } else if let Some(page) = pass.owned_by_others {
                self.wait_to_pin(page, &mut pinned_until)?;
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
                    Err(PinError::NotClean(word)) => match word.state() {
                        // The error is the first page's in order: what is before must be decided first.
                        State::Failed if pass.is_clear() => match self.error_of(page) {
                            Some(error) => return Err(error.into()),
                            None => pass.owned_by_others = Some(page),
                        },
                        State::Failed => return Ok(pass),
                        State::Absent => pass.add_absent(page),
                        _ => {
                            if word.is_deferred() {
                                self.demand(page);
                            }
                            pass.owned_by_others.get_or_insert(page);
                        }
                    },
                    Err(PinError::FrameGone) => {
                        // Its bytes are lost: the next pass finds it Failed.
                        self.look(page, page.0 << self.area.page_size().shift());
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
        if missed.end < self.area.pages() && self.is_sequential(missed) {
            self.cache.ask(Request::Ahead { store: self.this.clone(), page: PageIndex(missed.end - 1) });
        }
    }

    /// Sleeps while somebody else owns `page`, or has it pinned for writing.
    fn wait_to_pin(
        &self,
        page: PageIndex,
        until: &mut Option<std::time::Instant>,
    ) -> Result<(), AccessError> {
        if self.area.word(page).is_pinned_mut() {
            return self.wait_for_pins(page, until);
        }
        Ok(self.wait_for(page)?)
    }

    /// Sleeps while somebody else owns `page`; an error if nobody will ever answer.
    pub(crate) fn wait_for(&self, page: PageIndex) -> Result<(), PageError> {
        self.area.wait(page, Some(LOOK_AGAIN));
        if self.cache.owner.is_this_process() {
            return Ok(());
        }
        let start = page.0 << self.area.page_size().shift();
        Err(self.error(start..start + 1, &SupplyError::new(ErrorKind::Detached), 0))
    }

    pub(crate) fn populate(&self, pages: PageRange) -> Result<(), PageError> {
        self.populate_while(pages, &|| true)
    }

    /// As `populate`, but gives up waiting for others, with `Ok`, once `goes_on` says no.
    pub(crate) fn populate_while(
        &self,
        pages: PageRange,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), PageError> {
        self.fill_missing(&[pages], &mut |_| {});
        for page in pages.iter() {
            loop {
                let word = self.area.word(page);
                match word.state() {
                    State::Failed => match self.error_of(page) {
                        Some(error) => return Err(error),
                        None => break,
                    },
                    State::Filling => {
                        if word.is_deferred() {
                            self.demand(page);
                        }
                        self.wait_for(page)?;
                        if !goes_on() {
                            return Ok(());
                        }
                    }
                    // Absent: it was there and had to make room, or its filler gave up; the latter is rare, and
                    // populate is a hint about residence, not a pin.
                    _ => break,
                }
            }
        }
        self.area.show_clean(pages);
        Ok(())
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
