//! Bytes that cannot go away and cannot change.

use std::ops::Deref;
use std::sync::Arc;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::{Advanced, State, Transition, Word};

use super::Area;
use crate::signal;

/// Why a page could not be pinned now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinError {
    /// It is not resident, or pinned for writing; this is its word.
    NotClean(Word),
    /// It carries the most pins that a page can carry.
    TooManyPins,
    /// Pins hold as much of the budget as they may.
    OverBudget,
    /// It is Dirty by its word, and its frame was dropped from outside: [`Area::look`] is next.
    FrameGone,
}

/// A growing set of pinned pages inside one range; all pins end when it is dropped.
#[derive(Debug)]
pub struct PinSet {
    area: Arc<Area>,
    pages: PageRange,
    first: u64,
    more: Vec<u64>,
    missing: u64,
}

impl PinSet {
    /// No page of `pages` pinned yet. `None` if they are not all the object's: it can have been cut off a moment ago.
    pub fn new(area: Arc<Area>, pages: PageRange) -> Option<Self> {
        if pages.end > area.pages() {
            return None;
        }
        let more = vec![0; (pages.len().saturating_sub(1) / 64) as usize];
        Some(Self { area, pages, first: 0, more, missing: pages.len() })
    }

    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// How many are not pinned yet.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    fn bit(&mut self, page: PageIndex) -> (&mut u64, u64) {
        let index = page.0 - self.pages.start;
        let word = match index / 64 {
            0 => &mut self.first,
            word => &mut self.more[word as usize - 1],
        };
        (word, 1 << (index % 64))
    }

    /// Whether `page` is pinned by this set.
    pub fn contains(&self, page: PageIndex) -> bool {
        let index = page.0 - self.pages.start;
        let word = match index / 64 {
            0 => self.first,
            word => self.more[word as usize - 1],
        };
        word & (1 << (index % 64)) != 0
    }

    /// Pins `page`, unless this set has done so already.
    pub fn try_pin(&mut self, page: PageIndex) -> Result<(), PinError> {
        if self.contains(page) {
            return Ok(());
        }
        self.area.pin_page(page)?;
        let (word, bit) = self.bit(page);
        *word |= bit;
        self.missing -= 1;
        Ok(())
    }

    /// The bytes, once every page is pinned. `bytes` lies in these pages, in the first and the last of them.
    ///
    /// Where pins are copies ([`Area::pins_are_copies`]) the copy takes `room` for them.
    pub fn into_bytes(self, bytes: ByteRange, room: Option<Room>) -> Result<PinnedBytes, NotPinned> {
        if self.missing > 0 {
            return Err(NotPinned::Missing);
        }
        let copy = self.area.refer_or_copy(self.pages, bytes, room)?;
        Ok(PinnedBytes { pins: self, bytes, copy })
    }

    /// Copies `bytes`, which lie in pages that are all pinned, to `buffer`, which is as long; the error is the byte of
    /// the object whose load trapped. No reference is made to the pages.
    pub fn copy_to(&self, bytes: ByteRange, buffer: &mut [u8]) -> Result<(), u64> {
        assert!(self.missing == 0 && bytes.len() == buffer.len() as u64);
        self.area.copy_out(self.pages, bytes, buffer)
    }
}

impl Area {
    /// How `bytes` of `pages`, which the caller has pinned, are handed out: by a reference, which is counted from here on
    /// (`None`), or as a copy.
    pub(super) fn refer_or_copy(
        &self,
        pages: PageRange,
        bytes: ByteRange,
        room: Option<Room>,
    ) -> Result<Option<Copied>, NotPinned> {
        if self.page_size.pages_of(bytes) != pages {
            return Err(NotPinned::Missing);
        }
        if bytes.end > self.length() {
            return Err(NotPinned::CutOff);
        }
        if self.enter_reference() {
            return Ok(None);
        }
        let mut copy = Copied::new(room, bytes)?;
        self.copy_out(pages, bytes, &mut copy.bytes).map_err(NotPinned::Trapped)?;
        Ok(Some(copy))
    }

    /// Copies `bytes` of `pages`, which the caller has pinned.
    pub(super) fn copy_out(&self, pages: PageRange, bytes: ByteRange, buffer: &mut [u8]) -> Result<(), u64> {
        let inside = self.page_size.pages_of(bytes);
        assert!(bytes.is_empty() || (pages.start <= inside.start && inside.end <= pages.end));
        // SAFETY: the pages lie in the view, which is mapped as long as `self`; the caller's pins keep mutable
        // references of others away.
        let copied =
            unsafe { signal::copy_trapping(buffer, self.views[0].region.pointer(bytes.start as usize)) };
        if copied == buffer.len() { Ok(()) } else { Err(bytes.start + copied as u64) }
    }

    /// Counts a reference into the frames. `false`: there may be none, others can store to them.
    #[inline]
    pub(super) fn enter_reference(&self) -> bool {
        self.guests.as_ref().is_none_or(|guests| guests.references.enter())
    }

    #[inline]
    pub(super) fn leave_reference(&self) {
        if let Some(guests) = &self.guests {
            guests.references.leave();
        }
    }
}

/// Bytes of the budget, and of the share of it that pins may hold, for one copy.
#[derive(Debug)]
pub struct Room {
    area: Arc<Area>,
    bytes: u64,
}

