//! Recycled 2 MiB frames.
//!
//! ```text
//!   nursery --(once for each frame)--> slot --move in--> object's pages --move out--> slot ...
//! ```
//!
//! A frame is obtained from the kernel once, zeroed once, and then only changes its address: no page is
//! allocated, zeroed or freed on the way of the data. Slots without a frame are holes; there are as many slots
//! as frames may exist, so a frame that leaves an object always finds a hole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memobj_core::budget::Budget;
use rustix::mm::{Advice, madvise};

use crate::locks::{Rank, RankedMutex};
use crate::region::{LARGE, Purpose, Region, drop_frames, give_bit, take_bit};
use crate::uffd::{Announce, Modes, Userfaultfd};

/// The pool of one cache.
#[derive(Debug)]
pub struct FramePool {
    slots: Region,
    mover: Userfaultfd,
    count: usize,
    /// Bit clear: the slot holds a free frame.
    frames: Box<[AtomicU64]>,
    /// Bit clear: the slot is a hole.
    holes: Box<[AtomicU64]>,
    budget: Arc<Budget>,
    nursery: RankedMutex<Region>,
}

/// One 2 MiB frame that belongs to nobody's page yet; goes back to the pool on drop.
#[derive(Debug)]
pub struct Frame {
    pool: Arc<FramePool>,
    slot: usize,
}

/// What [`FramePool::take`] has to say.
#[derive(Debug)]
pub enum Take {
    /// Here it is.
    Frame(Frame),
    /// The budget has no room for another frame; reclaim one.
    OverBudget,
    /// The kernel has no memory.
    NoMemory(io::Error),
}

impl FramePool {
    /// A pool of at most `budget.limit() / 2 MiB` frames, none of which exists yet.
    pub fn new(budget: Arc<Budget>) -> io::Result<Arc<Self>> {
        // Nobody reads this one's events: whoever strays into a hole must trap, not sleep.
        let mover = Userfaultfd::open(Announce::Signalled)?;
        if !mover.features().move_frames {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no UFFDIO_MOVE (Linux 6.8)"));
        }
        let count = (budget.limit() / LARGE as u64) as usize;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the budget is less than one 2 MiB frame",
            ));
        }
        let slots = Region::new(count * LARGE, Purpose::Large)?;
        mover.register(slots.start(), slots.len(), Modes::MISSING)?;
        let nursery = RankedMutex::new(Rank::Nursery, Region::new(LARGE, Purpose::Large)?);
        let words = |filled: u64| (0..count.div_ceil(64)).map(|_| AtomicU64::new(filled)).collect();
        Ok(Arc::new(Self { slots, mover, count, frames: words(u64::MAX), holes: words(0), budget, nursery }))
    }

    /// The most frames that can exist.
    pub fn capacity(&self) -> usize {
        self.count
    }

    /// A free frame, or a new one if the budget allows. Allocates and locks: not for signal handlers.
    pub fn take(self: &Arc<Self>) -> Take {
        if let Some(slot) = take_bit(&self.frames, self.count) {
            return Take::Frame(Frame { pool: Arc::clone(self), slot });
        }
        if !self.budget.try_reserve(LARGE as u64) {
            return Take::OverBudget;
        }
        match self.new_frame() {
            Ok(slot) => Take::Frame(Frame { pool: Arc::clone(self), slot }),
            Err(error) => {
                self.budget.release(LARGE as u64);
                Take::NoMemory(error)
            }
        }
    }

    /// Gets a frame from the kernel into a hole; the caller has reserved it.
    fn new_frame(&self) -> io::Result<usize> {
        let nursery = self.nursery.lock();
        let slot = take_bit(&self.holes, self.count).ok_or(io::ErrorKind::OutOfMemory)?;
        let from = nursery.pointer(0);
        // SAFETY: the nursery is ours under its lock; the hole is ours by its bit.
        let moved = unsafe {
            madvise(from.cast(), LARGE, Advice::LinuxPopulateWrite).map_err(io::Error::from).and_then(|()| {
                self.mover.move_frames(self.address(slot), from as usize, LARGE).map_err(|(_, error)| error)
            })
        };
        if let Err(error) = moved {
            // SAFETY: ours as above, and nobody holds references.
            let _ = unsafe { (nursery.zap(0, LARGE), self.slots.zap(slot * LARGE, LARGE)) };
            give_bit(&self.holes, slot);
            return Err(error);
        }
        Ok(slot)
    }

    fn address(&self, slot: usize) -> usize {
        self.slots.start() + slot * LARGE
    }

    /// Gives one free frame back to the kernel and to the budget, if there is a free one.
    /// Never blocks, never allocates.
    pub fn trim(&self) -> bool {
        let Some(slot) = take_bit(&self.frames, self.count) else { return false };
        // SAFETY: the frame's bit makes it ours; nobody holds references.
        if unsafe { self.slots.zap(slot * LARGE, LARGE) }.is_err() {
            give_bit(&self.frames, slot);
            return false;
        }
        give_bit(&self.holes, slot);
        self.budget.release(LARGE as u64);
        true
    }

    /// Moves the 2 MiB at `address` out into a hole, where they become a free frame.
    ///
    /// # Safety
    ///
    /// The caller owns the page at `address` and nobody holds references into it.
    pub(crate) unsafe fn move_out(&self, address: usize) -> io::Result<()> {
        let slot = take_bit(&self.holes, self.count).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the hole is ours by its bit; the page by the caller's contract.
        match unsafe { self.mover.move_frames(self.address(slot), address, LARGE) } {
            Ok(()) => {
                give_bit(&self.frames, slot);
                Ok(())
            }
            Err((0, error)) if error.raw_os_error() != Some(libc::ENOENT) => {
                give_bit(&self.holes, slot);
                Err(error)
            }
            Err(_) => {
                // Part of the frame has left, or somebody from outside has dropped it. Its bytes are clean: drop
                // what is left of it and count it as gone.
                // SAFETY: as above.
                unsafe {
                    self.slots.zap(slot * LARGE, LARGE)?;
                    drop_frames(address as *mut u8, LARGE)?;
                }
                give_bit(&self.holes, slot);
                self.budget.release(LARGE as u64);
                Ok(())
            }
        }
    }

    /// Counts `frames` as gone that were unmapped together with an object's pages.
    pub(crate) fn forget(&self, frames: u64) {
        self.budget.release(frames * LARGE as u64);
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        while self.trim() {}
    }
}

