//! The page word under every interleaving that loom can make of a few threads.
//!
//! The frame is an atomic that is read and written relaxed, so only the word orders the accesses: loom tries
//! every value that a relaxed load may see, and a missing acquire or release shows up as stale bytes.

use super::*;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;

const BYTES: u32 = 0x0b17_e500;
const NEWER: u32 = 0x0b17_e501;
const ZAPPED: u32 = 0xdead_dead;
const CLAIM: Transition = Transition::Claim { deferred: false };
const SUPPLY: Transition = Transition::Supply { stamp: 1, heat: 0 };
const EVICTED: Transition = Transition::Evicted { stamp: 2 };

struct Page {
    word: PageWord,
    frame: AtomicU32,
}

impl Page {
    fn absent() -> Arc<Self> {
        Arc::new(Self { word: PageWord::new(), frame: AtomicU32::new(ZAPPED) })
    }

    fn filling() -> Arc<Self> {
        let page = Self::absent();
        page.word.advance(CLAIM).unwrap();
        page
    }

    fn clean() -> Arc<Self> {
        let page = Self::filling();
        page.fill(BYTES);
        page
    }

    fn fill(&self, bytes: u32) -> Advanced {
        self.frame.store(bytes, Ordering::Relaxed);
        self.word.advance(SUPPLY).unwrap()
    }

    /// Takes the frame away if the word allows it.
    fn evict(&self) -> bool {
        if self.word.advance(Transition::Evict).is_err() {
            return false;
        }
        self.frame.store(ZAPPED, Ordering::Relaxed);
        self.word.advance(EVICTED).unwrap();
        true
    }

    /// Pins, reads twice, unpins: what was read, or `None` if the page was not Clean.
    fn read(&self) -> Option<u32> {
        self.word.advance(Transition::Pin).ok()?;
        let first = self.frame.load(Ordering::Relaxed);
        thread::yield_now();
        let second = self.frame.load(Ordering::Relaxed);
        assert_eq!(first, second, "the bytes changed under a pin");
        self.word.advance(Transition::Unpin).unwrap();
        Some(first)
    }
}

#[test]
fn loom_pin_and_evict_exclude_each_other() {
    loom::model(|| {
        let page = Page::clean();
        let other = page.clone();
        let reader = thread::spawn(move || {
            if let Some(bytes) = other.read() {
                assert_eq!(bytes, BYTES, "a pinned page was evicted");
            }
        });
        page.evict();
        reader.join().unwrap();
        assert_eq!(page.word.load().pins(), 0);
    });
}

#[test]
fn loom_two_pins_and_an_evictor() {
    loom::model(|| {
        let page = Page::clean();
        let readers = [page.clone(), page.clone()].map(|page| {
            thread::spawn(move || {
                if let Some(bytes) = page.read() {
                    assert_eq!(bytes, BYTES, "a pinned page was evicted");
                }
            })
        });
        let evicted = page.evict();
        for reader in readers {
            reader.join().unwrap();
        }
        let state = if evicted { State::Absent } else { State::Clean };
        assert_eq!(page.word.load().state(), state);
    });
}

#[test]
fn loom_one_of_two_claimers_wins() {
    loom::model(|| {
        let page = Page::absent();
        let other = page.clone();
        let rival = thread::spawn(move || other.word.advance(CLAIM).is_ok());
        let here = page.word.advance(CLAIM).is_ok();
        let there = rival.join().unwrap();
        assert!(here != there, "claimed here: {here}, there: {there}");
        assert_eq!(page.word.load().state(), State::Filling);
    });
}

/// Who sleeps on a word sleeps only while the word is what it slept on: either the word has changed when the
/// sleeper looks again, or whoever changes it later was told to wake.
#[test]
fn loom_no_wake_up_is_lost() {
    loom::model(|| {
        let page = Page::filling();
        let other = page.clone();
        let filler = thread::spawn(move || other.fill(BYTES).must_wake());
        let slept_on = page.word.announce_waiter();
        let wakes = filler.join().unwrap();
        match slept_on {
            Some(word) => {
                assert!(word.has_waiters());
                assert!(wakes, "the filler was not told of the sleeper");
                assert_ne!(page.word.load(), word, "the sleeper would not notice");
            }
            None => assert!(!wakes, "the filler was told of a sleeper that is none"),
        }
        assert_eq!(page.read(), Some(BYTES));
    });
}

