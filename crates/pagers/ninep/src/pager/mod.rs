//! The pager: a file of a server, over one connection at a time.
//!
//! ```text
//!   engine's threads           keeper thread                        reader thread
//!     supply, write_back         connects: version .. open, stat
//!       job -> waiting parts --> cuts, tags, sends ---- server ---> checks, fills, answers
//!     when_unwanted -----------> Tflush                             connection ends: says so
//!                                tells of silence; reconnects  <----+
//! ```
//!
//! All state is in [`state`], behind one lock. Requests are answered, and reports made, with the lock released.

mod connection;
mod job;
mod keeper;
mod receive;
mod send;
mod state;
mod unsynced;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use memobj::pagers::{
    Description, LengthRequest, Pager, PagerReports, SupplyRequest, SyncRequest, WriteRequest,
};
use memobj::{ErrorKind, SupplyError};

use crate::counters::Counters;
use crate::dialect::Dialect;
use crate::location::Location;
use crate::message::{NO_NUMBER, OpenMode, User};
use crate::open_error::{Cause, OpenError, OpenStep};
use crate::options::NineOptions;
use crate::server_error::ServerError;
use crate::session::Target;
use crate::version::Version;
use job::{Effects, Job};
use state::State;

/// What the threads of a pager share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is something to send, or the connection or the pager ends.
    changed: Condvar,
    target: Target,
    /// The server and the path, for messages.
    server: String,
    options: NineOptions,
    counters: Counters,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        self.options.clock.as_ref().map_or_else(Instant::now, memobj::EngineClock::now)
    }

    /// Changes the state, and then does what follows from it.
    fn change(&self, change: impl FnOnce(&mut State, &mut Effects)) {
        let mut effects = Effects::default();
        change(&mut self.lock(), &mut effects);
        self.changed.notify_all();
        self.deliver(effects);
    }

    fn deliver(&self, effects: Effects) {
        if !effects.is_empty() {
            let reports = self.lock().reports.clone();
            effects.deliver(&self.server, reports.as_ref());
        }
    }

    fn submit(&self, id: u64, job: Job) {
        self.change(|state, effects| state.submit(id, job, self.now(), effects));
    }

    fn next_job(&self) -> u64 {
        let mut state = self.lock();
        state.next_job += 1;
        state.next_job
    }

    fn end(&self) {
        self.change(|state, effects| {
            state.end(SupplyError::new(ErrorKind::Detached), effects);
            state.break_connection("the object is closed");
        });
    }
}

/// A file of a 9P server as a pager.
///
/// Holds one connection, on which up to [`depth`](NineOptions::depth) requests are under way, and two threads. When the
/// connection dies it is made anew, the file is opened again and compared with the version that was opened, and what was
/// not answered is asked for again. Requests wait meanwhile, as long as anybody waits for them. See the
/// [crate](crate) for what that means for versions and for writes.
pub struct NinePager {
    shared: Arc<Shared>,
    description: Description,
    dialect: Dialect,
}

impl fmt::Debug for NinePager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NinePager").field("server", &self.shared.server).finish_non_exhaustive()
    }
}

impl NinePager {
    /// Opens `9p://host:port/path` or `9p+unix:///path/of/socket?path=/path`, with the options behind `?` as the
    /// [crate](crate) lists them. Blocks, each step for at most [`connect_timeout`](NineOptions::connect_timeout).
    ///
    /// # Errors
    ///
    /// Says which step failed, and why.
    pub fn open(url: &str, options: NineOptions) -> Result<Self, OpenError> {
        let location = Location::parse(url, &options);
        let location =
            location.map_err(|error| OpenError::new(url, OpenStep::Url, Cause::Answer(error.to_string())))?;
        Self::open_at(location)
    }

