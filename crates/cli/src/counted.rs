//! What pagers of servers count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use memobj::MemoryObject;

/// What pagers of servers have counted, by name.
pub(crate) type Totals = Mutex<BTreeMap<&'static str, u64>>;

/// An object whose pager counts: when it is dropped, that is added to what others have counted.
#[derive(Debug)]
pub(crate) struct Counted {
    object: MemoryObject,
    totals: Arc<Totals>,
}

impl Counted {
    pub(crate) fn new(object: &MemoryObject, totals: &Arc<Totals>) -> Self {
        Self { object: object.clone(), totals: Arc::clone(totals) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, count) in self.object.pager_counters() {
            *totals.entry(name).or_insert(0) += count;
        }
    }
}