#[test]
fn loom_two_sleepers_and_one_filler() {
    loom::model(|| {
        let page = Page::filling();
        let sleepers =
            [page.clone(), page.clone()].map(|page| thread::spawn(move || page.word.announce_waiter()));
        let wakes = page.fill(BYTES).must_wake();
        let slept = sleepers.map(|sleeper| sleeper.join().unwrap().is_some());
        assert_eq!(wakes, slept[0] || slept[1]);
    });
}

#[test]
fn loom_an_evictors_sleeper_is_woken() {
    loom::model(|| {
        let page = Page::clean();
        page.word.advance(Transition::Evict).unwrap();
        let other = page.clone();
        let evictor = thread::spawn(move || {
            other.frame.store(ZAPPED, Ordering::Relaxed);
            other.word.advance(EVICTED).unwrap().must_wake()
        });
        let slept = page.word.announce_waiter().is_some();
        assert_eq!(evictor.join().unwrap(), slept);
    });
}

#[test]
fn loom_held_off_pages_are_not_claimed() {
    loom::model(|| {
        let page = Page::absent();
        let other = page.clone();
        let filler = thread::spawn(move || {
            let won = other.word.advance(CLAIM).is_ok();
            if won {
                other.fill(BYTES);
            }
            won
        });
        let held = page.word.advance(Transition::Hold).is_ok();
        if held {
            // The zap of the run: nobody may have put bytes here meanwhile.
            page.frame.store(NEWER, Ordering::Relaxed);
            assert_eq!(page.frame.load(Ordering::Relaxed), NEWER, "filled while held off");
            page.word.advance(Transition::Release).unwrap();
        }
        let filled = filler.join().unwrap();
        assert!(held || filled);
        let state = if filled { State::Clean } else { State::Absent };
        assert_eq!(page.word.load().state(), state);
        if filled {
            assert_eq!(page.read(), Some(BYTES));
        }
    });
}

#[test]
fn loom_pinned_bytes_are_those_of_the_last_supply() {
    loom::model(|| {
        let page = Page::clean();
        let other = page.clone();
        let reader = thread::spawn(move || other.read());
        let evicted = page.evict();
        if evicted {
            page.word.advance(CLAIM).unwrap();
            page.fill(NEWER);
        }
        match reader.join().unwrap() {
            Some(bytes) => assert!(bytes == BYTES || (evicted && bytes == NEWER), "read {bytes:#x}"),
            None => assert!(evicted),
        }
    });
}

/// A page open to stores or not, as the hardware sees it, with the bytes that its pager has.
struct Stored {
    word: PageWord,
    open: AtomicU32,
    frame: AtomicU32,
    pager: AtomicU32,
}

impl Stored {
    fn dirty() -> Arc<Self> {
        let word = PageWord::new();
        word.advance(CLAIM).unwrap();
        word.advance(Transition::SupplyDirty { stamp: 0, heat: 0 }).unwrap();
        let (open, frame, pager) = (AtomicU32::new(1), AtomicU32::new(BYTES), AtomicU32::new(0));
        Arc::new(Self { word, open, frame, pager })
    }

    /// A store like any program's: if the page is protected it faults, and the fault opens the page. The check and
    /// the store are one step for the hardware, hence one compare-and-swap that leaves `open` as it is.
    fn store(&self, bytes: u32) {
        loop {
            if self.open.compare_exchange(1, 2, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.frame.store(bytes, Ordering::Relaxed);
                self.open.store(1, Ordering::Release);
                return;
            }
            if self.word.advance(Transition::LockToStore).is_ok() {
                self.open.store(1, Ordering::Release);
                self.word.advance(Transition::Stored).unwrap();
            }
            thread::yield_now();
        }
    }

