//! The frames of a home: how bytes get into place, and how frames go.

use std::io;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::pages::{self, Held, Wake};

use super::views::View;
use super::{Counts, Home, Words, Writes};
use crate::frame_file::FrameFile;
use crate::pool::Frame;
use crate::region::SMALL;
use crate::signal;

impl pages::Frames for Home {
    type Words = Words;
    type Counts = Counts;
    type Frame = Frame;
    type Error = io::Error;

    fn copy_in(
        &self,
        _: Held<Self>,
        pages: PageRange,
        bytes: &[u8],
        wake: Wake,
    ) -> Result<(), (u64, io::Error)> {
        assert!(self.pool.is_none(), "frames of the pool are moved, not copied");
        let len = self.mapped_len(pages);
        assert!(bytes.len() >= len, "{} bytes for pages of {len}", bytes.len());
        if self.has_large_file() {
            return self.copy_to_file(pages, &bytes[..len]).map_err(|error| (0, error));
        }
        let copied = self.copy_small(self.offset_in_view(pages.start), &bytes[..len], wake);
        copied.map_err(|(done, error)| ((done / SMALL) as u64, error))
    }

    /// A page that the end of the object cuts short is copied instead, and the frame counts as used.
    fn move_in(&self, _: Held<Self>, page: PageIndex, frame: Frame) -> io::Result<()> {
        assert!(self.pool.is_some(), "only frames of the pool are moved");
        let len = self.mapped_bytes(page);
        let view = &self.views[0];
        let address = view.region.start() + self.offset_in_view(page.0);
        if len != frame.as_slice().len() {
            return self.copy_rest(frame, address, 0, len);
        }
        // SAFETY: the page is Filling and owned by the caller (`Held`).
        match unsafe { frame.move_to(view.registered(), address) } {
            Ok(()) => Ok(()),
            Err((moved, frame, _)) => self.copy_rest(frame, address, moved, len),
        }
    }

    fn load(&self, _: Held<Self>, offset: u64, buffer: &mut [u8]) -> usize {
        // SAFETY: the bytes lie in the view, which is mapped. Their pages are protected or out of everybody's reach
        // (`Held`): nobody writes them. They may trap, if their frames were dropped from outside.
        unsafe { signal::copy_trapping(buffer, self.pointer(offset)) }
    }

    fn store(&self, _: Held<Self>, offset: u64, bytes: &[u8]) -> usize {
        // SAFETY: the page is resident and pinned for writing by the caller alone (`Held`); the range lies inside it.
        unsafe { signal::store_trapping(self.pointer(offset).cast_mut(), bytes) }
    }

    fn drop_frames(&self, _: Held<Self>, pages: PageRange) -> bool {
        let start = self.offset_in_view(pages.start);
        let len = (pages.len() as usize) << self.page_size.shift();
        match (&self.pool, &self.frame_file) {
            (Some(_), _) => self.move_out(PageIndex(pages.start)),
            (_, Some(file)) => file.punch(start as u64, len as u64).is_ok(),
            // SAFETY: every page of the run is held (`Held`), and none is pinned: no references exist.
            _ => unsafe { self.views[0].region.zap(start, len).is_ok() },
        }
    }

    fn drop_remains(&self, held: Held<Self>, page: PageIndex) -> bool {
        let Some(pool) = &self.pool else { return self.drop_frames(held, PageRange::one(page)) };
        let (start, len) = (self.offset_in_view(page.0), self.mapped_bytes(page));
        // SAFETY: the page is Evicting (`Held`). Who pins it has lost a part of it already; what he reads next waits
        // until the page is filled again, with the same bytes.
        let zapped = unsafe { self.views[0].region.zap(start, len).is_ok() };
        if zapped {
            pool.forget(1);
        }
        zapped
    }

    fn longest_drop(&self) -> u64 {
        if self.pool.is_some() { 1 } else { u64::MAX }
    }

