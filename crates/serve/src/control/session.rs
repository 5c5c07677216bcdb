//! One client: a thread that reads its requests and sends it answers and events.
//!
//! ```text
//!   socket --> Input --> requests: quick ones are answered here, long ones by threads of their own
//!                             |                     |
//!          <-- Output <-------+---------------------+--- events
//! ```
//!
//! Nobody else reads from or writes to the socket. What a client holds is in `State`, and is bounded by the quota.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};

use super::borrow;
use super::input::{Input, TooLong};
use super::lend::Loan;
use super::locked;
use super::mappings::Mapped;
use super::objects::Use;
use super::output::Output;
use super::queue::Queue;
use super::quota::{Counter, Share};
use super::record::{Again, Record, Ticket};
use super::refusal::{Kind, Refusal};
use super::requests::{self, Flow};
use super::server::Shared;
use super::words::{LONGEST_LINE, NO_TAG, Request};
use crate::keep;
use crate::peer::Peer;

/// So many servers may end while they are at one request, before it is refused.
const MOST_DEATHS: u64 = 16;

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The client left.
    Left,
    /// The server ends.
    Stopped,
    /// The client did what clients must not.
    Dropped(&'static str),
}

/// One client.
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) peer: Peer,
    pub(super) server: Arc<Shared>,
    pub(super) output: Output,
    /// Its long requests that are under way.
    pub(super) running: Counter,
    /// Those whose answer is not queued yet. A client that has an answer may begin another at once, so this ends later.
    pub(super) unanswered: AtomicU64,
    pub(super) mapped: Counter,
    pub(super) mapped_bytes: Counter,
    pub(super) wants_events: AtomicBool,
    /// Of one that is kept.
    pub(super) record: Option<Arc<Record>>,
    is_over: AtomicBool,
    state: Mutex<State>,
    _descriptors: Share,
}

/// What a client has.
#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<u64, Arc<Opened>>,
    pub(super) mappings: BTreeMap<u64, Mapped>,
    /// Files whose frames it borrows.
    pub(super) loans: BTreeMap<u64, Arc<Loan>>,
    pub(super) last_object: u64,
    pub(super) last_mapping: u64,
    /// Mappings that a server before has made, by their requests.
    pub(super) mapped_by: BTreeMap<u64, u64>,
}

/// An object that a client has open.
pub(super) struct Opened {
    pub(super) number: u64,
    pub(super) used: Use,
    pub(super) may_write: bool,
}

impl State {
    /// Numbers are never used again: a late request never meets another object.
    pub(super) fn new_object(&mut self) -> u64 {
        self.last_object += 1;
        self.last_object
    }

    pub(super) fn new_mapping(&mut self) -> u64 {
        self.last_mapping += 1;
        self.last_mapping
    }
}

impl Session {
    /// A session for the client behind `peer`, which has its share of the server's descriptors.
    pub(super) fn new(
        number: u64,
        peer: Peer,
        server: Arc<Shared>,
        descriptors: Share,
    ) -> io::Result<Arc<Self>> {
        let most_event_bytes = server.options.quota.event_bytes;
        let (output, record) = match server.kept {
            None => (Output::new(most_event_bytes)?, None),
            Some(_) => {
                let record = Arc::new(Record::new(number)?);
                (Output::kept(Queue::in_file()?, &record, most_event_bytes)?, Some(record))
            }
        };
        Ok(Arc::new(Self::over(number, peer, server, (output, record), descriptors)))
    }

    pub(super) fn over(
        number: u64,
        peer: Peer,
        server: Arc<Shared>,
        (output, record): (Output, Option<Arc<Record>>),
        descriptors: Share,
    ) -> Self {
        let wants_events = record.as_ref().is_some_and(|record| record.wants_events());
        Self {
            number,
            peer,
            server,
            output,
            running: Counter::default(),
            unanswered: AtomicU64::new(0),
            mapped: Counter::default(),
            mapped_bytes: Counter::default(),
            wants_events: AtomicBool::new(wants_events),
            record,
            is_over: AtomicBool::new(false),
            state: Mutex::default(),
            _descriptors: descriptors,
        }
    }

    /// Has the keeper keep it, if there is one.
    pub(super) fn keep(&self, socket: &UnixStream) -> io::Result<()> {
        let (Some(kept), Some(record)) = (&self.server.kept, &self.record) else { return Ok(()) };
        self.output.with_file(|answers| {
            let descriptors = [socket.as_fd(), record.as_fd(), answers];
            kept.keep(keep::Kind::Session, (self.number, self.peer.process), &[], &descriptors)
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Whether nothing is to be begun for it any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Ends it soon.
    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::Release);
        self.output.wake();
    }

    /// The object that a client calls so.
    pub(super) fn object(&self, number: u64) -> Result<Arc<Opened>, Refusal> {
        let state = self.state();
        state.objects.get(&number).cloned().ok_or_else(|| Refusal::not_found("object"))
    }

    /// Has the keeper forget it: what it has from now on cannot be kept.
    pub(super) fn end_keeping(&self) -> io::Result<()> {
        let Some(kept) = &self.server.kept else { return Ok(()) };
        self.output.end_keeping(|| kept.forget(keep::Kind::Session, self.number))
    }

    /// Serves a new client until it leaves, and gives back all that it had.
    pub(super) fn serve(self: &Arc<Self>, socket: UnixStream) {
        let input = self.record.as_ref().map_or_else(Input::default, |record| Input::kept(record, None));
        let lends = borrow::greeting(self);
        self.output.answer(&format!("memobj 1 session={}{lends}\n", self.number), None);
        self.go_on(socket, input, Vec::new());
    }

    /// Serves the client until it leaves, and gives back all that it had. The requests `again` were taken by a server before.
    pub(super) fn go_on(self: &Arc<Self>, socket: UnixStream, input: Input, again: Vec<Again>) {
        let end = Turns::new(self, &socket, input).run(again);
        // The client hears of the end before its objects are synced.
        let _ = shutdown(&socket, Shutdown::Both);
        drop(socket);
        if let End::Dropped(why) = end {
            self.server.dropped(self, why);
        }
        self.stop();
        let (mappings, objects, loans) = {
            let mut state = self.state();
            let loans = std::mem::take(&mut state.loans);
            (std::mem::take(&mut state.mappings), std::mem::take(&mut state.objects), loans)
        };
        drop((mappings, loans));
        drop(objects);
        if let Some(kept) = &self.server.kept {
            kept.forget(keep::Kind::Session, self.number);
        }
    }
}

/// The loop of a session.
struct Turns<'a> {
    session: &'a Arc<Session>,
    socket: &'a UnixStream,
    input: Input,
    /// Until when the first request has to come.
    first: Option<Instant>,
    /// Since when the client does not read its answers.
    stalled: Option<Instant>,
    has_quit: bool,
}

