//! One client of a proxy: three threads.
//!
//! ```text
//!   client --- reader thread ---> outstanding, fids ---> sender thread --------- server
//!     ^                                                                            |
//!     +---------------------------------------- keeper thread <--------------------+
//!                                               connects, and gets the fids again
//! ```

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::fids::Dead;
use super::options::{ProxyEvent, ProxyOptions};
use super::restore::{Restore, RestoreError};
use super::state::{Fate, State};
use crate::address::Address;
use crate::frames::{FrameError, Frames};
use crate::stream::{ConnectError, Stream, is_timeout};

/// How often the silence of a server is looked at.
const TICK: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What a proxy counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) clients: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) fids_restored: AtomicU64,
    pub(super) fids_lost: AtomicU64,
}

/// A client.
pub(super) struct Client {
    number: u64,
    stream: Stream,
    /// Held while a message is written to the client.
    writing: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
    server: Address,
    options: ProxyOptions,
    counts: Arc<Counts>,
}

impl Client {
    pub(super) fn new(
        number: u64,
        stream: Stream,
        server: Address,
        options: ProxyOptions,
        counts: Arc<Counts>,
    ) -> Self {
        let (state, changed) = (Mutex::new(State::new()), Condvar::new());
        Self { number, stream, writing: Mutex::new(()), state, changed, server, options, counts }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: &ProxyEvent) {
        (self.options.listener)(event);
    }

    /// Ends the client; its threads notice.
    pub(super) fn end(&self, why: &str) {
        self.lock().end(why);
        self.stream.shut_down();
        self.changed.notify_all();
    }

    /// Serves the client until it ends. Blocks.
    pub(super) fn serve(self: &Arc<Self>) {
        self.tell(&ProxyEvent::ClientConnected { client: self.number });
        let start = |name: &str, work: fn(&Client)| {
            let client = Arc::clone(self);
            thread::Builder::new().name(name.into()).spawn(move || work(&client))
        };
        let threads =
            [start("memobj-9p-keep", Client::keep_server), start("memobj-9p-send", Client::send_requests)];
        if threads.iter().all(Result::is_ok) {
            self.read_requests();
        } else {
            self.end("no thread can be started");
        }
        // They have no way to fail, and end since the client has ended.
        threads.into_iter().flatten().for_each(|thread| drop(thread.join()));
        let why = self.lock().ended.clone().unwrap_or_default();
        self.tell(&ProxyEvent::ClientEnded { client: self.number, why });
    }

    fn read_requests(&self) {
        let mut frames = Frames::new(self.options.msize_bytes);
        loop {
            let message = match frames.next(&mut &self.stream) {
                Ok(message) => message,
                Err(FrameError::Ended) => return self.end("the client ended the connection"),
                Err(FrameError::Connection(error)) => return self.end(&error.to_string()),
                Err(FrameError::Size(size)) => return self.end(&format!("a message of {size} bytes")),
            };
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            let mut state = self.lock();
            while !state.has_room(&self.options) && state.ended.is_none() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let fate = state.take_request(message, &self.options);
            drop(state);
            match fate {
                Ok(Fate::Answered(answer)) => self.answer(&answer),
                Ok(_) => self.changed.notify_all(),
                Err(why) => return self.end(why),
            }
        }
    }

    fn answer(&self, bytes: &[u8]) {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = (&mut &self.stream).write_all(bytes);
        drop(writing);
        if let Err(error) = written {
            self.end(&error.to_string());
        }
    }

