//! Waiting for a page without sleeping: for event loops.

use std::sync::Arc;

use memobj_core::address::PageIndex;
use memobj_core::page_word::Word;

use super::Area;
use crate::fault_loop::{Awaited, Listener, Listeners};

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// That nobody owns the page.
    Free,
    /// That nothing about the page keeps a plain store off.
    OpenToStores,
}

/// A sleeper on the word of a page who does not sleep: the fault loop is told when the word changes.
#[derive(Debug)]
pub struct PageWatch {
    area: Listener<Watched>,
    page: PageIndex,
    seen: Word,
}

struct Watched(Arc<Area>);

impl AsRef<Listeners> for Watched {
    fn as_ref(&self) -> &Listeners {
        &self.0.listeners
    }
}

impl PageWatch {
    /// `None`: there is nothing to wait for.
    pub fn new(area: &Arc<Area>, page: PageIndex, until: Until) -> Option<Self> {
        let listener = Listener::new(Watched(Arc::clone(area)));
        let seen = match until {
            Until::Free => area.announce_waiter(page),
            Until::OpenToStores => area.announce_storer(page),
        }?;
        Some(Self { area: listener, page, seen })
    }
}

impl Awaited for PageWatch {
    fn is_over(&self) -> bool {
        self.area.0.word(self.page) != self.seen
    }
}
