//! Copies from and to segments, which never trap.

use std::io;

use memobj_core::address::VirtAddr;
use memobj_core::prot::Access;
use memobj_vm::fault::Trap;
use memobj_vm::space::Backing;

use super::{Space, TouchError};

/// How often a page can be gone again when it is copied, before that is taken for an error of the memory itself.
const MOST_ROUNDS: u32 = 1000;
const PAGE: u64 = 4096;

impl Space {
    /// Copies what is at `address` to `buffer`. Blocks until the pages are there. The segments have to allow loads by
    /// name, where plain loads are content with any other right.
    pub fn read_at(&self, address: VirtAddr, buffer: &mut [u8]) -> Result<(), TouchError> {
        let length = buffer.len();
        self.transfer(address, length, Access::Read, |at, done| {
            self.inner.memory.load(at, &mut buffer[done..])
        })
    }

    /// Copies `bytes` to `address`, as plain stores would. Blocks until the pages are there.
    pub fn write_at(&self, address: VirtAddr, bytes: &[u8]) -> Result<(), TouchError> {
        self.transfer(address, bytes.len(), Access::Write, |at, done| {
            self.inner.memory.store(at, &bytes[done..])
        })
    }

    fn transfer(
        &self,
        address: VirtAddr,
        length: usize,
        access: Access,
        mut copy: impl FnMut(usize, usize) -> Result<(), (usize, io::Error)>,
    ) -> Result<(), TouchError> {
        let (mut done, mut rounds) = (0, 0);
        while done < length {
            let at = VirtAddr(address.0.saturating_add(done as u64));
            let Err((count, source)) = copy(at.0 as usize, done) else { return Ok(()) };
            done += count;
            rounds = if count > 0 { 0 } else { rounds + 1 };
            let at = VirtAddr(at.0.saturating_add(count as u64));
            if rounds > MOST_ROUNDS {
                return Err(TouchError::System { address: at, source });
            }
            self.make_present(at, access, source)?;
        }
        Ok(())
    }

    /// Has the page at `address`, at which a copy has stopped because of `source`, supplied; or says why it trapped.
    fn make_present(&self, address: VirtAddr, access: Access, source: io::Error) -> Result<(), TouchError> {
        if !self.inner.memory.is_here() {
            return Err(TouchError::Detached);
        }
        let state = self.inner.lock();
        let trap = |trap| Err(TouchError::Trap { address, trap });
        let Some(segment) = state.space.lookup(address) else { return trap(Trap::Unmapped) };
        if segment.backing == Backing::Reserved || !segment.attributes.prot.allows(access) {
            return trap(Trap::Denied);
        }
        if let Some(error) = state.failures.at(address) {
            return Err(TouchError::Page { address, error: error.clone() });
        }
        // Zeros need nobody: it was the kernel that had no memory.
        let Some(behind) = state.behind(address) else { return Err(TouchError::System { address, source }) };
        drop(state);
        if behind.offset >= behind.frames.len().next_multiple_of(PAGE) {
            return trap(Trap::Beyond);
        }
        self.inner.obtain(&behind).map_err(|error| TouchError::Page { address, error })
    }
}