impl<'a> Turns<'a> {
    fn new(session: &'a Arc<Session>, socket: &'a UnixStream, input: Input) -> Self {
        let is_new = session.record.as_ref().is_none_or(|record| !record.has_requests());
        let first = is_new.then(|| Instant::now() + session.server.options.first_request);
        let has_quit = session.record.as_ref().is_some_and(|record| record.has_quit());
        Self { session, socket, input, first, stalled: None, has_quit }
    }

    fn run(mut self, again: Vec<Again>) -> End {
        let session = self.session;
        for (ticket, line) in again {
            if ticket.deaths < MOST_DEATHS {
                self.take_request(&line, Some(ticket));
                continue;
            }
            // It may be what ends them.
            let tag = Request::parse(&line).map_or(NO_TAG, |request| request.tag);
            let message = format!("{} servers have ended while they were at it", ticket.deaths);
            session.output.answer(&Refusal::new(Kind::System, message).line(tag), Some(ticket));
        }
        loop {
            session.output.clear();
            if session.is_over() {
                return End::Stopped;
            }
            if let Err(end) = self.send().and_then(|()| self.take_requests()) {
                // What says why, if the client takes it.
                let _ = session.output.send(self.socket);
                return end;
            }
            let is_done = self.hears_no_more() && session.unanswered.load(Ordering::Acquire) == 0;
            if is_done && !session.output.has_rest() {
                return End::Left;
            }
            if let Err(end) = self.wait() {
                return end;
            }
        }
    }

    /// Whether no more requests are taken.
    fn hears_no_more(&self) -> bool {
        self.has_quit || (self.input.has_ended && !self.input.has_line())
    }

    fn send(&mut self) -> Result<(), End> {
        let output = &self.session.output;
        let sent = output.send(self.socket).map_err(|_| End::Left)?;
        // Events may be lost; answers have to be read.
        if sent.progress || !output.owes_answers() {
            self.stalled = None;
        } else {
            self.stalled.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn take_requests(&mut self) -> Result<(), End> {
        while !self.has_quit && !self.session.output.is_full() {
            match self.input.next_line() {
                Ok(None) => break,
                Ok(Some((line, ticket))) => self.take_request(&line, ticket),
                Err(TooLong) => {
                    let message = format!("a line has at most {LONGEST_LINE} bytes");
                    self.session.output.answer(&Refusal::syntax(message).line(NO_TAG), None);
                    return Err(End::Dropped("a line is too long"));
                }
            }
        }
        Ok(())
    }

    fn take_request(&mut self, line: &[u8], ticket: Option<Ticket>) {
        let session = self.session;
        session.server.counts.requests.fetch_add(1, Ordering::Relaxed);
        match Request::parse(line) {
            Ok(request) => {
                self.first = None;
                if requests::take(session, request, ticket, &mut self.input) == Flow::Quit {
                    self.has_quit = true;
                }
            }
            Err(bad) => session.output.answer(&Refusal::syntax(bad.why).line(bad.tag), ticket),
        }
    }

    /// Waits for requests, for the client to read, or for something to send; receives what came.
    fn wait(&mut self) -> Result<(), End> {
        let session = self.session;
        let hears = !self.has_quit && !self.input.has_ended && !self.input.has_line();
        let reads = hears && !self.input.is_full();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, reads);
        flags.set(PollFlags::OUT, session.output.has_rest());
        let mut entries = [PollFd::new(self.socket, flags), PollFd::new(&session.output, PollFlags::IN)];
        match poll(&mut entries, self.time_left()?.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(End::Dropped("the system refused to wait for it")),
        }
        let came = entries[0].revents();
        if came.contains(PollFlags::IN) && reads {
            self.input.receive(self.socket).map_err(|_| End::Left)?;
        } else if came.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Err(End::Left);
        }
        Ok(())
    }

    /// Until the next deadline; an error is that one has passed.
    fn time_left(&self) -> Result<Option<Timespec>, End> {
        let options = &self.session.server.options;
        let now = Instant::now();
        let stalled = self.stalled.map(|since| since + options.stall);
        let deadlines = [(self.first, "it sent no request"), (stalled, "it does not read its answers")];
        let mut least: Option<Duration> = None;
        for (deadline, why) in deadlines {
            let Some(deadline) = deadline else { continue };
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err(End::Dropped(why));
            }
            least = Some(least.map_or(left, |least| least.min(left)));
        }
        Ok(least
            .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }))
    }
}
