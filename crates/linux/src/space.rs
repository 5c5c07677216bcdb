//! A window of addresses in which segments are placed: reserved first, and then mapped piece by piece.
//!
//! ```text
//!   reserved    nobody may access it, and nothing else in the process is placed there
//!   anonymous   private zeros, the kernel's
//!   frames      a private mapping of a file of frames: registered for missing pages before anybody can touch it,
//!               and as long as anybody can. A hole that is read in any other way becomes a page of zeros for all who
//!               map the file
//! ```
//!
//! [`SpaceMemory`] hands out no reference or pointer, and every call checks that what it changes is inside the window.
//! Children of fork have none of it.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use memobj_core::prot::Prot;
use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect,
    mremap_fixed, munlock, munmap,
};

use crate::fork::MakerProcess;
use crate::image::{copy_from, copy_to, protection};
use crate::locks::{Rank, RankedRwLock, ReadGuard};
use crate::region::drop_frames;
use crate::uffd::{Announce, EventBuffer, Features, Modes, Userfaultfd};

const PAGE: usize = 4096;

/// The window, and the userfaultfd of its segments. Unmapped on drop, before the userfaultfd is closed.
#[derive(Debug)]
pub struct SpaceMemory {
    window: Range<usize>,
    uffd: Userfaultfd,
    owner: MakerProcess,
    /// Whether the window is still ours. Changes of it, and copies, keep it from being closed meanwhile.
    open: RankedRwLock<bool>,
}

/// Whether memory is set aside for what can be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charged {
    /// It is.
    Yes,
    /// It is not (MAP_NORESERVE).
    No,
}

/// Why something was not mapped, and what is there now.
#[derive(Debug)]
pub enum NotMapped {
    /// What was there before.
    Kept(io::Error),
    /// Nothing: the pages are reserved, as far as the kernel has memory for that.
    Lost(io::Error),
}

/// What a range of the window shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shows {
    /// Zeros of its own.
    Anonymous,
    /// A file of frames.
    Frames,
}

impl SpaceMemory {
    /// Reserves `length` bytes, whole pages: at `start`, if nothing is there, or anywhere.
    ///
    /// # Errors
    ///
    /// EEXIST if something is at `start`; ENOMEM without room; what userfaultfd(2) says.
    pub fn new(start: Option<usize>, length: usize) -> io::Result<Self> {
        let whole = |value: usize| value.is_multiple_of(PAGE);
        if length == 0 || !whole(length) || !start.is_none_or(whole) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (uffd, owner) = (Userfaultfd::open(Announce::Queued)?, MakerProcess::new()?);
        let fixed = if start.is_some() { MapFlags::FIXED_NOREPLACE } else { MapFlags::empty() };
        let address = start.unwrap_or(0) as *mut _;
        // SAFETY: without MAP_FIXED the kernel maps unused addresses only.
        let raw = unsafe { mmap_anonymous(address, length, ProtFlags::empty(), reserving() | fixed) }?;
        let (raw, open) = (raw as usize, RankedRwLock::new(Rank::Window, true));
        let memory = Self { window: raw..raw + length, uffd, owner, open };
        if start.is_some_and(|start| start != raw) {
            // Kernels before 4.17 take the address for a hint.
            return Err(Errno::EXIST.into());
        }
        memory.set_apart(&memory.window)?;
        Ok(memory)
    }

    /// All addresses.
    pub fn window(&self) -> Range<usize> {
        self.window.clone()
    }

    /// What its userfaultfd can do.
    pub fn features(&self) -> Features {
        self.uffd.features()
    }

    /// Whether the calling process is the one that made it. A child of fork has none of it, and no call but this one
    /// may be made there.
    pub fn is_here(&self) -> bool {
        self.owner.is_this_process()
    }

    /// Takes `pages` out of use: what is there goes, and nobody may access them. Sleepers are woken, and trap.
    pub fn reserve(&self, pages: Range<usize>) -> io::Result<()> {
        let _open = self.check(&pages)?;
        self.set_free(&pages)
    }

    fn set_free(&self, pages: &Range<usize>) -> io::Result<()> {
        let flags = reserving() | MapFlags::FIXED;
        // SAFETY: MAP_FIXED replaces only what is in the window (checked by the callers), to which nobody is given
        // references.
        unsafe { mmap_anonymous(pages.start as *mut _, pages.len(), ProtFlags::empty(), flags) }?;
        self.set_apart(pages)?;
        self.uffd.wake(pages.start, pages.len());
        Ok(())
    }

    /// Maps zeros over `pages`, private.
    pub fn map_anonymous(&self, pages: Range<usize>, prot: Prot, charged: Charged) -> Result<(), NotMapped> {
        let _open = self.check(&pages).map_err(NotMapped::Kept)?;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | reserve_flag(charged);
        // SAFETY: MAP_FIXED replaces only what is in the window (`check`), to which nobody is given references.
        unsafe { mmap_anonymous(pages.start as *mut _, pages.len(), protection(prot), flags) }
            .map_err(|error| NotMapped::Kept(error.into()))?;
        self.keep_from_children(&pages).map_err(|error| self.lose(&pages, error))?;
        self.uffd.wake(pages.start, pages.len());
        Ok(())
    }

