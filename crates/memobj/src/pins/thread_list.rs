//! The pins that each thread has made, and that live.
//!
//! A thread has one [`List`] for itself, with a number that no other thread has meanwhile. It puts a pin into a free slot
//! of its list by plain stores; whoever drops the pin frees the slot by one. Only the thread itself looks at what its
//! slots say, so nothing is read while it changes. What finds no free slot goes into a table under a lock.
//!
//! Lists are never freed: a pin can outlive the thread that made it. When a thread ends, its list is the next one's, and
//! what pins are left in it are nobody's.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::pin_budget::Shard;

/// Pins that a thread can have at once without a lock.
const SLOTS: usize = 64;
/// A slot that holds no pin.
const FREE: usize = 0;
/// The pin's thread has ended. Like [`FREE`], no object has this key: keys are addresses of larger things.
const NOBODYS: usize = 1;

/// Pages of the object with this key; an address, so never 0 or 1.
#[derive(Debug, Default)]
struct Slot {
    key: AtomicUsize,
    start: AtomicU64,
    end: AtomicU64,
}

impl Slot {
    fn shows(&self, key: usize, page: PageIndex) -> bool {
        let pages =
            PageRange { start: self.start.load(Ordering::Relaxed), end: self.end.load(Ordering::Relaxed) };
        self.key.load(Ordering::Relaxed) == key && pages.contains(page)
    }
}

/// Pins that found no slot. By place: whose pages, and which.
#[derive(Debug, Default)]
struct Table {
    taken: Vec<Option<(usize, PageRange)>>,
    free: Vec<usize>,
}

/// The pins of one thread at a time.
#[repr(align(128))]
struct List {
    slots: [Slot; SLOTS],
    /// The slot taken last. Of the thread alone.
    last: AtomicUsize,
    number: usize,
    is_taken: AtomicBool,
    /// A leaf: no other lock is taken while it is held.
    table: Mutex<Table>,
    next: OnceLock<&'static List>,
}

