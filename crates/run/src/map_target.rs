//! What names can stand for besides local files: objects of pagers, and folders of such objects.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use memobj::pagers::Pager;

/// What a name of [`NameMap`](crate::NameMap) stands for.
#[derive(Clone)]
#[non_exhaustive]
pub enum MapTarget {
    /// A local file or folder.
    Path(PathBuf),
    /// One object. Programs see a regular file that can only be read.
    Object {
        /// What messages call it.
        name: String,
        /// Supplies its bytes. It is asked for nothing before a program opens the object, and is open from then until the
        /// run ends.
        pager: Arc<dyn Pager>,
        /// What stat(2) says of its last change.
        modified: SystemTime,
    },
    /// Objects with a common prefix. Programs see a folder that can only be read.
    Folder(Arc<dyn ObjectFolder>),
}

/// Objects whose names have a common prefix, seen by programs as a tree of folders.
///
/// Its calls may block, and are made by several threads at once. Paths are relative to the prefix, with `/` between their
/// components and none at their ends; the empty path is the folder itself.
pub trait ObjectFolder: Send + Sync {
    /// What messages call it.
    fn name(&self) -> String;

    /// What is in the folder `path`, in any order. The answer is used for some seconds.
    ///
    /// # Errors
    ///
    /// Programs are told of the error number, if it has one, or what is next to its kind. `NotFound`: there is no such folder.
    fn entries(&self, path: &str) -> io::Result<Vec<Entry>>;

    /// What stands under `path`, which is not empty, without a list of the folder that it is in: for folders with many names.
    /// The answer is used for some seconds. By default it is looked for in that list.
    ///
    /// # Errors
    ///
    /// As above. `NotFound`: nothing stands there.
    fn look_up(&self, path: &str) -> io::Result<LookUp> {
        let _ = path;
        Ok(LookUp::ByList)
    }

    /// Opens the version of the object `path` that is current now. If it is another one than was listed or looked up, programs
    /// are told that it is stale, and find the new one when they open it again.
    ///
    /// # Errors
    ///
    /// As above. `NotFound`: there is no such object any more.
    fn open(&self, path: &str) -> io::Result<OpenedObject>;
}

/// What an [`ObjectFolder`] says of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookUp {
    /// What it is.
    Found(EntryKind),
    /// It is to be looked for in the list of the folder.
    ByList,
}

/// An entry of an [`ObjectFolder`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// One component of a path. Names that no file can have (`.`, `..`, with `/` or a zero, longer than 255 bytes) are
    /// left out of what programs see.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// An object.
    Object {
        /// Bytes.
        length: u64,
        /// Its last change.
        modified: SystemTime,
        /// The version that it is now, by the name that its [pager](memobj::pagers::Description::version) will have; `None` if
        /// nothing tells. An object that is opened as another one is stale.
        version: Option<Arc<str>>,
    },
    /// An object of which a list knows no more than its name. [`ObjectFolder::look_up`] knows the rest.
    NameOnly,
}

/// An object that an [`ObjectFolder`] has opened.
#[non_exhaustive]
pub struct OpenedObject {
    /// What messages call it.
    pub name: String,
    /// Supplies the bytes of one version of it.
    pub pager: Arc<dyn Pager>,
}

impl Entry {
    /// A folder of this name.
    pub fn folder(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: EntryKind::Folder }
    }

    /// An object of this name, of `length` bytes.
    pub fn object(name: impl Into<String>, length: u64, modified: SystemTime) -> Self {
        Self { name: name.into(), kind: EntryKind::Object { length, modified, version: None } }
    }

    /// One that is `kind`.
    pub fn new(name: impl Into<String>, kind: EntryKind) -> Self {
        Self { name: name.into(), kind }
    }
}

impl OpenedObject {
    /// An object that messages call `name`.
    pub fn new(name: impl Into<String>, pager: Arc<dyn Pager>) -> Self {
        Self { name: name.into(), pager }
    }
}

impl fmt::Debug for MapTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Object { name, .. } => f.debug_tuple("Object").field(name).finish(),
            Self::Folder(folder) => f.debug_tuple("Folder").field(&folder.name()).finish(),
        }
    }
}

impl fmt::Debug for OpenedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedObject").field("name", &self.name).finish_non_exhaustive()
    }
}
