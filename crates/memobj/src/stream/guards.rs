//! What a stream has handed out and not got back.
//!
//! Pins wait for one another. A thread that holds a guard and asks for its page again would wait for itself until a
//! time-out, so the guards of one stream are told apart here, at once and before anything is pinned.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::error::StreamError;
use crate::locks::{Guard, Rank, RankedMutex};

/// What a guard is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Reading,
    Writing,
}

/// The guards of one stream, as whole pages in bytes.
#[derive(Debug, Default)]
struct Guards {
    next: u64,
    readers: BTreeMap<u64, Range<u64>>,
    writers: BTreeMap<u64, Range<u64>>,
}

impl Guards {
    fn in_the_way(&self, pages: &Range<u64>, purpose: Purpose) -> Option<Range<u64>> {
        let overlaps = |held: &&Range<u64>| held.start < pages.end && pages.start < held.end;
        let readers = match purpose {
            Purpose::Reading => None,
            Purpose::Writing => self.readers.values().find(overlaps),
        };
        readers.or_else(|| self.writers.values().find(overlaps)).cloned()
    }
}

/// The guards of one stream.
#[derive(Clone, Debug)]
pub(super) struct StreamGuards(Arc<RankedMutex<Guards>>);

/// A place among the guards, given back on drop.
#[derive(Debug)]
pub struct Place {
    held: StreamGuards,
    id: u64,
}

impl StreamGuards {
    pub(super) fn new() -> Self {
        Self(Arc::new(RankedMutex::new(Rank::Stream, Guards::default())))
    }

    /// Takes a place for `wanted`; refused while a guard holds a page of it, or of `alone`, that excludes it.
    /// `alone` are bytes whose pages nobody may have at all, those that growing needs.
    pub(super) fn take(
        &self,
        wanted: Range<u64>,
        alone: Range<u64>,
        purpose: Purpose,
        page_bytes: u64,
    ) -> Result<Place, StreamError> {
        let pages = whole_pages(&wanted, page_bytes);
        let mut guards = self.guards();
        let in_the_way = guards.in_the_way(&pages, purpose);
        let in_the_way =
            in_the_way.or_else(|| guards.in_the_way(&whole_pages(&alone, page_bytes), Purpose::Writing));
        if let Some(held) = in_the_way {
            return Err(StreamError::Held { wanted, held });
        }
        let id = guards.next;
        guards.next += 1;
        match purpose {
            Purpose::Reading => guards.readers.insert(id, pages),
            Purpose::Writing => guards.writers.insert(id, pages),
        };
        Ok(Place { held: self.clone(), id })
    }

    /// The pages of some guard for writing.
    pub(super) fn any_writer(&self) -> Option<Range<u64>> {
        self.guards().writers.values().next().cloned()
    }

    fn guards(&self) -> Guard<'_, Guards> {
        self.0.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guards = self.held.guards();
        if guards.readers.remove(&self.id).is_none() {
            guards.writers.remove(&self.id);
        }
    }
}

/// The pages that `bytes` are in, as bytes; none if it is empty.
fn whole_pages(bytes: &Range<u64>, page_bytes: u64) -> Range<u64> {
    if bytes.is_empty() {
        return 0..0;
    }
    let end = bytes.end.checked_next_multiple_of(page_bytes).unwrap_or(u64::MAX);
    bytes.start / page_bytes * page_bytes..end
}
