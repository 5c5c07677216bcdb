//! Events: what happens in the background, errors above all.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, OnceLock};
use std::time::Duration;

use memobj_linux::eventfd::EventFd;
use memobj_linux::fork::MakerProcess;

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
    /// The server behind an object does not answer, and is still tried. Told once for each silence.
    ServerSilent {
        /// The object.
        object: String,
        /// The server.
        server: String,
        /// How long it has not answered.
        silence: Duration,
        /// How the last try went.
        why: String,
    },
    /// A server that was silent answers again.
    ServerAnswers {
        /// The object.
        object: String,
        /// The server.
        server: String,
        /// How long it did not answer.
        silence: Duration,
    },
    /// A copy that was kept of bytes of an object, in a disk cache for example, was damaged. It was not used.
    CopyDamaged {
        /// The object.
        object: String,
        /// The bytes of the object.
        bytes: std::ops::Range<u64>,
        /// Where the copy was.
        place: String,
    },
}

/// The events of one cache, in order. Each event goes to one receiver.
#[derive(Clone)]
pub struct Events(pub(crate) Arc<Queue>);

/// Events with a descriptor, for loops that wait for many descriptors: poll(2), epoll(7), and what is built on them. Made by
/// [`Events::pollable`].
///
/// The descriptor is readable while an event waits to be received, and for good once the cache has ended. Receive events
/// with [`try_next`](Events::try_next) until there is none; nothing is to be read from the descriptor itself.
#[derive(Clone)]
pub struct PollableEvents {
    events: Events,
    signal: Arc<Signal>,
}

impl fmt::Debug for PollableEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.fmt(f)
    }
}

impl Deref for PollableEvents {
    type Target = Events;

    fn deref(&self) -> &Events {
        &self.events
    }
}

impl AsFd for PollableEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.readable.as_fd()
    }
}

/// Is readable while an event waits.
#[derive(Debug)]
struct Signal {
    readable: EventFd,
    /// A child of fork has the same descriptor, and events of its own.
    owner: MakerProcess,
}

impl Signal {
    fn new() -> io::Result<Self> {
        Ok(Self { readable: EventFd::new()?, owner: MakerProcess::new()? })
    }

    /// Called with the lock of the queue held, so that it agrees with what the queue holds.
    fn set(&self, is_readable: bool) {
        match is_readable {
            _ if !self.owner.is_this_process() => {}
            true => self.readable.notify(),
            false => self.readable.clear(),
        }
    }
}

impl Events {
    /// The next event, if one is there. Does not wait, also while another thread does in
    /// [`next_within`](Self::next_within).
    pub fn try_next(&self) -> Option<Event> {
        self.0.take(&mut self.0.lock())
    }

    /// Whether the cache has ended, and all its events are received.
    pub fn is_ended(&self) -> bool {
        let inside = self.0.lock();
        inside.is_ended && inside.events.is_empty()
    }

    /// These events, with a descriptor, which all that are made of one cache share. An error is that of eventfd(2).
    ///
    /// ```
    /// # use memobj::{Cache, CacheOptions};
    /// use rustix::event::{PollFd, PollFlags, Timespec, poll};
    ///
    /// let cache = Cache::new(CacheOptions::default())?;
    /// let events = cache.events().pollable()?;
    /// // And whatever else the loop waits for.
    /// let mut descriptors = [PollFd::new(&events, PollFlags::IN)];
    /// let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    /// assert_eq!(poll(&mut descriptors, Some(&at_once))?, 0, "nothing has happened");
    /// while let Some(event) = events.try_next() {
    ///     println!("{event:?}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pollable(&self) -> io::Result<PollableEvents> {
        // Under the lock: two descriptors would be one that nobody signals.
        let inside = self.0.lock();
        let signal = match self.0.signal.get() {
            Some(signal) => Arc::clone(signal),
            None => {
                let signal = Arc::new(Signal::new()?);
                signal.set(inside.is_readable());
                Arc::clone(self.0.signal.get_or_init(|| signal))
            }
        };
        Ok(PollableEvents { events: self.clone(), signal })
    }

    /// The next event, after at most `limit`. `None` at once when the cache has ended, and all its events are received.
    pub fn next_within(&self, limit: Duration) -> Option<Event> {
        let mut inside = self.0.lock();
        inside.receivers += 1;
        let nothing_yet = |inside: &mut Inside| inside.events.is_empty() && !inside.is_ended;
        inside = inside.wait_while(&self.0.changed, limit, nothing_yet);
        inside.receivers -= 1;
        self.0.take(&mut inside)
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
    /// Made when somebody wants to wait for its descriptor.
    signal: OnceLock<Arc<Signal>>,
}

#[derive(Debug, Default)]
struct Inside {
    events: VecDeque<Event>,
    /// Threads that wait for an event.
    receivers: usize,
    /// No event will come any more.
    is_ended: bool,
}

impl Inside {
    fn is_readable(&self) -> bool {
        self.is_ended || !self.events.is_empty()
    }
}

impl Queue {
    fn lock(&self) -> Guard<'_, Inside> {
        self.inside.lock()
    }

    fn take(&self, inside: &mut Inside) -> Option<Event> {
        let event = inside.events.pop_front();
        self.tell(inside);
        event
    }

    /// Lets the descriptor, if there is one, say whether an event waits.
    fn tell(&self, inside: &Inside) {
        if let Some(signal) = self.signal.get() {
            signal.set(inside.is_readable());
        }
    }
}

/// Where a cache puts its events. Dropped, no more events come.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Queue>);

impl Sender {
    /// Of a queue in which `capacity` events may wait, or as many as there are threads that wait for one.
    pub(crate) fn new(capacity: usize) -> Self {
        let inside = RankedMutex::new(Rank::Events, Inside::default());
        Self(Arc::new(Queue { capacity, inside, changed: Condvar::new(), signal: OnceLock::new() }))
    }

    /// The other end.
    pub(crate) fn receiver(&self) -> Events {
        Events(Arc::clone(&self.0))
    }

    /// Adds `event` if there is room. Says whether there was.
    pub(crate) fn put(&self, event: Event) -> bool {
        let mut inside = self.0.lock();
        // Who has a descriptor to wait for is a receiver.
        let receivers = inside.receivers + usize::from(self.0.signal.get().is_some());
        let fits = inside.events.len() < self.0.capacity.max(receivers);
        if fits {
            inside.events.push_back(event);
            self.0.tell(&inside);
            self.0.changed.notify_one();
        }
        fits
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut inside = self.0.lock();
        inside.is_ended = true;
        self.0.tell(&inside);
        drop(inside);
        self.0.changed.notify_all();
    }
}
