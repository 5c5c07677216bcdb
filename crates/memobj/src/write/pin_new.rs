//! Pins of bytes that will be written whole, without asking the pager for what they were.

use std::sync::Arc;

use memobj_core::address::ByteRange;
use memobj_core::pages::PlaceError;
use memobj_linux::area::{NewPinSet, PinError, PinnedBytesMut};
use memobj_linux::region::SMALL;

use super::Writes;
use super::store::MutPinned;
use crate::allocator::Patience;
use crate::error::AccessError;
use crate::pages::bytes_of;
use crate::pins::note_pin;

/// Pages that are put in place by one call.
const RUN: usize = 16;

/// Whether all is in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Done {
    Yes,
    No,
}

#[repr(align(4096))]
struct Zeros([u8; RUN * SMALL]);

static ZEROS: Zeros = Zeros([0; RUN * SMALL]);

impl Writes {
    /// Pins `bytes` for writing; whole pages of them that are absent become zeros. `OutOfRange`, with offsets in the
    /// object, if it is cut off meanwhile. On error nothing has changed.
    pub(crate) fn pin_new(&self, bytes: ByteRange) -> Result<MutPinned, AccessError> {
        self.pin_pages_new(bytes).map_err(|error| self.waits.cut_off(bytes).unwrap_or(error))
    }

    fn pin_pages_new(&self, bytes: ByteRange) -> Result<MutPinned, AccessError> {
        let pages = self.area.page_size().pages_of(bytes);
        let share = self.share_to_pin(pages)?;
        let copy_budget = self.waits.copy_budget_for(bytes)?;
        let set = NewPinSet::new(Arc::clone(&self.area), pages);
        let mut set = set.ok_or_else(|| self.waits.out_of_range(bytes))?;
        let mut pinned_until = None;
        loop {
            self.pace()?;
            let Some(inside) = self.enter(bytes)? else { continue };
            let whole = self.whole_pages(bytes);
            match set.try_pin_all(whole) {
                // The object has grown before a page was claimed, which can have had bytes behind these since.
                Ok(()) if self.whole_pages(bytes) != whole => set.give_up_claims(),
                Ok(()) if self.place_new(&mut set)? == Done::Yes => break,
                // It is cut off, as the next round may find.
                Ok(()) => set.give_up_claims(),
                Err((_, PinError::OverBudget)) => return Err(self.too_much_to_pin(pages)),
                Err((_, PinError::TooManyPins)) => return Err(AccessError::TooManyPins),
                Err((page, PinError::NotClean(_))) => {
                    drop(inside);
                    let word = self.area.word(page);
                    // Nobody is asked for a page that may be new.
                    if !(word.is_free() && whole.contains(page)) {
                        self.make_writable(word, page, word.pins() > 0, &mut pinned_until)?;
                    }
                }
                // Its bytes are lost: the next round finds it Failed.
                Err((page, PinError::FrameGone)) => self.errors.look(page, bytes_of(&self.area, page).start),
            }
        }
        self.wait_for_touches(&mut || set.first_touched())?;
        let set = set.into_pins().ok_or(AccessError::TooManyPins)?;
        let noted = note_pin(&self.area, pages);
        // Refused only if a guest that stores was let in this moment. Then what is new stays: its zeros may be anybody's.
        let bytes =
            PinnedBytesMut::new(set, bytes, copy_budget).map_err(|why| self.waits.not_pinned(bytes, why))?;
        Ok(MutPinned { bytes, _noted: noted, _share: share })
    }

    /// Puts zeros in place for what is claimed, unless the object ends before it.
    fn place_new(&self, set: &mut NewPinSet) -> Result<Done, AccessError> {
        while let Some(claim) = set.take_claim(RUN as u64) {
            let (pages, reserved) = (claim.pages(), claim.frame_bytes());
            if !self.fill.reserve(reserved, Patience::Endless) {
                set.give_up(claim);
                return Err(AccessError::Detached);
            }
            self.fill.count_supplied(pages.len());
            let zeros = &ZEROS.0[..reserved as usize];
            if let Err((unused, why)) = set.place(claim, zeros, self.fill.allocator.ages.now()) {
                self.fill.allocator.budget.release(unused);
                return match why {
                    PlaceError::CutOff => Ok(Done::No),
                    PlaceError::Host(_) => Err(self.waits.trapped_at(pages.start * SMALL as u64)),
                };
            }
        }
        Ok(Done::Yes)
    }
}
