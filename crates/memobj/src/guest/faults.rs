//! Faults of a guest: read from its userfaultfd, resolved as those of this process.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::decide::{Decision, Fault as Faulted, Intent, decide};
use memobj_linux::fault_loop::{BATCH, Client, ClientEnd, Fault, MayBlock, Reading, Step};
use memobj_linux::uffd::{EventBuffer, FaultEvent, FaultKind};

use crate::demand::{Demanded, demand};
use crate::health::Health;
use crate::parts::{GuestEnd, GuestProt, GuestState};
use crate::write::{FaultFor, Stored};

/// How often a store is tried at once before it is tried later.
const TRIES: u32 = 4;
/// So many faults behind the end are nothing strange.
const FEW: u32 = 1024;

/// A guest as a client of the event loop.
#[derive(Debug)]
pub(super) struct GuestFaults {
    pub(super) guest: Arc<GuestState>,
    pub(super) health: Arc<Health>,
}

impl Client for GuestFaults {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.guest.uffd.as_fd(), self.guest.line.as_fd(), self.guest.process.as_fd()]
    }

    fn read(&self, index: usize, faults: &mut Vec<FaultEvent>) -> Result<Reading, ClientEnd> {
        if index != 0 {
            // A guest has nothing to say: it has hung up, or talks nonsense.
            return Err(ClientEnd::Gone);
        }
        let mut events = EventBuffer::for_events(BATCH);
        match self.guest.uffd.read_events_of_another(&mut events) {
            // Of a descriptor that blocks, and so is none of ours, the kernel tells that it is ready at all times.
            Ok(0) if !self.is_nonblocking() => Err(ClientEnd::Broken),
            Ok(count) => {
                faults.extend(events.faults(count));
                Ok(Reading::Done)
            }
            Err(_) => Err(ClientEnd::Broken),
        }
    }

    fn resolve(&self, fault: &Fault) -> Step {
        let (parts, event) = (&self.guest.parts, &fault.event);
        let Some(offset) = self.guest.view.offset_of(event.address) else {
            return Step::Broken;
        };
        let offset = offset as u64;
        let page = PageIndex(offset >> parts.area.page_size().shift());
        if parts.area.is_outside(page) {
            parts.area.trap_outside(offset);
            return Step::Refused;
        }
        if fault.looks == 0 {
            self.health.may_panic(memobj_linux::fault_loop::THREAD);
            parts.fill.reporter.counters.faults.add(1);
            if event.kind == FaultKind::Missing {
                parts.errors.look(page, offset);
            }
        }
        // Of a private mapping the kernel makes a copy once the page is shown.
        let stores = event.is_write && self.guest.prot != GuestProt::Private;
        if stores { self.store(page) } else { self.load(page) }
    }

    /// All of its mapping traps.
    fn give_up(&self, _: &Fault) {
        self.health.thread_ended(memobj_linux::fault_loop::THREAD);
        self.guest.end(GuestEnd::Broken);
    }

    fn ended(&self, end: ClientEnd) {
        self.guest.end(match end {
            ClientEnd::Gone => GuestEnd::Left,
            ClientEnd::Broken => GuestEnd::Broken,
        });
    }

    fn loop_failed(&self) {
        self.health.thread_ended(memobj_linux::fault_loop::THREAD);
        self.guest.end(GuestEnd::Broken);
    }

    fn may_block(&self) -> MayBlock {
        MayBlock::Yes
    }

    /// Each page behind the end traps for good once it was touched.
    fn most_refused(&self) -> u32 {
        let pages = self.guest.parts.area.view_bytes() >> self.guest.parts.area.page_size().shift();
        u32::try_from(pages).unwrap_or(u32::MAX).saturating_add(FEW)
    }
}

impl GuestFaults {
    fn is_nonblocking(&self) -> bool {
        let flags = rustix::fs::fcntl_getfl(&*self.guest.uffd);
        flags.is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
    }

    /// Shows `page` to the guest whose load faulted, once it is resident.
    fn load(&self, page: PageIndex) -> Step {
        let parts = &self.guest.parts;
        match demand(parts, page, PageRange::one(page), FaultFor::Load) {
            Demanded::There => {
                parts.area.show(page, self.guest.viewer());
                Step::Done
            }
            Demanded::Failed => {
                parts.errors.trap_failed(page);
                Step::Done
            }
            Demanded::Pending(watch) => Step::Pending(Box::new(watch)),
        }
    }

    /// As for stores of this process: `page` is opened once it is resident and nothing keeps stores off.
    fn store(&self, page: PageIndex) -> Step {
        let parts = &self.guest.parts;
        let Some(writes) = parts.writes.as_ref().filter(|_| self.guest.prot == GuestProt::ReadWrite) else {
            return Step::Broken;
        };
        for _ in 0..TRIES {
            if decide(parts.area.word(page), Intent::Store(Faulted::Any)) != Decision::Open {
                match demand(parts, page, PageRange::one(page), FaultFor::Store) {
                    Demanded::There => {}
                    Demanded::Failed => {
                        parts.errors.trap_failed(page);
                        return Step::Done;
                    }
                    Demanded::Pending(watch) => return Step::Pending(Box::new(watch)),
                }
            }
            let is_done = writes.store_to(page, self.guest.viewer()) == Stored::Yes
                || (writes.store_is_hopeless() && writes.trap_store(page));
            if is_done {
                return Step::Done;
            }
            if let Some(awaited) = writes.await_store(page) {
                return Step::Pending(awaited);
            }
        }
        Step::Later
    }
}
