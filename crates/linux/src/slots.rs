//! Tables that a signal handler may read: no locks, no allocation, entries that go away safely.

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::locks::{Rank, RankedMutex};

const CHUNK: usize = 256;
const CHUNKS: usize = 512;

/// The most entries that one table holds.
pub const MAX_SLOTS: usize = CHUNK * CHUNKS;

#[derive(Debug)]
struct Slot<T> {
    users: AtomicU32,
    entry: AtomicPtr<T>,
}

/// A table of shared values, indexed by small numbers.
///
/// Readers enter a slot (count themselves), use the value, and leave. Removal empties the slot first and then
/// waits until nobody is inside, so that the value outlives every reader.
#[derive(Debug)]
pub struct SlotTable<T> {
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    free: RankedMutex<Vec<usize>>,
    used: AtomicUsize,
}

impl<T: Send + Sync> SlotTable<T> {
    /// An empty table.
    pub const fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            free: RankedMutex::new(Rank::FreeSlots, Vec::new()),
            used: AtomicUsize::new(0),
        }
    }

    fn slot(&self, index: usize) -> Option<&Slot<T>> {
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    /// Puts `value` into a free slot and returns the slot's index, or gives the value back when the table is full.
    pub fn insert(&self, value: Arc<T>) -> Result<usize, Arc<T>> {
        let mut free = self.free.lock();
        let index = match free.pop() {
            Some(index) => index,
            None if self.used.load(Ordering::Relaxed) < MAX_SLOTS => self.used.load(Ordering::Relaxed),
            None => return Err(value),
        };
        let new_slot = || Slot { users: AtomicU32::new(0), entry: AtomicPtr::new(std::ptr::null_mut()) };
        let chunk = self.chunks[index / CHUNK].get_or_init(|| (0..CHUNK).map(|_| new_slot()).collect());
        chunk[index % CHUNK].entry.store(Arc::into_raw(value).cast_mut(), Ordering::SeqCst);
        self.used.fetch_max(index + 1, Ordering::AcqRel);
        Ok(index)
    }

    /// Calls `use_it` with the value in slot `index`, if there is one. Never blocks, never allocates by itself.
    pub fn with<R>(&self, index: usize, use_it: impl FnOnce(&T) -> R) -> Option<R> {
        let slot = self.slot(index)?;
        slot.users.fetch_add(1, Ordering::SeqCst);
        let leave = Leave(&slot.users);
        let entry = slot.entry.load(Ordering::SeqCst);
        // SAFETY: a non-null entry came from `Arc::into_raw`; `remove` takes it back only after it emptied the
        // slot and then saw `users` at zero, and this thread counted itself before it loaded the entry.
        let result = unsafe { entry.as_ref() }.map(use_it);
        drop(leave);
        result
    }

    /// Takes the value out of slot `index`, after the last reader has left.
    pub fn remove(&self, index: usize) -> Option<Arc<T>> {
        let slot = self.slot(index)?;
        let entry = slot.entry.swap(std::ptr::null_mut(), Ordering::SeqCst);
        if entry.is_null() {
            return None;
        }
        while slot.users.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        self.free.lock().push(index);
        // SAFETY: the pointer came from `Arc::into_raw` in `insert`; the swap made this call its only owner.
        Some(unsafe { Arc::from_raw(entry) })
    }

    /// One past the highest index in use so far.
    pub fn end(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

impl<T: Send + Sync> Default for SlotTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for SlotTable<T> {
    fn drop(&mut self) {
        for chunk in self.chunks.iter().filter_map(OnceLock::get) {
            for slot in chunk {
                let entry = slot.entry.swap(std::ptr::null_mut(), Ordering::SeqCst);
                if !entry.is_null() {
                    // SAFETY: from `Arc::into_raw`; `&mut self` proves that no reader is left.
                    drop(unsafe { Arc::from_raw(entry) });
                }
            }
        }
    }
}

struct Leave<'a>(&'a AtomicU32);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

const GRANULE_SHIFT: usize = 21;
const LEAF_SHIFT: usize = 33;
const LEAF_LEN: usize = 1 << (LEAF_SHIFT - GRANULE_SHIFT);
const ROOT_LEN: usize = 1 << (47 - LEAF_SHIFT);

/// From an address to a slot number, by 2 MiB granules: two loads, no locks.
///
/// Leaves (16 KiB for each 8 GiB of addresses that were ever used) are kept for good.
#[derive(Debug)]
pub struct AddressTable {
    leaves: [OnceLock<Box<[AtomicU32]>>; ROOT_LEN],
}

impl AddressTable {
    /// A table in which no address is known.
    #[allow(clippy::large_stack_arrays, reason = "constant-evaluated into a static")]
    pub const fn new() -> Self {
        Self { leaves: [const { OnceLock::new() }; ROOT_LEN] }
    }

    /// Lets every granule of `[start, start + len)` lead to `slot`, or to nothing.
    pub fn set(&self, start: usize, len: usize, slot: Option<usize>) {
        let value = slot.map_or(0, |slot| slot as u32 + 1);
        for granule in start >> GRANULE_SHIFT..(start + len).div_ceil(1 << GRANULE_SHIFT) {
            let Some(root) = self.leaves.get(granule / LEAF_LEN) else { return };
            let leaf = root.get_or_init(|| (0..LEAF_LEN).map(|_| AtomicU32::new(0)).collect());
            leaf[granule % LEAF_LEN].store(value, Ordering::Release);
        }
    }

    /// The slot to which `address` leads. Never blocks, never allocates.
    pub fn get(&self, address: usize) -> Option<usize> {
        let granule = address >> GRANULE_SHIFT;
        let leaf = self.leaves.get(granule / LEAF_LEN)?.get()?;
        (leaf[granule % LEAF_LEN].load(Ordering::Acquire) as usize).checked_sub(1)
    }
}

impl Default for AddressTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_value_outlives_its_readers() {
        static TABLE: SlotTable<Vec<u64>> = SlotTable::new();
        let writer = std::thread::spawn(|| {
            for round in 0..2000u64 {
                let index = TABLE.insert(Arc::new(vec![round; 64])).unwrap();
                assert_eq!(index, 0);
                let value = TABLE.remove(index).unwrap();
                assert_eq!(Arc::strong_count(&value), 1);
            }
        });
        let mut seen = 0u64;
        while !writer.is_finished() {
            TABLE.with(0, |value| {
                assert!(value.iter().all(|word| *word == value[0]));
                seen += 1;
            });
        }
        writer.join().unwrap();
        assert!(TABLE.with(0, |_| ()).is_none());
        println!("reads of a live value: {seen}");
    }

    #[test]
    fn addresses_lead_to_slots_by_granule() {
        static TABLE: AddressTable = AddressTable::new();
        let start = 0x7000_0000_0000 - LARGE_TEST;
        TABLE.set(start, 3 * LARGE_TEST, Some(7));
        assert_eq!(TABLE.get(start), Some(7));
        assert_eq!(TABLE.get(start + 3 * LARGE_TEST - 1), Some(7));
        assert_eq!(TABLE.get(start + 3 * LARGE_TEST), None);
        TABLE.set(start, 3 * LARGE_TEST, None);
        assert_eq!(TABLE.get(start), None);
        assert_eq!(TABLE.get(usize::MAX), None);
    }
    const LARGE_TEST: usize = 1 << GRANULE_SHIFT;
}
