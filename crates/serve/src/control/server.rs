//! The server: accepts clients, and ends them all when it is stopped.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memobj::{Cache, FailurePolicy};
use memobj_linux::eventfd::EventFd;
use memobj_linux::fault_loop::FaultLoop;
use memobj_linux::times::percentile;
use rustix::event::{PollFd, PollFlags, poll};
use tracing::{debug, error, warn};

use super::events;
use super::exports::Exports;
use super::lend::{Lend, Lender, LentPager};
use super::locked;
use super::objects::Objects;
use super::quota::{Counter, OF_CLIENT, Quota, Share};
use super::session::Session;
use super::take_over::{self, LeftSession};
use super::words::{Fields, LONGEST_LINE};
use crate::keep::Kept;
use crate::listen::{Listening, OpenTo};
use crate::log::Log;
use crate::peer::{Allowed, Peer};

/// The pause after a client could not be accepted: no descriptors, for example.
const PAUSE: Duration = Duration::from_millis(50);

/// For [`Server::bind`].
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// What clients may have.
    pub quota: Quota,
    /// Who may connect.
    pub allowed: Allowed,
    /// What happens when a page cannot be supplied, if the client that opens an object says nothing.
    pub policy: FailurePolicy,
    /// How long a client may take to send its first request.
    pub first_request: Duration,
    /// How long a client may leave answers unread.
    pub stall: Duration,
    /// How long a client may take to attach to a mapping.
    pub attach: Duration,
    /// How long the end of the server waits for clients to be gone, and their objects to be synced.
    pub grace: Duration,
    /// To whom frames of files are lent.
    pub lend: Lend,
    /// What supplies lent files.
    pub lent_pager: LentPager,
    /// Further numbers that `stats` answers, of machines for example: keys of `a-z`, `0-9` and `-`.
    pub more_stats: MoreStats,
}

impl Default for ServerOptions {
    /// The user of the server and root; pages fail at once; 10 s for a first request, 30 s for answers, 5 s to attach, 10 s to end.
    fn default() -> Self {
        Self {
            quota: Quota::default(),
            allowed: Allowed::default(),
            policy: FailurePolicy::FailAtOnce,
            first_request: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            attach: Duration::from_secs(5),
            grace: Duration::from_secs(10),
            lend: Lend::default(),
            lent_pager: LentPager::default(),
            more_stats: Arc::new(Vec::new),
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions").field("quota", &self.quota).finish_non_exhaustive()
    }
}

setters!(
    ServerOptions =>
    quota: Quota,
    allowed: Allowed,
    policy: FailurePolicy,
    first_request: Duration,
    stall: Duration,
    attach: Duration,
    grace: Duration,
    lend: Lend,
    lent_pager: LentPager,
    more_stats: MoreStats,
);

/// Tells numbers of this moment. Called by threads of clients; does not block.
pub type MoreStats = Arc<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// What a server has done, and has now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Clients now.
    pub clients: u64,
    /// Clients that were let in.
    pub accepted: u64,
    /// Clients that were refused.
    pub refused: u64,
    /// Clients that were dropped for what they did.
    pub dropped: u64,
    /// Lines that were received.
    pub requests: u64,
    /// Long requests under way now.
    pub running: u64,
    /// Objects open now.
    pub objects: u64,
    /// Events that were told.
    pub events: u64,
    /// Events that were lost, since clients did not read.
    pub lost_events: u64,
    /// Descriptors set aside for clients now.
    pub descriptors: u64,
    /// Files that are lent, or stay open for the next borrower.
    pub lent_files: u64,
    /// Loans that were made.
    pub loans: u64,
    /// Loans of files that were open already.
    pub warm_loans: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) lost_events: AtomicU64,
}

/// What the threads of a server share.
pub(super) struct Shared {
    pub(super) objects: Arc<Objects>,
    pub(super) lender: Arc<Lender>,
    pub(super) exports: Exports,
    pub(super) options: ServerOptions,
    pub(super) log: Log,
    pub(super) counts: Counts,
    pub(super) descriptors: Counter,
    pub(super) running: Counter,
    /// The keeper, if there is one.
    pub(super) kept: Option<Arc<Kept>>,
    pub(super) last_mapping_item: AtomicU64,
    clients: Counter,
    sessions: Mutex<BTreeMap<u64, Arc<Session>>>,
    all_gone: Condvar,
    is_stopped: AtomicBool,
    wake: EventFd,
}

