//! Memory of an image: address ranges that are taken first and then filled piece by piece, all or nothing.
//!
//! [`ImageMemory`] hands out no reference or pointer. Every call checks that what it changes is inside what was taken,
//! so no mapping of anybody else is ever replaced; what was taken is given back on drop.

mod reservation;

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use memobj_core::prot::Prot;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

use reservation::Loan;

pub use reservation::Reservation;

const PAGE: usize = 4096;

/// Address ranges that belong to one image. Given back on drop.
#[derive(Debug)]
pub struct ImageMemory {
    /// Disjoint, and ascending.
    owned: Vec<Range<usize>>,
    /// What comes from reservations: disjoint, ascending, and none of it owned.
    loans: Vec<Loan>,
}

/// Why memory at fixed addresses cannot be had.
#[derive(Debug)]
pub struct Taken {
    /// What was asked for.
    pub range: Range<usize>,
    /// EEXIST if something is mapped there.
    pub source: io::Error,
}

impl ImageMemory {
    /// Takes `length` bytes such that the address `base` bytes further on is a multiple of `align`, a power of two.
    /// All are multiples of the page size. Nobody may access the memory yet.
    ///
    /// # Errors
    ///
    /// ENOMEM if there is no room.
    pub fn anywhere(length: usize, base: usize, align: usize) -> io::Result<(Self, usize)> {
        let surplus = align.checked_sub(PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let padded = length.checked_add(surplus).ok_or(io::ErrorKind::OutOfMemory)?;
        if length == 0 || !length.is_multiple_of(PAGE) || !base.is_multiple_of(PAGE) || base > length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: without MAP_FIXED the kernel chooses unused addresses; nothing of anybody is replaced.
        let raw =
            unsafe { mmap_anonymous(std::ptr::null_mut(), padded, ProtFlags::empty(), flags()) }? as usize;
        let mut memory = Self { owned: std::iter::once(raw..raw + padded).collect(), loans: Vec::new() };
        let start = (raw + base).next_multiple_of(align) - base;
        memory.release(raw..start)?;
        memory.release(start + length..raw + padded)?;
        Ok((memory, start))
    }

    /// Takes exactly `ranges`, whole pages. Each must be free, or wholly inside one [`Reservation`], free of other
    /// images. Nobody may access the memory yet.
    pub fn fixed(ranges: &[Range<usize>]) -> Result<Self, Taken> {
        let mut memory = Self { owned: Vec::new(), loans: Vec::new() };
        for range in ranges {
            memory.take(range).map_err(|source| Taken { range: range.clone(), source })?;
        }
        memory.owned.sort_by_key(|range| range.start);
        memory.loans.sort_by_key(|loan| loan.range().start);
        Ok(memory)
    }

    fn take(&mut self, range: &Range<usize>) -> io::Result<()> {
        let flags = flags() | MapFlags::FIXED_NOREPLACE;
        let none = ProtFlags::empty();
        // SAFETY: MAP_FIXED_NOREPLACE maps unused addresses only.
        match unsafe { mmap_anonymous(range.start as *mut _, range.len(), none, flags) } {
            Ok(raw) => self.owned.push(raw as usize..raw as usize + range.len()),
            Err(rustix::io::Errno::EXIST) => {
                self.loans.push(Loan::take(range).ok_or(rustix::io::Errno::EXIST)?);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        // Kernels before 4.17 take the address for a hint.
        if self.owned.last() == Some(range) { Ok(()) } else { Err(rustix::io::Errno::EXIST.into()) }
    }

    /// Maps `file` from `offset` on over `pages`, private.
    pub fn map_file(
        &mut self,
        pages: Range<usize>,
        file: &impl AsFd,
        offset: u64,
        prot: Prot,
    ) -> io::Result<()> {
        self.check(&pages)?;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: MAP_FIXED replaces only what `check` found to be this image's, to which nobody has references.
        unsafe { mmap(pages.start as *mut _, pages.len(), protection(prot), flags, file, offset) }?;
        Ok(())
    }

    /// Maps zeros over `pages`, private.
    pub fn map_zero(&mut self, pages: Range<usize>, prot: Prot) -> io::Result<()> {
        self.check(&pages)?;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: MAP_FIXED replaces only what `check` found to be this image's, to which nobody has references.
        unsafe { mmap_anonymous(pages.start as *mut _, pages.len(), protection(prot), flags) }?;
        Ok(())
    }

    /// Puts a page of its own where `bytes`, the end of a page, lie: what is before them comes from `file` at
    /// `offset`, and they are zero. A store into the page of the file would trap if the file has ended by then.
    ///
    /// # Errors
    ///
    /// EFAULT if the file has not all the bytes before.
    pub fn zero_tail(
        &mut self,
        bytes: Range<usize>,
        file: &impl AsFd,
        offset: u64,
        prot: Prot,
    ) -> io::Result<()> {
        let page = bytes.start / PAGE * PAGE..bytes.end;
        self.map_zero(page.clone(), Prot::READ | Prot::WRITE)?;
        self.read_file(page.start..bytes.start, file, offset)?;
        self.protect(page, prot)
    }

    /// Copies bytes of `file` from `offset` on to `bytes`, which are zeros that were mapped for writing.
    ///
    /// # Errors
    ///
    /// EFAULT if the file has not that many.
    pub fn read_file(&mut self, bytes: Range<usize>, file: &impl AsFd, offset: u64) -> io::Result<()> {
        self.check(&(bytes.start / PAGE * PAGE..bytes.end.next_multiple_of(PAGE)))?;
        let mut done = 0;
        while done < bytes.len() {
            let (start, left) = (bytes.start + done, bytes.len() - done);
            // The kernel stores through the address, and answers EFAULT where nobody may store.
            // SAFETY: the range is this image's (`check`), and nobody has references into it.
            let count = unsafe {
                libc::pread(file.as_fd().as_raw_fd(), start as *mut _, left, (offset + done as u64) as i64)
            };
            match count {
                0 => return Err(rustix::io::Errno::FAULT.into()),
                1.. => done += count as usize,
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes what `pages` may be used for.
    pub fn protect(&mut self, pages: Range<usize>, prot: Prot) -> io::Result<()> {
        self.check(&pages)?;
        let flags = MprotectFlags::from_bits_retain(protection(prot).bits());
        // SAFETY: the range is this image's (`check`), and nobody has references into it.
        unsafe { mprotect(pages.start as *mut _, pages.len(), flags) }?;
        Ok(())
    }

    /// Gives `pages` back; of a reservation only what was taken at once.
    pub fn release(&mut self, pages: Range<usize>) -> io::Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        self.check(&pages)?;
        if let Some(at) = self.loans.iter().position(|loan| *loan.range() == pages) {
            self.loans.remove(at);
            return Ok(());
        }
        let at = self.owned_at(&pages).ok_or(io::ErrorKind::InvalidInput)?;
        let whole = self.owned[at].clone();
        // SAFETY: the range is this image's (`check`), and nobody has references into it.
        unsafe { munmap(pages.start as *mut _, pages.len()) }?;
        let parts = [whole.start..pages.start, pages.end..whole.end];
        self.owned.splice(at..=at, parts.into_iter().filter(|part| !part.is_empty()));
        Ok(())
    }

    /// Leaves everything mapped for the rest of the process's life.
    pub fn leak(mut self) {
        self.owned.clear();
        self.loans.drain(..).for_each(std::mem::forget);
    }

    /// Whether `pages`, whole pages, not empty, are inside one range that was taken.
    fn check(&self, pages: &Range<usize>) -> io::Result<()> {
        let is_whole = pages.start.is_multiple_of(PAGE) && pages.end.is_multiple_of(PAGE);
        let at = self.loans.partition_point(|loan| loan.range().end <= pages.start);
        let is_lent = self.loans.get(at).is_some_and(|loan| holds(loan.range(), pages));
        let is_ours = is_lent || self.owned_at(pages).is_some();
        let is_right = is_whole && pages.start < pages.end && is_ours;
        if is_right { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Which of the owned ranges holds `pages`.
    fn owned_at(&self, pages: &Range<usize>) -> Option<usize> {
        let at = self.owned.partition_point(|owned| owned.end <= pages.start);
        self.owned.get(at).filter(|owned| holds(owned, pages)).map(|_| at)
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

impl Drop for ImageMemory {
    fn drop(&mut self) {
        for range in &self.owned {
            // SAFETY: the range is this image's, and nobody has references into it. It fails only where the kernel
            // has no memory to split a mapping, and then the range stays mapped.
            let _ = unsafe { munmap(range.start as *mut _, range.len()) };
        }
    }
}

/// Copies what is at `address` in this process to `buffer`. Any address may be asked for.
///
/// # Errors
///
/// EFAULT where nothing is mapped, nobody may read, or the file behind a page has ended.
pub fn copy_from(address: usize, buffer: &mut [u8]) -> io::Result<()> {
    transfer(address, buffer.len(), |place, offset, length| {
        let rest = &mut buffer[offset..offset + length];
        let local = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: length };
        // SAFETY: the kernel stores into `buffer` only, and loads with all checks, as for another process.
        unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &place, 1, 0) }
    })
}

/// Copies `bytes` to `address` in this process. What was copied before an error stays copied.
///
/// # Errors
///
/// EFAULT where nothing is mapped, or nobody may write.
///
/// # Safety
///
/// Where there is memory of this process, no reference to it is alive.
pub unsafe fn copy_to(address: usize, bytes: &[u8]) -> io::Result<()> {
    transfer(address, bytes.len(), |place, offset, length| {
        let rest = &bytes[offset..offset + length];
        let local = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: length };
        // SAFETY: the kernel loads from `bytes` only, and stores with all checks, as for another process, where the
        // caller knows of no reference.
        unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &place, 1, 0) }
    })
}

/// Moves `length` bytes at `address` by as many calls as it takes.
fn transfer(
    address: usize,
    length: usize,
    mut call: impl FnMut(libc::iovec, usize, usize) -> isize,
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let Some(at) = address.checked_add(done) else { return Err(rustix::io::Errno::FAULT.into()) };
        let place = libc::iovec { iov_base: at as *mut _, iov_len: length - done };
        match call(place, done, length - done) {
            count @ 1.. => done += count as usize,
            0 => return Err(rustix::io::Errno::FAULT.into()),
            _ => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

/// Whether another process has a lock of any part of `file` (fcntl(2)). One's own locks, and those of flock(2), do not
/// count; whoever locks it a moment later is not seen.
pub fn is_locked(file: &impl AsFd) -> io::Result<bool> {
    // SAFETY: all zero is a value of this structure of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: the kernel reads and writes one structure that lives across the call.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLK, &raw mut lock) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn flags() -> MapFlags {
    MapFlags::PRIVATE | MapFlags::NORESERVE
}

pub(crate) fn protection(prot: Prot) -> ProtFlags {
    let pairs =
        [(Prot::READ, ProtFlags::READ), (Prot::WRITE, ProtFlags::WRITE), (Prot::EXECUTE, ProtFlags::EXEC)];
    pairs.iter().filter(|(bit, _)| prot.contains(*bit)).fold(ProtFlags::empty(), |all, (_, flag)| all | *flag)
}

#[cfg(test)]
mod tests {
    use super::{ImageMemory, copy_from};
    use std::slice::from_ref;

    use memobj_core::prot::Prot;

    #[test]
    fn nothing_outside_is_changed() {
        let (mut memory, start) = ImageMemory::anywhere(0x4000, 0x1000, 0x20_0000).expect("room");
        assert!((start + 0x1000).is_multiple_of(0x20_0000));
        for pages in [start - 4096..start, start..start + 0x5000, start + 1..start + 4096, start..start] {
            assert!(memory.map_zero(pages.clone(), Prot::READ).is_err(), "{pages:x?}");
            assert!(memory.protect(pages.clone(), Prot::READ).is_err(), "{pages:x?}");
        }
        memory.release(start + 0x1000..start + 0x2000).expect("a hole");
        assert!(memory.map_zero(start..start + 0x2000, Prot::READ).is_err());
        memory.map_zero(start + 0x2000..start + 0x4000, Prot::READ | Prot::WRITE).expect("the part behind");
        assert_eq!(copy_from(start, &mut [0]).map_err(|error| error.raw_os_error()), Err(Some(14)));
        let mut bytes = [1; 2];
        copy_from(start + 0x2fff, &mut bytes).expect("zeros");
        assert_eq!(bytes, [0, 0]);
    }

    #[test]
    fn what_is_mapped_is_not_taken() {
        let (memory, start) = ImageMemory::anywhere(0x2000, 0, 4096).expect("room");
        let below = start - 0x10_0000_0000;
        let taken =
            ImageMemory::fixed(&[below..below + 4096, start + 4096..start + 8192]).expect_err("taken");
        assert_eq!((taken.range, taken.source.raw_os_error()), (start + 4096..start + 8192, Some(17)));
        // What had been taken before it is free again.
        ImageMemory::fixed(from_ref(&(below..below + 4096))).expect("free");
        drop(memory);
        ImageMemory::fixed(from_ref(&(start + 4096..start + 8192))).expect("given back");
    }
}
