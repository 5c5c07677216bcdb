//! Requests that can take long: each has a thread, and later requests of the client do not wait for it.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::events;
use super::quota::Share;
use super::record::Ticket;
use super::refusal::{Kind, Refusal};
use super::requests::{Arguments, Asked, Taken, check_writable};
use super::session::{Opened, Session};
use super::words::Fields;

/// Bytes that are populated before it is looked whether the client is still there.
const STEP_BYTES: u64 = 4 << 20;
/// The most bytes of one `read`.
const MOST_READ: u64 = 1024;

/// Answers a request when it is dropped, whatever became of the thread.
struct Answering {
    session: Arc<Session>,
    tag: String,
    ticket: Option<Ticket>,
    answer: Option<Result<Fields, Refusal>>,
    shares: Vec<Share>,
}

impl Answering {
    fn finish(mut self, answer: Result<Fields, Refusal>) {
        self.answer = Some(answer);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let panicked = || Err(Refusal::new(Kind::System, "the request has failed inside the server"));
        let line = match self.answer.take().unwrap_or_else(panicked) {
            Ok(fields) => format!("{} ok{fields}\n", self.tag),
            Err(refusal) => refusal.line(&self.tag),
        };
        // Before the answer: who has it may send another request at once.
        self.shares.clear();
        self.session.output.answer(&line, self.ticket);
        // The session may wait for the last of its answers.
        self.session.unanswered.fetch_sub(1, Ordering::AcqRel);
        self.session.output.wake();
    }
}

/// Has `work` done by a thread, if the client and the server have not too many already.
pub(super) fn begin(
    session: &Arc<Session>,
    asked: Asked<'_>,
    work: impl FnOnce(&Arc<Session>) -> Result<Fields, Refusal> + Send + 'static,
) -> Result<Taken, Refusal> {
    let server = &session.server;
    let quota = &server.options.quota;
    let busy = |most: u64| {
        let refusal = Refusal::new(Kind::Busy, format!("{most} requests are under way"));
        refusal.with(|fields| fields.with("most", most))
    };
    // The first of each client is always taken; what clients that are gone have left behind counts.
    let reserve = if session.running.taken() == 0 { quota.clients } else { 0 };
    let own = session.running.take(1, quota.requests).ok_or_else(|| busy(quota.requests))?;
    let most = quota.all_requests.saturating_add(reserve);
    let all = server.running.take(1, most).ok_or_else(|| busy(quota.all_requests))?;
    session.unanswered.fetch_add(1, Ordering::AcqRel);
    let answering = Answering {
        session: Arc::clone(session),
        tag: asked.tag.to_owned(),
        ticket: asked.ticket,
        answer: None,
        shares: vec![own, all],
    };
    let thread = std::thread::Builder::new().name("memobj-request".into());
    let spawned = thread.spawn(move || {
        super::give_way();
        let answer = work(&answering.session);
        answering.finish(answer);
    });
    // If it could not be started, the request was answered when its closure was dropped.
    drop(spawned);
    Ok(Taken::Begun)
}

/// `populate OBJECT [OFFSET LENGTH]`.
pub(super) fn populate(
    session: &Arc<Session>,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<Taken, Refusal> {
    let (opened, range) = arguments.object_and_range(session)?;
    begin(session, asked, move |session| {
        let mut at = range.start;
        while at < range.end {
            if session.is_over() {
                return Err(Refusal::new(Kind::System, "the client is gone"));
            }
            let end = range.end.min((at + STEP_BYTES) / STEP_BYTES * STEP_BYTES);
            opened.used.mapping.populate(at..end)?;
            at = end;
        }
        Ok(Fields::new().with("bytes", range.end - range.start))
    })
}

/// `read OBJECT OFFSET LENGTH`: bytes, for scripts.
pub(super) fn read(
    session: &Arc<Session>,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<Taken, Refusal> {
    let (opened, range) = arguments.object_and_range(session)?;
    let length = range.end - range.start;
    if length > MOST_READ {
        let message = format!("{length} bytes are too many, {MOST_READ} at most");
        return Err(Refusal::new(Kind::Range, message).with(|fields| fields.with("most", MOST_READ)));
    }
    begin(session, asked, move |_| {
        let mut bytes = vec![0; length as usize];
        // Without a pin: a guest that is to store is admitted when nothing is pinned.
        opened.used.mapping.touch_at(range.start, &mut bytes)?;
        let mut digits = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            let _ = write!(digits, "{byte:02x}");
        }
        Ok(Fields::new().with("data", digits))
    })
}

/// `sync OBJECT [OFFSET LENGTH]`.
pub(super) fn sync(
    session: &Arc<Session>,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<Taken, Refusal> {
    let (opened, range) = arguments.object_and_range(session)?;
    check_writable(&opened)?;
    begin(session, asked, move |session| {
        let synced = opened.used.mapping.sync(range);
        synced.inspect_err(|error| events::sync_failed(session, error))?;
        Ok(Fields::new())
    })
}

/// `discard OBJECT [OFFSET LENGTH]`.
pub(super) fn discard(
    session: &Arc<Session>,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<Taken, Refusal> {
    let (opened, range) = arguments.object_and_range(session)?;
    check_writable(&opened)?;
    begin(session, asked, move |_| {
        let pages = opened.used.mapping.discard(range)?;
        Ok(Fields::new().with("pages", pages))
    })
}

/// `close OBJECT`: what the client could write is synced first, and stays open if that fails.
pub(super) fn close(
    session: &Arc<Session>,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<Taken, Refusal> {
    let opened = match arguments.object(session) {
        // A server before had done it, and could not say so any more.
        Err(refusal) if asked.is_again() && refusal.kind == Kind::NotFound => {
            return Ok(Taken::Done(Fields::new()));
        }
        opened => opened?,
    };
    arguments.end()?;
    check_unmapped(session, &opened)?;
    begin(session, asked, move |session| {
        if opened.may_write {
            let closed = opened.used.object.close();
            closed.inspect_err(|error| events::sync_failed(session, error))?;
        }
        let mut state = session.state();
        if let Some(mappings) = state.mappings_of(opened.number) {
            return Err(in_use(mappings));
        }
        let removed = state.objects.remove(&opened.number);
        if let Some(record) = &session.record {
            record.remove_object(opened.number);
        }
        drop(state);
        // Its last use may sync it.
        drop(opened);
        removed.map(|_| Fields::new()).ok_or_else(|| Refusal::not_found("object"))
    })
}

fn check_unmapped(session: &Session, opened: &Opened) -> Result<(), Refusal> {
    let mappings = session.state().mappings_of(opened.number);
    mappings.map_or(Ok(()), |mappings| Err(in_use(mappings)))
}

fn in_use(mappings: usize) -> Refusal {
    let refusal = Refusal::new(Kind::InUse, format!("{mappings} mappings of the object are left"));
    refusal.with(|fields| fields.with("mappings", mappings))
}
