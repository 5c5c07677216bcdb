//! One fault.

use memobj_core::address::VirtAddr;

use super::handle::Inner;
use super::state::Behind;
use crate::error::PageError;

const PAGE: usize = 4096;

impl Inner {
    /// Resolves the fault of the page at `page`, if that takes no waiting.
    pub(super) fn resolve_at_once(&self, page: VirtAddr) -> bool {
        if self.refuses() {
            return false;
        }
        let is_there = match self.lock().behind(page) {
            Some(Behind { frames, offset, .. }) => !frames.is_empty() && frames.is_resident(offset),
            // Unmapped meanwhile, or mapped over: whoever tries again finds out.
            None => true,
        };
        if is_there {
            self.wake(page);
        }
        is_there
    }

    /// Resolves the fault of the page at `page`, and wakes its sleepers. Blocks as long as the pager does.
    pub(super) fn resolve(&self, page: VirtAddr) {
        if self.refuses() {
            return self.give_up(page);
        }
        let behind = self.lock().behind(page);
        match behind {
            Some(behind) if behind.frames.is_empty() => return self.trap_for_ever(page),
            Some(behind) => {
                if let Err(error) = self.obtain(&behind) {
                    return self.fail(page, &behind, error);
                }
            }
            None => {}
        }
        self.wake(page);
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

    /// The thread that read faults has panicked, which is a bug of ours: further faults trap. Who sleeps on one that it had
    /// read faults again.
    pub(super) fn reading_ended(&self) {
        self.refuse();
        self.memory.wake(self.memory.window());
    }

    /// Makes the page at `page` trap, because the thread that was to resolve its fault has panicked.
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