impl List {
    fn new(number: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            slots: std::array::from_fn(|_| Slot::default()),
            last: AtomicUsize::new(0),
            number,
            is_taken: AtomicBool::new(true),
            table: Mutex::default(),
            next: OnceLock::new(),
        }))
    }

    /// A list that no thread has: the first that is free, or a new one behind the last.
    fn obtain() -> &'static Self {
        static FIRST: OnceLock<&'static List> = OnceLock::new();
        let (mut link, mut number) = (&FIRST, 0);
        loop {
            let mut is_new = false;
            let list = link.get_or_init(|| {
                is_new = true;
                Self::new(number)
            });
            // Acquire: what the thread before has done to the list has happened.
            if is_new || !list.is_taken.swap(true, Ordering::Acquire) {
                return list;
            }
            (link, number) = (&list.next, number + 1);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by the list's thread only.
    #[inline]
    fn put(&'static self, key: usize, pages: PageRange) -> NotedPin {
        let last = self.last.load(Ordering::Relaxed);
        for step in 0..SLOTS {
            let place = (last + step) % SLOTS;
            let slot = &self.slots[place];
            // Acquire: what was done under the pin before, by whoever dropped it, has happened.
            if slot.key.load(Ordering::Acquire) == FREE {
                slot.start.store(pages.start, Ordering::Relaxed);
                slot.end.store(pages.end, Ordering::Relaxed);
                slot.key.store(key, Ordering::Relaxed);
                self.last.store(place, Ordering::Relaxed);
                return NotedPin { list: Some(self), place };
            }
        }
        self.put_in_table(key, pages)
    }

    #[cold]
    fn put_in_table(&'static self, key: usize, pages: PageRange) -> NotedPin {
        let mut table = self.table();
        let entry = Some((key, pages));
        let place = match table.free.pop() {
            Some(place) => {
                table.taken[place] = entry;
                place
            }
            None => {
                table.taken.push(entry);
                table.taken.len() - 1
            }
        };
        NotedPin { list: Some(self), place: SLOTS + place }
    }

    #[inline]
    fn remove(&self, place: usize) {
        match self.slots.get(place) {
            Some(slot) => slot.key.store(FREE, Ordering::Release),
            None => self.remove_from_table(place - SLOTS),
        }
    }

    #[cold]
    fn remove_from_table(&self, place: usize) {
        let mut table = self.table();
        table.taken[place] = None;
        table.free.push(place);
    }

    /// Whether one of the pins is of `page`. Called by the list's thread only.
    fn shows(&self, key: usize, page: PageIndex) -> bool {
        let is_it = |entry: &Option<(usize, PageRange)>| {
            entry.as_ref().is_some_and(|(its, pages)| *its == key && pages.contains(page))
        };
        self.slots.iter().any(|slot| slot.shows(key, page)) || self.table().taken.iter().any(is_it)
    }

    /// What is left is nobody's. Called by the list's thread only, at its end.
    fn disown(&self) {
        for slot in &self.slots {
            let key = slot.key.load(Ordering::Relaxed);
            if key != FREE {
                // Fails where the pin is dropped this moment: then the slot is free.
                let _ = slot.key.compare_exchange(key, NOBODYS, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        self.table().taken.iter_mut().flatten().for_each(|(key, _)| *key = NOBODYS);
    }
}

/// The list of the thread that it belongs to.
struct Mine(&'static List);

impl Drop for Mine {
    fn drop(&mut self) {
        self.0.disown();
        self.0.is_taken.store(false, Ordering::Release);
    }
}

thread_local! {
    static MINE: Mine = Mine(List::obtain());
}

/// A pin in the list of the thread that made it, until dropped.
pub(crate) struct NotedPin {
    /// `None`: the thread is ending, and has no list any more.
    list: Option<&'static List>,
    place: usize,
}

impl fmt::Debug for NotedPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotedPin")
    }
}

impl Drop for NotedPin {
    #[inline]
    fn drop(&mut self) {
        if let Some(list) = self.list {
            list.remove(self.place);
        }
    }
}

/// The calling thread, as pins know it.
#[derive(Clone, Copy)]
pub(crate) struct ThisThread(Option<&'static List>);

impl ThisThread {
    /// Takes a list for the thread, the first time.
    #[inline]
    pub(crate) fn get() -> Self {
        Self(MINE.try_with(|mine| mine.0).ok())
    }

    /// The thread's share of counts that are kept apart.
    #[inline]
    pub(crate) fn shard(self) -> Shard {
        Shard::of(self.0.map_or(0, |list| list.number))
    }

    /// Notes that the thread pins `pages` of the object with this key.
    #[inline]
    pub(crate) fn note(self, key: usize, pages: PageRange) -> NotedPin {
        match self.0 {
            Some(list) => list.put(key, pages),
            None => NotedPin { list: None, place: 0 },
        }
    }

    /// Whether a pin of `page` that the thread has made lives.
    pub(crate) fn pins(self, key: usize, page: PageIndex) -> bool {
        self.0.is_some_and(|list| list.shows(key, page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: usize = 4096;

    fn note(page: u64) -> NotedPin {
        ThisThread::get().note(KEY, PageRange::one(PageIndex(page)))
    }

    fn pins(page: u64) -> bool {
        ThisThread::get().pins(KEY, PageIndex(page))
    }

    #[test]
    fn pins_are_their_makers_whoever_drops_them_and_in_whatever_number() {
        let mut noted: Vec<NotedPin> = (0..3 * SLOTS as u64).map(note).collect();
        assert!((0..3 * SLOTS as u64).all(pins) && !pins(3 * SLOTS as u64));
        assert!(!ThisThread::get().pins(KEY + 8, PageIndex(0)));
        std::thread::spawn(|| assert!(!pins(0))).join().unwrap();
        // Every other one, on another thread; some of them in slots, some in the table.
        let others: Vec<NotedPin> = (0..noted.len() / 2).map(|index| noted.remove(index)).collect();
        std::thread::spawn(move || drop(others)).join().unwrap();
        assert!((0..3 * SLOTS as u64).all(|page| pins(page) == (page % 2 == 1)));
        let again: Vec<NotedPin> = (0..2 * SLOTS as u64).map(|page| note(1000 + page)).collect();
        assert!((0..2 * SLOTS as u64).all(|page| pins(1000 + page)));
        drop((noted, again));
        assert!(!(0..2000).any(pins));
    }

    #[test]
    fn what_a_thread_leaves_is_not_the_next_ones() {
        let leave = || (note(7), (0..2 * SLOTS as u64).map(note).collect::<Vec<_>>(), ThisThread::get().0);
        let (first, more, list) = std::thread::spawn(leave).join().unwrap();
        let list = list.unwrap().number;
        // The lists that are free now are tried until it comes around.
        std::thread::scope(|scope| {
            let is_the_same = || {
                assert!(!pins(7), "a pin of a thread that has ended is this thread's");
                let _own = note(9);
                assert!(pins(9) && !pins(7));
                ThisThread::get().0.unwrap().number == list
            };
            assert!((0..1000).any(|_| scope.spawn(is_the_same).join().unwrap()), "a list is not used again");
        });
        drop((first, more));
    }

    #[test]
    fn threads_that_run_at_once_have_numbers_of_their_own() {
        let barrier = std::sync::Barrier::new(8);
        let number = || {
            let number = ThisThread::get().0.unwrap().number;
            barrier.wait();
            number
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(number)).collect();
            let mut numbers: Vec<usize> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), 8);
        });
    }
}
