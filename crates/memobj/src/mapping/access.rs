//! Copies and touches.

use memobj_core::address::PageIndex;
use memobj_core::decide::{Decision, Intent, WaitFor, decide};
use memobj_linux::area::{self, TouchRefused};
use memobj_linux::signal;

use super::{Mapping, VolatileWords};
use crate::error::AccessError;
use crate::fault;
use crate::pins::ThisThread;

/// Traps of one copy on pages that have not failed, beyond which it is taken for an error of the memory itself.
const MOST_STRANGE_TRAPS: u32 = 100;

impl Mapping {
    /// Copies the bytes from `offset` on into `buffer`. Blocks until they are there.
    ///
    /// Pins as little as it can at a time, so a buffer larger than the budget works; and touches instead where
    /// others hold all pins. Bytes of one page that is there take no allocation, and write to no memory that other
    /// threads write to but the page's word; nor to that, where pages cannot be touched.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), AccessError> {
        let length = buffer.len() as u64;
        let end = offset.checked_add(length).ok_or_else(|| self.past_the_end(offset, length))?;
        let bytes = self.object_bytes(&(offset..end))?;
        let area = self.pins.area();
        if area::copy_at_a_glance(area, bytes, buffer)
            || area::copy_one(area, ThisThread::get().shard(), bytes, buffer)
        {
            return Ok(());
        }
        let limit = self.frames().fill.allocator.pins.limit();
        let page = self.page_bytes();
        let step = (limit / 4).max(page).min((256 << 10).max(page));
        let mut done = 0;
        while done < length {
            // Ends at page borders of the object, so that no page is pinned twice.
            let at = offset + done;
            let border = (self.range.start + at + step) / page * page - self.range.start;
            let part = at..border.max(at + 1).min(end);
            let into = &mut buffer[done as usize..][..(part.end - part.start) as usize];
            match self.copy_pinned(part.clone(), into) {
                Ok(()) => {}
                // Others hold all the pins there may be: plain loads need none.
                Err(AccessError::PinsExceedBudget { .. } | AccessError::TooManyPins) => {
                    match self.announce {
                        Some(_) => self.touch_at(at, into)?,
                        // Their pins end sooner or later; a caller that holds them itself has to let go.
                        None => return Err(AccessError::TooManyPins),
                    }
                }
                Err(error) => return Err(error),
            }
            done += part.end - part.start;
        }
        Ok(())
    }

    pub(super) fn past_the_end(&self, offset: u64, length: u64) -> AccessError {
        AccessError::OutOfRange { range: offset..offset.saturating_add(length), length: self.len() }
    }

    /// The address of the first byte, for plain loads.
    ///
    /// Loads fault and are resolved on demand. A page that cannot be supplied traps: SIGBUS, which kills the
    /// process unless it has a handler; [`errors`](Mapping::errors) tells which page and why. The pointer is
    /// good while a mapping of the object lives. Nothing may be stored through it, for which there is
    /// [`as_mut_ptr`](Self::as_mut_ptr): 4 KiB pages of an object that is read only trap (SIGSEGV); 2 MiB pages
    /// cannot be protected by the kernel's means, and the store would change what others read. Null if
    /// [`can_be_touched`](Self::can_be_touched) is false.
    pub fn as_ptr(&self) -> *const u8 {
        let area = &self.frames().area;
        let address = self.announce.and_then(|announce| area.address(announce, self.range.start));
        address.unwrap_or(std::ptr::null())
    }

    /// Whether the mapping has addresses to touch. Mappings made with [`Delivery::PinOnly`](crate::Delivery::PinOnly),
    /// and all on machines without userfaultfd, have none: [`as_ptr`](Self::as_ptr) is null there.
    pub fn can_be_touched(&self) -> bool {
        self.announce.is_some()
    }

    /// Copies the bytes from `offset` on by plain loads, which fault and are resolved on demand like anybody's;
    /// a page that traps ends the copy, and is reported as its error rather than as a signal. Waits while somebody pins a
    /// page for writing, and says `Pinned` if that takes longer than the object's `pin_timeout`.
    pub fn touch_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), AccessError> {
        let length = buffer.len() as u64;
        let end = offset.checked_add(length).ok_or_else(|| self.past_the_end(offset, length))?;
        let range = self.object_bytes(&(offset..end))?;
        let announce = self.announce.ok_or(AccessError::PinOnly)?;
        // Without the handler a trap would kill. It cannot be refused in practice: sigaction(2) knows no such error.
        let _ = signal::install(fault::resolve);
        let (parts, mut done, mut strange, mut pinned_until) = (self.frames(), 0, 0, None);
        while let Err(refused) =
            area::copy_by_touch(&parts.area, announce, range.start + done as u64, &mut buffer[done..])
        {
            let trapped = match refused {
                TouchRefused::Trapped(at) => at,
                TouchRefused::PinnedMut(at) => {
                    let page = PageIndex(at >> parts.area.page_size().shift());
                    parts.waits.wait_for_pins(page, &mut pinned_until)?;
                    done = (at - range.start) as usize;
                    continue;
                }
            };
            let page = PageIndex(trapped >> parts.area.page_size().shift());
            let decision = decide(parts.area.word(page), Intent::Presence);
            // A page traps from a moment before it is Failed on, to a moment before it is Absent after a retry.
            let error = match decision {
                Decision::Trap => parts.errors.of(page),
                Decision::Demand | Decision::Wait(WaitFor::Filler) => parts.waits.wait_for(page).err(),
                _ => None,
            };
            strange += u32::from(decision != Decision::Trap);
            std::thread::yield_now();
            let unexplained = || (strange > MOST_STRANGE_TRAPS).then(|| parts.errors.strange(page));
            if let Some(error) = error.or_else(unexplained) {
                return Err(AccessError::Page(error));
            }
            done = (trapped - range.start) as usize;
        }
        Ok(())
    }

    /// The words of the mapping, loaded one by one by plain loads that fault on demand and trap on failed pages.
    /// A length that is no multiple of eight leaves its last bytes out; `None` if the mapping does not start at a
    /// multiple of eight in the object, cannot be touched, or can be written (then there are
    /// [`shared_words`](Self::shared_words)).
    pub fn words(&self) -> Option<VolatileWords<'_>> {
        if self.frames().writes.is_some() {
            return None;
        }
        let words = self.frames().area.volatile_words(self.announce?, self.range.start, self.len() / 8)?;
        Some(VolatileWords::new(words))
    }
}
