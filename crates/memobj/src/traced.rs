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
            Self::ServerSilent { object, server, why, .. } => {
                warn!(%object, %server, "{server} does not answer, and is still tried: {why}");
            }
            Self::ServerAnswers { object, server, silence } => {
                let silence_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                info!(%object, %server, silence_ms, "{server} answers again");
            }
            Self::CopyDamaged { object, bytes, place } => {
                let (start, end) = (bytes.start, bytes.end);
                warn!(%object, start, end, %place, "a copy of [{start}, {end}) of {object} was damaged, and is not used");
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Metadata, Subscriber};

    /// Keeps what it is told, a line for each event.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Visit for Kept {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().last_mut().unwrap().push_str(&format!(" {field}={value:?}"));
        }
    }

    impl Subscriber for Kept {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().unwrap().push(event.metadata().level().to_string());
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn events_are_traced_until_the_cache_ends() {
        let cache = crate::Cache::new(crate::CacheOptions::new().budget_bytes(1 << 20)).unwrap();
        let events = cache.events();
        let pager = crate::pagers::Faulty::failing(crate::pagers::Zero::new(8192), 4096..8192);
        let object = cache.object("data.bin", pager, crate::ObjectOptions::default()).unwrap();
        let mapping = object.map_all(crate::MapOptions::new().delivery(crate::Delivery::PinOnly)).unwrap();
        mapping.pin(4096..).unwrap_err();
        drop((mapping, object, cache));
        let kept = Kept::default();
        tracing::subscriber::with_default(kept.clone(), || events.trace_all());
        let lines = kept.0.lock().unwrap();
        let text = "supply [4096, 8192) of data.bin: input/output error";
        let fields = "object=\"data.bin\" start=4096 end=8192 kind=input/output error tries=1";
        assert_eq!(lines[..], [format!("WARN message={text} {fields}")]);
    }
}
