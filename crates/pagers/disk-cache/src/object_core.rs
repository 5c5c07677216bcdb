//! Of one object, all that does not depend on its inner pager.
//!
//! Answers of the inner pager own this, and not the pager: it is never dropped on a thread of its own.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::{io, path::Path};

use memobj::pagers::PagerReports;
use memobj::{ErrorKind, SupplyError};

use crate::counters::Counters;
use crate::fetch::{Fetch, Waiter};
use crate::identity::{BlockId, Blocks};
use crate::keeper::{Keep, KeepFor};
use crate::pending::{Pending, Source};
use crate::pool::{Supplier, Work};
use crate::shared::Shared;
use crate::store::{Looked, Written};
use crate::table::{Copy, Plan, Table};

pub(crate) struct Core {
    pub(crate) blocks: Blocks,
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Counters,
    pub(crate) reports: OnceLock<PagerReports>,
    table: Table,
    /// The object was written to, or its length changed: what it is now has no name.
    is_changed: AtomicBool,
    /// A block that cannot be removed was reported.
    has_reported: AtomicBool,
    supplier: Weak<dyn Supplier>,
}

impl Core {
    pub(crate) fn new(blocks: Blocks, shared: Arc<Shared>, supplier: Weak<dyn Supplier>) -> Arc<Self> {
        Arc::new(Self {
            blocks,
            shared,
            counters: Counters::default(),
            reports: OnceLock::new(),
            table: Table::default(),
            is_changed: AtomicBool::new(false),
            has_reported: AtomicBool::new(false),
            supplier,
        })
    }

    pub(crate) fn supplier(&self) -> &Weak<dyn Supplier> {
        &self.supplier
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed.load(Ordering::SeqCst)
    }

    /// The object is about to change. From now on nothing of it is kept or looked for, and its blocks are removed: a version
    /// may have the grain of a clock, so that the changed object has the same.
    pub(crate) fn change(&self) {
        if self.is_changed.swap(true, Ordering::SeqCst) {
            return;
        }
        match self.shared.store.remove_folder(self.blocks.folder()) {
            Ok(true) => self.shared.keeper.removed(),
            Ok(false) => {}
            Err(_) => self.counters.failures.add(1),
        }
    }