impl Shared {
    fn new(
        cache: Cache,
        exports: Exports,
        options: ServerOptions,
        kept: Option<Arc<Kept>>,
    ) -> io::Result<Arc<Self>> {
        let (descriptors, log) = (Counter::default(), Log::here());
        let limit = (descriptors.clone(), options.quota.descriptors);
        let lent_pager = options.lent_pager.clone();
        Ok(Arc::new(Self {
            lender: Lender::new(cache.clone(), options.policy, lent_pager, limit.clone()),
            objects: Objects::new(cache, log.clone(), limit, kept.clone()),
            exports,
            log,
            options,
            counts: Counts::default(),
            descriptors,
            running: Counter::default(),
            kept,
            last_mapping_item: AtomicU64::new(0),
            clients: Counter::default(),
            sessions: Mutex::default(),
            all_gone: Condvar::new(),
            is_stopped: AtomicBool::new(false),
            wake: EventFd::new()?,
        }))
    }

    /// A place among the clients.
    pub(super) fn client(&self) -> Option<Share> {
        self.clients.take(1, self.options.quota.clients)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// The clients now.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        locked(&self.sessions).values().cloned().collect()
    }

    /// A client is dropped.
    pub(super) fn dropped(&self, session: &Session, why: &str) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        self.log.with(|| {
            let (client, peer) = (session.number, session.peer);
            let (process, user, group) = (peer.process, peer.user, peer.group);
            warn!(client, process, user, group, why, "client {client} ({peer}) is dropped: {why}");
        });
    }

    fn statistics(&self) -> Statistics {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let lent = self.lender.counts();
        Statistics {
            lent_files: lent.files,
            loans: lent.loans,
            warm_loans: lent.warm_loans,
            clients: self.clients.taken(),
            accepted: get(&self.counts.accepted),
            refused: get(&self.counts.refused),
            dropped: get(&self.counts.dropped),
            requests: get(&self.counts.requests),
            running: self.running.taken(),
            objects: self.objects.count() as u64,
            events: get(&self.counts.events),
            lost_events: get(&self.counts.lost_events),
            descriptors: self.descriptors.taken(),
        }
    }

    /// What `stats` answers.
    pub(super) fn stats(&self, session: &Session) -> Fields {
        let (statistics, metrics) = (self.statistics(), self.objects.cache().metrics());
        let objects = session.state().objects.len();
        let fields = Fields::new()
            .with("objects", objects)
            .with("mappings", session.mapped.taken())
            .with("mapped-bytes", session.mapped_bytes.taken())
            .with("running", session.running.taken())
            .with("loans", session.state().loans.len())
            .with("lent-files", statistics.lent_files)
            .with("clients", statistics.clients)
            .with("all-objects", statistics.objects)
            .with("all-running", statistics.running)
            .with("descriptors", statistics.descriptors)
            .with("frame-bytes", metrics.frame_bytes)
            .with("peak-frame-bytes", metrics.peak_frame_bytes)
            .with("budget-bytes", metrics.budget_bytes)
            .with("table-bytes", metrics.table_bytes)
            .with("dirty-bytes", metrics.dirty_bytes)
            .with("faults", metrics.faults)
            .with("supplied-pages", metrics.supplied_pages)
            .with("evicted-pages", metrics.evicted_pages)
            .with("failed-pages", metrics.failed_pages)
            .with("read-bytes", metrics.read_bytes)
            .with("written-bytes", metrics.written_bytes)
            .with("lost-events", statistics.lost_events);
        let more = (self.options.more_stats)();
        with_resolved(more.into_iter().fold(fields, |fields, (key, value)| fields.with(key, value)))
    }
}

/// What is known of faults of clients and machines, from when they were read until they were resolved.
fn with_resolved(fields: Fields) -> Fields {
    /// What is left for the tag, and the end of the line.
    const RESERVED: usize = 32;
    let (metrics, resolved) = (FaultLoop::metrics_of_process(), FaultLoop::resolved_of_process());
    let nanoseconds = |hundredths| percentile(&resolved.counts, hundredths).as_nanos();
    let fields = fields
        .with("read-faults", metrics.events)
        .with("faults-at-once", resolved.at_once)
        .with("waiting", metrics.parked)
        .with("resolve-p50-ns", nanoseconds(50))
        .with("resolve-p99-ns", nanoseconds(99));
    let counts: Vec<String> =
        resolved.counts.iter().map(|(bound, count)| format!("{bound}:{count}")).collect();
    let counts = counts.join(",");
    match fields.len() + counts.len() + RESERVED < LONGEST_LINE {
        true => fields.with("resolve-times", counts),
        false => fields,
    }
}