impl Room {
    /// Room for `bytes` bytes, which the caller has reserved of the budget of `area` and of the share of it that pins may
    /// hold. Dropping this gives both back.
    pub fn reserved(area: Arc<Area>, bytes: u64) -> Self {
        Self { area, bytes }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.area.pin_budget.release(self.bytes);
        self.area.budget.release(self.bytes);
    }
}

/// A copy of pinned bytes.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) bytes: Box<[u8]>,
    _room: Room,
}

impl Copied {
    /// Zeros in place of `bytes`.
    pub(super) fn new(room: Option<Room>, bytes: ByteRange) -> Result<Self, NotPinned> {
        let room = room.filter(|room| room.bytes >= bytes.len()).ok_or(NotPinned::NoRoom)?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len() as usize).map_err(|_| NotPinned::NoRoom)?;
        copy.resize(bytes.len() as usize, 0);
        Ok(Self { bytes: copy.into_boxed_slice(), _room: room })
    }
}

/// Why pages that were pinned do not give their bytes. Their pins have ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotPinned {
    /// Not all of them are pinned, or touches of some may be under way.
    Missing,
    /// The object has been cut off.
    CutOff,
    /// Pins are copies, and there is no room for this one.
    NoRoom,
    /// Pins are copies, and the load of this byte of the object trapped.
    Trapped(u64),
}

impl Drop for PinSet {
    fn drop(&mut self) {
        for page in self.pages.iter() {
            if self.contains(page) {
                self.area.unpin_page(page);
            }
        }
    }
}

impl Area {
    /// The first pin of a page reserves its frame in the pin budget, the last one releases it.
    fn pin_page(&self, page: PageIndex) -> Result<(), PinError> {
        let Err(word) = self.advance(page, Transition::PinAgain) else { return Ok(()) };
        if !word.is_resident() || word.is_pinned_mut() {
            return Err(PinError::NotClean(word));
        }
        if word.pins() > 0 {
            return Err(PinError::TooManyPins);
        }
        let bytes = self.page_size.bytes();
        if !self.pin_budget.try_reserve(bytes) {
            return Err(PinError::OverBudget);
        }
        match self.first_pin(page) {
            Ok(advanced) => {
                if advanced.before.pins() > 0 {
                    self.pin_budget.release(bytes);
                }
                Ok(())
            }
            Err(None) => {
                self.pin_budget.release(bytes);
                Err(PinError::FrameGone)
            }
            Err(Some(word)) => {
                self.pin_budget.release(bytes);
                Err(if word.is_resident() && word.pins() > 0 && !word.is_pinned_mut() {
                    PinError::TooManyPins
                } else {
                    PinError::NotClean(word)
                })
            }
        }
    }

    /// A page that is open to stores is protected first, so that its bytes cannot change under the pin. The word that
    /// forbids the pin; or `None` if the frame is gone, with bytes that nobody else has.
    fn first_pin(&self, page: PageIndex) -> Result<Advanced, Option<Word>> {
        let word = match self.advance(page, Transition::Pin) {
            Ok(advanced) => return Ok(advanced),
            Err(word) if word.state() == State::Dirty => word,
            Err(word) => return Err(Some(word)),
        };
        if word.pins() > 0 {
            return self.advance(page, Transition::PinAgain).map_err(Some);
        }
        self.advance(page, Transition::LockToPin).map_err(Some)?;
        if self.protect(PageRange::one(page)).is_err() {
            let _ = self.advance(page, Transition::Stored);
            return Err(Some(word));
        }
        if !self.is_present_at(self.offset_in_view(page.0) as u64) {
            self.settle(page, Transition::Stored);
            return Err(None);
        }
        let pinned = self.advance(page, Transition::PinnedDirty);
        debug_assert!(pinned.is_ok(), "page {page} left Changing under its owner: {pinned:?}");
        pinned.map_err(Some)
    }

    pub(super) fn unpin_page(&self, page: PageIndex) {
        let done = self.advance(page, Transition::Unpin);
        debug_assert!(done.is_ok(), "page {page} lost a pin: {done:?}");
        if done.is_ok_and(|advanced| advanced.after.pins() == 0) {
            self.pin_budget.release(self.page_size.bytes());
        }
    }
}

/// Pinned bytes of an object.
#[derive(Debug)]
pub struct PinnedBytes {
    pins: PinSet,
    bytes: ByteRange,
    copy: Option<Copied>,
}

impl Deref for PinnedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if let Some(copy) = &self.copy {
            return &copy.bytes;
        }
        let view = &self.pins.area.views[0];
        let start = view.region.pointer(self.bytes.start as usize);
        // SAFETY: every page of the range is pinned by `pins`, so each holds a frame that eviction leaves alone, and is
        // protected in all views; bytes are put in place only into absent pages; nobody else has a description of the
        // frames that can write, as this reference is counted (`into_bytes`); the region lives as long as the area,
        // which `pins` keeps.
        unsafe { std::slice::from_raw_parts(start, self.bytes.len() as usize) }
    }
}

impl Drop for PinnedBytes {
    fn drop(&mut self) {
        if self.copy.is_none() {
            self.pins.area.leave_reference();
        }
    }
}
