//! Folders of 9P servers.
//!
//! ```text
//!   entries(path)   its own connection: walk, open, then Treaddir (9P2000.L) or Tread (9P2000, 9P2000.u) to the end
//!   entry(path)     on a connection that is kept: walk, stat, clunk
//!   pager(path)     a NinePager, which has its own connection
//! ```

mod entry;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use memobj::ErrorKind;

use entry::kind_of;
pub use entry::{NineEntry, NineEntryKind};
pub(crate) use entry::{can_be_a_name, read_entries, read_records};

use crate::attributes::FileKind;
use crate::dialect::Dialect;
use crate::location::Location;
use crate::open_error::{Cause, OpenError, OpenStep};
use crate::options::NineOptions;
use crate::pager::{NinePager, target_of};
use crate::session::{Dialogue, Line, Target};

/// The most names of one folder that are listed. One of more is refused: its list would take too much memory.
pub const MOST_ENTRIES: usize = 100_000;

/// A folder of a 9P server, as a tree of folders and files. It can be read only. Clones are the same one.
///
/// Paths are relative to the folder, have `/` between their components, and none at their ends; the empty path is the folder
/// itself. All calls block, each step for at most [`connect_timeout`](NineOptions::connect_timeout). A connection that was
/// lost is made anew once; nothing else is tried again.
///
/// Folders and regular files are seen. Links, devices, pipes and sockets are left out, and names that no file can have: `.`,
/// `..`, with `/` or a zero, of more than 255 bytes, or not of UTF-8.
#[derive(Clone)]
pub struct NineFolder {
    inner: Arc<Inner>,
}

struct Inner {
    location: Location,
    target: Target,
    server: String,
    kept: Mutex<Kept>,
}

/// The connection for [`NineFolder::entry`].
#[derive(Default)]
struct Kept {
    line: Option<Line>,
    /// When it was last waited for in vain.
    silent: Option<Instant>,
}

impl fmt::Debug for NineFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NineFolder").field("server", &self.inner.server).finish_non_exhaustive()
    }
}

impl NineFolder {
    /// Finds the folder at `9p://host:port/path` or `9p+unix:///path/of/socket?path=/path`, with the options of
    /// [`NinePager::open`] behind `?`.
    ///
    /// # Errors
    ///
    /// Says which step failed, and why. [`OpenStep::Open`]: it is no folder.
    pub fn open(url: &str, options: NineOptions) -> Result<Self, OpenError> {
        let refused = |what: String| OpenError::new(url, OpenStep::Url, Cause::Answer(what));
        let mut location = Location::parse(url, &options).map_err(|error| refused(error.to_string()))?;
        if location.options.is_writable {
            return Err(refused("folders can be read only".into()));
        }
        let mut target = target_of(&location);
        let (line, dialect) = {
            let mut dialogue = target.attached()?;
            if look_up(&mut dialogue, &location.names)?.kind != FileKind::Folder {
                return Err(target.wrong(OpenStep::Open, "it is no folder"));
            }
            let dialect = dialogue.dialect();
            (dialogue.into_line(), dialect)
        };
        // The same file has other attributes in another dialect.
        target.dialects = vec![dialect];
        location.options.dialect = Some(dialect);
        let server = format!("{}{}", location.address, location.path());
        let kept = Mutex::new(Kept { line: Some(line), silent: None });
        Ok(Self { inner: Arc::new(Inner { location, target, server, kept }) })
    }

    /// Server and path, for messages.
    pub fn name(&self) -> &str {
        &self.inner.server
    }