    /// Frames of the pool go back to the pool, which counts them.
    fn released_bytes(&self, pages: u64) -> u64 {
        if self.pool.is_some() { 0 } else { pages << self.page_size.shift() }
    }

    fn is_present(&self, offset: u64) -> bool {
        let page = offset & !(SMALL as u64 - 1);
        let is_present = match &self.frame_file {
            Some(file) => file.has_frame(page),
            None => {
                let address = self.views[0].region.start() + page as usize;
                self.pagemap.holds_frames(address, SMALL).unwrap_or(true)
            }
        };
        #[cfg(test)]
        self.interposed.call();
        is_present
    }

    fn are_present(&self, pages: PageRange) -> bool {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        match &self.frame_file {
            Some(file) => file.is_whole(start as u64..end as u64),
            None => {
                let address = self.views[0].region.start() + start;
                self.pagemap.holds_frames(address, end - start).unwrap_or(true)
            }
        }
    }

    fn present_runs(&self, pages: PageRange) -> Vec<PageRange> {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        let base = self.views[0].region.start() as u64;
        let found = match &self.frame_file {
            Some(file) => file.frames_in(start as u64..end as u64),
            None => self
                .pagemap
                .frames_in(base as usize + start, end - start)
                .map(|found| found.into_iter().map(|run| run.start - base..run.end - base).collect()),
        };
        #[cfg(test)]
        self.interposed.call();
        let page = |offset: u64| offset >> self.page_size.shift();
        match found {
            Ok(found) => {
                found.iter().map(|run| PageRange { start: page(run.start), end: page(run.end) }).collect()
            }
            Err(_) => vec![pages],
        }
    }

    fn drop_block(&self, _: Held<Self>, pages: PageRange) -> bool {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        let punch = |file: &FrameFile| file.punch(start as u64, (end - start) as u64).is_ok();
        if !self.frame_file.as_ref().is_none_or(punch) {
            return false;
        }
        // Linux gives page tables back with the pages of a whole block (since 6.14, with CONFIG_PT_RECLAIM).
        let zap = |view: &View| {
            let len = end.min(view.region.len()).saturating_sub(start);
            // SAFETY: every page of the block is held or free and stays so until this returns (`Held`), and none is
            // pinned: no references exist.
            len == 0 || unsafe { view.region.zap(start, len).is_ok() }
        };
        let zapped = self.views.iter().map(zap).fold(true, |all, one| all & one);
        // The frames of a file are gone by now.
        zapped || self.frame_file.is_some()
    }

    fn forget_words(&self, _: Held<Self>, words: &Words, pages: PageRange) {
        words.forget(pages);
    }

    fn end(&mut self, resident: u64) {
        self.views.clear();
        self.frame_file = None;
        if let Some(pool) = &self.pool {
            pool.forget(resident);
        }
    }
}

impl Home {
    /// Bytes of `page` in the views. The last large page ends with the object, rounded up to 4 KiB.
    fn mapped_bytes(&self, page: PageIndex) -> usize {
        let start = page.0 << self.page_size.shift();
        let end = (start + self.page_size.bytes()).min(self.capacity.max(start + 1));
        ((end - start) as usize).next_multiple_of(SMALL)
    }

    /// Bytes of `pages` in the views, likewise.
    pub(super) fn mapped_len(&self, pages: PageRange) -> usize {
        let last = PageIndex(pages.end.max(pages.start + 1) - 1);
        self.offset_in_view(last.0) - self.offset_in_view(pages.start) + self.mapped_bytes(last)
    }

