//! What is done about a fault event, whoever read it.

use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::decide::{Decision, Fault, Intent, WaitFor, decide};
use memobj_linux::area::{FillClaim, Placement, Viewer};
use memobj_linux::uffd::{Announce, FaultEvent, FaultKind};

use crate::allocator::Patience;
use crate::pages::FillReason;
use crate::parts::{ADDRESSES, OBJECTS, ObjectParts};
use crate::write::{FaultFor, Stored, Writes, expect};

/// How long a page that somebody evicts is waited for, before another look.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Whose faults are read here.
const HERE: Viewer = Viewer::Here(Announce::Queued);

/// A thread that reads fault events. The provided methods end each fault at once where that can be done; the others
/// say what this thread does where it takes longer. None may block on a pager.
pub(super) trait Resolver {
    /// Fills a claim that is waited for, or hands it to whoever does.
    fn supply(&mut self, parts: &Arc<ObjectParts>, claim: FillClaim, access: FaultFor);
    /// Somebody waits for `page`, which is kept ready.
    fn wanted(&mut self, parts: &Arc<ObjectParts>, page: PageIndex);
    /// A store to `page` cannot go on now: tries it again later.
    fn defer(&mut self, parts: Arc<ObjectParts>, page: PageIndex);

    fn fault(&mut self, event: FaultEvent) {
        let slot = ADDRESSES.get(event.address);
        let Some(parts) = slot.and_then(|slot| OBJECTS.with(slot, |parts| parts.this.upgrade())).flatten()
        else {
            return;
        };
        parts.fill.reporter.counters.faults.add(1);
        let Some((offset, _)) = parts.place_of(event.address) else { return };
        let page = PageIndex(offset >> parts.area.page_size().shift());
        if parts.area.is_outside(page) {
            // An object without bytes has addresses, but no page: a wild load traps, it does not sleep for ever.
            return parts.area.trap_outside(offset);
        }
        if event.kind == FaultKind::Missing {
            match decide(parts.area.word(page), Intent::Load(Fault::Missing)) {
                Decision::Look => parts.errors.look(page, offset),
                // It faults again, until the write has ended.
                Decision::Wait(WaitFor::Write) => return parts.area.wake(PageRange::one(page)),
                _ => {}
            }
        }
        if event.is_write {
            return self.resolve_store(parts, page);
        }
        self.resolve(&parts, page, FaultFor::Load);
    }

    /// Opens `page` to a store that faulted, or sees to it that it becomes resident: then the store faults again.
    fn resolve_store(&mut self, parts: Arc<ObjectParts>, page: PageIndex) {
        let Some(writes) = &parts.writes else {
            // The memory is read only: no such fault is announced.
            return parts.area.wake(PageRange::one(page));
        };
        writes.note_store(page);
        if self.store_or_resolve(writes, &parts, page, HERE) == Stored::NotNow {
            self.defer(parts, page);
        }
    }

    /// Opens `page` to a store of `viewer`, or resolves it. `NotNow`: it is to be tried again.
    fn store_or_resolve(
        &mut self,
        writes: &Writes,
        parts: &Arc<ObjectParts>,
        page: PageIndex,
        viewer: Viewer,
    ) -> Stored {
        match decide(parts.area.word(page), Intent::Store(Fault::Any)) {
            Decision::Open => {
                let is_done = writes.store_to(page, viewer) == Stored::Yes
                    || (writes.store_is_hopeless() && writes.trap_store(page));
                if is_done { Stored::Yes } else { Stored::NotNow }
            }
            Decision::Demand | Decision::Wait(WaitFor::Filler) => {
                // Its bytes may be in place already, protected, and its sleepers woken: a store that faulted since then
                // is woken by nobody but us.
                self.resolve(parts, page, FaultFor::Store);
                Stored::NotNow
            }
            _ => {
                self.resolve(parts, page, FaultFor::Store);
                Stored::Yes
            }
        }
    }

    /// Makes sure that somebody who will wake the sleepers on `page` is at work, or wakes them.
    fn resolve(&mut self, parts: &Arc<ObjectParts>, page: PageIndex, access: FaultFor) {
        loop {
            match decide(parts.area.word(page), Intent::Load(Fault::Any)) {
                // Woken only, it would fault for ever where somebody outside has dropped the poison.
                Decision::Trap => return parts.errors.trap_failed(page),
                Decision::Demand => return self.wanted(parts, page),
                // Who fills it wakes the sleeper.
                Decision::Wait(WaitFor::Filler) => return,
                // Short: between two system calls of whoever evicts.
                Decision::Wait(_) => {
                    parts.area.wait(page, Some(LOOK_AGAIN));
                }
                Decision::Show | Decision::Open | Decision::Look | Decision::Done => {
                    parts.area.show(page, HERE);
                    return parts.area.wake(PageRange::one(page));
                }
                Decision::Claim => {
                    if let Ok(claim) = parts.area.claim(page, Placement::AtOnce) {
                        let Some(claim) = parts.fill.refuse(claim, FillReason::Demand) else { return };
                        return self.supply(parts, claim, access);
                    }
                }
            }
        }
    }
}

/// Fills a claim that is waited for at once if its source allows that, else leaves it to a worker.
pub(crate) fn fill_or_call(parts: &ObjectParts, claim: FillClaim, access: FaultFor) {
    let expected = expect(parts.writes.as_ref(), access);
    let filled = parts.fill.fill_inline(claim, expected.reason(), Patience::Short);
    drop(expected);
    if let Err(claim) = filled {
        parts.fill.call_pager(claim, FillReason::Demand);
    }
}