    /// Maps `file`, whose holes are missing pages, over `pages` from its byte `offset` on, private.
    pub fn map_frames(
        &self,
        pages: Range<usize>,
        file: BorrowedFd<'_>,
        offset: u64,
        prot: Prot,
        charged: Charged,
    ) -> Result<(), NotMapped> {
        let _open = self.check(&pages).map_err(NotMapped::Kept)?;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | reserve_flag(charged);
        let (start, len) = (pages.start, pages.len());
        // SAFETY: MAP_FIXED replaces only what is in the window (`check`), to which nobody is given references.
        unsafe { mmap(start as *mut _, len, ProtFlags::empty(), flags, file, offset) }
            .map_err(|error| NotMapped::Kept(error.into()))?;
        self.open_frames(&pages, prot).map_err(|error| self.lose(&pages, error))?;
        self.uffd.wake(start, len);
        Ok(())
    }

    fn lose(&self, pages: &Range<usize>, error: io::Error) -> NotMapped {
        let _ = self.set_free(pages);
        NotMapped::Lost(error)
    }

    /// Makes new `pages` of frames, which nobody may access yet, ready and accessible.
    fn open_frames(&self, pages: &Range<usize>, prot: Prot) -> io::Result<()> {
        self.keep_from_children(pages)?;
        // Where all memory of the process is locked, the kernel would make pages of zeros of the holes.
        // SAFETY: changes neither bytes nor protection of the window's own range.
        let _ = unsafe { munlock(pages.start as *mut _, pages.len()) };
        // What is filled by huge pages would be filled with zeros.
        // Refused by kernels without huge pages.
        let _ = self.advise(pages, Advice::LinuxNoHugepage);
        self.uffd.register(pages.start, pages.len(), Modes::MISSING)?;
        self.set_prot(pages, prot)
    }

    /// Changes what `pages`, all of which are mapped, may be used for.
    pub fn protect(&self, pages: Range<usize>, prot: Prot) -> io::Result<()> {
        let _open = self.check(&pages)?;
        self.set_prot(&pages, prot)
    }

    fn set_prot(&self, pages: &Range<usize>, prot: Prot) -> io::Result<()> {
        let flags = MprotectFlags::from_bits_retain(protection(prot).bits());
        // SAFETY: the range is in the window (checked by the callers), to which nobody is given references.
        Ok(unsafe { mprotect(pages.start as *mut _, pages.len(), flags) }?)
    }

    /// Drops private pages and poison of `pages`, all of which are mapped: the next access finds what is behind.
    pub fn drop_pages(&self, pages: Range<usize>) -> io::Result<()> {
        let _open = self.check(&pages)?;
        // SAFETY: the range is in the window (`check`), to which nobody is given references.
        unsafe { drop_frames(pages.start as *mut u8, pages.len()) }
    }

    /// Moves what is in the pages of `from` to `to`, as long, where what was there goes; `from` stays mapped, without
    /// its private pages. Nobody may access `from` meanwhile, or after: its protection is to be set again.
    pub fn move_pages(&self, from: Range<usize>, to: usize, prot: Prot, shows: Shows) -> io::Result<()> {
        let target = to..to.saturating_add(from.len());
        let _open = self.check(&target)?;
        if !self.is_inside(&from) {
            return Err(Errno::INVAL.into());
        }
        self.set_prot(&from, Prot::NONE)?;
        // On the way the kernel drops the registration of all that the moved mapping was joined to. Being kept out of
        // dumps, it is joined to nothing.
        self.advise(&from, Advice::LinuxDontDump)?;
        let moved = self.move_pieces(from.clone(), to);
        let done = moved.and_then(|()| {
            match shows {
                Shows::Anonymous => self.set_prot(&target, prot)?,
                Shows::Frames => self.open_frames(&target, prot)?,
            }
            self.advise(&target, Advice::LinuxDoDump)
        });
        let restored = self.advise(&from, Advice::LinuxDoDump);
        self.uffd.wake(target.start, target.len());
        done.and(restored)
    }

