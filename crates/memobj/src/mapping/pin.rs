//! Pins.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::decide::{Decision, WaitFor, Wish, decide};
use memobj_sys::area::{self, NotPinned, PagePin, PinError, PinSet, PinnedBytes, Room};

use super::Mapping;
use crate::error::{AccessError, ErrorKind, PageError, SupplyError};
use crate::handles::StoreHandle;
use crate::pins::{NotedPin, PinDeadline, ThisThread};
use crate::room::Patience;
use crate::store::{FrameStore, Request};

/// How long a sleeper on a page word sleeps before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of an object that cannot be evicted and cannot change while this lives.
///
/// Dereferences to `&[u8]`. Pins count against a share of the budget (seven eighths), so that faults always find
/// room. In a child of fork the bytes are not mapped.
///
/// Of an object that has admitted a guest which may store, the bytes are a copy of the pages as they were, which counts
/// against the budget and that share besides; the pages are pinned all the same, so that stores of guests wait.
///
/// # Soundness
///
/// The bytes are frames that stay, because each page's word counts this pin, and eviction and pins for writing are
/// refused while it does. They do not change: pages are write-protected in every view while they are pinned, a store
/// sleeps, and bytes are put in place only into pages that are not there. Protection is of no use against who can write
/// to the file of frames itself. No such process exists while this does: a guest gets a descriptor that can write only
/// while no `Pinned` shows frames, and from then on a `Pinned` is a copy. It owns its frames, not the mapping.
///
/// Its bytes do not outlive it:
///
/// ```compile_fail,E0505
/// # fn leak(mapping: memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let pinned = mapping.pin(0..8)?;
/// let bytes: &[u8] = &pinned;
/// drop(pinned);
/// assert_eq!(bytes[0], 0);
/// # Ok(())
/// # }
/// ```
pub struct Pinned {
    bytes: Bytes,
    _noted: NotedPin,
}

/// Both keep the frame store registered. What is rare is boxed, so that moving a pin costs little.
enum Bytes {
    Page(PagePin),
    Pages(Box<Pages>),
}

struct Pages {
    bytes: PinnedBytes,
    _store: Arc<StoreHandle>,
}

impl Bytes {
    fn pages(bytes: PinnedBytes, store: &Arc<StoreHandle>) -> Self {
        Self::Pages(Box::new(Pages { bytes, _store: Arc::clone(store) }))
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Deref for Pinned {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Page(bytes) => bytes,
            Bytes::Pages(pages) => &pages.bytes,
        }
    }
}

impl Mapping {
    /// Resolves every page of `range`, and hands out its bytes.
    ///
    /// Blocks until the pages are there or one has failed. No engine lock may be held by the caller (there is
    /// none to get hold of); other pins may. A range inside one page that is there takes no allocation, and writes to
    /// no memory that other threads write to but the page's word.
    #[inline]
    pub fn pin(&self, range: Range<u64>) -> Result<Pinned, AccessError> {
        match self.pin_own_page(&range) {
            Some((page, noted)) => Ok(Pinned { bytes: Bytes::Page(page), _noted: noted }),
            None => self.pin_own_pages(range),
        }
    }

    /// Pins `range` if that is one page, and possible at once.
    fn pin_own_page(&self, range: &Range<u64>) -> Option<(PagePin, NotedPin)> {
        let bytes = self.object_bytes(range).ok()?;
        let thread = ThisThread::get();
        let page = PagePin::new(self.pins.share(thread.shard()), bytes)?;
        Some((page, thread.note(self.frames().key(), self.page_of(bytes))))
    }

    #[cold]
    fn pin_own_pages(&self, range: Range<u64>) -> Result<Pinned, AccessError> {
        let (bytes, noted) = self.pin_pages(self.object_bytes(&range)?)?;
        Ok(Pinned { bytes: Bytes::pages(bytes, &self.store), _noted: noted })
    }

    /// Pins `bytes` of the object, whatever that takes.
    pub(super) fn pin_pages(&self, bytes: ByteRange) -> Result<(PinnedBytes, NotedPin), AccessError> {
        let store = self.frames();
        let set = store.pin_set(bytes).map_err(|error| self.in_mapping(error))?;
        let noted = store.note_pin(set.pages());
        let bytes = store.bytes_of_pins(set, bytes).map_err(|error| self.in_mapping(error))?;
        Ok((bytes, noted))
    }

