//! Faults resolved in the thread that raised them.
//!
//! Everything here runs in a SIGBUS handler. It takes no lock, allocates nothing and touches no mapped object.
//! What it cannot do itself (call a pager, wait for a deep queue, report an error) it hands to the driver,
//! together with the claim, and sleeps on the page word.

use std::time::Duration;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::decide::{Decision, Fault, Intent, WaitFor, decide};
use memobj_linux::area::{FillClaim, Looked, Placement, Viewer};
use memobj_linux::region::SMALL;
use memobj_linux::signal::{Trapped, Verdict};
use memobj_linux::uffd::Announce;

use crate::allocator::Patience;
use crate::pagers::File;
use crate::pages::FillReason;
use crate::parts::{ADDRESSES, OBJECTS, ObjectParts};
use crate::pins::Ask;
use crate::write::{FaultFor, Stored, expect};

/// How long a sleeper on a page word sleeps before it looks whether the mapping still exists.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The view in which these faults are.
const IN_THREAD: Viewer = Viewer::Here(Announce::Signalled);

/// The process's SIGBUS handler asks this first.
pub(crate) fn resolve(address: usize, trapped: Trapped) -> Verdict {
    let Some(slot) = ADDRESSES.get(address) else { return Verdict::Trap };
    OBJECTS.with(slot, |parts| InThread { parts }.resolve(address, trapped)).unwrap_or(Verdict::Trap)
}

/// How far a page was brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reached {
    /// It has failed, or its mapping is gone.
    Trap,
    /// It is there; a store may fault still.
    Resident,
    /// It is there and open to stores.
    Open,
}

/// The parts of an object, as the thread sees it that faulted in one of its views.
struct InThread<'a> {
    parts: &'a ObjectParts,
}

impl InThread<'_> {
    fn resolve(&self, address: usize, trapped: Trapped) -> Verdict {
        let Trapped { is_write, is_missing } = trapped;
        let Some((offset, Announce::Signalled)) = self.parts.place_of(address) else { return Verdict::Trap };
        let page = PageIndex(offset >> self.parts.area.page_size().shift());
        // In a child of fork these addresses are somebody else's, and the descriptors still mean the parent.
        let forbidden = is_write && self.parts.writes.is_none();
        if self.parts.area.is_outside(page) || forbidden || !self.parts.owner.is_this_process() {
            return Verdict::Trap;
        }
        self.parts.fill.reporter.counters.faults.add(1);
        if is_missing && self.look_in_thread(page, offset) && !self.parts.is_closed() {
            // The access faults again.
            return Verdict::Resolved;
        }
        if is_write {
            return self.resolve_store(page);
        }
        match self.resolve_page(page, FaultFor::Load) {
            Reached::Trap => Verdict::Trap,
            Reached::Resident | Reached::Open => Verdict::Resolved,
        }
    }

    /// Makes `page` resident and opens it to the store that faulted.
    fn resolve_store(&self, page: PageIndex) -> Verdict {
        let Some(writes) = &self.parts.writes else { return Verdict::Trap };
        writes.note_store(page);
        loop {
            if decide(self.parts.area.word(page), Intent::Store(Fault::Any)) == Decision::Open {
                if writes.store_to(page, IN_THREAD) == Stored::Yes {
                    return Verdict::Resolved;
                }
                if writes.store_is_hopeless() || self.parts.is_closed() {
                    return Verdict::Trap;
                }
                writes.wait_to_store(page);
                continue;
            }
            match self.resolve_page(page, FaultFor::Store) {
                Reached::Trap => return Verdict::Trap,
                Reached::Open => return Verdict::Resolved,
                Reached::Resident => {}
            }
        }
    }

    fn resolve_page(&self, page: PageIndex, access: FaultFor) -> Reached {
        loop {
            match decide(self.parts.area.word(page), Intent::Load(Fault::Any)) {
                Decision::Show | Decision::Open | Decision::Look | Decision::Done => {
                    self.parts.area.show(page, IN_THREAD);
                    return Reached::Resident;
                }
                Decision::Trap => return Reached::Trap,
                Decision::Claim => {
                    if let Ok(claim) = self.parts.area.claim(page, Placement::AtOnce)
                        && self.fill_in_thread(claim, page, access) == FillReason::ToStore
                    {
                        return Reached::Open;
                    }
                }
                Decision::Demand => {
                    self.parts.waits.driver.ask(Ask::Demand(page));
                    self.parts.area.wait(page, Some(LOOK_AGAIN));
                }
                Decision::Wait(_) => drop(self.parts.area.wait(page, Some(LOOK_AGAIN))),
            }
            if self.parts.is_closed() {
                return Reached::Trap;
            }
        }
    }

    /// As `look` of [`Errors`](crate::pages::Errors), in a signal handler: the driver does what takes locks, and this thread
    /// waits. Whether it has waited.
    fn look_in_thread(&self, page: PageIndex, offset: u64) -> bool {
        match decide(self.parts.area.word(page), Intent::Load(Fault::Missing)) {
            Decision::Look => {
                let looked = self.parts.area.look(page, offset, self.parts.fill.allocator.ages.now());
                let Looked::Gone(gone) = looked else { return false };
                self.parts.waits.driver.ask(Ask::Lost(gone));
                self.parts.area.wait(page, Some(LOOK_AGAIN));
                true
            }
            // Pages in a file come into view without being looked for.
            Decision::Wait(WaitFor::Write) if self.parts.area.is_local() => {
                self.parts.area.wait_as_writer(page, Some(LOOK_AGAIN));
                true
            }
            _ => false,
        }
    }

    /// Fills the claim, or has it filled. `ToStore` if the page is in place and open to stores.
    fn fill_in_thread(&self, claim: FillClaim, page: PageIndex, access: FaultFor) -> FillReason {
        let sequential = self.parts.pins.pattern.is_sequential(PageRange::one(page));
        let expected = expect(self.parts.writes.as_ref(), access);
        let filled = match self.parts.object.file() {
            Some(file) if !sequential && !self.parts.fill.is_large() => {
                self.read_in_thread(file, claim, expected.reason())
            }
            _ => self.parts.fill.fill_inline(claim, expected.reason(), Patience::Endless),
        };
        let Err(claim) = filled else { return expected.reason() };
        // Whoever fills it may need the gate shut.
        drop(expected);
        self.parts.waits.driver.ask(Ask::Supply { claim, sequential });
        FillReason::Demand
    }

    fn read_in_thread(&self, file: &File, claim: FillClaim, reason: FillReason) -> Result<(), FillClaim> {
        let Some(mut chunk) = self.parts.fill.buffers.bounce.take() else { return Err(claim) };
        let range = claim.bytes();
        let whole = (range.len() as usize).next_multiple_of(SMALL);
        if self.parts.fill.is_cut_off(&claim, whole as u64) || !file.read_page(&mut chunk, range.start) {
            return Err(claim);
        }
        chunk[range.len() as usize..].fill(0);
        self.parts.fill.reporter.counters.read_bytes.add(range.len());
        self.parts.fill.place_copy(claim, &chunk, reason, Patience::Endless)
    }
}
