//! Which pages of a range are present, without touching them: PAGEMAP_SCAN of /proc/self/pagemap.
//!
//! Source: Documentation/admin-guide/mm/pagemap.rst (Linux 6.7).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

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

#[cfg(target_arch = "x86_64")]
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGEMAP_SCAN: std::ffi::c_ulong = (3 << 30)
    | ((size_of::<ScanArgument>() as std::ffi::c_ulong) << 16)
    | ((b'f' as std::ffi::c_ulong) << 8)
    | 16;

/// The pagemap of the process that has called [`keep_open`], and its number.
static KEPT: OnceLock<(u32, File)> = OnceLock::new();

/// Opens the pagemap of this process once for all questions to come. A process that closes itself to others of its user
/// (PR_SET_DUMPABLE) may not open it any more.
pub fn keep_open() {
    if let Ok(file) = File::open(OF_THIS_PROCESS) {
        // A process that was forked from one that has done so opens its own each time.
        let _ = KEPT.set((std::process::id(), file));
    }
}

const OF_THIS_PROCESS: &str = "/proc/self/pagemap";

/// Counts the 4 KiB pages of `[start, start + len)` that have a frame now, or a place in swap.
pub fn present_pages(start: usize, len: usize) -> io::Result<u64> {
    let kept = KEPT.get().filter(|(process, _)| *process == std::process::id());
    let opened = if kept.is_none() { Some(File::open(OF_THIS_PROCESS)?) } else { None };
    let Some(file) = kept.map(|(_, file)| file).or(opened.as_ref()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut found = [FoundRange::default(); 128];
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

/// The runs of pages of `[start, end)` that are present, of the process whose pagemap `file` is.
#[cfg(target_arch = "x86_64")]
pub(crate) fn runs(file: &File, start: u64, end: u64) -> io::Result<Vec<crate::trace::Present>> {
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
            return_mask: PAGE_IS_PRESENT | PAGE_IS_FILE,
            ..Default::default()
        };
        // SAFETY: the kernel writes at most vec_len ranges into `found`, which lives across the call, and the
        // argument structure itself.
        let count = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &mut argument) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        runs.extend(found[..count as usize].iter().map(|range| crate::trace::Present {
            start: range.start,
            end: range.end,
            is_own: range.categories & PAGE_IS_FILE == 0,
            is_resident: range.categories & PAGE_IS_PRESENT != 0,
        }));
        if argument.walk_end <= next {
            break;
        }
        next = argument.walk_end;
    }
    Ok(runs)
}
