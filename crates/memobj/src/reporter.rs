//! What a cache tells: counters, and events.

use std::sync::Arc;

use crate::event::{Event, Sender};
use crate::metrics::{Counters, ObjectCounters};

const MOST_EVENTS: usize = 65_536;

/// The counters and the queue of events of one cache. Everybody who does something writes; users read.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) counters: Counters,
    pub(crate) events: Sender,
}

impl Reporter {
    pub(crate) fn new(event_capacity: usize) -> Self {
        Self { counters: Counters::default(), events: Sender::new(event_capacity.min(MOST_EVENTS)) }
    }

    /// Queues `event`, or counts it as dropped. Takes a lock: not for signal handlers, which only count.
    pub(crate) fn event(&self, event: Event) {
        if !self.events.put(event) {
            self.counters.dropped_events.add(1);
        }
    }
}

/// What is told of one object, and of its cache with it.
#[derive(Debug)]
pub(crate) struct ObjectTell {
    pub(crate) counters: ObjectCounters,
    cache: Arc<Reporter>,
}

impl ObjectTell {
    pub(crate) fn new(cache: &Arc<Reporter>) -> Self {
        Self { counters: ObjectCounters::new(&cache.counters), cache: Arc::clone(cache) }
    }

    /// What is counted of the cache only.
    pub(crate) fn of_cache(&self) -> &Counters {
        &self.cache.counters
    }

    /// As [`Reporter::event`].
    pub(crate) fn event(&self, event: Event) {
        self.cache.event(event);
    }
}
