//! One fault.

use memobj_core::address::VirtAddr;
use memobj_linux::fault_loop::Step;

use super::handle::Inner;
use super::state::Behind;
use crate::error::PageError;
use crate::lend::AtOnce;

const PAGE: usize = 4096;

impl Inner {
    /// Resolves the fault of the page at `page`, and wakes its sleepers; or says what that waits for.
    pub(super) fn resolve(&self, page: VirtAddr) -> Step {
        if self.refuses() {
            self.give_up(page);
            return Step::Done;
        }
        // Not in the condition: what is behind can be the last that keeps an object, and goes without the lock.
        let behind = self.lock().behind(page);
        match behind {
            Some(behind) if behind.frames.is_empty() => {
                self.trap_for_ever(page);
                return Step::Done;
            }
            Some(behind) => match behind.frames.resolve_at_once(behind.offset, behind.around.clone()) {
                AtOnce::Resident => {}
                AtOnce::Pending(pending) => return Step::Pending(Box::new(pending)),
                AtOnce::Failed(error) => {
                    self.fail(page, &behind, error);
                    return Step::Done;
                }
            },
            // Unmapped meanwhile, or mapped over: whoever tries again finds out.
            None => {}
        }
        self.wake(page);
        Step::Done
    }

    /// Pages past the end of an object trap by themselves, since its file of frames ends there; only that of an object
    /// without a byte has a page.
    fn trap_for_ever(&self, page: VirtAddr) {
        let state = self.lock();
        if state.behind(page).is_some_and(|now| now.frames.is_empty()) {
            let _ = self.memory.poison(page.0 as usize);
        }
    }

    /// Makes the page behind an address resident.
    pub(super) fn obtain(&self, behind: &Behind) -> Result<(), PageError> {
        let Behind { frames, offset, around, .. } = behind;
        frames.resolve_while(*offset, around.clone(), &|| self.goes_on())
    }

    /// Makes the page at `page` trap, if what has failed is still behind it and has not been retried meanwhile.
    fn fail(&self, page: VirtAddr, failed: &Behind, error: PageError) {
        let mut state = self.lock();
        let is_behind = |now: &Behind| now.id == failed.id && now.offset == failed.offset;
        if state.behind(page).is_some_and(|now| is_behind(&now))
            && failed.frames.failure(failed.offset).is_some()
        {
            // If it cannot be poisoned, for want of memory, its sleepers fault again.
            if self.memory.poison(page.0 as usize).is_ok() {
                state.failures.add(page, error);
            }
            return;
        }
        drop(state);
        self.wake(page);
    }

    /// The event loop has panicked, which is a bug of ours: further faults trap. Who sleeps on one that was read faults
    /// again.
    pub(super) fn reading_ended(&self) {
        self.refuse();
        self.memory.wake(self.memory.window());
    }

    /// Makes the page at `page` trap, because there was a panic when its fault was to be resolved.
    pub(super) fn give_up(&self, page: VirtAddr) {
        let mut state = self.lock();
        let behind = state.behind(page);
        // Without poison its sleepers would wait, or fault for ever.
        let _ = self.memory.poison(page.0 as usize);
        if let Some(behind) = behind {
            state.failures.add(page, behind.frames.ended_error(behind.offset));
        }
        drop(state);
        self.wake(page);
    }

    fn wake(&self, page: VirtAddr) {
        let start = page.0 as usize;
        self.memory.wake(start..start + PAGE);
    }
}