    fn send_requests(&self) {
        loop {
            let mut state = self.lock();
            let (bytes, server) = loop {
                if state.ended.is_some() {
                    return;
                }
                if let (Some(bytes), Some(server)) = (state.next_to_send(), state.server.clone()) {
                    break (bytes, server);
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            self.send(&server, &bytes);
        }
    }

    /// Sends a message; a server that does not take it in time loses its connection.
    fn send(&self, server: &Stream, mut bytes: &[u8]) {
        let mut since = Instant::now();
        while !bytes.is_empty() {
            match (&mut &*server).write(bytes) {
                Ok(count) if count > 0 => {
                    (bytes, since) = (bytes.get(count..).unwrap_or_default(), Instant::now());
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && since.elapsed() < self.options.silence => {}
                _ => return server.shut_down(),
            }
        }
    }

    /// Keeps a connection to the server, and passes on what it answers.
    fn keep_server(&self) {
        let mut failures = 0;
        while let Some((server, mut frames)) = self.connect(&mut failures) {
            let mut answers = 0u64;
            let why = self.read_replies(&server, &mut frames, &mut answers);
            server.shut_down();
            let mut state = self.lock();
            state.why = why;
            let instead = state.connection_lost();
            drop(state);
            instead.iter().for_each(|answer| self.answer(answer));
            self.changed.notify_all();
            // A server that ends each connection at once is not asked again at once.
            failures = u32::from(answers == 0);
        }
    }

    /// Passes on what the server answers until its connection ends; says why it did.
    fn read_replies(&self, server: &Stream, frames: &mut Frames, answers: &mut u64) -> String {
        if let Err(error) = server.set_read_timeout(Some(TICK)) {
            return error.to_string();
        }
        loop {
            match frames.next(&mut &*server) {
                Ok(message) => {
                    *answers += 1;
                    let mut state = self.lock();
                    self.heard(&mut state);
                    let fate = state.take_reply(message);
                    drop(state);
                    self.changed.notify_all();
                    match fate {
                        Ok(Fate::Passed) => self.answer(message),
                        Ok(_) => {}
                        Err(violation) => return violation.into(),
                    }
                }
                Err(FrameError::Connection(error)) if is_timeout(&error) => {
                    if self.tell_silence() || self.lock().is_silent_for(self.options.silence, Instant::now())
                    {
                        return format!("no answer within {:?}", self.options.silence);
                    }
                    self.changed.notify_all();
                }
                Err(FrameError::Ended) => return "the server ended the connection".into(),
                Err(FrameError::Connection(error)) => return error.to_string(),
                Err(FrameError::Size(size)) => return format!("a message of {size} bytes"),
            }
        }
    }

    /// The server is heard: tells that its silence is over.
    fn heard(&self, state: &mut State) {
        if std::mem::take(&mut state.is_told) {
            let silence = state.heard.elapsed();
            self.tell(&ProxyEvent::ServerAnswers { client: self.number, silence });
        }
    }

    /// Tells of a silence, once. Whether the client has ended.
    fn tell_silence(&self) -> bool {
        let mut state = self.lock();
        let silence = state.heard.elapsed();
        if state.is_busy() && !state.is_told && silence >= self.options.silence_told {
            state.is_told = true;
            let why = state.why.clone();
            self.tell(&ProxyEvent::ServerSilent { client: self.number, silence, why });
        }
        state.ended.is_some()
    }

    /// Connects, as often as it takes, and gets the fids again; `None` if the client has ended.
    fn connect(&self, failures: &mut u32) -> Option<(Arc<Stream>, Frames)> {
        loop {
            self.pause(*failures)?;
            *failures += 1;
            let server = Stream::connect(&self.server, self.options.connect_timeout);
            let tried = match server {
                Err(ConnectError::Resolve(error) | ConnectError::Connect(error)) => {
                    Err(RestoreError::Connection(error.to_string()))
                }
                Ok(server) => self.restore(Arc::new(server)),
            };
            match tried {
                Ok(connected) => return Some(connected),
                Err(RestoreError::Connection(why)) => self.lock().why = why,
                Err(RestoreError::Server(why)) => {
                    self.end(&why);
                    return None;
                }
            }
        }
    }

    /// Waits before a try; `None` if the client has ended.
    fn pause(&self, failures: u32) -> Option<()> {
        let pause = if failures == 0 { Duration::ZERO } else { FIRST_PAUSE * (1 << (failures - 1).min(8)) };
        let until = Instant::now() + pause.min(LONGEST_PAUSE);
        loop {
            if self.tell_silence() {
                return None;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(());
            }
            drop(self.changed.wait_timeout(self.lock(), left.min(TICK)));
        }
    }

    fn restore(&self, server: Arc<Stream>) -> Result<(Arc<Stream>, Frames), RestoreError> {
        let failed = |error: std::io::Error| RestoreError::Connection(error.to_string());
        server.set_write_timeout(Some(TICK.max(self.options.connect_timeout))).map_err(failed)?;
        let mut frames = Frames::new(self.options.msize_bytes);
        let state = self.lock();
        let (version, dialect, msize_bytes) = (state.version.clone(), state.dialect, state.msize_bytes);
        let fids = state.fids.fids.clone();
        let is_authenticated = state.fids.is_authenticated;
        drop(state);
        if is_authenticated {
            return Err(RestoreError::Server(
                "the client authenticated itself, which only it can do again".into(),
            ));
        }
        let mut lost = Vec::new();
        if !version.is_empty() {
            let (limit, compares_qids) = (self.options.connect_timeout, self.options.compares_qids);
            let stream = &*server;
            let mut restore =
                Restore { stream, frames: &mut frames, dialect, msize_bytes, limit, compares_qids };
            restore.version(&version)?;
            for (number, fid) in &fids {
                if let Err(dead) = restore.fid(*number, fid)? {
                    lost.push((*number, dead));
                }
            }
            self.counts.reconnects.fetch_add(1, Ordering::Relaxed);
            self.counts.fids_restored.fetch_add((fids.len() - lost.len()) as u64, Ordering::Relaxed);
        }
        self.go_on(&server, lost);
        Ok((server, frames))
    }

    /// Everything is there again: requests go on.
    fn go_on(&self, server: &Arc<Stream>, lost: Vec<(u32, Dead)>) {
        let mut state = self.lock();
        for (number, dead) in lost {
            let Some(fid) = state.fids.fids.get_mut(&number) else { continue };
            if fid.dead.is_none() {
                self.counts.fids_lost.fetch_add(1, Ordering::Relaxed);
                let path =
                    fid.path.1.iter().map(|name| format!("/{}", String::from_utf8_lossy(name))).collect();
                self.tell(&ProxyEvent::FidLost { client: self.number, path, why: dead.words.clone() });
                fid.dead = Some(dead);
            }
        }
        self.heard(&mut state);
        let answers = state.connected(Arc::clone(server));
        if state.ended.is_some() {
            server.shut_down();
        }
        drop(state);
        answers.iter().for_each(|answer| self.answer(answer));
        self.changed.notify_all();
    }
}