    /// Puts bytes in place at `start` of the first view, protected if they can be written; on error says how many
    /// are there.
    fn copy_small(&self, start: usize, source: &[u8], wake: Wake) -> Result<(), (usize, io::Error)> {
        let view = &self.views[0];
        let at = view.region.start() + start;
        let Some(uffd) = &view.uffd else {
            let len = source.len();
            assert!(start + len <= view.region.len());
            // SAFETY: the pages are Filling and owned by the caller, and without a userfaultfd nobody has addresses to
            // touch them; the region is writable and at least so long.
            unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), view.region.pointer(start), len) };
            return Ok(());
        };
        // SAFETY: the pages are Filling and owned by the caller; the source is a slice.
        let copied = unsafe {
            match self.writes {
                Writes::No => uffd.copy(at, source.as_ptr(), source.len()),
                Writes::Yes => uffd.copy_protected(at, source.as_ptr(), source.len(), wake),
            }
        };
        match (copied, &self.frame_file) {
            (Err((done, error)), Some(file))
                if self.writes == Writes::Yes && error.raw_os_error() == Some(libc::EEXIST) =>
            {
                // While a claim fills a page, the frame file must have a hole there. An unregistered view of a guest
                // has touched it, and the kernel put zeros there. They are not to be seen.
                file.punch((start + done) as u64, (source.len() - done) as u64)
                    .map_err(|error| (done, error))?;
                let (rest, at) = (&source[done..], at + done);
                // SAFETY: as above.
                let copied = unsafe { uffd.copy_protected(at, rest.as_ptr(), rest.len(), wake) };
                copied.map_err(|(more, error)| (done + more, error))
            }
            (copied, _) => copied,
        }
    }

    /// Copies `[done, len)` of the frame in place, lets the frame go, and counts the copy as that frame. The page is
    /// Filling and the caller's.
    fn copy_rest(&self, frame: Frame, address: usize, done: usize, len: usize) -> io::Result<()> {
        let view = &self.views[0];
        let source = frame.as_slice()[done..len].as_ptr();
        // SAFETY: the page is Filling and owned by the caller; the source is the rest of the frame. What has moved
        // out of the frame is not read.
        match unsafe { view.registered().copy(address + done, source, len - done) } {
            Ok(()) => {
                frame.abandon_rest();
                Ok(())
            }
            Err((_, error)) => {
                let start = address - view.region.start();
                // SAFETY: the page is still Filling: nobody holds references into it.
                let _ = unsafe { view.region.zap(start, len) };
                if done == 0 {
                    drop(frame);
                } else {
                    frame.abandon_rest();
                    if let Some(pool) = &self.pool {
                        pool.forget(1);
                    }
                }
                Err(error)
            }
        }
    }

    /// Writes `source` to the one large page, which is Filling, and shows it in the first view and those in use.
    fn copy_to_file(&self, pages: PageRange, source: &[u8]) -> io::Result<()> {
        let Some(file) = self.frame_file.as_ref().filter(|_| pages.len() == 1) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let page = PageIndex(pages.start);
        let offset = self.offset_in_view(page.0);
        file.fill_large(offset as u64, source)?;
        let first = &self.views[0];
        let start = first.region.start() + offset;
        // SAFETY: the page is Filling and owned by the caller; all its bytes are in the file.
        if let Err((_, error)) = unsafe { first.registered().show(start, source.len()) } {
            file.punch(offset as u64, self.page_size.bytes())?;
            return Err(error);
        }
        for view in self.views_in_use().skip(1) {
            self.show_whole(view, page);
        }
        Ok(())
    }

    /// Moves the frame of `page`, which is Evicting, back to the pool.
    fn move_out(&self, page: PageIndex) -> bool {
        let Some(pool) = &self.pool else { return false };
        let (start, len) = (self.offset_in_view(page.0), self.mapped_bytes(page));
        let region = &self.views[0].region;
        if len < self.page_size.bytes() as usize {
            // The last page was copied in; its small frames go to the kernel, and one large frame's worth with them.
            // SAFETY: the page is Evicting and the caller's: no references exist.
            let zapped = unsafe { region.zap(start, len).is_ok() };
            if zapped {
                pool.forget(1);
            }
            return zapped;
        }
        // SAFETY: as above.
        unsafe { pool.move_out(region.start() + start).is_ok() }
    }
}
