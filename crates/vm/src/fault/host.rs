//! What a host brings.

use crate::space::ObjectId;
use memobj_core::address::{PageIndex, PageRange, VirtAddr};
use memobj_core::prot::Prot;

/// The number of a frame of 4 KiB, below 2^64 - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameNumber(pub u64);

/// Memory for pages of 4 KiB. A frame has owners, which are counted: pages of objects and private pages of spaces.
///
/// No call waits for a page or for the table of objects: they are made while both are held.
pub trait Memory: core::fmt::Debug {
    /// A new frame of zeros with one owner; `None` if there is no memory.
    fn zeroed(&self) -> Option<FrameNumber>;

    /// A new frame with the bytes of `frame` and one owner; `None` if there is no memory.
    fn copy_of(&self, frame: FrameNumber) -> Option<FrameNumber>;

    /// One owner more.
    fn share(&self, frame: FrameNumber);

    /// One owner less; the frame is free when there is none.
    fn release(&self, frame: FrameNumber);

    /// How many owners there are.
    fn owners(&self, frame: FrameNumber) -> usize;

    /// Reads the bytes from `at` on; `into` ends inside the frame.
    fn read(&self, frame: FrameNumber, at: usize, into: &mut [u8]);

    /// Writes the bytes from `at` on; `from` ends inside the frame.
    fn write(&self, frame: FrameNumber, at: usize, from: &[u8]);

    /// Something happens to pages of an object. The host passes it to [`Attached::notice`](super::Attached::notice)
    /// of every space before anybody uses memory again. Many in a row are about neighbours and may be passed as one.
    fn tell(&self, notice: Notice);
}

/// The page table of one space. Translations may be used from a cache after they were changed, until they are
/// flushed; that there is none is not cached.
pub trait Mmu {
    /// Makes accesses to the page at `page` that `prot` allows reach `frame`, whatever was there.
    fn map(&mut self, page: VirtAddr, frame: FrameNumber, prot: Prot);

    /// Makes all accesses to these pages fault.
    fn unmap(&mut self, start: VirtAddr, length: u64);

    /// Forgets what is cached of these pages. When it returns, no processor uses a former translation.
    fn flush(&mut self, start: VirtAddr, length: u64);
}

/// Something that happened to pages of an object, for all spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Their frames are others now, or none.
    Replaced(ObjectId, PageRange),
    /// They may not be stored to without asking again.
    Protected(ObjectId, PageRange),
    /// The object ends before them. Private pages made from them go, too.
    Cut(ObjectId, PageRange),
}

/// Why an access is not legal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trap {
    /// Nothing is mapped there, or a guard is (SIGSEGV, SEGV_MAPERR).
    Unmapped,
    /// The segment does not allow it (SIGSEGV, SEGV_ACCERR).
    Denied,
    /// The object ends before it (SIGBUS, BUS_ADRERR).
    Beyond,
    /// Its page could not be supplied (SIGBUS).
    Failed,
}

/// Why a fault was not resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It is the access that is wrong.
    Trap(Trap),
    /// This page has to be supplied first; then the fault is to be tried again. It is claimed for whoever supplies it,
    /// so everybody who comes meanwhile has this answer, too.
    Need(ObjectId, PageIndex),
    /// Somebody keeps this page as it is, for a pin or a write. The fault is to be tried again once that has ended.
    Busy(ObjectId, PageIndex),
    /// There is no frame. The host frees some and tries again, or gives up (SIGBUS).
    NoFrame,
}

impl From<Trap> for Stop {
    fn from(trap: Trap) -> Self {
        Stop::Trap(trap)
    }
}
