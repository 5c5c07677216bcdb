//! What a pager tells of itself, unasked.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::event::Event;
use crate::reporter::Reporter;

/// Puts what a pager tells into the [events](crate::Cache::events) of its cache, with the name of its object.
///
/// Handed to the pager by [`Pager::attach`](super::Pager::attach). Calls from any thread; none blocks. Does not keep
/// the cache.
#[derive(Clone)]
pub struct PagerReports {
    object: Arc<str>,
    reporter: Weak<Reporter>,
}

impl fmt::Debug for PagerReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagerReports").field("object", &self.object).finish_non_exhaustive()
    }
}

impl PagerReports {
    pub(crate) fn new(object: &str, reporter: &Arc<Reporter>) -> Self {
        Self { object: object.into(), reporter: Arc::downgrade(reporter) }
    }

    /// Reports to nobody: for tests of pagers.
    pub fn to_nobody() -> Self {
        Self { object: "".into(), reporter: Weak::new() }
    }

    /// The name of the object.
    pub fn object(&self) -> &str {
        &self.object
    }

    fn event(&self, event: Event) {
        if let Some(reporter) = self.reporter.upgrade() {
            reporter.event(event);
        }
    }

    /// `server` has not answered for `silence`, and is still tried.
    pub fn server_silent(&self, server: &str, silence: Duration, why: &str) {
        let object = self.object.to_string();
        self.event(Event::ServerSilent { object, server: server.into(), silence, why: why.into() });
    }

    /// `server`, of which [`server_silent`](Self::server_silent) was told, answers again.
    pub fn server_answers(&self, server: &str, silence: Duration) {
        let object = self.object.to_string();
        self.event(Event::ServerAnswers { object, server: server.into(), silence });
    }

    /// A copy that the pager kept of `bytes` of the object was damaged, and is not used.
    pub fn copy_damaged(&self, bytes: std::ops::Range<u64>, place: &str) {
        let object = self.object.to_string();
        self.event(Event::CopyDamaged { object, bytes, place: place.into() });
    }
}
