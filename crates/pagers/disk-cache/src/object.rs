//! An object: its blocks are read from the disk, and asked of the inner pager if they are not there.
//!
//! ```text
//!   SupplyRequest ----> a thread of the pool
//!                         each block: copy in memory? file? ----> into the request's buffer
//!                         missing: plan ----> joined: another request has asked already
//!                                        `--> new: one inner request for neighbours ----> inner pager
//! ```

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use memobj::pagers::{Pager, SupplyRequest};
use memobj::{ErrorKind, SupplyError};

use crate::fetch::{Fetch, Waiter};
use crate::identity::{Blocks, common};
use crate::object_core::Core;
use crate::pending::{Pending, Source};
use crate::pool::{Scratch, Supplier, Work};
use crate::shared::Shared;

pub(crate) struct Object<P> {
    pub(crate) inner: P,
    pub(crate) core: Arc<Core>,
    is_detached: AtomicBool,
}

impl<P: Pager + 'static> Object<P> {
    pub(crate) fn new(inner: P, blocks: Blocks, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new_cyclic(|object: &Weak<Self>| {
            let supplier = Weak::clone(object) as Weak<dyn Supplier>;
            Self { inner, core: Core::new(blocks, shared, supplier), is_detached: AtomicBool::new(false) }
        })
    }

    /// Answers `request` later. Does not block.
    pub(crate) fn supply(&self, request: SupplyRequest) {
        if self.core.is_changed() || request.range().end > self.core.blocks.length() {
            return self.inner.supply(request);
        }
        if self.is_detached.load(Ordering::SeqCst) {
            return request.fail(SupplyError::new(ErrorKind::Detached));
        }
        let pool = &self.core.shared.pool;
        if let Err(Work::Supply(request)) = pool.submit(self.core.supplier(), Work::Supply(request)) {
            // Too much waits for the disk, or there is no thread for it: as if nothing was there.
            let missing: Vec<u64> = self.core.blocks.touched(&request.range()).collect();
            self.ask(request, &missing);
        }
    }

    pub(crate) fn detach(&self) {
        self.is_detached.store(true, Ordering::SeqCst);
        self.inner.detach();
    }

    fn look_up(&self, mut request: SupplyRequest, scratch: &mut Scratch) {
        if self.is_detached.load(Ordering::SeqCst) || !request.is_wanted() {
            return request.fail(SupplyError::new(ErrorKind::Detached));
        }
        if self.core.is_changed() {
            return self.core.shared.pool.outside(|| self.inner.supply(request));
        }
        let numbers = self.core.blocks.touched(&request.range());
        let missing: Vec<u64> = numbers.filter(|number| !self.fill(*number, &mut request, scratch)).collect();
        match missing.is_empty() {
            true => request.done(),
            false => self.ask(request, &missing),
        }
    }

    /// Fills what the request wants of a block, if it is there.
    fn fill(&self, number: u64, request: &mut SupplyRequest, scratch: &mut Scratch) -> bool {
        let block = self.core.blocks.bytes_of(number..number.saturating_add(1));
        let part = common(&block, &request.range());
        if part == block {
            // No error to report, but for that nothing was filled.
            let absent = || SupplyError::new(ErrorKind::Truncated);
            let filled = request.fill_with(block, |into| match self.core.look_up(number, into) {
                true => Ok(()),
                false => Err(absent()),
            });
            return filled.is_ok();
        }
        let (Ok(length), Ok(start), Ok(end)) = (
            usize::try_from(block.end - block.start),
            usize::try_from(part.start - block.start),
            usize::try_from(part.end - block.start),
        ) else {
            return false;
        };
        scratch.resize(length, 0);
        self.core.look_up(number, scratch)
            && scratch.get(start..end).is_some_and(|bytes| request.fill(part.start, bytes).is_ok())
    }

    /// Asks the inner pager for what is `missing`.
    fn ask(&self, request: SupplyRequest, missing: &[u64]) {
        let pending = Pending::new(request);
        let plan = self.core.plan(&pending, missing);
        for (number, copy) in &plan.copies {
            let block = self.core.blocks.bytes_of(*number..number.saturating_add(1));
            let filled = pending.fill(&common(&block, pending.range()), block.start, copy);
            if let Err(error) = filled {
                pending.one_came(Err(error));
            }
        }
        for fetch in &plan.new {
            self.begin(fetch);
        }
        pending.one_came(Ok(()));
    }

    /// Has the inner pager answer `fetch`.
    fn begin(&self, fetch: &Arc<Fetch>) {
        let (core, waits) = (Arc::clone(&self.core), Arc::clone(fetch));
        let range: Range<u64> = fetch.range.clone();
        let request = SupplyRequest::cancellable(range, move |answer| core.answered(&waits, answer));
        let (inner, control) = match request {
            Ok(made) => made,
            Err(error) => return self.core.answered(fetch, Err(error.into())),
        };
        if fetch.set_control(control) {
            let ask = AssertUnwindSafe(|| self.inner.supply(inner));
            // A pager that panics drops its request, which answers it.
            let _ = self.core.shared.pool.outside(|| catch_unwind(ask));
        }
        // Otherwise nobody wants it any more: the request is dropped.
    }

    fn narrow(&self, waiter: Waiter) {
        let fetch = Fetch::new(waiter.part.clone(), 0..0);
        let pending = Arc::clone(&waiter.pending);
        // It is new: nobody has ended it.
        if fetch.join(waiter).is_ok() {
            pending.comes_from(Arc::downgrade(&fetch) as Weak<dyn Source>);
            self.begin(&fetch);
        }
    }
}

impl<P: Pager + 'static> Supplier for Object<P> {
    fn work(&self, work: Work, scratch: &mut Scratch) {
        match work {
            Work::Supply(request) => self.look_up(request, scratch),
            Work::Narrow(waiter) => self.narrow(waiter),
        }
    }

    fn give_up(self: Arc<Self>) -> Option<Box<dyn Send>> {
        Arc::into_inner(self).map(|last| Box::new(last) as Box<dyn Send>)
    }
}
