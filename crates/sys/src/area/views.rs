//! Where an object's pages can be seen: ranges of addresses, here and in guests, each with its userfaultfd.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memobj_core::address::PageRange;

use super::Area;
use crate::region::{Region, SMALL};
use crate::uffd::{Announce, Userfaultfd};

/// Whose fault it is: the view in which a page is to be seen, or to be open to stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Viewer {
    /// The view of this process whose faults are announced so.
    Here(Announce),
    /// That of a guest.
    Guest(super::guests::GuestNumber),
}

#[derive(Debug)]
pub(super) struct View {
    pub(super) region: Region,
    /// `None`: nobody has addresses to touch.
    pub(super) uffd: Option<Arc<Userfaultfd>>,
    /// Somebody has mapped it.
    pub(super) used: AtomicBool,
}

impl View {
    pub(super) fn new(region: Region, uffd: Option<Arc<Userfaultfd>>) -> Self {
        Self { region, uffd, used: AtomicBool::new(false) }
    }

    /// The userfaultfd of an area whose memory can be touched.
    pub(super) fn registered(&self) -> &Userfaultfd {
        match &self.uffd {
            Some(uffd) => uffd,
            None => unreachable!("only areas with a userfaultfd have large or shared frames"),
        }
    }

    pub(super) fn is_announced(&self, announce: Announce) -> bool {
        self.uffd.as_ref().is_some_and(|uffd| uffd.announce() == announce)
    }
}

impl Area {
    /// Address and length of each view, with the way its faults are announced.
    pub fn views(&self) -> impl Iterator<Item = (usize, usize, Announce)> + '_ {
        let touchable = |view: &View| {
            let announce = view.uffd.as_ref()?.announce();
            Some((view.region.start(), view.region.len(), announce))
        };
        self.views.iter().filter_map(touchable)
    }

    /// The offset that `address` has in the view that it lies in.
    pub fn offset_of(&self, address: usize) -> Option<u64> {
        let inside =
            |view: &View| address.checked_sub(view.region.start()).filter(|at| *at < view.region.len());
        self.views.iter().find_map(inside).map(|offset| offset as u64)
    }

    /// The address of byte `offset` (at most the capacity) in the view whose faults are announced by `announce`.
    pub fn address(&self, announce: Announce, offset: u64) -> Option<*const u8> {
        assert!(offset <= self.capacity, "offset {offset} in room for {} bytes", self.capacity);
        let view = self.views.iter().find(|view| view.is_announced(announce))?;
        Some(view.region.pointer(offset as usize).cast_const())
    }

    /// Views of this process that can show pages: the first, where they are put in place and pinned, and those that
    /// somebody has mapped.
    pub(super) fn views_in_use(&self) -> impl Iterator<Item = &View> {
        let in_use = |(index, view): &(usize, &View)| *index == 0 || view.used.load(Ordering::Relaxed);
        self.views.iter().enumerate().filter(in_use).map(|(_, view)| view)
    }

    /// Calls `act` with the userfaultfd and the start of `viewer`'s view, if there is one.
    pub(super) fn with_view<R>(
        &self,
        viewer: Viewer,
        act: impl FnOnce(&Userfaultfd, usize) -> R,
    ) -> Option<R> {
        match viewer {
            Viewer::Here(announce) => {
                let view = self.views.iter().find(|view| view.is_announced(announce))?;
                Some(act(view.registered(), view.region.start()))
            }
            Viewer::Guest(guest) => self.guests.as_ref()?.with_open(guest, act),
        }
    }

    /// Wakes those who sleep in the kernel on a fault in `pages`.
    pub fn wake(&self, pages: PageRange) {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        for view in &self.views {
            if let Some(uffd) = &view.uffd
                && uffd.announce() == Announce::Queued
            {
                let end = end.min(view.region.len());
                uffd.wake(view.region.start() + start, end - start);
            }
        }
        if let Some(guests) = &self.guests {
            guests.wake(start, end);
        }
    }

    /// Makes `[at, at + len)`, where no page is, trap in all views. Refused where it traps already; whatever else it
    /// is refused for leaves the page missing, and then every access announces a fault that finds it Failed.
    pub(super) fn poison(&self, at: usize, len: usize) {
        for view in self.views.iter().filter(|view| at < view.region.len()) {
            if let Some(uffd) = &view.uffd {
                let _ = self.poison_in(uffd, view.region.start() + at, len);
            }
        }
        if let Some(guests) = &self.guests {
            guests.each(|guest| {
                let _ = self.poison_in(guest.uffd(), guest.start() + at, len);
                Ok(())
            });
        }
    }

    fn poison_in(&self, uffd: &Userfaultfd, start: usize, len: usize) -> io::Result<()> {
        let poisoned = uffd.poison(start, len);
        if poisoned.is_ok() || !self.shows_when_told() {
            return poisoned;
        }
        // Protection outlives its page in a mapping of a file, and is in the way.
        let _ = uffd.unprotect(start, len);
        uffd.poison(start, len)
    }

    /// Makes the 4 KiB at `offset` trap, which lie in the views but in no page of the object.
    pub fn trap_outside(&self, offset: u64) {
        let at = (offset & !(SMALL as u64 - 1)) as usize;
        if (at >> self.page_size.shift()) < self.pages() as usize {
            return;
        }
        self.poison(at, SMALL);
        let page = (at >> self.page_size.shift()) as u64;
        self.wake(PageRange { start: page, end: page + 1 });
    }

    /// Makes `page`, which is Failed, trap again, and wakes who sleeps on it. The caller sees to it that the page stays
    /// Failed meanwhile: nobody may [`retry`](Self::retry) it. Poison that comes later would make a page trap that is there.
    pub fn trap_failed(&self, page: memobj_core::address::PageIndex) {
        self.poison(self.offset_in_view(page.0), self.mapped_bytes(page));
        self.wake(PageRange::one(page));
    }

    /// Lets `[at, at + len)`, where no page is, trap no longer.
    ///
    /// # Safety
    ///
    /// No page of the range can get a frame before this returns, and nobody holds references into it.
    pub(super) unsafe fn lift_poison(&self, at: usize, len: usize) {
        for view in &self.views {
            let len = len.min(view.region.len().saturating_sub(at));
            if len > 0 {
                // SAFETY: the contract of this function.
                let _ = unsafe { view.region.zap(at, len) };
            }
        }
        if let Some(guests) = &self.guests {
            guests.tell_to_lift(at, len);
        }
    }
}
