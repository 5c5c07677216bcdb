//! Objects that programs see as files, and their memory objects while they are open.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use memobj::pagers::Pager;
use memobj::{
    AccessError, Cache, Delivery, FrameSize, FrameVisibility, LentFrames, MapOptions, Mapping, MemoryObject,
    ObjectOptions,
};
use memobj_linux::locks::{Guard, Rank, RankedMutex};
use rustix::io::Errno;

use super::refused::Told;
use crate::history::FileHistory;
use crate::history_builder::HistoryBuilder;
use crate::map_target::ObjectFolder;
use crate::options::Options;
use crate::pages::Pages;

/// What it takes to open objects.
#[derive(Debug)]
pub(super) struct Opener {
    cache: Cache,
    options: Options,
    pub(super) pages: Pages,
    history_builder: Arc<HistoryBuilder>,
    pub(super) told: Told,
}

/// One version of an object, as a regular file.
pub(crate) struct Object {
    pub(super) inode: u64,
    /// As programs name it.
    pub(super) path: PathBuf,
    pub(super) length: u64,
    pub(super) modified: SystemTime,
    /// If its folder has told.
    pub(super) version: Option<Arc<str>>,
    source: Source,
    /// Requests that wait for its bytes.
    pub(super) busy: Arc<AtomicUsize>,
    /// The index in the history.
    file: OnceLock<usize>,
    state: RankedMutex<State>,
    has_changed: Condvar,
}

/// The version of an object, as its folder has told.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) length: u64,
    pub(super) modified: SystemTime,
    pub(super) version: Option<Arc<str>>,
}

/// Where its bytes come from.
enum Source {
    /// A memory object that exists for the whole run.
    Fixed(MemoryObject),
    /// It is opened by its folder, by this path.
    Folder(Arc<dyn ObjectFolder>, String),
}

#[derive(Debug, Default)]
struct State {
    opened: Weak<Opened>,
    /// For the whole run, of one that cannot be opened twice.
    kept: Option<Arc<Opened>>,
    is_opening: bool,
    /// How often it was opened, and what the last attempt said if it failed.
    attempts: u64,
    failure: Option<(u64, Errno)>,
}

/// An object that is open. It stays so while somebody has this.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) inode: u64,
    /// As programs name it.
    pub(super) path: PathBuf,
    /// The index in the history.
    pub(crate) file: usize,
    length: u64,
    /// Copied from for read(2). `None`: it has no bytes.
    mapping: Option<Mapping>,
    /// Its frames, for mappings of programs. `None`: they cannot be lent, or there are none.
    lent: Option<LentFrames>,
}

impl Opener {
    pub(super) fn new(
        cache: Cache,
        options: Options,
        pages: Pages,
        history_builder: Arc<HistoryBuilder>,
    ) -> Self {
        let told = Told::new(options.messages);
        Self { cache, options, pages, history_builder, told }
    }

    /// A memory object of the pager. Asks it to describe itself.
    pub(super) fn memory(&self, name: &str, pager: Arc<dyn Pager>) -> io::Result<MemoryObject> {
        let options = ObjectOptions::new()
            .frames(FrameSize::Small)
            .visibility(FrameVisibility::Shared)
            .policy(self.options.policy);
        self.cache.object(name, pager, options).map_err(|error| io::Error::other(error.to_string()))
    }

    fn open(&self, object: &Object) -> Result<Arc<Opened>, Errno> {
        let refused = |error: &io::Error| self.told.refused("open", &object.name(), error);
        let memory = match &object.source {
            Source::Fixed(memory) => memory.clone(),
            Source::Folder(folder, path) => {
                let opened = folder.open(path).map_err(|error| refused(&error))?;
                self.memory(&opened.name, opened.pager).map_err(|error| refused(&error))?
            }
        };
        let is_other = object.version.as_deref().is_some_and(|version| memory.version() != Some(version));
        if is_other || memory.len() != object.length {
            // What the folder has told of it is older.
            return Err(Errno::STALE);
        }
        // Before the mapping: what is only pinned has no file of frames.
        let lent = if memory.is_empty() { None } else { memory.lend_frames().ok() };
        let options = MapOptions::new().delivery(Delivery::PinOnly);
        let mapping = (!memory.is_empty()).then(|| memory.map_all(options)).transpose();
        let mapping = mapping.map_err(|error| refused(&io::Error::other(error.to_string())))?;
        Ok(Arc::new(Opened {
            inode: object.inode,
            path: object.path.clone(),
            file: *object.file.get_or_init(|| self.history_builder.file(object.history())),
            length: object.length,
            mapping,
            lent,
        }))
    }
}

