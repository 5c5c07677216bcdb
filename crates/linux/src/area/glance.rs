//! Reads without a pin: load, and look whether nobody can have changed the bytes meanwhile.
//!
//! A reader looks at the page word, loads, and looks at the word again. If the page was readable both times, in the same
//! version, nobody had it to himself in between: it was not evicted, not filled, not stored to by `write_at`, and not
//! pinned for writing. So the bytes belong together; otherwise they are thrown away. Plain stores to a page that is open to
//! them go on meanwhile, and are seen word by word.
//!
//! Bytes are loaded in assembly, so a load is no access of the language beside those of who has the page to himself. A load
//! can find a page that is gone: it faults like a touch, or traps, and its answer is thrown away.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use memobj_core::address::{ByteRange, PageIndex};

use super::{Area, Glance};
use crate::signal;
use crate::uffd::Announce;

/// Pages whose looks are kept on the stack.
const FEW: usize = 4;

/// Why bytes were not read without a pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSeen {
    /// This page is not there, or somebody has it to himself; or the object has been cut off.
    NotNow(PageIndex),
    /// What was loaded does not belong together, or a load has trapped.
    Changed,
}

/// Pages as they were when somebody began to read them.
struct Seen<'a> {
    area: &'a Area,
    first: u64,
    glances: &'a [Option<Glance>],
}

impl Seen<'_> {
    fn is_still(&self) -> bool {
        let is_still = |(page, glance): (u64, &Option<Glance>)| {
            glance.is_some_and(|glance| self.area.is_still(PageIndex(page), glance))
        };
        (self.first..).zip(self.glances).all(is_still)
    }
}

/// Words of an object while somebody looks at them, as they are this moment.
///
/// # Soundness
///
/// It borrows what keeps the memory mapped, for a call. Only loads are offered, each by one instruction in assembly, which
/// may find anything, and of which a trap ends nothing but the load: no reference to the memory is made.
pub struct GlanceWords<'a> {
    base: *const u8,
    words: u64,
    has_trapped: Cell<bool>,
    /// `None`: the bytes are pinned.
    seen: Option<Seen<'a>>,
    mapped: PhantomData<&'a u8>,
}

impl fmt::Debug for GlanceWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlanceWords").field("len", &self.words).finish_non_exhaustive()
    }
}

impl<'a> GlanceWords<'a> {
    /// The words of bytes that are pinned.
    pub fn of_pinned(bytes: &'a [u8]) -> Self {
        let words = bytes.len() as u64 / 8;
        Self { base: bytes.as_ptr(), words, has_trapped: Cell::new(false), seen: None, mapped: PhantomData }
    }

    /// How many words. A last one that is not whole is left out.
    #[inline]
    pub fn len(&self) -> u64 {
        self.words
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// Word `index`, little endian; anything if it does not belong to what was loaded before. In one step if it lies at a
    /// multiple of eight in the object. May fault, and wait like a plain load.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn load(&self, index: u64) -> u64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: the word lies in the range (asserted), which is mapped while this lives (`of_pinned`, `glance_at`).
        match unsafe { signal::load_word_trapping(self.base.add(index as usize * 8)) } {
            Some(word) => u64::from_le(word),
            None => {
                self.has_trapped.set(true);
                0
            }
        }
    }

    /// Copies the words from `first` on to `buffer`, as [`load`](Self::load) loads them. A last one may be copied in part.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn copy_to(&self, first: u64, buffer: &mut [u8]) {
        let end = first.checked_add((buffer.len() as u64).div_ceil(8));
        let fits = end.is_some_and(|end| end <= self.words);
        assert!(fits, "{} bytes from word {first} of {}", buffer.len(), self.words);
        // SAFETY: as in `load`; the words at the ends are whole words of the range, or lie in the same pages.
        if !unsafe { signal::copy_words_trapping(buffer, self.base.add(first as usize * 8)) } {
            self.has_trapped.set(true);
        }
    }

    /// Whether what was loaded so far belongs together: who has much to do can give up early.
    pub fn is_still(&self) -> bool {
        !self.has_trapped.get() && self.seen.as_ref().is_none_or(Seen::is_still)
    }
}

/// Calls `look` with the words of `bytes` if these are the object's and their pages readable; its answer counts if they
/// have been all the time. They are loaded in the view whose faults are announced so, or in the first. Needs
/// [`signal::install`] to have been called.
pub fn glance_at<R>(
    area: &Area,
    announce: Option<Announce>,
    bytes: ByteRange,
    look: impl FnOnce(&GlanceWords<'_>) -> R,
) -> Result<R, NotSeen> {
    assert!(bytes.start <= bytes.end && bytes.end <= area.capacity());
    let pages = area.page_size().pages_of(bytes);
    let (mut few, mut many) = ([None; FEW], Vec::new());
    let glances = match few.get_mut(..pages.len() as usize) {
        Some(few) => few,
        None => {
            many.resize(pages.len() as usize, None);
            &mut many[..]
        }
    };
    for (page, glance) in pages.iter().zip(glances.iter_mut()) {
        *glance = Some(area.glance(page).ok_or(NotSeen::NotNow(page))?);
    }
    // Who cuts the object off holds its last page meanwhile: the length is that of the pages as they were seen.
    if bytes.end > area.length() {
        return Err(NotSeen::NotNow(PageIndex(pages.start)));
    }
    let touched = announce.and_then(|announce| area.address(announce, bytes.start));
    let words = GlanceWords {
        base: touched.unwrap_or_else(|| area.pointer(bytes.start)),
        words: bytes.len() / 8,
        has_trapped: Cell::new(false),
        seen: Some(Seen { area, first: pages.start, glances }),
        mapped: PhantomData,
    };
    let answer = look(&words);
    if words.is_still() { Ok(answer) } else { Err(NotSeen::Changed) }
}

/// Copies `bytes`, which lie in one page, to `buffer`, which is as long, if the page is readable all the time. Refused, a
/// part may be copied. Of an area that cannot be touched only: there no load traps, which would kill a thread that blocks
/// the signal.
#[inline]
pub fn copy_at_a_glance(area: &Area, bytes: ByteRange, buffer: &mut [u8]) -> bool {
    assert_eq!(bytes.len(), buffer.len() as u64);
    let shift = area.page_size().shift();
    let page = PageIndex(bytes.start >> shift);
    let is_in_one = bytes.start < bytes.end && (bytes.end - 1) >> shift == page.0;
    if area.can_be_touched() || !is_in_one || page.0 >= area.pages() {
        return false;
    }
    let Some(glance) = area.glance(page) else { return false };
    // Afterwards, as in `glance_at`.
    if bytes.end > area.length() {
        return false;
    }
    // SAFETY: the bytes lie in the view, which is mapped as long as the area.
    let is_whole = unsafe { signal::copy_words_trapping(buffer, area.pointer(bytes.start)) };
    is_whole && area.is_still(page, glance)
}
