//! Who pins what, for errors that name it, and how long pins are waited for.

mod thread_list;

use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj_core::address::{PageIndex, PageRange};

use crate::error::{ErrorKind, PinHolder, SupplyError, WriteError, WriteStep};
use crate::store::FrameStore;

pub(crate) use thread_list::{NotedPin, ThisThread};

/// When a wait for pins ends; `None` is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PinDeadline(Option<Instant>);

impl PinDeadline {
    /// By the clock of the cache that `store` is of.
    pub(crate) fn is_over(self, store: &FrameStore) -> bool {
        self.0.is_some_and(|until| store.cache.options.clock.now() >= until)
    }
}

impl FrameStore {
    /// The end of a wait for pins that begins now.
    pub(crate) fn pin_deadline(&self) -> PinDeadline {
        PinDeadline(self.cache.options.clock.now().checked_add(self.object.options.pin_timeout))
    }

    /// Notes that the calling thread pins `pages`.
    pub(crate) fn note_pin(&self, pages: PageRange) -> NotedPin {
        ThisThread::get().note(self.key(), pages)
    }

    /// What tells pins of this object from those of others.
    #[inline]
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.area) as usize
    }

    /// Who holds the pins of `page`, which is pinned.
    pub(crate) fn holder_of(&self, page: PageIndex) -> PinHolder {
        match ThisThread::get().pins(self.key(), page) {
            true => PinHolder::ThisThread,
            false => PinHolder::Others,
        }
    }

    /// The error of a call that has waited for `page` for too long.
    pub(crate) fn waited_too_long(
        &self,
        step: WriteStep,
        range: std::ops::Range<u64>,
        page: PageIndex,
    ) -> WriteError {
        let word = self.area.word(page);
        let error = WriteError::new(&self.object.name, step, range, &SupplyError::new(ErrorKind::Timeout));
        if word.pins() == 0 {
            return error.because("a page is being written or obtained");
        }
        let holder = self.holder_of(page);
        let error = match (word.is_pinned_mut(), holder) {
            (true, PinHolder::ThisThread) => error.because("a page is pinned for writing by this thread"),
            (true, PinHolder::Others) => error.because("a page is pinned for writing by others"),
            (false, PinHolder::ThisThread) => error.because("a page is pinned by this thread"),
            (false, PinHolder::Others) => error.because("a page is pinned by others"),
        };
        error.held_by(holder)
    }
}

/// Waits that are shorter than a sleep on a page word.
pub(crate) const SOON: Duration = Duration::from_micros(100);
