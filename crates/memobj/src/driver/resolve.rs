//! What is done about a fault event, whoever read it.

use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::decide::{Decision, Fault, WaitFor, Wish, decide};
use memobj_linux::area::{FillClaim, Placement, Viewer};
use memobj_linux::uffd::{Announce, FaultEvent, FaultKind};

use crate::pages::Asked;
use crate::room::Patience;
use crate::store::{ADDRESSES, FrameStore, STORES};
use crate::write::{Access, Stored, Writes, expect};

/// How long a page that somebody evicts is waited for, before another look.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Whose faults are read here.
const HERE: Viewer = Viewer::Here(Announce::Queued);

/// A thread that reads fault events. The provided methods end each fault at once where that can be done; the others
/// say what this thread does where it takes longer. None may block on a pager.
pub(super) trait Resolver {
    /// Fills a claim that is waited for, or hands it to whoever does.
    fn supply(&mut self, store: &Arc<FrameStore>, claim: FillClaim, access: Access);
    /// Somebody waits for `page`, which is kept ready.
    fn wanted(&mut self, store: &Arc<FrameStore>, page: PageIndex);
    /// A store to `page` cannot go on now: tries it again later.
    fn hold_up(&mut self, store: Arc<FrameStore>, page: PageIndex);

    fn fault(&mut self, event: FaultEvent) {
        let slot = ADDRESSES.get(event.address);
        let Some(store) = slot.and_then(|slot| STORES.with(slot, |store| store.this.upgrade())).flatten()
        else {
            return;
        };
        store.fill.tell.counters.faults.add(1);
        let Some((offset, _)) = store.place_of(event.address) else { return };
        let page = PageIndex(offset >> store.area.page_size().shift());
        if store.area.is_outside(page) {
            // An object without bytes has addresses, but no page: a wild load traps, it does not sleep for ever.
            return store.area.trap_outside(offset);
        }
        if event.kind == FaultKind::Missing {
            match decide(store.area.word(page), Wish::Load(Fault::Missing)) {
                Decision::Look => store.errors.look(page, offset),
                // It faults again, until the write has ended.
                Decision::Wait(WaitFor::Write) => return store.area.wake(PageRange::one(page)),
                _ => {}
            }
        }
        if event.is_write {
            return self.resolve_store(store, page);
        }
        self.resolve(&store, page, Access::Load);
    }

    /// Opens `page` to a store that faulted, or sees to it that it becomes resident: then the store faults again.
    fn resolve_store(&mut self, store: Arc<FrameStore>, page: PageIndex) {
        let Some(writes) = &store.writes else {
            // The memory is read only: no such fault is announced.
            return store.area.wake(PageRange::one(page));
        };
        writes.note_store(page);
        if self.store_or_resolve(writes, &store, page, HERE) == Stored::NotNow {
            self.hold_up(store, page);
        }
    }

    /// Opens `page` to a store of `viewer`, or resolves it. `NotNow`: it is to be tried again.
    fn store_or_resolve(
        &mut self,
        writes: &Writes,
        store: &Arc<FrameStore>,
        page: PageIndex,
        viewer: Viewer,
    ) -> Stored {
        match decide(store.area.word(page), Wish::Store(Fault::Any)) {
            Decision::Open => {
                let is_done = writes.store_to(page, viewer) == Stored::Yes
                    || (writes.store_is_hopeless() && writes.trap_store(page));
                if is_done { Stored::Yes } else { Stored::NotNow }
            }
            Decision::Demand | Decision::Wait(WaitFor::Filler) => {
                // Its bytes may be in place already, protected, and its sleepers woken: a store that faulted since then
                // is woken by nobody but us.
                self.resolve(store, page, Access::Store);
                Stored::NotNow
            }
            _ => {
                self.resolve(store, page, Access::Store);
                Stored::Yes
            }
        }
    }

    /// Makes sure that somebody who will wake the sleepers on `page` is at work, or wakes them.
    fn resolve(&mut self, store: &Arc<FrameStore>, page: PageIndex, access: Access) {
        loop {
            match decide(store.area.word(page), Wish::Load(Fault::Any)) {
                // Woken only, it would fault for ever where somebody outside has dropped the poison.
                Decision::Trap => return store.errors.trap_failed(page),
                Decision::Demand => return self.wanted(store, page),
                // Who fills it wakes the sleeper.
                Decision::Wait(WaitFor::Filler) => return,
                // Short: between two system calls of whoever evicts.
                Decision::Wait(_) => {
                    store.area.wait(page, Some(LOOK_AGAIN));
                }
                Decision::Show | Decision::Open | Decision::Look | Decision::Done => {
                    store.area.show(page, HERE);
                    return store.area.wake(PageRange::one(page));
                }
                Decision::Claim => {
                    if let Ok(claim) = store.area.claim(page, Placement::AtOnce) {
                        let Some(claim) = store.fill.refuse(claim, Asked::Demand) else { return };
                        return self.supply(store, claim, access);
                    }
                }
            }
        }
    }
}

/// Fills a claim that is waited for at once if its source allows that, else leaves it to a worker.
pub(crate) fn fill_or_call(store: &FrameStore, claim: FillClaim, access: Access) {
    let expected = expect(store.writes.as_ref(), access);
    let filled = store.fill.fill_inline(claim, expected.asked(), Patience::Short);
    drop(expected);
    if let Err(claim) = filled {
        store.fill.call_pager(claim, Asked::Demand);
    }
}
