//! How fault loops hear that something has changed for which faults are parked.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::eventfd::EventFd;
use crate::slots::SlotTable;

/// What wakes the loops of this process: one, mostly.
static LOOPS: SlotTable<EventFd> = SlotTable::new();

pub(super) fn add_loop(wake: &Arc<EventFd>) -> Option<usize> {
    LOOPS.insert(Arc::clone(wake)).ok()
}

pub(super) fn remove_loop(slot: usize) {
    LOOPS.remove(slot);
}

/// Counts those who want to hear of changes of the value that this is a part of.
///
/// Who listens counts himself first, then looks at the value. Who changes the value tells afterwards. So one of the two
/// sees the other.
#[derive(Debug, Default)]
pub struct Listeners(AtomicUsize);

impl Listeners {
    /// The value has changed. Wakes the loops if somebody listens. Takes no lock, allocates nothing: signal-safe.
    #[inline]
    pub fn tell(&self) {
        fence(Ordering::SeqCst);
        if self.0.load(Ordering::Relaxed) != 0 {
            wake_loops();
        }
    }
}

#[cold]
fn wake_loops() {
    for slot in 0..LOOPS.end() {
        LOOPS.with(slot, EventFd::notify);
    }
}

/// Somebody who listens, until dropped; with the value.
pub struct Listener<T: AsRef<Listeners>>(T);

impl<T: AsRef<Listeners>> Listener<T> {
    /// Listens to `value` from now on.
    pub fn new(value: T) -> Self {
        value.as_ref().0.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Self(value)
    }
}

impl<T: AsRef<Listeners>> Deref for Listener<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsRef<Listeners>> Drop for Listener<T> {
    fn drop(&mut self) {
        self.0.as_ref().0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T: AsRef<Listeners>> fmt::Debug for Listener<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A doorbell that rings whenever loops are woken, and stays for good.
    pub(crate) fn hear_changes() -> Arc<EventFd> {
        let doorbell = Arc::new(EventFd::new().unwrap());
        add_loop(&doorbell).unwrap();
        doorbell
    }
}
