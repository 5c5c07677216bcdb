//! Where views are registered for minor faults, pages come into view by an explicit call, never by themselves.
//!
//! *Large frame files.* Any write to such a file makes a whole frame, whose rest reads as zeros. So views are told to
//! show a page only by somebody who keeps it from changing hands: the owner of its claim, once all bytes are in the
//! file, or whoever holds a Clean page. A frame that is evicted and filled again meanwhile could else be shown
//! half-written.
//!
//! *Pages that can be written.* They get into their file whole, so they may be shown at any time: what is there is right.
//! But they are shown write-protected, always, so that no protection that is put on meanwhile is undone. They are
//! shown open by nobody but who has locked them to open them, see `store`.

use std::io;
use std::sync::atomic::Ordering;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::page_word::{State, Transition};

use super::views::View;
use super::{Area, FillClaim, Viewer, Writes};
use crate::uffd::Announce;

impl Area {
    /// Notes that somebody maps the view whose faults are announced by `announce`: from now on pages are shown
    /// there when they are supplied, and not only at a fault. `false` if there is no such view.
    pub fn use_view(&self, announce: Announce) -> bool {
        let view = self.views.iter().find(|view| view.is_announced(announce));
        view.inspect(|view| view.used.store(true, Ordering::Relaxed)).is_some()
    }

    /// Makes `viewer`'s view show `page`, and wakes its sleepers: a page of a large frame file if it is Clean, one that
    /// can be written if it is resident. Does nothing where views show their pages by themselves. Safe in a signal
    /// handler.
    pub fn show(&self, page: PageIndex, viewer: Viewer) {
        if !self.shows_when_told() {
            return;
        }
        if self.writes == Writes::Yes {
            return self.show_protected(page, viewer);
        }
        let Viewer::Here(announce) = viewer else { return };
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
                    self.show(page, Viewer::Here(view.registered().announce()));
                }
            }
        }
    }

    /// Whether views show pages only when told to.
    pub(super) fn shows_when_told(&self) -> bool {
        self.frame_file.is_some() && (self.writes == Writes::Yes || self.has_large_file())
    }

    /// Whether frames are those of a file with large ones.
    pub(super) fn has_large_file(&self) -> bool {
        self.frame_file.is_some() && self.page_size != memobj_core::address::PageSize::SMALL
    }

    fn show_protected(&self, page: PageIndex, viewer: Viewer) {
        let (start, len) = (self.offset_in_view(page.0), self.mapped_bytes(page));
        // What fails is tried again by the next fault: sleepers are woken.
        self.with_view(viewer, |uffd, at| {
            // SAFETY: the page lies in a view that is registered. A small page gets into the file whole, and is
            // changed afterwards by stores only, which are to be seen.
            let _ = unsafe { uffd.show_protected(at + start, len) };
        });
    }

    /// Makes `viewer`'s view show `pages`, which the caller has locked to open them, open to stores.
    pub(super) fn show_open(&self, pages: PageRange, viewer: Viewer) {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        self.with_view(viewer, |uffd, at| {
            // SAFETY: as in `show_protected`.
            let _ = unsafe { uffd.show(at + start, end - start) };
        });
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
        let start = first.region.start() + offset;
        // SAFETY: the page is Filling and owned by this claim; all its bytes are in the file.
        if let Err((_, error)) = unsafe { first.registered().show(start, source.len()) } {
            file.punch(offset as u64, area.page_size.bytes())?;
            return Err(error);
        }
        for view in area.views.iter().skip(1).filter(|view| view.used.load(Ordering::Relaxed)) {
            area.show_owned(view, page);
        }
        Ok(())
    }
}
