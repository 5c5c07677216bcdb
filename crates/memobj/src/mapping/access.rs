//! Copies and touches.

use memobj_core::address::PageIndex;
use memobj_sys::signal;

use super::Mapping;
use crate::error::AccessError;
use crate::fault;

impl Mapping {
    /// Copies the bytes from `offset` on into `buffer`. Blocks until they are there.
    ///
    /// Pins as little as it can at a time, so a buffer larger than the budget works.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), AccessError> {
        let length = buffer.len() as u64;
        let end = offset.checked_add(length).ok_or_else(|| self.past_the_end(offset, length))?;
        self.object_bytes(&(offset..end))?;
        let limit = self.frames().cache.pin_budget.limit();
        let page = self.page_bytes();
        let step = (limit / 4).max(page).min((256 << 10).max(page));
        let mut done = 0;
        while done < length {
            // Ends at page borders of the object, so that no page is pinned twice.
            let at = offset + done;
            let border = (self.range.start + at + step) / page * page - self.range.start;
            let part = at..border.max(at + 1).min(end);
            let pinned = self.pin(part.clone())?;
            buffer[done as usize..][..pinned.len()].copy_from_slice(&pinned);
            done += part.end - part.start;
        }
        Ok(())
    }

    fn past_the_end(&self, offset: u64, length: u64) -> AccessError {
        AccessError::OutOfRange { range: offset..offset.saturating_add(length), length: self.len() }
    }

    /// The address of the first byte, for plain loads.
    ///
    /// Loads fault and are resolved on demand. A page that cannot be supplied traps: SIGBUS, which kills the
    /// process unless it has a handler; [`errors`](Mapping::errors) tells which page and why. The pointer is
    /// good while a mapping of the object lives. Nothing may be stored through it: 4 KiB pages trap
    /// (SIGSEGV); 2 MiB pages cannot be protected by the kernel's means, and the store would change what others read.
    pub fn as_ptr(&self) -> *const u8 {
        let area = &self.frames().area;
        area.address(self.announce, self.range.start).unwrap_or(std::ptr::null())
    }

    /// Copies the bytes from `offset` on by plain loads, which fault and are resolved on demand like anybody's;
    /// a page that traps ends the copy, and is reported as its error rather than as a signal.
    pub fn touch_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), AccessError> {
        let length = buffer.len() as u64;
        let end = offset.checked_add(length).ok_or_else(|| self.past_the_end(offset, length))?;
        let range = self.object_bytes(&(offset..end))?;
        // Without the handler a trap would kill. It cannot be refused in practice: sigaction(2) knows no such error.
        let _ = signal::install(fault::resolve);
        let store = self.frames();
        store.area.copy_by_touch(self.announce, range.start, buffer).map_err(|trapped| {
            let page = PageIndex(trapped >> store.area.page_size().shift());
            AccessError::Page(store.error_of(page))
        })
    }

    /// Loads eight bytes at `offset`, little endian, by a plain load. Traps like any touch.
    ///
    /// # Panics
    ///
    /// If `offset + 8` lies past the end of the mapping.
    pub fn load_u64(&self, offset: u64) -> u64 {
        assert!(offset.checked_add(8).is_some_and(|end| end <= self.len()), "load at {offset} past the end");
        self.frames().area.load_u64(self.announce, self.range.start + offset)
    }
}
