//! Pages of large frame files come into view by an explicit call, never by themselves.
//!
//! Any write to such a file makes a whole frame, whose rest reads as zeros. So its views are registered for minor
//! faults: they show nothing of the file until they are told to, and are told so only by somebody who keeps the
//! page from changing hands: the owner of its claim, once all bytes are in the file, or whoever holds a Clean
//! page. A frame that is evicted and filled again meanwhile could else be shown half-written.

use std::io;
use std::sync::atomic::Ordering;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::page_word::{State, Transition};

use super::{Area, FillClaim, View};
use crate::uffd::Announce;

impl Area {
    /// Notes that somebody maps the view whose faults are announced by `announce`: from now on pages are shown
    /// there when they are supplied, and not only at a fault. `false` if there is no such view.
    pub fn use_view(&self, announce: Announce) -> bool {
        let view = self.views.iter().find(|view| view.is_announced(announce));
        view.inspect(|view| view.used.store(true, Ordering::Relaxed)).is_some()
    }

    /// Makes the view whose faults are announced by `announce` show `page` if it is Clean, and wakes its sleepers.
    /// Does nothing where views show their pages by themselves. Safe in a signal handler.
    pub fn show(&self, page: PageIndex, announce: Announce) {
        if !self.shows_when_told() {
            return;
        }
        let Some(view) = self.views.iter().find(|view| view.is_announced(announce)) else { return };
        // A page with pins takes one more; one without is taken out of the hand's reach. Not by a pin: the first
        // would have to find room among the pins. With the most pins there can be, the fault comes again until one
        // of them ends.
        if self.advance(page, Transition::PinAgain).is_ok() {
            self.show_owned(view, page);
            self.unpin_page(page);
        } else if self.advance(page, Transition::Evict).is_ok() {
            self.show_owned(view, page);
            let done = self.advance(page, Transition::Spare);
            debug_assert!(done.is_ok(), "page {page} left Evicting under its owner: {done:?}");
        }
    }

    /// Shows the Clean pages among `pages` in every view in use, where they are not shown yet.
    pub fn show_clean(&self, pages: PageRange) {
        if !self.shows_when_told() {
            return;
        }
        for page in pages.iter().filter(|page| self.word(*page).state() == State::Clean) {
            let (start, len) = (self.offset_in_view(page.0), self.mapped_bytes(page));
            for view in self.views.iter().filter(|view| view.used.load(Ordering::Relaxed)) {
                let present = crate::pagemap::present_pages(view.region.start() + start, len);
                if !present.is_ok_and(|pages| pages == (len / crate::region::SMALL) as u64) {
                    self.show(page, view.registered().announce());
                }
            }
        }
    }

    /// Whether views show pages only when told to.
    pub(super) fn shows_when_told(&self) -> bool {
        self.frame_file.is_some() && self.page_size != memobj_core::address::PageSize::SMALL
    }

    /// The caller keeps `page` from changing hands. What fails is tried again by the next fault: sleepers are woken.
    fn show_owned(&self, view: &View, page: PageIndex) {
        let start = view.region.start() + self.offset_in_view(page.0);
        // SAFETY: the page lies in the view, which is registered; its bytes are complete and stay, as only its owner
        // changes them, and the caller holds it.
        let _ = unsafe { view.registered().show(start, self.mapped_bytes(page)) };
    }
}

impl FillClaim {
    /// Writes `source` to the one large page of this claim, and shows it in the first view and those in use.
    pub(super) fn place_in_file(&self, source: &[u8]) -> io::Result<()> {
        let area = &self.area;
        let page = PageIndex(self.pages.start);
        let Some(file) = area.frame_file.as_ref().filter(|_| self.pages.len() == 1) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let offset = area.offset_in_view(page.0);
        file.fill_large(offset as u64, source)?;
        let first = &area.views[0];
        // SAFETY: the page is Filling and owned by this claim; all its bytes are in the file.
        let shown = unsafe { first.registered().show(first.region.start() + offset, source.len()) };
        if let Err((_, error)) = shown {
            file.punch(offset as u64, area.page_size.bytes())?;
            return Err(error);
        }
        for view in area.views.iter().skip(1).filter(|view| view.used.load(Ordering::Relaxed)) {
            area.show_owned(view, page);
        }
        Ok(())
    }
}