    /// One round of write-back, if the page may be written.
    fn write_back(&self) {
        if self.word.advance(Transition::LockToWrite).is_err() {
            return;
        }
        while self.open.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Acquire) == Err(2) {
            thread::yield_now();
        }
        let copy = self.frame.load(Ordering::Relaxed);
        self.word.advance(Transition::Copied).unwrap();
        self.pager.store(copy, Ordering::Relaxed);
        self.word.advance(Transition::Written).unwrap();
    }
}

#[test]
fn loom_a_clean_page_is_what_its_pager_has() {
    loom::model(|| {
        let page = Stored::dirty();
        let other = page.clone();
        let storer = thread::spawn(move || other.store(NEWER));
        page.write_back();
        storer.join().unwrap();
        if page.word.load().state() == State::Clean {
            assert_eq!(page.frame.load(Ordering::Relaxed), page.pager.load(Ordering::Relaxed));
            assert_eq!(page.open.load(Ordering::Relaxed), 0, "a Clean page is open to stores");
        }
        assert_eq!(page.frame.load(Ordering::Relaxed), NEWER);
        page.write_back();
        assert_eq!(page.word.load().state(), State::Clean);
        assert_eq!(page.pager.load(Ordering::Relaxed), NEWER, "a store was lost");
    });
}

#[test]
fn loom_one_exclusive_pin_or_shared_ones() {
    loom::model(|| {
        let page = Stored::dirty();
        let other = page.clone();
        let rival = thread::spawn(move || {
            if other.word.advance(Transition::LockToPinMut).is_err() {
                return;
            }
            other.word.advance(Transition::PinnedMut).unwrap();
            other.frame.store(NEWER, Ordering::Relaxed);
            other.word.advance(Transition::UnpinMut).unwrap();
        });
        if page.word.advance(Transition::LockToPin).is_ok() {
            page.word.advance(Transition::PinnedDirty).unwrap();
            let first = page.frame.load(Ordering::Relaxed);
            thread::yield_now();
            assert_eq!(first, page.frame.load(Ordering::Relaxed), "the bytes changed under a pin");
            page.word.advance(Transition::Unpin).unwrap();
        }
        rival.join().unwrap();
        assert_eq!(page.word.load().pins(), 0);
    });
}

#[test]
fn loom_a_pin_becomes_exclusive_when_no_other_pin_is_left() {
    loom::model(|| {
        let page = Page::clean();
        page.word.advance(Transition::Pin).unwrap();
        let other = page.clone();
        let reader = thread::spawn(move || {
            if let Some(bytes) = other.read() {
                assert!(bytes == BYTES || bytes == NEWER);
            }
        });
        if page.word.advance(Transition::Upgrade).is_ok() {
            page.word.advance(Transition::PinnedMut).unwrap();
            page.frame.store(NEWER, Ordering::Relaxed);
            page.word.advance(Transition::UnpinMut).unwrap();
        } else {
            page.word.advance(Transition::Unpin).unwrap();
        }
        reader.join().unwrap();
        assert_eq!(page.word.load().pins(), 0);
    });
}

#[test]
fn loom_bytes_that_are_read_between_two_looks_at_one_version_belong_together() {
    loom::model(|| {
        let page = Arc::new((PageWord::new(), AtomicU32::new(1), AtomicU32::new(1)));
        page.0.advance(CLAIM).unwrap();
        page.0.advance(Transition::SupplyDirty { stamp: 0, heat: 0 }).unwrap();
        let other = page.clone();
        let writer = thread::spawn(move || {
            let (word, first, second) = &*other;
            word.advance(Transition::LockToPinMut).unwrap();
            word.advance(Transition::PinnedMut).unwrap();
            first.store(2, Ordering::Relaxed);
            second.store(2, Ordering::Relaxed);
            word.advance(Transition::UnpinMut).unwrap();
        });
        let (word, first, second) = &*page;
        let before = word.load();
        let seen = (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed));
        if word.still(before) {
            assert!(seen == (1, 1) || seen == (2, 2), "{seen:?}");
        }
        writer.join().unwrap();
    });
}
