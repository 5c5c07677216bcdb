//! What is served: names, and how the objects behind them are opened.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use memobj::pagers::{self, Pager};
use memobj::{ErrorKind, ObjectOptions};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

/// The most bytes of a name.
const LONGEST_NAME: usize = 1000;

/// Why the object behind a name could not be opened.
pub type OpenFailure = Box<dyn Error + Send + Sync>;

/// Opens the object behind one name: is given the options of the object, and returns a pager of it. Called when a client
/// opens the name and nobody has it open. May block; blocks the clients that want this name.
pub type Opener = dyn Fn(&ObjectOptions) -> Result<Box<dyn Pager>, OpenFailure> + Send + Sync;

/// What clients may do with an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// Read.
    #[default]
    ReadOnly,
    /// Read and write, in place.
    ReadWrite,
}

/// The names that clients can open.
///
/// ```
/// use memobj::pagers::Zero;
/// use memobj::pagers::Blocking;
/// use memobj_serve::control::{Access, Exports};
///
/// let mut exports = Exports::new();
/// exports.file("model", "/srv/model.bin", Access::ReadOnly);
/// exports.object("zeros", Access::ReadOnly, |_| Ok(Box::new(Zero::new(1 << 30))));
/// assert_eq!(exports.names().collect::<Vec<_>>(), ["model", "zeros"]);
/// ```
#[derive(Default)]
pub struct Exports {
    names: BTreeMap<String, Export>,
    folder: Option<OwnedFd>,
}

/// One export.
#[derive(Clone)]
pub(super) struct Export {
    pub(super) access: Access,
    pub(super) opener: Arc<Opener>,
}

impl fmt::Debug for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exports")
            .field("names", &self.names.keys().collect::<Vec<_>>())
            .field("folder", &self.folder.is_some())
            .finish()
    }
}

impl Exports {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an object that `opener` opens, in the place of what had this name.
    pub fn object(
        &mut self,
        name: impl Into<String>,
        access: Access,
        opener: impl Fn(&ObjectOptions) -> Result<Box<dyn Pager>, OpenFailure> + Send + Sync + 'static,
    ) {
        self.names.insert(name.into(), Export { access, opener: Arc::new(opener) });
    }

    /// Adds a file of this machine.
    pub fn file(&mut self, name: impl Into<String>, path: impl AsRef<Path>, access: Access) {
        let path = path.as_ref().to_owned();
        self.object(name, access, move |options| open_file(&path, access, options));
    }

    /// Adds all regular files below the folder at `path`, to be read, by their paths in it. What has a name of its own
    /// comes first. Symbolic links are not followed.
    ///
    /// # Errors
    ///
    /// That there is no such folder.
    pub fn folder(&mut self, path: impl AsRef<Path>) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.folder = Some(rustix::fs::open(path.as_ref(), flags, Mode::empty())?);
        Ok(())
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether there are files by their paths, too.
    pub(super) fn has_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// The names and what may be done, from the `from`-th on.
    pub(super) fn listed(&self, from: usize) -> impl Iterator<Item = (&str, Access)> {
        self.names.iter().skip(from).map(|(name, export)| (name.as_str(), export.access))
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<Export> {
        self.names.get(name).cloned()
    }

    /// The regular file at `path` in the folder; never one outside of it.
    pub(super) fn open_beneath(&self, path: &str) -> io::Result<File> {
        let Some(folder) = &self.folder else { return Err(io::ErrorKind::NotFound.into()) };
        if path.is_empty() || path.len() > LONGEST_NAME || path.contains('\0') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = |flags| openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        // The kind is looked at before anything happens: the opening of a device or a FIFO can do something.
        check_regular(&open(OFlags::PATH)?)?;
        let file = File::from(open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        check_regular(&file)?;
        Ok(file)
    }
}

/// Fails for all but regular files.
pub(super) fn check_regular(file: impl std::os::fd::AsFd) -> io::Result<()> {
    match FileType::from_raw_mode(fstat(file)?.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

fn open_file(path: &Path, access: Access, options: &ObjectOptions) -> Result<Box<dyn Pager>, OpenFailure> {
    Ok(match access {
        Access::ReadOnly => Box::new(pagers::File::open(path)?),
        Access::ReadWrite => Box::new(pagers::File::open_writable(path, options.lock_timeout)?),
    })
}

/// The kind of the library that `error` comes nearest to.
pub(super) fn kind_of(error: &OpenFailure) -> ErrorKind {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error.as_ref());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
                io::ErrorKind::TimedOut => ErrorKind::Timeout,
                io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory => ErrorKind::NoSpace,
                _ => ErrorKind::Io,
            };
        }
        cause = error.source();
    }
    ErrorKind::Io
}