/// Serves objects of one cache to the clients of one socket.
///
/// ```no_run
/// use memobj::{Cache, CacheOptions};
/// use memobj_serve::control::{Access, Exports, Server, ServerOptions};
///
/// let cache = Cache::new(CacheOptions::new().budget_bytes(64 << 20))?;
/// let mut exports = Exports::new();
/// exports.file("model", "/srv/model.bin", Access::ReadOnly);
/// let server = Server::bind("/run/memobj.sock", cache, exports, ServerOptions::new())?;
/// let handle = server.handle();
/// std::thread::spawn(move || server.run());
/// // And when it is to end:
/// handle.stop();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    shared: Arc<Shared>,
    listener: UnixListener,
    /// Sessions of a server before.
    left: Vec<LeftSession>,
    /// The name of the socket; of a kept server it is the keeper's.
    _name: Option<Listening>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// Stops a server, and tells what it does. Cheap to clone.
#[derive(Clone)]
pub struct ServerHandle(Arc<Shared>);

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerHandle").field(&self.statistics()).finish()
    }
}

impl ServerHandle {
    /// Has the server end. Does not wait for it.
    pub fn stop(&self) {
        self.0.is_stopped.store(true, Ordering::Release);
        self.0.wake.notify();
    }

    /// What the server has done so far.
    pub fn statistics(&self) -> Statistics {
        self.0.statistics()
    }
}

impl Server {
    /// Listens at `path`. Clients are accepted once it [runs](Self::run). The server receives the events of `cache`. What it
    /// says is for the `tracing` subscriber of the calling thread.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if another server listens there; a socket that nobody listens at is replaced. `AlreadyExists` if
    /// something else has the name. What the system says otherwise.
    pub fn bind(
        path: impl AsRef<Path>,
        cache: Cache,
        exports: Exports,
        options: ServerOptions,
    ) -> io::Result<Self> {
        let open_to = if options.allowed.has_others() { OpenTo::All } else { OpenTo::Owner };
        let listening = Listening::bind(path.as_ref(), open_to)?;
        let listener = listening.listener()?;
        let shared = Shared::new(cache, exports, options, None)?;
        Ok(Self { shared, listener, left: Vec::new(), _name: Some(listening) })
    }

