//! Ends: close, drop, exit.

use std::sync::{Arc, Once};

use super::length::everything;
use super::{WriteState, WriteStep};
use crate::error::WriteError;
use crate::event::Event;
use crate::options::Writing;
use crate::store::{FrameStore, STORES};

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

    pub(crate) fn set_len(self: &Arc<Self>, length: u64) -> Result<(), WriteError> {
        match &self.writes {
            Some(writes) => self.set_length(writes, length),
            None => Ok(()),
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
            None => self.write_back(writes, everything(self.area.length())),
        };
        let lost = || self.lost_in(writes, &(0..u64::MAX));
        let object = self.object.name.to_string();
        self.cache.tell(Event::DroppedDirty { object, bytes, error: written.err().or_else(lost) });
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
            // Nobody is left to tell.
            let _ = store.write_back(writes, everything(store.area.length()));
        }
    }
}
