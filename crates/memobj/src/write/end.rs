//! Ends: close, drop, exit.

use std::sync::{Arc, Once};

use memobj_core::address::{ByteRange, PageIndex};
use memobj_sys::area;
use memobj_sys::region::SMALL;

use super::WriteStep;
use super::length::{Changed, everything};
use super::sync::PinnedPages;
use crate::error::WriteError;
use crate::event::Event;
use crate::options::Writing;
use crate::pagers::Source;
use crate::store::{FrameStore, STORES, WriteState};

impl FrameStore {
    /// Writes everything back and makes it durable.
    fn close_writes(self: &Arc<Self>, writes: &WriteState) -> Result<(), WriteError> {
        self.sync(writes, everything(self.area.length()))
    }

    pub(crate) fn sync_all(self: &Arc<Self>) -> Result<(), WriteError> {
        match &self.writes {
            Some(writes) => self.close_writes(writes),
            None => Ok(()),
        }
    }

    /// Commits, if there is a log.
    pub(crate) fn commit_all(self: &Arc<Self>) -> Result<(), WriteError> {
        match (&self.writes, &self.object.log) {
            (Some(writes), Some(log)) => self.commit(writes, log),
            _ => Ok(()),
        }
    }

    pub(crate) fn set_len(self: &Arc<Self>, length: u64) -> Result<Changed, WriteError> {
        match &self.writes {
            Some(writes) => self.set_length(writes, length),
            None => Ok(Changed::Yes),
        }
    }

    /// The last handle is gone. Changes that nobody asked to be written are written all the same, and told.
    pub(crate) fn end_writes(self: &Arc<Self>) {
        let Some(writes) = &self.writes else { return };
        let pages = self.area.unclean_pages();
        let bytes = pages << self.area.page_size().shift();
        if pages == 0 || !self.object.keeps_changes {
            return;
        }
        // What was not committed is as if it had never been.
        let written = match self.object.log {
            Some(_) => Ok(()),
            None => self.write_back(writes, everything(self.area.length()), PinnedPages::AreWaitedFor),
        };
        let lost = || self.lost_in(writes, &(0..u64::MAX));
        let object = self.object.name.to_string();
        self.cache.tell.event(Event::DroppedDirty { object, bytes, error: written.err().or_else(lost) });
    }

    /// An error of a commit, for all of the object.
    pub(crate) fn commit_error(&self, error: &crate::error::SupplyError) -> WriteError {
        self.write_error(WriteStep::Commit, 0..self.area.length(), error)
    }
}

/// Hands the changes of all objects that are written in place to their files when the process exits by `exit` or
/// by returning from `main`: the system makes them durable in its own time, as it does with what was mapped.
pub(crate) fn flush_at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| memobj_sys::exit::at_exit(flush_all));
}

fn flush_all() {
    for slot in 0..STORES.end() {
        let store = STORES.with(slot, |store| store.this.upgrade()).flatten();
        let Some(store) = store.filter(|store| store.object.keeps_changes) else { continue };
        if !store.cache.owner.is_this_process() || store.object.options.writing != Writing::InPlace {
            continue;
        }
        if let Some(writes) = &store.writes {
            store.flush_for_exit(writes);
        }
    }
}

impl FrameStore {
    /// Nobody is left to tell of errors.
    fn flush_for_exit(self: &Arc<Self>, writes: &WriteState) {
        let all = everything(self.area.length());
        let _ = self.write_back(writes, all, PinnedPages::AreLeft);
        let pages = self.area.page_size().pages_of(all);
        let mut from = 0;
        while let Some(block) = self.area.next_unclean_block(from) {
            let part = self.part(block, pages);
            part.iter().filter(|page| self.area.word(*page).is_pinned_mut()).for_each(|page| {
                self.write_pinned(writes, page);
            });
            from = block + 1;
        }
    }

    /// Writes a page that is pinned for writing as it is: what the kernel does with memory of a file when a process ends.
    fn write_pinned(self: &Arc<Self>, writes: &WriteState, page: PageIndex) {
        let start = page.0 * SMALL as u64;
        let mut buffer = vec![0; SMALL];
        if area::copy_as_is(&self.area, start, &mut buffer).is_err() {
            return;
        }
        let bytes = ByteRange { start, end: start + SMALL as u64 }.below(self.area.length());
        buffer.truncate(bytes.len() as usize);
        let write = move |store: &Arc<Self>| store.object.pager.write_back(bytes.start..bytes.end, &buffer);
        let _ = match self.object.source() {
            Source::File(_) => write(self),
            _ => self.call_aside(write),
        };
        // The pin has ended meanwhile: somebody else may have written later bytes before these.
        if !self.area.word(page).is_pinned_mut() {
            self.area.make_dirty(page);
            let _ = self.write_back(writes, bytes, PinnedPages::AreLeft);
        }
    }
}