impl Object {
    /// One whose memory object exists for the whole run.
    pub(super) fn fixed(inode: u64, path: PathBuf, memory: MemoryObject, modified: SystemTime) -> Self {
        let seen = Seen { length: memory.len(), modified, version: None };
        Self::new(inode, path, seen, Source::Fixed(memory))
    }

    /// One of a folder, of this version.
    pub(super) fn of_folder(
        inode: u64,
        path: PathBuf,
        seen: Seen,
        folder: &Arc<dyn ObjectFolder>,
        within: String,
    ) -> Self {
        Self::new(inode, path, seen, Source::Folder(Arc::clone(folder), within))
    }

    fn new(inode: u64, path: PathBuf, seen: Seen, source: Source) -> Self {
        Self {
            inode,
            path,
            length: seen.length,
            modified: seen.modified,
            version: seen.version,
            source,
            busy: Arc::default(),
            file: OnceLock::new(),
            state: RankedMutex::new(Rank::OpenObject, State::default()),
            has_changed: Condvar::new(),
        }
    }

    /// If it is open already.
    pub(crate) fn opened(&self) -> Option<Arc<Opened>> {
        self.state.lock().opened.upgrade()
    }

    /// Whether it is the version that its folder has told of.
    pub(super) fn is_version(&self, seen: &Seen) -> bool {
        let is_other = match (&self.version, &seen.version) {
            (Some(one), Some(other)) => one != other,
            _ => self.modified != seen.modified,
        };
        !is_other && self.length == seen.length
    }

    /// Opens it, unless it is open. Blocks as long as its folder does; of several threads one asks it.
    pub(super) fn open(&self, opener: &Opener) -> Result<Arc<Opened>, Errno> {
        let mut state = self.state.lock();
        loop {
            if let Some(opened) = state.opened.upgrade() {
                return Ok(opened);
            }
            if !state.is_opening {
                break;
            }
            state = self.attempt_of_another(state)?;
        }
        state.is_opening = true;
        state.attempts += 1;
        drop(state);
        let opened = catch_unwind(AssertUnwindSafe(|| opener.open(self))).unwrap_or(Err(Errno::IO));
        let mut state = self.state.lock();
        state.is_opening = false;
        match &opened {
            Ok(opened) => {
                state.opened = Arc::downgrade(opened);
                state.kept = matches!(self.source, Source::Fixed(_)).then(|| Arc::clone(opened));
            }
            Err(errno) => state.failure = Some((state.attempts, *errno)),
        }
        drop(state);
        self.has_changed.notify_all();
        opened
    }

    fn attempt_of_another<'a>(&self, state: Guard<'a, State>) -> Result<Guard<'a, State>, Errno> {
        let attempt = state.attempts;
        let mut state = state;
        while state.is_opening && state.attempts == attempt {
            state = state.wait(&self.has_changed);
        }
        match state.failure {
            Some((failed, errno)) if failed == attempt => Err(errno),
            _ => Ok(state),
        }
    }

    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match &self.source {
            Source::Fixed(memory) => memory.name().to_owned(),
            Source::Folder(folder, path) => format!("{}/{path}", folder.name().trim_end_matches('/')),
        }
    }

    fn history(&self) -> FileHistory {
        let modified = self.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(modified.as_secs()).unwrap_or(i64::MAX);
        FileHistory {
            path: self.path.clone(),
            length_bytes: self.length,
            modified: (seconds, i64::from(modified.subsec_nanos())),
            ..FileHistory::default()
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("inode", &self.inode).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Opened {
    /// The bytes from `offset` on, as many as there are up to `size`. Blocks until they are there, or have failed.
    pub(super) fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, AccessError> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(mapping) = self.mapping.as_ref().filter(|_| left > 0) else { return Ok(Vec::new()) };
        let mut buffer = vec![0; size.min(left)];
        mapping.read_at(offset, &mut buffer)?;
        Ok(buffer)
    }

    /// Its frames, for mappings of programs. `None`: they cannot be lent, or there are none.
    pub(crate) fn lend(&self) -> Option<LentFrames> {
        self.lent.clone()
    }
}
