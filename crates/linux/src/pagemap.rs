//! Which pages of a range are present, without touching them: PAGEMAP_SCAN of /proc/self/pagemap.
//!
//! Source: Documentation/admin-guide/mm/pagemap.rst (Linux 6.7).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, OnceLock, Weak};

#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct FoundRange {
    start: u64,
    end: u64,
    categories: u64,
}

const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGEMAP_SCAN: std::ffi::c_ulong = (3 << 30)
    | ((size_of::<ScanArgument>() as std::ffi::c_ulong) << 16)
    | ((b'f' as std::ffi::c_ulong) << 8)
    | 16;

/// Opens the page map of this process once, for all who ask from now on. A process that closes itself to others of its user
/// (PR_SET_DUMPABLE) may not open it any more.
pub fn keep_open() {
    static KEPT: OnceLock<Pagemap> = OnceLock::new();
    // A process that was forked from one that has done so opens its own.
    KEPT.get_or_init(Pagemap::shared);
}

/// The page map of this process, one descriptor for all who ask often.
#[derive(Debug)]
pub(crate) struct Pagemap(Option<Arc<File>>);

/// The process whose page map it is, and the map. Without a rank: it is tried in signal handlers. Nobody waits for it.
static SHARED: Mutex<(u32, Weak<File>)> = Mutex::new((0, Weak::new()));

impl Pagemap {
    /// Opens it, or shares what others have open. If it cannot be opened now, each question opens it.
    pub(crate) fn shared() -> Self {
        let open = || File::open("/proc/self/pagemap").ok().map(Arc::new);
        // In a child of fork somebody who is not there can have the lock, and the map is the parent's.
        let Ok(mut shared) = SHARED.try_lock() else { return Self(open()) };
        let process = std::process::id();
        if let Some(file) = shared.1.upgrade().filter(|_| shared.0 == process) {
            return Self(Some(file));
        }
        let file = open();
        if let Some(file) = &file {
            *shared = (process, Arc::downgrade(file));
        }
        Self(file)
    }

    /// Whether all of `[start, start + len)` has frames now, or places in swap. The page of zeros that the kernel shows
    /// where nothing was stored is none. One system call; safe in a signal handler.
    pub(crate) fn holds_frames(&self, start: usize, len: usize) -> io::Result<bool> {
        let mut found = [FoundRange::default()];
        let (count, _) = self.scan(start as u64, (start + len) as u64, &mut found)?;
        Ok(count == 1 && found[0].start == start as u64 && found[0].end == (start + len) as u64)
    }

    /// The runs of `[start, start + len)` that have frames now, in order.
    pub(crate) fn frames_in(&self, start: usize, len: usize) -> io::Result<Vec<Range<u64>>> {
        let mut found = [FoundRange::default(); 64];
        let (mut next, end) = (start as u64, (start + len) as u64);
        let mut runs = Vec::new();
        while next < end {
            let (count, walked) = self.scan(next, end, &mut found)?;
            runs.extend(found[..count].iter().map(|run| run.start..run.end));
            if walked <= next {
                break;
            }
            next = walked;
        }
        Ok(runs)
    }

    /// How many runs were found, and up to where.
    fn scan(&self, start: u64, end: u64, found: &mut [FoundRange]) -> io::Result<(usize, u64)> {
        let opened;
        let file = match &self.0 {
            Some(file) => file,
            None => {
                opened = File::open("/proc/self/pagemap")?;
                &opened
            }
        };
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start,
            end,
            vec: found.as_mut_ptr() as u64,
            vec_len: found.len() as u64,
            category_inverted: PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_PFNZERO,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..Default::default()
        };
        // SAFETY: the kernel writes at most vec_len ranges into `found`, which lives across the call, and the
        // argument structure itself.
        let count = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &mut argument) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((count as usize, argument.walk_end))
    }
}

/// Counts the 4 KiB pages of `[start, start + len)` that have a frame now, or a place in swap.
pub fn present_pages(start: usize, len: usize) -> io::Result<u64> {
    let map = Pagemap::shared();
    let file = map.0.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
    // Few: signal handlers ask, about one page mostly, and their stacks are small.
    let mut found = [FoundRange::default(); 8];
    let mut next = start as u64;
    let end = (start + len) as u64;
    let mut pages = 0;
    while next < end {
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start: next,
            end,
            vec: found.as_mut_ptr() as u64,
            vec_len: found.len() as u64,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT,
            ..Default::default()
        };
        // SAFETY: the kernel writes at most vec_len ranges into `found`, which lives across the call, and the
        // argument structure itself.
        let count = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &mut argument) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        pages += found[..count as usize].iter().map(|range| (range.end - range.start) / 4096).sum::<u64>();
        if argument.walk_end <= next {
            break;
        }
        next = argument.walk_end;
    }
    Ok(pages)
}

/// Pages of a range that a process has in its page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Present {
    /// The first address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Whether they are the process's own, and not the file's.
    pub is_own: bool,
    /// Whether they are in memory. Others were swapped out, or are marks of a userfaultfd.
    pub is_resident: bool,
    /// Whether stores to them are blocked. What is so and not resident was swapped out, or is the mark of a hole.
    pub is_protected: bool,
}

impl Present {
    /// The runs of present pages in `[start, end)` of a process.
    pub fn of(process: i32, start: u64, end: u64) -> io::Result<Vec<Self>> {
        let file = File::open(format!("/proc/{process}/pagemap"))?;
        runs(&file, start, end)
    }
}

/// The runs of pages of `[start, end)` that are present, of the process whose pagemap `file` is.
fn runs(file: &File, start: u64, end: u64) -> io::Result<Vec<Present>> {
    let mut found = [FoundRange::default(); 128];
    let mut runs = Vec::new();
    let mut next = start;
    while next < end {
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start: next,
            end,
            vec: found.as_mut_ptr() as u64,
            vec_len: found.len() as u64,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_FILE | PAGE_IS_WRITTEN,
            ..Default::default()
        };
        // SAFETY: the kernel writes at most vec_len ranges into `found`, which lives across the call, and the
        // argument structure itself.
        let count = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &mut argument) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        runs.extend(found[..count as usize].iter().map(|range| Present {
            start: range.start,
            end: range.end,
            is_own: range.categories & PAGE_IS_FILE == 0,
            is_resident: range.categories & PAGE_IS_PRESENT != 0,
            is_protected: range.categories & PAGE_IS_WRITTEN == 0,
        }));
        if argument.walk_end <= next {
            break;
        }
        next = argument.walk_end;
    }
    Ok(runs)
}
