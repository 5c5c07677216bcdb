//! A space as a client of the event loop that reads the faults of others.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use memobj_core::address::VirtAddr;
use memobj_linux::fault_loop::{BATCH, Client, ClientEnd, Fault, MayBlock, Reading, Step};
use memobj_linux::uffd::{EventBuffer, FaultEvent};

use super::handle::Inner;

/// See the module.
#[derive(Debug)]
pub(super) struct SpaceFaults(pub(super) Arc<Inner>);

impl Client for SpaceFaults {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.0.memory.faults()]
    }

    fn read(&self, _: usize, faults: &mut Vec<FaultEvent>) -> Result<Reading, ClientEnd> {
        let mut events = EventBuffer::for_events(BATCH);
        match self.0.memory.read_faults(&mut events) {
            Ok(count) => {
                faults.extend(events.faults(count));
                Ok(Reading::Done)
            }
            // Nothing that is known of; faults would hang for ever if they were not read.
            Err(_) => Ok(Reading::Later),
        }
    }

    fn resolve(&self, fault: &Fault) -> Step {
        self.0.resolve(VirtAddr(fault.event.address as u64))
    }

    fn give_up(&self, fault: &Fault) {
        self.0.give_up(VirtAddr(fault.event.address as u64));
    }

    fn loop_failed(&self) {
        self.0.reading_ended();
    }

    /// Its memory is that of this process.
    fn may_block(&self) -> MayBlock {
        MayBlock::No
    }
}
