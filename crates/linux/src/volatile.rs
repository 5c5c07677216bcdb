//! Memory that others may change or take away, as words that are loaded one by one.
//!
//! No `&[u8]` may point at such memory: the compiler would be free to read it twice and get two answers. A
//! volatile load happens once, and faults or traps like any other.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// A window of mapped memory, read by volatile loads of eight bytes, little endian.
///
/// # Soundness
///
/// It may be copied: it borrows what keeps the memory mapped, and only loads. It is made of objects that are read only,
/// of which no `&mut` exists and to which nobody stores: bytes are put in place while a page is absent, when a load sleeps
/// or traps.
#[derive(Clone, Copy, Debug)]
pub struct VolatileWords<'a> {
    base: *const u64,
    len: u64,
    mapped: PhantomData<&'a u64>,
}

// SAFETY: only loads are offered, and loads may race with nobody: the memory is written only while it is absent.
unsafe impl Send for VolatileWords<'_> {}
// SAFETY: as above.
unsafe impl Sync for VolatileWords<'_> {}

impl<'a> VolatileWords<'a> {
    /// # Safety
    ///
    /// `base` is aligned to eight bytes, and `len` words from it on stay mapped readable during `'a`.
    pub(crate) unsafe fn new(base: *const u64, len: u64) -> Self {
        Self { base, len, mapped: PhantomData }
    }

    /// How many words.
    #[inline]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Word `index`. May fault, and traps if the page has failed.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn load(&self, index: u64) -> u64 {
        assert!(index < self.len, "word {index} of {}", self.len);
        // SAFETY: the word lies in the window (asserted), which is mapped and aligned (`new`).
        u64::from_le(unsafe { self.base.add(index as usize).read_volatile() })
    }

    /// The wrapping sum of every `step`-th word of `words`: one pass over the memory with one check of bounds.
    ///
    /// # Panics
    ///
    /// If the range is reversed or ends past the window.
    pub fn sum(&self, words: Range<u64>, step: u64) -> u64 {
        assert!(words.start <= words.end && words.end <= self.len, "sum of {words:?} of {} words", self.len);
        // SAFETY: all words lie in the window (asserted), which is mapped and aligned (`new`).
        unsafe { sum_words(self.base, words, step) }
    }
}

/// A window of mapped memory that others may store to at any time, as atomic words of eight bytes, little endian.
///
/// All operations are relaxed: they say nothing of other memory.
///
/// Neither `Clone` nor `Copy`: whoever is handed one stands in for everybody who may store, and puts it into a guard
/// that keeps references away until it is dropped. A copy would outlive that guard.
#[derive(Debug)]
pub struct SharedWords<'a> {
    base: *mut u64,
    len: u64,
    mapped: PhantomData<&'a AtomicU64>,
}

// SAFETY: atomic operations only.
unsafe impl Send for SharedWords<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedWords<'_> {}

impl<'a> SharedWords<'a> {
    /// # Safety
    ///
    /// `base` is aligned to eight bytes, `len` words from it on stay mapped readable and writable during `'a`, and
    /// nobody holds a mutable reference into them, or a shared one that stores are not kept from.
    pub(crate) unsafe fn new(base: *mut u64, len: u64) -> Self {
        Self { base, len, mapped: PhantomData }
    }

    /// How many words.
    #[inline]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn word(&self, index: u64) -> &AtomicU64 {
        assert!(index < self.len, "word {index} of {}", self.len);
        // SAFETY: the word lies in the window (asserted), which is mapped, aligned and only used atomically (`new`).
        unsafe { AtomicU64::from_ptr(self.base.add(index as usize)) }
    }

    /// Word `index`. May fault, and traps if the page has failed.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn load(&self, index: u64) -> u64 {
        u64::from_le(self.word(index).load(Ordering::Relaxed))
    }

    /// Stores `value` into word `index`. May fault, and traps if the page has failed.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn store(&self, index: u64, value: u64) {
        self.word(index).store(value.to_le(), Ordering::Relaxed);
    }

    /// Puts `new` into word `index` if it holds `current`; says what it held. One atomic step.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn compare_exchange(&self, index: u64, current: u64, new: u64) -> Result<u64, u64> {
        let order = Ordering::Relaxed;
        let (current, new) = (current.to_le(), new.to_le());
        let done = self.word(index).compare_exchange(current, new, order, order);
        done.map(u64::from_le).map_err(u64::from_le)
    }
}

/// Sums words by volatile loads, four at a time. Never inlined, so that all callers run the same instructions:
/// copies that the compiler makes per caller differ by a factor of two in speed.
///
/// # Safety
///
/// `base` is aligned to eight bytes, and every word of `words`, counted from it, is mapped readable during the
/// call.
#[inline(never)]
pub(crate) unsafe fn sum_words(base: *const u64, words: Range<u64>, step_words: u64) -> u64 {
    let (mut next, end, step) = (
        words.start as usize,
        words.end as usize,
        step_words.clamp(1, (words.end - words.start).max(1)) as usize,
    );
    // SAFETY: called with indices in `words` only, whose words are readable and aligned: upheld by the caller.
    let load = |index: usize| unsafe { base.add(index).read_volatile() };
    let mut sums = [0_u64; 4];
    while next + 3 * step < end {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add(load(next + lane * step));
        }
        next += 4 * step;
    }
    let rest = (next..end).step_by(step).map(load);
    sums.into_iter().chain(rest).fold(0, u64::wrapping_add)
}
