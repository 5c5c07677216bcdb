//! Where an object's pages can be seen: ranges of addresses, here and in guests, each with its userfaultfd.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memobj_core::address::{PageIndex, PageRange, PageSize};
use memobj_core::page_word::{PageWord, Word};
use memobj_core::pages::{self, Held, Park, Shows, View as _};

use super::{GuestView, Home, Writes};
use crate::futex;
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

    fn is_announced(&self, announce: Announce) -> bool {
        self.uffd.as_ref().is_some_and(|uffd| uffd.announce() == announce)
    }
}

impl pages::View for Home {
    type Viewer = Viewer;
    type Refused = io::Error;

    fn own(&self) -> Viewer {
        let announce = self.views[0].uffd.as_ref().map_or(Announce::Queued, |uffd| uffd.announce());
        Viewer::Here(announce)
    }

    fn shows(&self) -> Shows {
        match (&self.frame_file, self.writes) {
            (Some(_), Writes::Yes) => Shows::WhenTold,
            (Some(_), Writes::No) if self.has_large_file() => Shows::WhenHeld,
            _ => Shows::Unasked,
        }
    }

    fn show(&self, _: Held<Self>, page: PageIndex, viewer: Viewer) {
        if self.writes == Writes::No {
            let Viewer::Here(announce) = viewer else { return };
            let view = self.views.iter().find(|view| view.is_announced(announce));
            return view.into_iter().for_each(|view| self.show_whole(view, page));
        }
        let (start, len) = (self.offset_in_view(page.0), self.mapped_len(PageRange::one(page)));
        if let Viewer::Guest(guest) = viewer {
            return self.with_guest(guest, |view| view.show(start, start + len));
        }
        self.with_view(viewer, |uffd, at| {
            // SAFETY: the page lies in a view that is registered. A small page gets into the file whole, and is
            // changed afterwards by stores only, which are to be seen.
            let _ = unsafe { uffd.show_protected(at + start, len) };
        });
    }

    fn each_without(&self, page: PageIndex, act: &mut dyn FnMut(Viewer)) {
        let (start, len) = (self.offset_in_view(page.0), self.mapped_len(PageRange::one(page)));
        for view in self.views.iter().filter(|view| view.used.load(Ordering::Relaxed)) {
            let present = crate::pagemap::present_pages(view.region.start() + start, len);
            if !present.is_ok_and(|pages| pages == (len / SMALL) as u64) {
                act(Viewer::Here(view.registered().announce()));
            }
        }
    }

    fn open(&self, _: Held<Self>, pages: PageRange, viewer: Viewer) {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        match viewer {
            _ if self.shows() != Shows::WhenTold => {}
            Viewer::Guest(guest) => self.with_guest(guest, |view| view.open(start, end)),
            Viewer::Here(_) => {
                self.with_view(viewer, |uffd, at| {
                    // SAFETY: as in `show`.
                    let _ = unsafe { uffd.show(at + start, end - start) };
                });
            }
        }
        for view in self.views_in_use() {
            if let Some(uffd) = &view.uffd {
                // Refused only for a malformed range; the next store faults again then.
                let _ = uffd.unprotect(view.region.start() + start, end - start);
            }
        }
        if let Some(guests) = &self.guests {
            guests.unprotect(start, end);
        }
    }

    fn protect(&self, pages: PageRange) -> io::Result<()> {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        for view in self.views_in_use() {
            if let Some(uffd) = &view.uffd {
                uffd.write_protect(view.region.start() + start, end - start)?;
            }
        }
        self.protect_in_guests(start, end)
    }

    /// Refused where they trap already; whatever else it is refused for leaves the pages missing, and then every access
    /// announces a fault that finds them Failed.
    fn poison(&self, pages: PageRange) {
        let (at, len) = (self.offset_in_view(pages.start), self.mapped_len(pages));
        for view in self.views.iter().filter(|view| at < view.region.len()) {
            if let Some(uffd) = &view.uffd {
                let _ = self.poison_in(uffd, view.region.start() + at, len);
            }
        }
        if let Some(guests) = &self.guests {
            guests.each(|guest| {
                if let Some((at, len)) = guest.clip(at, at + len) {
                    let _ = self.poison_in(guest.uffd(), at, len);
                }
                Ok(())
            });
        }
    }

