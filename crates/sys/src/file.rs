//! Reading a file around or through the host's page cache, and noticing that it changed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What identifies the bytes of a file at one moment.
///
/// Since Linux 6.13 a change after the version was asked for always gets another time stamp on the file systems
/// that matter (multigrain timestamps); before, two changes within one tick of the clock can look the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    links: u64,
}

impl FileVersion {
    /// The version that `file` has now. Safe to call from a signal handler.
    pub fn of(file: &impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size as u64,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
            links: stat.st_nlink as u64,
        })
    }

    /// Whether the bytes can be trusted to be those of `opened`.
    ///
    /// Size and modification time must agree. So must the time of the last change of any kind, because the
    /// modification time can be set back; but for a file that gained or lost a name since: names are not bytes,
    /// and files are removed and replaced while they are mapped.
    pub fn is_same_bytes(&self, opened: &FileVersion) -> bool {
        let same = |version: &FileVersion| (version.device, version.inode, version.size, version.modified);
        same(self) == same(opened) && (self.changed == opened.changed || self.links != opened.links)
    }

    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A descriptor of the same file that goes around the host's page cache, where the file system has that.
pub fn open_direct(path: &Path, file: &File) -> Option<File> {
    let direct =
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_NONBLOCK).open(path).ok()?;
    let (a, b) = (direct.metadata().ok()?, file.metadata().ok()?);
    ((a.dev(), a.ino()) == (b.dev(), b.ino()) && direct_alignment(&direct)? <= 4096).then_some(direct)
}

fn direct_alignment(file: &File) -> Option<u32> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let mask = rustix::fs::StatxFlags::from_bits_retain(0x2000);
    let stat = rustix::fs::statx(file, "", flags, mask).ok()?;
    if stat.stx_mask & 0x2000 == 0 {
        // The kernel does not tell (before 6.1): 4 KiB is what every block device takes.
        return Some(4096);
    }
    let wider = stat.stx_dio_mem_align.max(stat.stx_dio_offset_align);
    (wider > 0).then_some(wider)
}

/// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
pub fn read_full(file: &impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// One pread(2), repeated only when interrupted. Safe to call from a signal handler.
pub fn read_once(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match rustix::io::pread(file, &mut *buffer, offset) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[repr(C)]
struct CachestatRange {
    offset: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cache: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many of the file's 4 KiB pages the host's page cache holds; `None` where the kernel cannot tell (6.5).
pub fn cached_pages(file: &File) -> Option<u64> {
    const SYS_CACHESTAT: libc::c_long = 451;
    let range = CachestatRange { offset: 0, len: 0 };
    let mut answer = Cachestat::default();
    // SAFETY: both structures have the kernel's layout (cachestat(2)) and live across the call.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &range, &mut answer, 0) };
    (result == 0).then_some(answer.cache)
}