    /// Pins many ranges together: their absent pages are read at once, in a deep queue. All or none.
    pub fn pin_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Pinned>, AccessError> {
        let store = self.frames();
        let bytes = ranges.iter().map(|range| self.object_bytes(range)).collect::<Result<Vec<_>, _>>()?;
        let sets = store.pin_all(&bytes).map_err(|error| self.in_mapping(error))?;
        let noted = |set: &PinSet| store.note_pin(set.pages());
        let pinned = sets.into_iter().zip(bytes).map(|(set, bytes)| {
            let noted = noted(&set);
            let bytes = store.bytes_of_pins(set, bytes).map_err(|error| self.in_mapping(error))?;
            Ok(Pinned { bytes: Bytes::pages(bytes, &self.store), _noted: noted })
        });
        pinned.collect()
    }

    /// Pins `range` for as long as it takes to copy it to `buffer`, which is as long.
    pub(super) fn copy_pinned(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<(), AccessError> {
        let store = self.frames();
        if !store.area.pins_are_copies() {
            buffer.copy_from_slice(&self.pin_ref(range)?);
            return Ok(());
        }
        let bytes = self.object_bytes(&range)?;
        let set = store.pin_set(bytes).map_err(|error| self.in_mapping(error))?;
        area::copy_pinned(&set, bytes, buffer).map_err(|at| store.trapped_at(at))
    }

    /// An error about bytes of the object as one about bytes of the mapping.
    pub(super) fn in_mapping(&self, error: AccessError) -> AccessError {
        let start = self.range.start;
        match error {
            AccessError::OutOfRange { range, length } => AccessError::OutOfRange {
                range: range.start.saturating_sub(start)..range.end.saturating_sub(start),
                length: length.saturating_sub(start).min(self.len()),
            },
            error => error,
        }
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
    /// Pins the pages of all of `bytes`, or none. `OutOfRange`, with offsets in the object, if it is cut off meanwhile.
    fn pin_all(&self, bytes: &[ByteRange]) -> Result<Vec<PinSet>, AccessError> {
        let sets = self.pin_pages_of(bytes);
        sets.map_err(|error| bytes.iter().find_map(|bytes| self.cut_off(*bytes)).unwrap_or(error))
    }

    /// Pins the pages of `bytes`, as `pin_all` does.
    fn pin_set(&self, bytes: ByteRange) -> Result<PinSet, AccessError> {
        let gone = || AccessError::OutOfRange { range: bytes.start..bytes.end, length: self.area.length() };
        self.pin_all(&[bytes])?.pop().ok_or_else(gone)
    }

    /// The error of `bytes`, which were the object's a moment ago, if they are not any more.
    pub(crate) fn cut_off(&self, bytes: ByteRange) -> Option<AccessError> {
        let length = self.area.length();
        if bytes.end <= length {
            return None;
        }
        // A page behind the end that was asked for meanwhile has failed. It is nobody's, and may come back.
        let pages = self.area.page_size().pages_of(bytes);
        let end = self.area.page_size().pages_for(length);
        self.retry(PageRange { start: pages.start.max(end), end: pages.end.max(end) });
        Some(AccessError::OutOfRange { range: bytes.start..bytes.end, length })
    }

    /// The error of a load or store of byte `at` that has trapped: that of the page, if its frame was dropped with changes
    /// that nobody else has.
    pub(crate) fn trapped_at(&self, at: u64) -> AccessError {
        let page_bytes = self.area.page_size().bytes();
        let page = PageIndex(at / page_bytes);
        self.look(page, at);
        let until = self.pin_deadline();
        // The driver may be about to tell why.
        while self.area.word(page).is_changing() && !until.is_over(self) {
            self.area.wait(page, Some(LOOK_AGAIN));
        }
        if self.area.word(page).has_failed()
            && let Some(error) = self.error_of(page)
        {
            return error.into();
        }
        let start = at / page_bytes * page_bytes;
        let why = std::io::Error::other("the memory that holds the page traps");
        self.error(start..start + page_bytes, &SupplyError::because(ErrorKind::Io, why), 0).into()
    }

    /// Room for a copy of `bytes`, if pins are copies.
    pub(crate) fn room_for(&self, bytes: ByteRange) -> Result<Option<Room>, AccessError> {
        if !self.area.pins_are_copies() {
            return Ok(None);
        }
        let (wanted_bytes, pins) = (bytes.len(), &self.cache.room.pins);
        // First of what pins may hold, which leaves room: so the wait for the budget ends.
        if !pins.try_reserve(wanted_bytes) {
            return Err(AccessError::PinsExceedBudget { wanted_bytes, limit_bytes: pins.limit() });
        }
        if !self.cache.room.reserve(wanted_bytes, Patience::Endless, &self.closed) {
            pins.release(wanted_bytes);
            return Err(AccessError::Detached);
        }
        Ok(Some(Room::reserved(Arc::clone(&self.area), wanted_bytes)))
    }

    /// What becomes of pins that do not give their bytes.
    pub(crate) fn not_pinned(&self, bytes: ByteRange, why: NotPinned) -> AccessError {
        match why {
            NotPinned::Trapped(at) => self.trapped_at(at),
            NotPinned::CutOff => {
                AccessError::OutOfRange { range: bytes.start..bytes.end, length: self.area.length() }
            }
            // Somebody was let in who can store, since it was asked whether there was.
            NotPinned::NoRoom => AccessError::InUse,
            NotPinned::Missing => AccessError::TooManyPins,
        }
    }

    fn bytes_of_pins(&self, set: PinSet, bytes: ByteRange) -> Result<PinnedBytes, AccessError> {
        let room = self.room_for(bytes)?;
        PinnedBytes::new(set, bytes, room).map_err(|why| self.not_pinned(bytes, why))
    }

    fn pin_pages_of(&self, bytes: &[ByteRange]) -> Result<Vec<PinSet>, AccessError> {
        let page_size = self.area.page_size();
        let ranges: Vec<PageRange> = bytes.iter().map(|range| page_size.pages_of(*range)).collect();
        let wanted_bytes = distinct_pages(&ranges).saturating_mul(page_size.bytes());
        let limit_bytes = self.cache.room.pins.limit();
        if wanted_bytes > limit_bytes {
            return Err(AccessError::PinsExceedBudget { wanted_bytes, limit_bytes });
        }
        let sets = ranges.iter().map(|range| PinSet::new(Arc::clone(&self.area), *range));
        let length = self.area.length();
        let mut sets: Vec<PinSet> =
            sets.collect::<Option<_>>().ok_or(AccessError::OutOfRange { range: 0..length, length })?;
        let refused = |error| match error {
            PinError::OverBudget => AccessError::PinsExceedBudget { wanted_bytes, limit_bytes },
            _ => AccessError::TooManyPins,
        };
        let mut first_pass = true;
        let mut pinned_until = None;
        loop {
            if let Some(error) = bytes.iter().find_map(|bytes| self.cut_off(*bytes)) {
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
                    Err(PinError::NotClean(word)) => match decide(word, Wish::Pin) {
                        // The error is the first page's in order: what is before must be decided first.
                        Decision::Trap if pass.is_clear() => match self.error_of(page) {
                            Some(error) => return Err(error.into()),
                            None => pass.owned_by_others = Some(page),
                        },
                        Decision::Trap => return Ok(pass),
                        Decision::Claim => pass.add_absent(page),
                        decision => {
                            if decision == Decision::Demand {
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
            self.cache
                .requests
                .ask(Request::Ahead { store: self.this.clone(), page: PageIndex(missed.end - 1) });
        }
    }

    /// Sleeps while somebody else owns `page`, or has it pinned for writing.
    pub(super) fn wait_to_pin(
        &self,
        page: PageIndex,
        until: &mut Option<PinDeadline>,
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
                match decide(self.area.word(page), Wish::Presence) {
                    Decision::Trap => match self.error_of(page) {
                        Some(error) => return Err(error),
                        None => break,
                    },
                    Decision::Demand => self.demand(page),
                    Decision::Wait(WaitFor::Filler) => {}
                    // To claim: it was there and had to make room, or its filler gave up; the latter is rare, and
                    // populate is a hint about residence, not a pin.
                    _ => break,
                }
                self.wait_for(page)?;
                if !goes_on() {
                    return Ok(());
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
