//! Who pins what, for errors that name it, and how long pins are waited for.

use std::cell::OnceCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memobj_core::address::{PageIndex, PageRange};

use crate::error::{ErrorKind, PinHolder, SupplyError, WriteError, WriteStep};
use crate::store::FrameStore;

thread_local! {
    static MINE: OnceCell<Arc<Made>> = const { OnceCell::new() };
}

/// The pins that one thread has made and that live, whoever drops them. Its lock is a leaf.
#[derive(Debug, Default)]
struct Made(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// By place: whose pages, and which.
    taken: Vec<Option<(usize, PageRange)>>,
    free: Vec<usize>,
}

impl Made {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pin in the list of the thread that made it, until dropped.
pub(crate) struct NotedPin {
    /// `None`: the thread is ending, and has no list any more.
    made_by: Option<Arc<Made>>,
    place: usize,
}

impl fmt::Debug for NotedPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotedPin")
    }
}

impl Drop for NotedPin {
    fn drop(&mut self) {
        if let Some(made) = &self.made_by {
            let mut places = made.lock();
            places.taken[self.place] = None;
            places.free.push(self.place);
        }
    }
}

/// When a wait for pins ends; `None` is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PinDeadline(Option<Instant>);

impl PinDeadline {
    /// By the clock of the cache that `store` is of.
    pub(crate) fn is_over(self, store: &FrameStore) -> bool {
        self.0.is_some_and(|until| store.cache.now() >= until)
    }
}

impl FrameStore {
    /// The end of a wait for pins that begins now.
    pub(crate) fn pin_deadline(&self) -> PinDeadline {
        PinDeadline(self.cache.now().checked_add(self.object.options.pin_timeout))
    }

    /// Notes that the calling thread pins `pages`.
    pub(crate) fn note_pin(&self, pages: PageRange) -> NotedPin {
        let made_by = MINE.try_with(|mine| Arc::clone(mine.get_or_init(Arc::default))).ok();
        let place = made_by.as_ref().map_or(0, |made| {
            let mut places = made.lock();
            let entry = Some((self.key(), pages));
            match places.free.pop() {
                Some(place) => {
                    places.taken[place] = entry;
                    place
                }
                None => {
                    places.taken.push(entry);
                    places.taken.len() - 1
                }
            }
        });
        NotedPin { made_by, place }
    }

    fn key(&self) -> usize {
        Arc::as_ptr(&self.area) as usize
    }

    /// Who holds the pins of `page`, which is pinned.
    pub(crate) fn holder_of(&self, page: PageIndex) -> PinHolder {
        let is_mine = |entry: &Option<(usize, PageRange)>| {
            entry.as_ref().is_some_and(|(key, pages)| *key == self.key() && pages.contains(page))
        };
        let mine = MINE.try_with(|mine| mine.get().is_some_and(|made| made.lock().taken.iter().any(is_mine)));
        if mine.unwrap_or(false) { PinHolder::ThisThread } else { PinHolder::Others }
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
