//! The threads of a pager: one keeps a connection and sends, one reads what comes.

use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use super::job::Effects;
use super::state::State;
use crate::dialect::Dialect;
use crate::frames::{FrameError, Frames};
use crate::message::Answer;
use crate::open_error::{Cause, OpenError, OpenStep};
use crate::session::Session;
use crate::stream::{Stream, is_timeout};

/// How long a write that the server does not take may last before the silence is looked at.
const WRITE_TICK: Duration = Duration::from_millis(100);
/// How often a clock that tests move is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Keeps a connection until the pager ends. Begins with `session`.
pub(super) fn keep(shared: &Arc<Shared>, session: Session) {
    let mut next = Some(session);
    while let Some(session) = next.take().or_else(|| shared.connect_again()) {
        shared.use_connection(session);
    }
}

impl Shared {
    /// Waits until something changed, or it is `until`.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        let Some(until) = until else {
            return self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        };
        let left = until.saturating_duration_since(self.now());
        let left = if self.options.clock.is_some() { left.min(LOOK_AGAIN) } else { left };
        let waited = self.changed.wait_timeout(state, left);
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    /// Tries until there is a connection on which the same version is open; `None` if the pager ends.
    fn connect_again(self: &Arc<Self>) -> Option<Session> {
        loop {
            let pause = {
                let mut state = self.lock();
                let random = std::hash::RandomState::new().build_hasher().finish();
                state.silence.is_probed = false;
                state.pause(random)
            };
            let until = self.now() + pause;
            self.wait_while(Some(until), || (self.now() >= until).then_some(()))?;
            let (sender, receiver) = mpsc::channel();
            let target = self.target.clone();
            // On a thread of its own: it can block in ways that nothing ends.
            let notify = Arc::clone(self);
            let attempt = thread::Builder::new().name("memobj-9p-connect".into()).spawn(move || {
                // The pager may have ended meanwhile.
                let _ = sender.send(target.establish());
                drop(notify.lock());
                notify.changed.notify_all();
            });
            let attempt = match attempt {
                Err(error) => Err(self.no_thread(error)),
                Ok(_) => self.wait_while(None, || match receiver.try_recv() {
                    Ok(session) => Some(session),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => {
                        Some(Err(self.no_thread(std::io::Error::other("the thread ended"))))
                    }
                })?,
            };
            match attempt {
                Ok(session) => {
                    self.counters.reconnects.add(1);
                    return Some(session);
                }
                Err(error) => self.change(|state, effects| state.not_connected(error, effects)),
            }
        }
    }

    fn no_thread(&self, error: std::io::Error) -> OpenError {
        OpenError::new(self.server.clone(), OpenStep::Connect, Cause::Connection(error))
    }

    /// Waits for what `found` finds, and tells of silence meanwhile; `None` if the pager ends.
    fn wait_while<R>(&self, until: Option<Instant>, found: impl Fn() -> Option<R>) -> Option<R> {
        loop {
            let mut effects = Effects::default();
            let mut state = self.lock();
            if state.is_over() {
                return None;
            }
            if let Some(found) = found() {
                return Some(found);
            }
            let next = state.tick(self.now(), &self.options, &mut effects);
            if effects.is_empty() {
                drop(self.wait(state, [next, until].into_iter().flatten().min()));
            } else {
                drop(state);
                self.deliver(effects);
            }
        }
    }

    /// Uses a connection until it breaks or the pager ends.
    fn use_connection(self: &Arc<Self>, session: Session) {
        let stream = Arc::clone(&session.stream);
        let mut is_same = false;
        self.change(|state, effects| {
            is_same = !state.is_over() && state.connected(&session, self.now(), effects);
        });
        if !is_same {
            return stream.shut_down();
        }
        let epoch = self.lock().epochs;
        let set = stream.set_read_timeout(None).and(stream.set_write_timeout(Some(WRITE_TICK)));
        let reader = set.and_then(|()| self.start_reader(session, epoch));
        if let Err(error) = &reader {
            self.lock().break_connection(error.to_string());
        }
        let mut out = Vec::new();
        while self.next_messages(&mut out) {
            self.write(&stream, &out);
            self.counters.written_bytes.add(out.len());
            out.clear();
        }
        stream.shut_down();
        // It has no way to fail; it ends since the stream is shut down.
        let _ = reader.map(thread::JoinHandle::join);
        self.change(State::connection_lost);
    }

    /// Puts what is to be sent into `out`. Waits until there is something; `false` if the connection is over.
    fn next_messages(&self, out: &mut Vec<u8>) -> bool {
        loop {
            let mut effects = Effects::default();
            let mut state = self.lock();
            let is_broken = state.connection.as_ref().is_none_or(|connection| connection.broken.is_some());
            if is_broken || state.is_over() {
                return false;
            }
            state.fill(out, self.options.depth, self.now(), &self.counters);
            if !out.is_empty() {
                return true;
            }
            let next = state.tick(self.now(), &self.options, &mut effects);
            let has_more = state.verify.is_wanted && !state.verify.is_under_way;
            if effects.is_empty() && !has_more {
                drop(self.wait(state, next));
            } else {
                drop(state);
                self.deliver(effects);
            }
        }
    }

    /// Writes all of `bytes`, unless the connection breaks.
    fn write(&self, stream: &Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match (&mut &*stream).write(bytes) {
                Ok(0) => return self.lock().break_connection("the connection takes no bytes"),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    self.change(|state, effects| {
                        state.tick(self.now(), &self.options, effects);
                    });
                    let state = self.lock();
                    let is_broken = state.connection.as_ref().is_none_or(|it| it.broken.is_some());
                    if is_broken || state.is_over() {
                        return;
                    }
                }
                Err(error) => return self.lock().break_connection(error.to_string()),
            }
        }
    }

    fn start_reader(
        self: &Arc<Self>,
        session: Session,
        epoch: u64,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        let shared = Arc::clone(self);
        let Session { stream, frames, dialect, .. } = session;
        thread::Builder::new().name("memobj-9p-read".into()).spawn(move || {
            let why = shared.read_all(&stream, frames, dialect, epoch);
            let mut state = shared.lock();
            if state.connection.as_ref().is_some_and(|connection| connection.epoch == epoch) {
                state.break_connection(why);
            }
            drop(state);
            shared.changed.notify_all();
        })
    }

    /// Takes answers in until the connection ends; says why it did.
    fn read_all(&self, stream: &Stream, mut frames: Frames, dialect: Dialect, epoch: u64) -> String {
        loop {
            let message = match frames.next(&mut &*stream) {
                Ok(message) => message,
                Err(FrameError::Ended) => return "the server ended the connection".into(),
                Err(FrameError::Connection(error)) => return error.to_string(),
                Err(FrameError::Size(_)) => {
                    self.change(|state, effects| state.violated("a message has a wrong size", effects));
                    return "a message has a wrong size".into();
                }
            };
            self.counters.read_bytes.add(message.len());
            self.change(|state, effects| {
                if state.connection.as_ref().is_none_or(|connection| connection.epoch != epoch) {
                    return;
                }
                let answer = Answer::decode(message, dialect).map_err(|malformed| malformed.0);
                let taken = answer.and_then(|answer| state.take(answer, self.now(), effects));
                if let Err(violation) = taken {
                    state.violated(violation, effects);
                }
            });
        }
    }
}