    /// Fills `into` with a block from memory or disk.
    pub(crate) fn look_up(&self, number: u64, into: &mut [u8]) -> bool {
        let id = self.blocks.id(number);
        if let Some(copy) = self.table.copy(number).filter(|copy| copy.len() == into.len()) {
            into.copy_from_slice(&copy);
            self.counters.hits.add(1);
            return true;
        }
        match self.shared.store.read(&id, into) {
            Looked::Hit => {
                self.counters.hits.add(1);
                self.counters.read_bytes.add(id.length);
                return true;
            }
            Looked::Absent => {}
            Looked::Damaged => self.damaged(&id),
            Looked::Failed(error) => {
                self.counters.failures.add(1);
                // A bad sector fails for ever, and slowly.
                if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
                    let _ = self.remove(&id);
                }
            }
        }
        self.counters.misses.add(1);
        false
    }

    /// Whether this call removed the block; an error was counted.
    fn remove(&self, id: &BlockId) -> io::Result<bool> {
        let removed = self.shared.store.remove(id);
        match removed {
            Ok(true) => self.shared.keeper.removed(),
            Ok(false) => {}
            Err(_) => self.counters.failures.add(1),
        }
        removed
    }

    fn damaged(&self, id: &BlockId) {
        let is_first = match self.remove(id) {
            Ok(removed) => removed,
            Err(_) => !self.has_reported.swap(true, Ordering::Relaxed),
        };
        if !is_first {
            return;
        }
        self.counters.damaged.add(1);
        if let Some(reports) = self.reports.get() {
            let place: &Path = self.shared.store.directory.path();
            let bytes = self.blocks.bytes_of(id.number..id.number.saturating_add(1));
            reports.copy_damaged(bytes, &place.join(&id.path).to_string_lossy());
        }
    }

    /// Has `pending` wait for blocks that are missing.
    pub(crate) fn plan(&self, pending: &Arc<Pending>, missing: &[u64]) -> Plan {
        let plan = self.table.plan(&self.blocks, missing, pending);
        for fetch in plan.joined.iter().chain(&plan.new) {
            pending.comes_from(Arc::downgrade(fetch) as Weak<dyn Source>);
        }
        plan
    }

    /// The inner pager has answered: those who wait first, the disk afterwards.
    pub(crate) fn answered(self: &Arc<Self>, fetch: &Arc<Fetch>, answer: Result<&[u8], SupplyError>) {
        // Before anybody has an answer: who has one, and then waits for the keeper, waits for these blocks.
        let admitted = answer.as_ref().map(|bytes| self.admit(fetch, bytes)).unwrap_or_default();
        self.serve(fetch, fetch.take_waiters(), &answer);
        let copies: Vec<(u64, Copy)> =
            admitted.into_iter().map(|(number, bytes)| (number, Arc::new(bytes.to_vec()))).collect();
        loop {
            let late = self.table.end(fetch, &copies);
            if late.is_empty() {
                break;
            }
            self.serve(fetch, late, &answer);
        }
        for (number, bytes) in copies {
            let keep_for = Arc::clone(self) as Arc<dyn KeepFor>;
            self.shared.keeper.push(Keep { id: self.blocks.id(number), bytes, keep_for });
        }
    }

    fn serve(&self, fetch: &Fetch, waiters: Vec<Waiter>, answer: &Result<&[u8], SupplyError>) {
        for waiter in waiters {
            match answer {
                Ok(bytes) => {
                    let filled = waiter.pending.fill(&waiter.part, fetch.range.start, bytes);
                    waiter.pending.one_came(filled);
                }
                Err(error) => self.failed(fetch, waiter, error),
            }
        }
    }

    /// Bytes that nobody has asked for may be to blame: then what was asked for is asked for alone.
    fn failed(&self, fetch: &Fetch, waiter: Waiter, error: &SupplyError) {
        let may_be_of_others =
            matches!(error.kind, ErrorKind::Io | ErrorKind::Integrity | ErrorKind::Truncated)
                && error.retry_after.is_none();
        let pending = Arc::clone(&waiter.pending);
        let retried = waiter.part != fetch.range
            && may_be_of_others
            && self.shared.pool.submit(&self.supplier, Work::Narrow(waiter)).is_ok();
        if !retried {
            pending.one_came(Err(error.clone()));
        }
    }

    /// The blocks of `fetch` that may be kept and for which there is memory.
    fn admit<'a>(&self, fetch: &Fetch, bytes: &'a [u8]) -> Vec<(u64, &'a [u8])> {
        let mut admitted = Vec::new();
        for number in fetch.blocks.clone() {
            let place = self.blocks.bytes_of(number..number.saturating_add(1));
            let place = within(&place, &fetch.range).and_then(|place| bytes.get(place));
            // Asked after the answer: until then no change had begun.
            if let Some(block) = place.filter(|_| !self.is_changed())
                && self.shared.keeper.admit(block.len() as u64)
            {
                admitted.push((number, block));
            }
        }
        admitted
    }
}

/// `part` as indices of what begins with `whole`.
fn within(part: &Range<u64>, whole: &Range<u64>) -> Option<Range<usize>> {
    let index = |offset: u64| usize::try_from(offset.checked_sub(whole.start)?).ok();
    Some(index(part.start)?..index(part.end)?)
}

impl KeepFor for Core {
    fn may_keep(&self) -> bool {
        !self.is_changed()
    }

    fn ended(&self, keep: &Keep, result: &io::Result<Written>) {
        self.table.written(keep.id.number, &keep.bytes);
        match result {
            Ok(Written::Kept) => self.counters.written_bytes.add(keep.id.length),
            Ok(Written::ThereAlready | Written::NoRoom) => {}
            Err(_) => self.counters.failures.add(1),
        }
    }
}
