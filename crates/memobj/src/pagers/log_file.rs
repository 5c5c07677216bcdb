//! The file of a commit log: where it is, how it is opened, and what it is good for after a crash.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memobj_linux::file;
use memobj_linux::ring::ReadFile;
use memobj_log::{CommitLog, Options};

use super::storage::{FileStorage, Role};
use super::{File, Logged};
use crate::error::OpenError;
use crate::options::CacheUse;

/// How far the log's segments grow in turn.
const CHUNK_BLOCKS: u32 = 1024;
const SUFFIX: &str = ".memobj-log";

pub(super) type Log = CommitLog<Arc<FileStorage>>;

/// Where the log of the file at `path` is.
pub(super) fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// Opens the log at `path` of the file in `data`, or makes one.
pub(super) fn open_log(path: &Path, data: &Arc<FileStorage>) -> io::Result<(Log, Arc<FileStorage>)> {
    let identity = file::identity(&**data)?;
    let salt = u64::from_le_bytes(random_bytes()?);
    match file::open_beside(path, &**data) {
        Ok(files) => {
            let records = log_storage(files);
            let log = CommitLog::open(Arc::clone(&records), Arc::clone(data), identity, salt);
            Ok((log.map_err(open_error)?, records))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let options = Options { identity, salt, chunk_blocks: CHUNK_BLOCKS };
            create_log(path, data, options)
        }
        Err(error) => Err(error),
    }
}

/// Makes a log: under another name first, since half of a log is none.
fn create_log(path: &Path, data: &Arc<FileStorage>, options: Options) -> io::Result<(Log, Arc<FileStorage>)> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    // Left by a process that ended here.
    let _ = std::fs::remove_file(&fresh);
    let records = log_storage(file::create_beside(&fresh, &**data)?);
    let log = CommitLog::create(Arc::clone(&records), Arc::clone(data), options);
    let made = log.map_err(|failure| failure.error).and_then(|log| {
        std::fs::rename(&fresh, path)?;
        Ok(log)
    });
    let log = made.inspect_err(|_| {
        let _ = std::fs::remove_file(&fresh);
    })?;
    if let Some(folder) = path.parent() {
        file::sync_folder(folder)?;
    }
    Ok((log, records))
}

fn log_storage((buffered, direct): (std::fs::File, Option<std::fs::File>)) -> Arc<FileStorage> {
    let direct = direct.map(ReadFile::new);
    Arc::new(FileStorage::new(ReadFile::new(buffered), direct, Role::Log))
}

fn random_bytes() -> io::Result<[u8; 8]> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}

fn open_error(error: memobj_log::OpenError<io::Error>) -> io::Error {
    match error {
        memobj_log::OpenError::Storage(failure) => failure.error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// Opens the file at `path` for writing in place, with all that was committed to it in place.
pub(crate) fn open_in_place(
    path: &Path,
    lock_timeout: Duration,
    cache_use: CacheUse,
) -> Result<File, OpenError> {
    let file = File::open_locked(path, lock_timeout, cache_use)?;
    // With the lock held: whoever had it before may have left a log.
    if let Some(path) = with_log(path) {
        settle(&file, &path)?;
        file.look_at_length().map_err(|source| OpenError::File { path, source })?;
    }
    Ok(file)
}

/// What a reader does about the log of a stranger: one that belongs neither to the owner of the file, nor to this user,
/// nor to root. Anybody can make one where anybody may make files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ForeignLog {
    /// The file is not opened: it may lack what somebody committed to it.
    #[default]
    Refuse,
    /// The file is read as if there were no such log.
    Ignore,
}

/// If a log lies beside the file at `path`, puts in place what it holds: whoever reads the file without the log would
/// read half of a commit, or none.
pub(crate) fn recover(path: &Path, foreign: ForeignLog) -> Result<(), OpenError> {
    let Some(path) = with_log(path) else { return Ok(()) };
    if is_foreign(&path) {
        return match foreign {
            ForeignLog::Ignore => Ok(()),
            ForeignLog::Refuse => Err(OpenError::ForeignLog { path: log_path(&path) }),
        };
    }
    let file = File::open_locked(&path, Duration::ZERO, CacheUse::Auto)
        .map_err(|error| cannot_write(&path, error))?;
    // Another opener can have done it meanwhile.
    with_log(&path).map_or(Ok(()), |path| settle(&file, &path))
}

/// The name of the file beside which a log would lie, if one does.
fn with_log(path: &Path) -> Option<PathBuf> {
    let whole = std::fs::canonicalize(path).ok()?;
    log_path(&whole).symlink_metadata().is_ok().then_some(whole)
}

/// The log beside the file at `path`, if one lies there.
pub(super) fn log_beside(path: &Path) -> Option<PathBuf> {
    with_log(path).map(|path| log_path(&path))
}

/// Whether the log beside the file at `path` is a stranger's, as far as can be seen.
fn is_foreign(path: &Path) -> bool {
    let (Ok(file), Ok(log)) = (path.metadata(), log_path(path).symlink_metadata()) else { return false };
    !file::may_own_log(log.uid(), file.uid())
}

fn settle(file: &File, path: &Path) -> Result<(), OpenError> {
    Logged::of(file.clone(), path)?
        .end()
        .map_err(|error| OpenError::Log { path: log_path(path), source: io::Error::other(error) })
}

fn cannot_write(path: &Path, error: OpenError) -> OpenError {
    match error {
        OpenError::File { source, .. } => {
            let why =
                format!("the file may lack what was committed, and cannot be opened for writing: {source}");
            OpenError::Log { path: log_path(path), source: io::Error::new(source.kind(), why) }
        }
        other => other,
    }
}