    fn lift_poison(&self, _: Held<Self>, pages: PageRange) {
        let (at, len) = (self.offset_in_view(pages.start), self.mapped_len(pages));
        for view in &self.views {
            let len = len.min(view.region.len().saturating_sub(at));
            if len > 0 {
                // SAFETY: the pages are the caller's or lie behind the end (`Held`): none has a frame, none gets one
                // before this returns, and nobody holds references into them.
                let _ = unsafe { view.region.zap(at, len) };
            }
        }
        if let Some(guests) = &self.guests {
            guests.tell_to_lift(at, len);
        }
    }

    fn wake(&self, pages: PageRange) {
        self.wake_views(0, pages);
    }

    fn wake_others(&self, pages: PageRange) {
        self.wake_views(1, pages);
    }

    fn length_changed(&self, length: u64) {
        self.length.store(length, Ordering::Release);
        self.tell_length(length);
    }
}

impl Park for Home {
    fn wait(&self, word: &PageWord, seen: Word, timeout: Option<std::time::Duration>) {
        futex::wait(futex::low_half(word.as_atomic()), seen.low_half(), timeout);
    }

    fn pause(&self) {
        std::thread::yield_now();
    }

    fn wake_all(&self, word: &PageWord) {
        futex::wake_all(futex::low_half(word.as_atomic()));
        self.listeners.tell();
    }
}

impl Home {
    /// Notes that somebody maps the view whose faults are announced by `announce`: from now on pages are shown
    /// there when they are supplied, and not only at a fault. `false` if there is no such view.
    pub fn use_view(&self, announce: Announce) -> bool {
        let view = self.views.iter().find(|view| view.is_announced(announce));
        view.inspect(|view| view.used.store(true, Ordering::Relaxed)).is_some()
    }

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

    /// The address of byte `offset` in the first view, where pages are put in place and pinned.
    #[inline]
    pub(super) fn pointer(&self, offset: u64) -> *const u8 {
        self.views[0].region.pointer(offset as usize).cast_const()
    }

    /// Whether frames are those of a file with large ones.
    pub(super) fn has_large_file(&self) -> bool {
        self.frame_file.is_some() && self.page_size != PageSize::SMALL
    }

    /// Views of this process that can show pages: the first, where they are put in place and pinned, and those that
    /// somebody has mapped.
    pub(super) fn views_in_use(&self) -> impl Iterator<Item = &View> {
        let in_use = |(index, view): &(usize, &View)| *index == 0 || view.used.load(Ordering::Relaxed);
        self.views.iter().enumerate().filter(in_use).map(|(_, view)| view)
    }

    /// Shows `page` of a large file, whose bytes are all there, and which the caller keeps from changing hands.
    pub(super) fn show_whole(&self, view: &View, page: PageIndex) {
        let start = view.region.start() + self.offset_in_view(page.0);
        // SAFETY: the page lies in the view, which is registered; its bytes are complete and stay, as only its owner
        // changes them, and the caller holds it.
        let _ = unsafe { view.registered().show(start, self.mapped_len(PageRange::one(page))) };
    }

    /// Calls `act` with the userfaultfd and the start of `viewer`'s view, if it is one of this process.
    fn with_view(&self, viewer: Viewer, act: impl FnOnce(&Userfaultfd, usize)) {
        let Viewer::Here(announce) = viewer else { return };
        if let Some(view) = self.views.iter().find(|view| view.is_announced(announce)) {
            act(view.registered(), view.region.start());
        }
    }

    /// Calls `act` with a guest's view, if it is there still.
    fn with_guest(&self, guest: super::guests::GuestNumber, act: impl FnOnce(&GuestView)) {
        if let Some(guests) = &self.guests {
            guests.with_open(guest, act);
        }
    }

    /// Wakes those who sleep in the kernel on a fault in `pages`, in the views from `first` on.
    fn wake_views(&self, first: usize, pages: PageRange) {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        for view in &self.views[first..] {
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

    fn poison_in(&self, uffd: &Userfaultfd, start: usize, len: usize) -> io::Result<()> {
        let poisoned = uffd.poison(start, len);
        if poisoned.is_ok() || self.shows() == Shows::Unasked {
            return poisoned;
        }
        // Protection outlives its page in a mapping of a file, and is in the way.
        let _ = uffd.unprotect(start, len);
        uffd.poison(start, len)
    }
}