impl Frame {
    /// The bytes, for whoever fills them.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the slot holds a frame that is this value's own until drop; the Arc keeps the region.
        unsafe { std::slice::from_raw_parts_mut(self.pool.slots.pointer(self.slot * LARGE), LARGE) }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: as above, shared.
        unsafe { std::slice::from_raw_parts(self.pool.slots.pointer(self.slot * LARGE), LARGE) }
    }

    /// Moves the frame to `address`, where `uffd` has the range registered. On error the caller keeps nothing:
    /// bytes that have moved are in place, and the error says how many.
    ///
    /// # Safety
    ///
    /// The caller owns the absent page at `address`.
    pub(crate) unsafe fn move_to(
        self,
        uffd: &Userfaultfd,
        address: usize,
    ) -> Result<(), (usize, Frame, io::Error)> {
        let from = self.pool.address(self.slot);
        // SAFETY: the frame is this value's own, the page is the caller's.
        match unsafe { uffd.move_frames(address, from, LARGE) } {
            Ok(()) => {
                give_bit(&self.pool.holes, self.slot);
                // The frame lives in the object now; the slot is a hole. Only the pool's count goes down.
                let mut this = std::mem::ManuallyDrop::new(self);
                // SAFETY: `this` is never used again; its Arc is dropped exactly once.
                unsafe { std::ptr::drop_in_place(&mut this.pool) };
                Ok(())
            }
            Err((moved, error)) => Err((moved, self, error)),
        }
    }

    /// Gives what is left of a frame to the kernel, after part of it moved away; the bytes that moved stay
    /// counted as one frame.
    pub(crate) fn abandon_rest(self) {
        // SAFETY: the slot is this value's own; no references are left.
        let _ = unsafe { self.pool.slots.zap(self.slot * LARGE, LARGE) };
        give_bit(&self.pool.holes, self.slot);
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never used again; its Arc is dropped exactly once.
        unsafe { std::ptr::drop_in_place(&mut this.pool) };
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        give_bit(&self.pool.frames, self.slot);
    }
}
