//! Events: what happens in the background, errors above all.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar};
use std::time::Duration;

use crate::error::{PageError, WriteError};
use crate::locks::{Guard, Rank, RankedMutex};

/// Something that happened in the background.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A page failed for good.
    PageFailed(PageError),
    /// A pager call failed and will be made again.
    Retrying(PageError),
    /// Changes could not be written, or what was committed could not be copied in place; they are kept, and it is
    /// tried again.
    WriteFailed(WriteError),
    /// An object that can be written was dropped without `close`, with changes. Of one that is written in place they
    /// were written back; of one that is committed to they are gone, which is no error.
    DroppedDirty {
        /// The object.
        object: String,
        /// Bytes of pages that had changes.
        bytes: u64,
        /// Why they could not be written back, if they could not: then they are lost.
        error: Option<WriteError>,
    },
    /// A pager call was still running when its object closed, or a write, a sync or a new length took longer than the
    /// object's time-out; its thread was left behind.
    PagerDidNotReturn {
        /// The object.
        object: String,
    },
    /// A thread of the cache has ended by a panic, which is a bug of this library. What waited for it has failed, as
    /// [`Detached`](crate::ErrorKind::Detached), and so does everything that is not resident from now on. What is
    /// Dirty can still be synced.
    ThreadEnded {
        /// The name of the thread.
        thread: &'static str,
    },
}

/// The events of one cache, in order. Each event goes to one receiver.
#[derive(Clone)]
pub struct Events(pub(crate) Arc<Queue>);

impl Events {
    /// The next event, if one is there. Does not wait, also while another thread does in
    /// [`next_within`](Self::next_within).
    pub fn try_next(&self) -> Option<Event> {
        self.0.lock().events.pop_front()
    }

    /// The next event, after at most `limit`. `None` at once when the cache has ended, and all its events are received.
    pub fn next_within(&self, limit: Duration) -> Option<Event> {
        let mut inside = self.0.lock();
        inside.receivers += 1;
        let nothing_yet = |inside: &mut Inside| inside.events.is_empty() && !inside.is_ended;
        inside = inside.wait_while(&self.0.changed, limit, nothing_yet);
        inside.receivers -= 1;
        inside.events.pop_front()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("waiting", &self.0.lock().events.len()).finish_non_exhaustive()
    }
}

/// Events that nobody has received yet. Its lock is held to put one in or take one out, and never while waiting.
#[derive(Debug)]
pub(crate) struct Queue {
    capacity: usize,
    inside: RankedMutex<Inside>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    events: VecDeque<Event>,
    /// Threads that wait for an event.
    receivers: usize,
    /// No event will come any more.
    is_ended: bool,
}

impl Queue {
    fn lock(&self) -> Guard<'_, Inside> {
        self.inside.lock()
    }
}

/// Where a cache puts its events. Dropped, no more events come.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Queue>);

impl Sender {
    /// Of a queue in which `capacity` events may wait, or as many as there are threads that wait for one.
    pub(crate) fn new(capacity: usize) -> Self {
        let inside = RankedMutex::new(Rank::Events, Inside::default());
        Self(Arc::new(Queue { capacity, inside, changed: Condvar::new() }))
    }

    /// The other end.
    pub(crate) fn receiver(&self) -> Events {
        Events(Arc::clone(&self.0))
    }

    /// Adds `event` if there is room. Says whether there was.
    pub(crate) fn put(&self, event: Event) -> bool {
        let mut inside = self.0.lock();
        let fits = inside.events.len() < self.0.capacity.max(inside.receivers);
        if fits {
            inside.events.push_back(event);
            self.0.changed.notify_one();
        }
        fits
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().is_ended = true;
        self.0.changed.notify_all();
    }
}