    /// As [`bind`](Self::bind), at a socket of the keeper. Clients of servers before are taken over: their objects, mappings and
    /// requests. Blocks while objects are opened.
    ///
    /// What cannot be taken over is told by the log, and ends.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn take_over(
        kept: Arc<Kept>,
        listener: UnixListener,
        cache: Cache,
        exports: Exports,
        options: ServerOptions,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let shared = Shared::new(cache, exports, options, Some(kept))?;
        let left = take_over::take_over(&shared);
        Ok(Self { shared, listener, left, _name: None })
    }

    /// What stops it.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(Arc::clone(&self.shared))
    }

    /// Serves until it is stopped. Then all clients are disconnected, their objects are synced, and the socket is removed; what
    /// takes longer than the [grace](ServerOptions::grace) is left behind.
    ///
    /// # Errors
    ///
    /// That the system refused a thread, or to wait for clients.
    pub fn run(mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut last = 0;
        for left in std::mem::take(&mut self.left) {
            last = last.max(left.session.number);
            self.go_on(left);
        }
        let pump = std::thread::Builder::new().name("memobj-events".into());
        let pump = pump.spawn(move || events::pump(&shared))?;
        let accepted = self.accept_all(last);
        self.shared.is_stopped.store(true, Ordering::Release);
        self.end_all();
        let _ = pump.join();
        accepted
    }

    fn accept_all(&self, last: u64) -> io::Result<()> {
        let (shared, listener) = (&self.shared, &self.listener);
        let mut number = last;
        while !shared.is_stopped() {
            let mut entries =
                [PollFd::new(listener, PollFlags::IN), PollFd::new(&shared.wake, PollFlags::IN)];
            match poll(&mut entries, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            match listener.accept() {
                Ok((socket, _)) => {
                    number += 1;
                    self.accept(socket, number);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    shared.log.with(|| error!("accept a client: {error}"));
                    std::thread::sleep(PAUSE);
                }
            }
        }
        Ok(())
    }

    fn accept(&self, socket: UnixStream, number: u64) {
        let shared = &self.shared;
        let Ok(peer) = Peer::of(&socket) else { return };
        match self.try_accept(&socket, peer, number) {
            Ok((session, client)) => {
                shared.counts.accepted.fetch_add(1, Ordering::Relaxed);
                shared.log.with(|| {
                    let (process, user, group) = (peer.process, peer.user, peer.group);
                    debug!(client = number, process, user, group, "client {number} ({peer}) has connected");
                });
                self.start(session, client, socket);
            }
            Err(why) => {
                shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                shared.log.with(|| {
                    let (process, user, group) = (peer.process, peer.user, peer.group);
                    warn!(process, user, group, why, "a client ({peer}) is refused: {why}");
                });
                // A new socket has room for a line.
                let _ = socket.set_nonblocking(true);
                let _ = (&socket).write_all(format!("memobj 1 refused why={why}\n").as_bytes());
            }
        }
    }

    fn try_accept(
        &self,
        socket: &UnixStream,
        peer: Peer,
        number: u64,
    ) -> Result<(Arc<Session>, Share), &'static str> {
        let shared = &self.shared;
        let quota = &shared.options.quota;
        if !shared.options.allowed.allows(peer.user, peer.group, socket) {
            return Err("not-allowed");
        }
        let client = shared.client().ok_or("too-many-clients")?;
        let descriptors = shared.descriptors.take(OF_CLIENT, quota.descriptors);
        let descriptors = descriptors.ok_or("no-descriptors")?;
        socket.set_nonblocking(true).map_err(|_| "no-descriptors")?;
        let session = Session::new(number, peer, Arc::clone(shared), descriptors);
        let session = session.map_err(|_| "no-descriptors")?;
        if let Err(error) = session.keep(socket) {
            shared.log.with(
                || warn!(client = number, why = %error, "client {number} ({peer}) is not kept: {error}"),
            );
        }
        Ok((session, client))
    }

    fn start(&self, session: Arc<Session>, client: Share, socket: UnixStream) {
        self.start_with(session, client, move |session| session.serve(socket));
    }

    /// Serves a client of a server before.
    fn go_on(&self, left: LeftSession) {
        let LeftSession { session, client, socket, input, again } = left;
        self.start_with(session, client, move |session| session.go_on(socket, input, again));
    }

    fn start_with(
        &self,
        session: Arc<Session>,
        client: Share,
        serve: impl FnOnce(&Arc<Session>) + Send + 'static,
    ) {
        let (shared, number) = (Arc::clone(&self.shared), session.number);
        locked(&shared.sessions).insert(number, Arc::clone(&session));
        let leaving = Leaving { shared, number, _client: client };
        let thread = std::thread::Builder::new().name("memobj-client".into());
        // Without a thread the closure is dropped, which disconnects the client.
        let started = thread.spawn(move || {
            // Dropped last: the session is in the table until it holds nothing any more.
            let leaving = leaving;
            super::give_way();
            serve(&session);
            drop(session);
            drop(leaving);
        });
        if let Err(error) = started {
            self.shared.log.with(|| error!(client = number, "start a thread for client {number}: {error}"));
        }
    }

    fn end_all(&self) {
        let shared = &self.shared;
        let give_up = Instant::now() + shared.options.grace;
        shared.sessions().iter().for_each(|session| session.stop());
        let mut sessions = locked(&shared.sessions);
        while !sessions.is_empty() {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let clients = sessions.len();
                shared.log.with(|| warn!(clients, "{clients} clients could not be ended in time"));
                return;
            }
            let waited = shared.all_gone.wait_timeout(sessions, left);
            sessions = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Takes a session out of the table, whatever became of its thread.
struct Leaving {
    shared: Arc<Shared>,
    number: u64,
    _client: Share,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let (session, number) = (locked(&self.shared.sessions).remove(&self.number), self.number);
        drop(session);
        self.shared.log.with(|| debug!(client = number, "client {number} has left"));
        self.shared.all_gone.notify_all();
    }
}
