//! Errors that nobody is waiting for.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::error::{PageError, WriteError};

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
#[derive(Debug)]
pub struct Events(pub(crate) std::sync::Arc<Mutex<Receiver<Event>>>);

impl Events {
    /// The next event, if one is waiting.
    pub fn try_next(&self) -> Option<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }

    /// The next event, after at most `limit`.
    pub fn next_within(&self, limit: Duration) -> Option<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(limit).ok()
    }
}

pub(crate) fn channel(capacity: usize) -> (SyncSender<Event>, Receiver<Event>) {
    sync_channel(capacity)
}