    /// The kernel can keep apart what is one range to us, and moves no two mappings at once.
    fn move_pieces(&self, from: Range<usize>, to: usize) -> io::Result<()> {
        let len = from.len();
        let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        // SAFETY: both ranges are in the window (checked by the caller), to which nobody is given references.
        match unsafe { mremap_fixed(from.start as *mut _, len, len, flags, to as *mut _) } {
            Ok(_) => Ok(()),
            Err(Errno::FAULT | Errno::INVAL) if len > PAGE => {
                let half = len / PAGE / 2 * PAGE;
                let (low, high) = (from.start..from.start + half, from.start + half..from.end);
                self.move_pieces(low.clone(), to)?;
                self.move_pieces(high, to + half).inspect_err(|_| {
                    let _ = self.move_pieces(to..to + half, low.start);
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the page at `page`, of frames, trap if it is missing, and wakes its sleepers.
    pub fn poison(&self, page: usize) -> io::Result<()> {
        let _open = self.check(&(page..page.saturating_add(PAGE)))?;
        let done = loop {
            match self.uffd.poison(page, PAGE) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => std::thread::yield_now(),
                done => break done,
            }
        };
        // On error they are not woken, and have to find out for themselves.
        self.uffd.wake(page, PAGE);
        done
    }

    /// Lets those who sleep on a fault in `pages` try again.
    pub fn wake(&self, pages: Range<usize>) {
        self.uffd.wake(pages.start, pages.len());
    }

    /// The descriptor that tells of faults.
    pub fn faults(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }

    /// Reads the faults that wait, without blocking, and returns how many `buffer` holds now.
    pub fn read_faults(&self, buffer: &mut EventBuffer) -> io::Result<usize> {
        self.uffd.read_events(buffer)
    }

    /// Copies what is at `address`, in the window, to `buffer`. Faults are raised and resolved like anybody's where the
    /// kernel tells of faults of system calls; elsewhere missing pages are errors. Stops at an error, of which the
    /// count of bytes that were copied before is told.
    pub fn load(&self, address: usize, buffer: &mut [u8]) -> Result<(), (usize, io::Error)> {
        let _open = self.check_bytes(address, buffer.len()).map_err(|error| (0, error))?;
        by_page(address, buffer.len(), |at, range| copy_from(at, &mut buffer[range]))
    }

    /// Copies `bytes` to `address`, in the window, as [`load`](Self::load) does in the other direction.
    pub fn store(&self, address: usize, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let _open = self.check_bytes(address, bytes.len()).map_err(|error| (0, error))?;
        by_page(address, bytes.len(), |at, range| {
            // SAFETY: the address is in the window (`check_bytes`), into which nobody is given references.
            unsafe { copy_to(at, &bytes[range]) }
        })
    }

    /// Unmaps the whole window, and wakes all sleepers, who trap. Every later call is refused, but reading faults.
    pub fn close(&self) {
        if !self.is_here() {
            return;
        }
        let mut open = self.open.write();
        if std::mem::replace(&mut *open, false) {
            // SAFETY: the window is this value's own, and nobody is given references into it.
            let _ = unsafe { munmap(self.window.start as *mut _, self.window.len()) };
            self.uffd.wake(self.window.start, self.window.len());
        }
    }

    /// Refuses pages that are not inside the window, which stays ours while the answer is kept.
    fn check(&self, pages: &Range<usize>) -> io::Result<ReadGuard<'_, bool>> {
        if self.is_inside(pages) { self.keep_open() } else { Err(Errno::INVAL.into()) }
    }

    fn is_inside(&self, pages: &Range<usize>) -> bool {
        let is_whole = pages.start.is_multiple_of(PAGE) && pages.end.is_multiple_of(PAGE);
        is_whole && pages.start < pages.end && self.holds(pages)
    }

    fn holds(&self, range: &Range<usize>) -> bool {
        self.window.start <= range.start && range.end <= self.window.end
    }

    fn check_bytes(&self, address: usize, len: usize) -> io::Result<ReadGuard<'_, bool>> {
        let is_inside = self.holds(&(address..address.saturating_add(len)));
        if is_inside { self.keep_open() } else { Err(Errno::FAULT.into()) }
    }

    fn keep_open(&self) -> io::Result<ReadGuard<'_, bool>> {
        if !self.is_here() {
            return Err(Errno::FAULT.into());
        }
        let open = self.open.read();
        if *open { Ok(open) } else { Err(Errno::FAULT.into()) }
    }

    /// Children of fork get nothing of a reservation, and dumps do not hold it.
    fn set_apart(&self, pages: &Range<usize>) -> io::Result<()> {
        self.keep_from_children(pages)?;
        self.advise(pages, Advice::LinuxDontDump)
    }

    fn keep_from_children(&self, pages: &Range<usize>) -> io::Result<()> {
        self.advise(pages, Advice::LinuxDontFork)
    }

    /// Gives advice that changes neither bytes nor protection.
    fn advise(&self, pages: &Range<usize>, advice: Advice) -> io::Result<()> {
        // SAFETY: the range is in the window (checked by the callers); the callers' advice changes no byte of it.
        Ok(unsafe { madvise(pages.start as *mut _, pages.len(), advice) }?)
    }
}

impl Drop for SpaceMemory {
    fn drop(&mut self) {
        self.close();
    }
}

fn reserving() -> MapFlags {
    MapFlags::PRIVATE | MapFlags::NORESERVE
}

fn reserve_flag(charged: Charged) -> MapFlags {
    match charged {
        Charged::Yes => MapFlags::empty(),
        Charged::No => MapFlags::NORESERVE,
    }
}

/// Copies page by page, so that what was copied before an error is known.
fn by_page(
    address: usize,
    len: usize,
    mut copy: impl FnMut(usize, Range<usize>) -> io::Result<()>,
) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while done < len {
        let at = address + done;
        let count = (PAGE - at % PAGE).min(len - done);
        copy(at, done..done + count).map_err(|error| (done, error))?;
        done += count;
    }
    Ok(())
}
