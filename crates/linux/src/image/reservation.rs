//! Ranges of addresses that are kept for images of fixed addresses.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{PAGE, flags};
use crate::locks::{Rank, RankedMutex};

/// A range of addresses that nobody may access, and that nothing gets mapped to but images of fixed addresses.
///
/// Once it is dropped, and with it the images in it, the range is free again.
#[derive(Debug)]
pub struct Reservation {
    held: Arc<ReservedRange>,
}

/// The range itself, given back when nobody needs it any more.
#[derive(Debug)]
pub(super) struct ReservedRange {
    range: Range<usize>,
    /// What images have of it: disjoint, in any order.
    used: RankedMutex<Vec<Range<usize>>>,
}

/// A part of a reservation that belongs to one image. Put back on drop.
#[derive(Debug)]
pub(super) struct Loan {
    held: Arc<ReservedRange>,
    range: Range<usize>,
}

/// Every reservation of the process that may be alive.
static RESERVATIONS: RankedMutex<Vec<Weak<ReservedRange>>> = RankedMutex::new(Rank::Reservations, Vec::new());

impl Reservation {
    /// Reserves exactly `range`, whole pages, in which nothing may be mapped.
    ///
    /// # Errors
    ///
    /// EEXIST if something is; ENOMEM outside the address space; `InvalidInput` if the pages are not whole.
    pub fn new(range: Range<usize>) -> io::Result<Self> {
        let is_whole = range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE);
        if !is_whole || range.start >= range.end {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = flags() | MapFlags::FIXED_NOREPLACE;
        // SAFETY: MAP_FIXED_NOREPLACE maps unused addresses only.
        let raw = unsafe { mmap_anonymous(range.start as *mut _, range.len(), ProtFlags::empty(), flags) }?
            as usize;
        let used = RankedMutex::new(Rank::ReservedRanges, Vec::new());
        let held = Arc::new(ReservedRange { range: raw..raw + range.len(), used });
        // Kernels before 4.17 take the address for a hint; then this gives back what they chose.
        if held.range != range {
            return Err(rustix::io::Errno::EXIST.into());
        }
        let mut all = RESERVATIONS.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&held));
        Ok(Self { held })
    }

    /// The range.
    pub fn range(&self) -> Range<usize> {
        self.held.range.clone()
    }
}

impl Loan {
    /// Takes `range` out of the one reservation that holds all of it, if there is one and no image has any of it.
    pub(super) fn take(range: &Range<usize>) -> Option<Self> {
        let all: Vec<Arc<ReservedRange>> = RESERVATIONS.lock().iter().filter_map(Weak::upgrade).collect();
        let holds =
            |held: &Arc<ReservedRange>| held.range.start <= range.start && range.end <= held.range.end;
        let held = all.into_iter().find(holds)?;
        let mut used = held.used.lock();
        if used.iter().any(|other| other.start < range.end && range.start < other.end) {
            return None;
        }
        used.push(range.clone());
        drop(used);
        Some(Self { held, range: range.clone() })
    }

    pub(super) fn range(&self) -> &Range<usize> {
        &self.range
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let flags = flags() | MapFlags::FIXED;
        // SAFETY: the range is this loan's, and the image that had it is gone: nobody has references into it. Where
        // the kernel has no memory for it, the image's mapping stays; the range is then never lent again.
        let restored = unsafe {
            mmap_anonymous(self.range.start as *mut _, self.range.len(), ProtFlags::empty(), flags)
        };
        if restored.is_ok() {
            self.held.used.lock().retain(|other| *other != self.range);
        }
    }
}

impl Drop for ReservedRange {
    fn drop(&mut self) {
        // SAFETY: neither the reservation nor any image in it is left.
        let _ = unsafe { munmap(self.range.start as *mut _, self.range.len()) };
    }
}
