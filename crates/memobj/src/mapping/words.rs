//! Words that anybody may load and store.

use std::ops::Range;

use memobj_linux::volatile;

use crate::write::User;

/// The words of a mapping of an object that is read only: little endian, loaded one by one by plain loads, which fault on
/// demand and trap on failed pages.
///
/// # Soundness
///
/// It may be copied: it borrows the mapping, which keeps the memory, and only loads. Nobody stores to an object that is read
/// only: its bytes are put in place while a page is absent, when a load sleeps or traps.
#[derive(Clone, Copy, Debug)]
pub struct VolatileWords<'a>(volatile::VolatileWords<'a>);

impl<'a> VolatileWords<'a> {
    pub(super) fn new(words: volatile::VolatileWords<'a>) -> Self {
        Self(words)
    }

    /// How many words.
    #[inline]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Word `index`. May fault, and traps if the page has failed.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn load(&self, index: u64) -> u64 {
        self.0.load(index)
    }

    /// The wrapping sum of every `step`-th word of `words`: one pass over the memory with one check of bounds.
    ///
    /// # Panics
    ///
    /// If the range is reversed or ends past the last word.
    pub fn sum(&self, words: Range<u64>, step: u64) -> u64 {
        self.0.sum(words, step)
    }
}

/// The words of a mapping, loaded and stored by atomic steps, which fault on demand and trap on failed pages.
///
/// A store to a page that is pinned for reading waits until the pins end. While this lives, nothing of the object can
/// be pinned for writing.
///
/// # Soundness
///
/// Words are reached through this guard only. It hands out no reference and nothing that can be copied, so no store
/// is possible once it is dropped, and only then can a `&mut [u8]` of the object exist. Pages that are pinned for
/// reading are write-protected: a store to them sleeps until no `&[u8]` shows them. Between themselves, loads and
/// stores of words are atomic. The guard borrows its mapping, which keeps the memory.
///
/// The words cannot be taken out of the guard, or copied:
///
/// ```compile_fail,E0614
/// # fn leak(mapping: &memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let words = mapping.shared_words()?;
/// let leak = *words;
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # fn leak(mapping: &memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let words = mapping.shared_words()?;
/// let leak = words.clone();
/// # Ok(())
/// # }
/// ```
///
/// Nor do they outlive the mapping:
///
/// ```compile_fail,E0505
/// # fn leak(mapping: memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let words = mapping.shared_words()?;
/// drop(mapping);
/// words.store(0, 1);
/// # Ok(())
/// # }
/// ```
pub struct SharedWords<'a> {
    words: volatile::SharedWords<'a>,
    /// Keeps pins for writing out. A guest has none: its owner keeps them out while the guest is attached.
    _user: Option<User>,
}

impl std::fmt::Debug for SharedWords<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedWords").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<'a> SharedWords<'a> {
    pub(crate) fn new(words: volatile::SharedWords<'a>, user: Option<User>) -> Self {
        Self { words, _user: user }
    }

    /// How many words.
    #[inline]
    pub fn len(&self) -> u64 {
        self.words.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Word `index`. May fault, and traps if the page has failed. Relaxed: it says nothing of other memory.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn load(&self, index: u64) -> u64 {
        self.words.load(index)
    }

    /// Stores `value` into word `index`. May fault, and traps if the page has failed. Relaxed, as `load`.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn store(&self, index: u64, value: u64) {
        self.words.store(index, value);
    }

    /// Puts `new` into word `index` if it holds `current`; says what it held. One atomic step, relaxed as `load`.
    ///
    /// # Errors
    ///
    /// What the word holds, if that is not `current`.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn compare_exchange(&self, index: u64, current: u64, new: u64) -> Result<u64, u64> {
        self.words.compare_exchange(index, current, new)
    }
}
