//! What a host brings.

use crate::address::{PageIndex, PageRange, VirtAddr};
use crate::prot::Prot;
use crate::space::ObjectId;

/// Memory for pages of 4 KiB. A frame has owners, which are counted: pages of objects and private pages of spaces.
pub trait Frames {
    /// The name of a frame.
    type Frame: Copy + Eq;

    /// A new frame of zeros with one owner; `None` if there is no memory.
    fn zeroed(&mut self) -> Option<Self::Frame>;

    /// A new frame with the bytes of `frame` and one owner; `None` if there is no memory.
    fn copy_of(&mut self, frame: Self::Frame) -> Option<Self::Frame>;

    /// One owner more.
    fn share(&mut self, frame: Self::Frame);

    /// One owner less; the frame is free when there is none.
    fn release(&mut self, frame: Self::Frame);

    /// How many owners there are.
    fn owners(&self, frame: Self::Frame) -> usize;

    /// Reads the bytes from `at` on; `into` ends inside the frame.
    fn read(&self, frame: Self::Frame, at: usize, into: &mut [u8]);

    /// Writes the bytes from `at` on; `from` ends inside the frame.
    fn write(&mut self, frame: Self::Frame, at: usize, from: &[u8]);
}

/// The page table of one space. Translations may be used from a cache after they were changed, until they are
/// flushed; that there is none is not cached.
pub trait Mmu<Frame> {
    /// Makes accesses to the page at `page` that `prot` allows reach `frame`, whatever was there.
    fn map(&mut self, page: VirtAddr, frame: Frame, prot: Prot);

    /// Makes all accesses to these pages fault.
    fn unmap(&mut self, start: VirtAddr, length: u64);

    /// Forgets what is cached of these pages. When it returns, no processor uses a former translation.
    fn flush(&mut self, start: VirtAddr, length: u64);
}

/// What a page of an object is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// To be read, or copied.
    Load,
    /// To be stored to.
    Store,
}

/// Where a page of an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectPage<Frame> {
    /// In this frame, which the object owns. Bytes past the end of the object were zero when it was supplied.
    Here(Frame),
    /// Nowhere yet. Once it was supplied, asking again gives another answer.
    Needed(ObjectId, PageIndex),
    /// Nowhere: the object ends before it.
    Beyond,
    /// It could not be supplied; the object knows why.
    Failed,
    /// There is no memory for it.
    NoFrame,
}

/// The objects behind segments.
pub trait Objects<F: Frames> {
    /// Page `page` of `object`. If it is wanted for a store, it may be stored to from then on, until the next notice.
    fn page(&mut self, frames: &mut F, object: ObjectId, page: PageIndex, want: Want)
    -> ObjectPage<F::Frame>;

    /// An object that has the bytes of `object` as they are now, whatever becomes of it; `None` if that cannot be
    /// promised. It lives until the last of its bytes is released.
    fn snapshot(&mut self, frames: &mut F, object: ObjectId) -> Option<ObjectId>;

    /// `bytes` more of `object` are mapped.
    fn retain(&mut self, object: ObjectId, bytes: u64);

    /// `bytes` of `object` are mapped no more.
    fn release(&mut self, frames: &mut F, object: ObjectId, bytes: u64);
}

/// What a host lends for one verb or fault of one space.
#[derive(Debug)]
pub struct Host<'a, F, M, O> {
    /// Memory.
    pub frames: &'a mut F,
    /// The page table of the space.
    pub mmu: &'a mut M,
    /// The objects.
    pub objects: &'a mut O,
}

/// Something that happened to pages of an object, for all spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Their frames are others now.
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
    /// This page has to be supplied first; then the fault is to be tried again.
    Need(ObjectId, PageIndex),
    /// There is no frame. The host frees some and tries again, or gives up (SIGBUS).
    NoFrame,
}
