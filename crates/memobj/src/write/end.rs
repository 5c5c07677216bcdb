//! Ends: close, drop, exit.

use std::sync::Arc;

use memobj_core::address::{ByteRange, PageIndex};
use memobj_linux::area;
use memobj_linux::region::SMALL;

use super::Writes;
use super::length::everything;
use super::sync::PinnedPages;
use crate::error::WriteError;
use crate::event::Event;
use crate::pagers::{BlockingPager, WriteRequest};

impl Writes {
    /// Writes everything back and makes it durable.
    pub(crate) fn sync_all(self: &Arc<Self>) -> Result<(), WriteError> {
        self.sync(everything(self.area.length()))
    }

    /// The last handle is gone. Changes that nobody asked to be written are written all the same, and told.
    pub(crate) fn end(self: &Arc<Self>) {
        let pages = self.area.unclean_pages();
        let bytes = pages << self.area.page_size().shift();
        if pages == 0 || !self.object.keeps_changes {
            return;
        }
        // What was not committed is as if it had never been.
        let written = match self.object.log {
            Some(_) => Ok(()),
            None => self.write_back(everything(self.area.length()), PinnedPages::AreWaitedFor),
        };
        let lost = || self.errors.lost.overlapping(&(0..u64::MAX));
        let object = self.object.name.to_string();
        self.fill.reporter.event(Event::DroppedDirty { object, bytes, error: written.err().or_else(lost) });
    }

    /// Hands everything to the pager while the process exits: nobody is left to tell of errors.
    pub(crate) fn flush_for_exit(self: &Arc<Self>) {
        let all = everything(self.area.length());
        let _ = self.write_back(all, PinnedPages::AreLeft);
        let pages = self.area.page_size().pages_of(all);
        for part in self.unclean_parts(pages) {
            let pinned = part.iter().filter(|page| self.area.word(*page).is_pinned_mut());
            pinned.for_each(|page| self.write_pinned(page));
        }
    }

    /// Writes a page that is pinned for writing as it is: what the kernel does with memory of a file when a process ends.
    fn write_pinned(self: &Arc<Self>, page: PageIndex) {
        let start = page.0 * SMALL as u64;
        let mut buffer = vec![0; SMALL];
        if area::copy_as_is(&self.area, start, &mut buffer).is_err() {
            return;
        }
        let bytes = ByteRange { start, end: start + SMALL as u64 }.below(self.area.length());
        buffer.truncate(bytes.len() as usize);
        let _ = match self.object.file() {
            Some(file) => file.write_back(bytes.start..bytes.end, &buffer),
            None => self.ask_aside(move |pager, to| {
                pager.write_back(WriteRequest::to(bytes.start..bytes.end, buffer, to));
            }),
        };
        // The pin has ended meanwhile: somebody else may have written later bytes before these.
        if !self.area.word(page).is_pinned_mut() {
            self.area.make_dirty(page);
            let _ = self.write_back(bytes, PinnedPages::AreLeft);
        }
    }
}
