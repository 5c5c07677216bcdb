//! What the processes share: orders, answers, whose turn it is.

use super::{Order, Process};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Room for what answers carry beside numbers.
const DATA_BYTES: usize = 8 << 20;

/// A signal that an access raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signal {
    /// SIGSEGV or SIGBUS.
    pub number: i32,
    /// si_code.
    pub code: i32,
    /// si_addr.
    pub address: u64,
}

/// What became of an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What the call returned, or what was loaded; an error number, negative.
    pub value: i64,
    /// The signal that it raised.
    pub signal: Option<Signal>,
    /// What it gave beside.
    pub data: Vec<u8>,
}

/// An answer in shared memory.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) value: i64,
    pub(super) signal: Option<Signal>,
    pub(super) data: (usize, usize),
}

#[repr(C)]
struct Header {
    turn: AtomicU32,
    data_used: AtomicUsize,
}

/// One mapping that forked processes share.
pub(super) struct Region {
    base: *mut u8,
    bytes: usize,
    orders: Vec<(Process, Order)>,
    files: Vec<RawFd>,
}

const HEADER_BYTES: usize = 64;

impl Region {
    pub(super) fn new(orders: &[(Process, Order)], files: &[RawFd]) -> io::Result<Self> {
        let bytes = HEADER_BYTES + std::mem::size_of_val(orders).max(1) * 8 + DATA_BYTES;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the kernel's choice; it is unmapped in `drop` only.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), bytes, orders: orders.to_vec(), files: files.to_vec() })
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is page aligned, at least a header long, zero is a valid header, and both fields are
        // atomics.
        unsafe { &*self.base.cast::<Header>() }
    }

    pub(super) fn orders(&self) -> &[(Process, Order)] {
        &self.orders
    }

    pub(super) fn file(&self, index: i32) -> RawFd {
        usize::try_from(index).ok().and_then(|index| self.files.get(index)).copied().unwrap_or(-1)
    }

    /// The index of the next order.
    pub(super) fn turn(&self) -> &AtomicU32 {
        &self.header().turn
    }

    fn slot(&self, index: usize) -> *mut Slot {
        assert!(index < self.orders.len());
        let offset = HEADER_BYTES + index * std::mem::size_of::<Slot>();
        assert!(offset + std::mem::size_of::<Slot>() <= self.data_start());
        // SAFETY: inside the mapping, by the assertion above.
        unsafe { self.base.add(offset).cast() }
    }

    fn data_start(&self) -> usize {
        self.bytes - DATA_BYTES
    }

    /// Answers the order whose turn it is.
    pub(super) fn put(&self, index: usize, slot: Slot) {
        // SAFETY: the slot is inside the mapping and aligned to 8; only the process whose turn it is writes.
        unsafe { self.slot(index).write(slot) };
    }

    /// Where data of the next answer goes: address, offset, and room.
    pub(super) fn room(&self) -> (*mut u8, usize, usize) {
        let used = self.header().data_used.load(Ordering::Relaxed);
        // SAFETY: `used` is at most DATA_BYTES, so this is inside the mapping or one past it.
        (unsafe { self.base.add(self.data_start() + used) }, used, DATA_BYTES - used)
    }

    /// Keeps `bytes` of the room.
    pub(super) fn keep(&self, bytes: usize) {
        self.header().data_used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All answers, once the processes have ended.
    pub(super) fn answers(&self) -> io::Result<Vec<Answer>> {
        let done = self.turn().load(Ordering::Acquire) as usize;
        if done != self.orders.len() {
            let which = self.orders.get(done);
            return Err(io::Error::other(format!("the process ended at order {done}: {which:?}")));
        }
        Ok((0..done).map(|index| self.answer(index)).collect())
    }

    fn answer(&self, index: usize) -> Answer {
        // SAFETY: inside the mapping; whoever carried out the order has written it before it passed the turn on.
        let slot = unsafe { self.slot(index).read() };
        let (offset, length) = slot.data;
        assert!(offset + length <= DATA_BYTES);
        let mut data = vec![0; length];
        // SAFETY: inside the mapping by the assertion; the processes that wrote there have ended.
        unsafe {
            let from = self.base.add(self.data_start() + offset);
            std::ptr::copy_nonoverlapping(from, data.as_mut_ptr(), length);
        }
        Answer { value: slot.value, signal: slot.signal, data }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody has its addresses any more.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}
