//! Events of a cache as events of the crate `tracing`. Feature `tracing`.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::event::{Event, Events};

impl Event {
    /// Hands the event to the subscriber of the calling thread, with its values as fields: `error!` where bytes are lost or
    /// a thread has ended, `warn!` where something failed, `info!` where it is only tried again or over.
    pub fn trace(&self) {
        match self {
            Self::PageFailed(error) => warn!(
                object = error.object(),
                start = error.range().start,
                end = error.range().end,
                kind = %error.kind(),
                tries = error.tries(),
                "{error}"
            ),
            Self::Retrying(error) => info!(
                object = error.object(),
                start = error.range().start,
                end = error.range().end,
                kind = %error.kind(),
                tries = error.tries(),
                "{error}; it is tried again"
            ),
            Self::WriteFailed(error) => warn!(
                object = error.object(),
                start = error.range().start,
                end = error.range().end,
                kind = %error.kind(),
                is_lost = error.is_lost(),
                "{error}"
            ),
            Self::DroppedDirty { object, bytes, error: Some(error) } => {
                error!(%object, bytes, kind = %error.kind(), "{object} was dropped with changes, which are lost: {error}");
            }
            Self::DroppedDirty { object, bytes, error: None } => {
                info!(%object, bytes, "{object} was dropped with changes");
            }
            Self::PagerDidNotReturn { object } => {
                warn!(%object, "a call of the pager of {object} did not return in time");
            }
            Self::ThreadEnded { thread } => {
                error!(thread, "the thread {thread} of the cache has ended by a panic")
            }
        }
    }
}

impl Events {
    /// Traces each event as it comes, until the cache has ended and all its events are received. For a thread of its own; the
    /// subscriber of that thread gets the events.
    ///
    /// ```
    /// # use memobj::{Cache, CacheOptions};
    /// let cache = Cache::new(CacheOptions::default())?;
    /// let events = cache.events();
    /// let thread = std::thread::spawn(move || events.trace_all());
    /// // ...
    /// drop(cache);
    /// thread.join().unwrap();
    /// # Ok::<(), memobj::CacheError>(())
    /// ```
    pub fn trace_all(&self) {
        while !self.is_ended() {
            if let Some(event) = self.next_within(Duration::MAX) {
                event.trace();
            }
        }
    }
}