    /// What is in the folder `path`, ordered by name; `None` if there is no such folder.
    ///
    /// # Errors
    ///
    /// Says which step failed. `Denied`: the server's answer, or the folder has more than [`MOST_ENTRIES`] names.
    pub fn entries(&self, path: &str) -> Result<Option<Vec<NineEntry>>, OpenError> {
        let Some(names) = self.inner.names(path) else { return Ok(None) };
        let (inner, mut list, mut count) = (&*self.inner, BTreeMap::new(), 0);
        let listed = (|| {
            let mut dialogue = inner.target.attached()?;
            dialogue.walk(&names)?;
            let is_linux = dialogue.dialect() == Dialect::Linux;
            let check = inner.location.options.version;
            dialogue.entries(|offset, bytes| {
                let read = match is_linux {
                    true => read_entries(offset, bytes),
                    false => read_records(offset, bytes, check),
                };
                let (entries, names, next) =
                    read.map_err(|malformed| inner.target.wrong(OpenStep::List, malformed.0))?;
                count += names;
                if count > MOST_ENTRIES {
                    return Err(inner.target.fail(OpenStep::List, Cause::TooMany(MOST_ENTRIES)));
                }
                list.extend(entries.into_iter().map(|entry| (entry.name, entry.kind)));
                Ok(Some(next))
            })
        })();
        match listed {
            Ok(()) => Ok(Some(list.into_iter().map(|(name, kind)| NineEntry { name, kind }).collect())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What stands under `path` now; `None` if nothing does that is a folder or a file.
    ///
    /// # Errors
    ///
    /// Says which step failed.
    pub fn entry(&self, path: &str) -> Result<Option<NineEntryKind>, OpenError> {
        let Some(names) = self.inner.names(path) else { return Ok(None) };
        match self.inner.ask(|dialogue| look_up(dialogue, &names)) {
            Ok(attributes) => Ok(kind_of(&attributes, self.inner.location.options.version)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the version of the file `path` that is current now, with the options of the folder: see [`NinePager::open`]. Its
    /// [version](memobj::pagers::Description::version_name) is to be compared with that of [`entry`](Self::entry).
    ///
    /// # Errors
    ///
    /// Says which step failed, and why.
    pub fn pager(&self, path: &str) -> Result<NinePager, OpenError> {
        let names = self.inner.names(path).filter(|_| !path.is_empty());
        let names =
            names.ok_or_else(|| self.inner.target.wrong(OpenStep::Url, format!("{path:?} names no file")))?;
        NinePager::open_at(Location { names, ..self.inner.location.clone() })
    }
}

/// Whether the error says that nothing of the name is there.
fn is_missing(error: &OpenError) -> bool {
    let is_answer = error.server_error().is_some() && matches!(error.step(), OpenStep::Walk(_));
    is_answer && error.kind() == ErrorKind::Stale
}

fn look_up(
    dialogue: &mut Dialogue<'_>,
    names: &[Vec<u8>],
) -> Result<crate::attributes::Attributes, OpenError> {
    dialogue.walk(names)?;
    let attributes = dialogue.stat();
    if attributes.as_ref().err().is_none_or(OpenError::keeps_connection) {
        dialogue.clunk()?;
    }
    attributes
}

impl Inner {
    /// The names of the tree that lead to `path`. `None`: no file can have such a path.
    fn names(&self, path: &str) -> Option<Vec<Vec<u8>>> {
        let mut names = self.location.names.clone();
        if !path.is_empty() {
            for name in path.split('/') {
                names.push(can_be_a_name(name).then(|| name.as_bytes().to_vec())?);
            }
        }
        Some(names)
    }

    /// Has `work` ask on the connection that is kept; on a new one if that is lost.
    fn ask<T>(&self, work: impl Fn(&mut Dialogue<'_>) -> Result<T, OpenError>) -> Result<T, OpenError> {
        let begun = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.silent.is_some_and(|silent| silent >= begun) {
            // It was waited for the turn as long as others have waited for the server.
            let silence = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
            return Err(self.target.fail(OpenStep::Stat, Cause::Connection(silence)));
        }
        let line = kept.line.take();
        let (was_kept, dialogue) = (line.is_some(), line.map(|line| Dialogue::resume(&self.target, line)));
        let mut dialogue = dialogue.map_or_else(|| self.target.attached(), Ok);
        let mut answer = dialogue.as_mut().map_err(|_| ()).map(&work);
        let is_lost = |answer: &Result<Result<T, OpenError>, ()>| matches!(answer, Ok(Err(error)) if error.kind() == ErrorKind::Io && !error.keeps_connection());
        if was_kept && is_lost(&answer) {
            dialogue = self.target.attached();
            answer = dialogue.as_mut().map_err(|_| ()).map(&work);
        }
        let answer = match (answer, dialogue) {
            (Ok(answer), Ok(dialogue)) => {
                if answer.as_ref().err().is_none_or(OpenError::keeps_connection) {
                    kept.line = Some(dialogue.into_line());
                }
                answer
            }
            (_, Err(error)) => Err(error),
            (Err(()), Ok(_)) => Err(self.target.wrong(OpenStep::Connect, "no connection")),
        };
        if answer.as_ref().err().is_some_and(|error| error.kind() == ErrorKind::Timeout) {
            kept.silent = Some(Instant::now());
        }
        answer
    }
}
