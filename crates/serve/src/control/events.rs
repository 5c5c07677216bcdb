//! Events of the cache, told to the clients whose objects they are about.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use memobj::{ErrorKind, Event, Metrics, WriteError};

use super::mappings;
use super::refusal::{kind_word, page_fields, write_fields};
use super::server::Shared;
use super::session::Session;
use super::words::Fields;

/// How often it is looked which mappings have ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked how much is evicted.
const PRESSURE_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a page.
const PAGE: u64 = 4096;

impl Session {
    /// Tells the client of an event, if it wants events.
    pub(super) fn event(&self, fields: &Fields, what: &str) {
        if self.wants_events.load(Ordering::Acquire) {
            let counts = &self.server.counts;
            counts.events.fetch_add(1, Ordering::Relaxed);
            if !self.output.event(format!("* {what}{fields}\n")) {
                counts.lost_events.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The numbers by which the client knows the object.
    fn numbers_of(&self, object: &str) -> Vec<u64> {
        let state = self.state();
        let of_object = state.objects.values().filter(|opened| opened.used.object.name() == object);
        of_object.map(|opened| opened.number).collect()
    }
}

/// Hands events on until the server ends.
pub(super) fn pump(server: &Shared) {
    let events = server.objects.cache().events();
    let mut looked = Instant::now();
    let mut pressure = Pressure::new(server.objects.cache().metrics());
    while !server.is_stopped() {
        if let Some(event) = events.next_within(LOOK_EVERY) {
            told(server, &event);
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            server.sessions().iter().for_each(|session| mappings::forget_ended(session));
            pressure.look(server);
        }
    }
}

fn told(server: &Shared, event: &Event) {
    server.log.with(|| trace(event));
    let nothing = Fields::new;
    match event {
        Event::PageFailed(error) if error.kind() == ErrorKind::Stale => {
            tell(server, error.object(), "stale", page_fields(nothing(), error));
        }
        Event::PageFailed(error) => tell(server, error.object(), "failed", page_fields(nothing(), error)),
        Event::Retrying(error) => tell(server, error.object(), "retrying", page_fields(nothing(), error)),
        Event::WriteFailed(error) => {
            tell(server, error.object(), "write-failed", write_fields(nothing(), error));
        }
        Event::DroppedDirty { object, bytes, error: Some(error) } => {
            server.log.with(|| {
                let kind = kind_word(error.kind());
                tracing::error!(
                    object = &**object,
                    bytes,
                    kind,
                    "{object}: {bytes} changed bytes are lost: {error}"
                );
            });
        }
        Event::PagerDidNotReturn { object } => {
            server.log.with(|| {
                tracing::warn!(object = &**object, "{object}: a call of its pager does not return");
            });
        }
        Event::ThreadEnded { thread } => {
            server.log.with(|| {
                tracing::error!(thread, "thread {thread} has ended; nothing is supplied any more");
            });
        }
        Event::ServerSilent { object, server: name, silence, why } => {
            let fields = nothing().with_text("server", name).with("ms", silence.as_millis());
            tell(server, object, "not-responding", fields.with_text("source", why));
        }
        Event::ServerAnswers { object, server: name, silence } => {
            let fields = nothing().with_text("server", name).with("ms", silence.as_millis());
            tell(server, object, "responding", fields);
        }
        Event::CopyDamaged { object, bytes, place } => {
            let fields = nothing().with_range(bytes).with("kind", kind_word(ErrorKind::Integrity));
            tell(server, object, "copy-damaged", fields.with_text("source", place));
        }
        _ => {}
    }
}

/// For who looks after the server; clients are told of it.
fn trace(event: &Event) {
    match event {
        Event::PageFailed(error) | Event::Retrying(error) => tracing::debug!(
            object = error.object(),
            start = error.range().start,
            end = error.range().end,
            kind = kind_word(error.kind()),
            tries = error.tries(),
            "{error}"
        ),
        Event::WriteFailed(error) => tracing::debug!(
            object = error.object(),
            start = error.range().start,
            end = error.range().end,
            kind = kind_word(error.kind()),
            "{error}"
        ),
        Event::ServerSilent { object, server, why, .. } => {
            tracing::debug!(
                object = &**object,
                server = &**server,
                why = &**why,
                "{object}: server {server} does not answer: {why}"
            );
        }
        Event::ServerAnswers { object, server, .. } => {
            tracing::debug!(
                object = &**object,
                server = &**server,
                "{object}: server {server} answers again"
            );
        }
        Event::CopyDamaged { object, bytes, place } => {
            let (start, end) = (bytes.start, bytes.end);
            tracing::debug!(
                object = &**object,
                start,
                end,
                place = &**place,
                "{object}: the copy in {place} was damaged"
            );
        }
        _ => {}
    }
}

/// Tells those who have the object open.
fn tell(server: &Shared, object: &str, what: &str, fields: Fields) {
    for session in server.sessions() {
        tell_one(&session, object, what, &fields);
    }
}

fn tell_one(session: &Session, object: &str, what: &str, fields: &Fields) {
    for number in session.numbers_of(object) {
        session.event(&Fields::new().with("object", number).followed_by(fields), what);
    }
}

/// A sync that `asker` asked for has failed: it has the answer, all others who have the object open hear of it.
pub(super) fn sync_failed(asker: &Arc<Session>, error: &WriteError) {
    let fields = write_fields(Fields::new(), error);
    for session in asker.server.sessions() {
        if session.number != asker.number {
            tell_one(&session, error.object(), "write-failed", &fields);
        }
    }
}

/// Whether the budget is too small for what clients touch.
struct Pressure {
    evicted_pages: u64,
    at: Instant,
}

impl Pressure {
    fn new(metrics: Metrics) -> Self {
        Self { evicted_pages: metrics.evicted_pages, at: Instant::now() }
    }

    /// Tells all clients if a quarter of the budget was evicted since the last look.
    fn look(&mut self, server: &Shared) {
        if self.at.elapsed() < PRESSURE_EVERY {
            return;
        }
        let metrics = server.objects.cache().metrics();
        let evicted = (metrics.evicted_pages - self.evicted_pages) * PAGE;
        let ms = self.at.elapsed().as_millis();
        *self = Self::new(metrics);
        if evicted >= metrics.budget_bytes / 4 {
            let fields = Fields::new().with("evicted", evicted).with("ms", ms);
            let fields = fields.with("budget", metrics.budget_bytes).with("dirty", metrics.dirty_bytes);
            server.sessions().iter().for_each(|session| session.event(&fields, "pressure"));
        }
    }
}