    /// Opens the file at `location`.
    pub(crate) fn open_at(location: Location) -> Result<Self, OpenError> {
        let server = format!("{}{}", location.address, location.path());
        let mut target = target_of(&location);
        let options = location.options;
        let session = target.establish()?;
        // The same file has other attributes in another dialect.
        target.dialects = vec![session.dialect];
        let dialect = session.dialect;
        let version = Version::new(options.version, session.attributes);
        let description = describe(&version, &options);
        let now = options.clock.as_ref().map_or_else(Instant::now, memobj::EngineClock::now);
        let state = Mutex::new(State::new(version, options.version, now));
        let (changed, counters) = (Condvar::new(), Counters::default());
        let shared = Arc::new(Shared { state, changed, target, server, options, counters });
        let keeper = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("memobj-9p".into())
            .spawn(move || keeper::keep(&keeper, session));
        keeper
            .map_err(|error| OpenError::new(&shared.server, OpenStep::Connect, Cause::Connection(error)))?;
        Ok(Self { shared, description, dialect })
    }

    /// The dialect that the server speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }
}

fn describe(version: &Version, options: &NineOptions) -> Description {
    let mut description = Description::new(version.length());
    if let Some(name) = version.name(std::time::SystemTime::now()) {
        description = description.version(name);
    }
    let description = description.block_bytes(options.block_bytes).depth(options.depth);
    if options.is_writable { description.writable() } else { description }
}

/// What is asked for, and how.
pub(crate) fn target_of(location: &Location) -> Target {
    let options = &location.options;
    Target {
        address: location.address.clone(),
        names: location.names.clone(),
        user: user(options.user.as_deref()),
        tree: options.tree.clone(),
        mode: if options.is_writable { OpenMode::ReadWrite } else { OpenMode::Read },
        msize_bytes: options.msize_bytes,
        dialects: options.dialect.map_or(Dialect::ALL.to_vec(), |dialect| vec![dialect]),
        limit: options.connect_timeout,
    }
}

/// The user that attaches: who is named, or who runs this process.
fn user(named: Option<&str>) -> User {
    match (named, named.and_then(|name| name.parse().ok())) {
        (_, Some(number)) => User { name: String::new(), number },
        (Some(name), None) => User { name: name.into(), number: NO_NUMBER },
        (None, None) => {
            let number = std::fs::metadata("/proc/self").map_or(NO_NUMBER, |process| process.uid());
            let name = std::env::var("USER").ok().filter(|name| !name.is_empty() && name.len() < 256);
            User { name: name.unwrap_or_else(|| "none".into()), number }
        }
    }
}

impl Pager for NinePager {
    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn attach(&self, reports: PagerReports) {
        self.shared.lock().reports = Some(reports);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters.list()
    }

    fn supply(&self, request: SupplyRequest) {
        let id = self.shared.next_job();
        let shared = Arc::downgrade(&self.shared);
        request.when_unwanted(move || {
            if let Some(shared) = shared.upgrade() {
                shared.change(|state, effects| state.cancel(id, effects));
            }
        });
        self.shared.submit(id, Job::supply(request));
    }

    fn write_back(&self, request: WriteRequest) {
        let job = Job::write(request);
        if self.shared.options.is_writable {
            self.shared.submit(self.shared.next_job(), job);
        } else {
            receive::answer(job, SupplyError::new(ErrorKind::Denied)).deliver(&self.shared.server, None);
        }
    }

    fn sync(&self, request: SyncRequest) {
        match self.shared.options.is_writable {
            true => self.shared.submit(self.shared.next_job(), Job::Sync(request)),
            false => request.done(),
        }
    }

    fn set_length(&self, request: LengthRequest) {
        match self.shared.options.is_writable {
            true => self.shared.submit(self.shared.next_job(), Job::Length(request)),
            false => request.fail(SupplyError::new(ErrorKind::Denied)),
        }
    }

    fn detach(&self) {
        self.shared.end();
    }
}

impl Drop for NinePager {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// A server's refusal, as the cause of a [`SupplyError`].
impl From<ServerError> for SupplyError {
    fn from(error: ServerError) -> Self {
        SupplyError::because(error.kind(), error)
    }
}
