//! Blocks of an object that are neither only on the disk nor only at the inner pager: on their way from one to the other.
//!
//! ```text
//!   vacant ----> Fetching: asked of the inner pager ----> Copied: in memory, waits to be written ----> vacant
//!                others join                              others copy
//! ```
//!
//! A fetch that was cancelled stays until its answer, but nobody can join it: the next one takes its place.
//!
//! The lock of the table comes before that of a fetch, and that before the lock of a pending request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fetch::{Fetch, Waiter};
use crate::identity::{Blocks, common};
use crate::pending::Pending;

/// The longest inner request.
const LONGEST: u64 = 16 << 20;

pub(crate) type Copy = Arc<Vec<u8>>;

enum Entry {
    Fetching(Arc<Fetch>),
    Copied(Copy),
}

#[derive(Default)]
pub(crate) struct Table(Mutex<BTreeMap<u64, Entry>>);

/// How a request gets the blocks that it misses.
#[derive(Default)]
pub(crate) struct Plan {
    /// Fetches that others began. The request waits for them.
    pub(crate) joined: Vec<Arc<Fetch>>,
    /// Fetches that are to begin. The request waits for them.
    pub(crate) new: Vec<Arc<Fetch>>,
    /// Blocks that are in memory.
    pub(crate) copies: Vec<(u64, Copy)>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block that waits to be written.
    pub(crate) fn copy(&self, number: u64) -> Option<Copy> {
        match self.lock().get(&number) {
            Some(Entry::Copied(copy)) => Some(Arc::clone(copy)),
            _ => None,
        }
    }

    /// Has `pending` wait for the blocks `missing`, which ascend.
    pub(crate) fn plan(&self, blocks: &Blocks, missing: &[u64], pending: &Arc<Pending>) -> Plan {
        let mut table = self.lock();
        let mut plan = Plan::default();
        let mut vacant = Vec::new();
        for number in missing.iter().copied() {
            match table.get(&number) {
                Some(Entry::Copied(copy)) => plan.copies.push((number, Arc::clone(copy))),
                Some(Entry::Fetching(fetch)) => {
                    let known = plan.joined.iter().any(|joined| Arc::ptr_eq(joined, fetch));
                    if known {
                        continue;
                    }
                    match wait_for(fetch, pending) {
                        true => plan.joined.push(Arc::clone(fetch)),
                        false => vacant.push(number),
                    }
                }
                None => vacant.push(number),
            }
        }
        for run in runs(&vacant, LONGEST / blocks.block_bytes().max(1)) {
            let fetch = Fetch::new(blocks.bytes_of(run.clone()), run.clone());
            wait_for(&fetch, pending);
            table.extend(run.map(|number| (number, Entry::Fetching(Arc::clone(&fetch)))));
            plan.new.push(fetch);
        }
        plan
    }

    /// `fetch` is over, unless somebody has joined: these are returned, are to be answered, and this to be called again.
    /// `copies` are its blocks that wait to be written.
    pub(crate) fn end(&self, fetch: &Arc<Fetch>, copies: &[(u64, Copy)]) -> Vec<Waiter> {
        let mut table = self.lock();
        let late = fetch.end();
        if late.is_empty() {
            forget(&mut table, fetch);
            for (number, copy) in copies {
                table.entry(*number).or_insert_with(|| Entry::Copied(Arc::clone(copy)));
            }
        }
        late
    }

    /// `copy` of block `number` waits no longer to be written.
    pub(crate) fn written(&self, number: u64, copy: &Copy) {
        let mut table = self.lock();
        if let Some(Entry::Copied(known)) = table.get(&number)
            && Arc::ptr_eq(known, copy)
        {
            table.remove(&number);
        }
    }
}

/// Whether `pending` waits for its part of `fetch` now.
fn wait_for(fetch: &Arc<Fetch>, pending: &Arc<Pending>) -> bool {
    let part = common(pending.range(), &fetch.range);
    pending.expect_one();
    let joined = fetch.join(Waiter { pending: Arc::clone(pending), part });
    if joined.is_err() {
        // Not the last answer: whoever made `pending` has not given its own yet.
        pending.one_came(Ok(()));
    }
    joined.is_ok()
}

fn forget(table: &mut BTreeMap<u64, Entry>, fetch: &Arc<Fetch>) {
    for number in fetch.blocks.clone() {
        if let Some(Entry::Fetching(known)) = table.get(&number)
            && Arc::ptr_eq(known, fetch)
        {
            table.remove(&number);
        }
    }
}

/// Neighbours of `numbers`, which ascend, at most `most` together.
fn runs(numbers: &[u64], most: u64) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for number in numbers.iter().copied() {
        match runs.last_mut() {
            Some(run) if run.end == number && run.end - run.start < most => run.end += 1,
            _ => runs.push(number..number.saturating_add(1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_run_together_up_to_the_longest() {
        assert_eq!(runs(&[], 4), []);
        assert_eq!(runs(&[1, 2, 3, 5, 6, 9], 4), [1..4, 5..7, 9..10]);
        assert_eq!(runs(&[0, 1, 2, 3, 4], 2), [0..2, 2..4, 4..5]);
        assert_eq!(runs(&[7, 8], 0), [7..8, 8..9]);
    }
}
