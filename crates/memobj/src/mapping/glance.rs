//! Reads without a pin.

use std::fmt;
use std::ops::{Range, RangeBounds};

use memobj_core::address::ByteRange;
use memobj_linux::area::{self, NotSeen};
use memobj_linux::signal;

use super::Mapping;
use crate::error::AccessError;
use crate::fault;

/// How often bytes of one page are loaded that then turn out not to belong together, before they are pinned.
const TRIES: u32 = 4;
/// The same of bytes of several pages: whoever pins these can wait for others who do so.
const MOST_ROUNDS: u32 = 100;

/// Words of an object while somebody looks at them, as they are this moment.
///
/// # Soundness
///
/// It borrows what keeps the memory mapped, for a call. Only loads are offered, of which a trap ends nothing but the load:
/// no reference to the memory is made.
pub struct GlanceWords<'a>(&'a area::GlanceWords<'a>);

impl fmt::Debug for GlanceWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlanceWords").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl GlanceWords<'_> {
    /// How many words. A last one that is not whole is left out.
    #[inline]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Word `index`, little endian; anything if it does not belong to what was loaded before. In one step if it lies at a
    /// multiple of eight in the object. May fault, and wait like a plain load.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub fn load(&self, index: u64) -> u64 {
        self.0.load(index)
    }

    /// Copies the words from `first` on to `buffer`, as [`load`](Self::load) loads them. A last one may be copied in part.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn copy_to(&self, first: u64, buffer: &mut [u8]) {
        self.0.copy_to(first, buffer);
    }

    /// Whether what was loaded so far belongs together: who has much to do can give up early.
    pub fn is_still(&self) -> bool {
        self.0.is_still()
    }
}

impl Mapping {
    /// Calls `look` with the words of `range`, without a pin: nothing is stored to memory that others load.
    ///
    /// What `look` loads may not belong together, if pages change or go meanwhile. Then its answer is thrown away, and it
    /// is called again; in the end under a pin. So it must come to an end, without a panic, whatever it finds; and what it
    /// does besides answering is done whatever it has found. What is answered was all there at one moment.
    ///
    /// Stores by [`write_at`](Self::write_at), and bytes of [`pin_mut`](Self::pin_mut) and [`pin_new`](Self::pin_new), are
    /// seen page by page all or not at all. Plain stores through [`as_mut_ptr`](Self::as_mut_ptr) and
    /// [`shared_words`](Self::shared_words), also of other processes, are seen word by word, if words lie at multiples of
    /// eight in the object. Bytes behind the last whole word are left out. Inside one page it costs least; all pages of
    /// `range` are looked at before and after.
    ///
    /// Blocks, and fails, as [`pin`](Self::pin) does, if pages are not there; and may wait in a load, like plain ones. What
    /// traps is an error, as of [`touch_at`](Self::touch_at): the first call installs the handler of SIGBUS, and a thread
    /// must not block that signal. Works for all mappings, also those that cannot be touched.
    ///
    /// The words cannot be kept:
    ///
    /// ```compile_fail
    /// # fn leak(mapping: &memobj::Mapping) -> Result<(), memobj::AccessError> {
    /// let kept = mapping.try_words(0..8, |words| words)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_words<R>(
        &self,
        range: impl RangeBounds<u64>,
        mut look: impl FnMut(&GlanceWords<'_>) -> R,
    ) -> Result<R, AccessError> {
        let range = self.within(range);
        let mut look = |words: &area::GlanceWords<'_>| look(&GlanceWords(words));
        let bytes = self.object_bytes(&range)?;
        // Without the handler a trap would kill. It cannot be refused in practice: sigaction(2) knows no such error.
        let _ = signal::install(fault::resolve);
        let seen = area::glance_at(self.pins.area(), self.announce, bytes, &mut look);
        seen.or_else(|_| self.look_again(range, bytes, look))
    }

    #[cold]
    fn look_again<R>(
        &self,
        range: Range<u64>,
        bytes: ByteRange,
        mut look: impl FnMut(&area::GlanceWords<'_>) -> R,
    ) -> Result<R, AccessError> {
        let (pages, waits) = (self.pages(&range)?, &self.frames().waits);
        let (mut changed, mut pinned_until) = (0, None);
        for _ in 0..MOST_ROUNDS {
            match area::glance_at(self.pins.area(), self.announce, bytes, &mut look) {
                Ok(answer) => return Ok(answer),
                // Obtains what is missing, and waits while somebody has the page to himself. Pins nothing.
                Err(NotSeen::NotNow(page)) => {
                    if let Some(error) = waits.cut_off(bytes) {
                        return Err(self.in_mapping(error));
                    }
                    waits.populate(pages)?;
                    waits.wait_to_pin(page, &mut pinned_until)?;
                }
                Err(NotSeen::Changed) => changed += 1,
            }
            if changed >= TRIES && pages.len() == 1 {
                match self.look_at_pinned(&range, &mut look) {
                    // Others hold all the pins there may be.
                    Err(AccessError::PinsExceedBudget { .. } | AccessError::TooManyPins) => {}
                    looked => return looked,
                }
            }
        }
        self.look_at_pinned(&range, &mut look)
    }

    fn look_at_pinned<R>(
        &self,
        range: &Range<u64>,
        look: &mut impl FnMut(&area::GlanceWords<'_>) -> R,
    ) -> Result<R, AccessError> {
        let pinned = self.pin_ref(range.clone())?;
        let words = area::GlanceWords::of_pinned(&pinned);
        let answer = look(&words);
        let trapped = || self.frames().waits.trapped_at(self.range.start + range.start);
        if words.is_still() { Ok(answer) } else { Err(trapped()) }
    }
}
