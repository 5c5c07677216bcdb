//! Folders of servers: trees of objects.

use std::sync::Arc;
use std::time::SystemTime;

use memobj::pagers::Pager;

use crate::error::UrlError;
#[cfg(any(feature = "object-store", feature = "9p"))]
use crate::open::kept;
use crate::open::{shown, unknown};
use crate::options::UrlOptions;
use crate::scheme::Scheme;

/// A prefix of a bucket, or a folder of a 9P server, whose objects can be read. Clones are the same one.
///
/// Paths are relative to the folder, have `/` between their components, and none at their ends; the empty path is the folder
/// itself. All calls block, and none is tried again: see [`UrlError::may_retry`].
///
/// The version that is opened is the one that is current then. Compare its
/// [name](memobj::pagers::Description::version_name) with the version of an entry to know whether it is the one that was seen.
#[derive(Clone, Debug)]
pub struct UrlFolder {
    server: Server,
    url: Arc<str>,
    /// With its query, which can have a password: for the key in a disk cache only.
    #[cfg(feature = "9p")]
    full_url: Secret,
    options: UrlOptions,
}

/// Text that is not shown.
#[cfg(feature = "9p")]
#[derive(Clone)]
struct Secret(Arc<str>);

#[cfg(feature = "9p")]
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

#[derive(Clone, Debug)]
enum Server {
    #[cfg(feature = "object-store")]
    ObjectStore(memobj_object_store::ObjectStoreFolder),
    #[cfg(feature = "9p")]
    NineP(memobj_9p::NineFolder),
    /// No server is known: both features are off.
    #[cfg(not(any(feature = "object-store", feature = "9p")))]
    None(std::convert::Infallible),
}

/// An entry of a [`UrlFolder`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UrlEntry {
    /// One component of a path. It can be the name of a file: it is not empty, `.` or `..`, has no `/`, no zero, and no more
    /// than 255 bytes.
    pub name: String,
    /// What it is.
    pub kind: UrlEntryKind,
}

/// What a [`UrlEntry`] is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UrlEntryKind {
    /// A folder.
    Folder,
    /// An object.
    Object {
        /// Bytes.
        length: u64,
        /// Its last change.
        modified: SystemTime,
        /// The version that it is now; `None` if the server does not tell.
        version: Option<Arc<str>>,
    },
    /// An object of which a list knows no more than its name. [`UrlFolder::entry`] knows the rest.
    NameOnly,
}

/// Finds the folder at `url`: `s3://bucket/prefix/`, `gs://`, `az://`, `9p://host/path/`. The `/` at the end need not be there.
/// Blocks as [`Open::open`](crate::Open::open) does.
///
/// # Errors
///
/// What the server said, or that it did not answer. A prefix with which no name begins is [missing](UrlError::is_missing). Web
/// servers have no lists, folders of this machine are opened by their paths, and options of single objects (a manifest,
/// writing) are refused.
pub fn folder(url: &str, options: &UrlOptions) -> Result<UrlFolder, UrlError> {
    let server = match Scheme::of(url) {
        Some(Scheme::ObjectStore) => object_store(url, options)?,
        Some(Scheme::NineP) => ninep(url, options)?,
        Some(Scheme::File) => return Err(unknown(url, "folders of this machine are opened by their paths")),
        None => return Err(unknown(url, "folders are of s3, gs, az, 9p and 9p+unix")),
    };
    Ok(UrlFolder {
        server,
        url: shown(url).into(),
        #[cfg(feature = "9p")]
        full_url: Secret(url.into()),
        options: options.clone(),
    })
}

#[cfg(feature = "object-store")]
fn object_store(url: &str, options: &UrlOptions) -> Result<Server, UrlError> {
    let store = crate::open::store_options(options);
    let folder = memobj_object_store::ObjectStoreFolder::open(url, store);
    folder.map(Server::ObjectStore).map_err(UrlError::ObjectStore)
}

#[cfg(not(feature = "object-store"))]
fn object_store(url: &str, _: &UrlOptions) -> Result<Server, UrlError> {
    Err(unknown(url, "the feature object-store of memobj-url is off"))
}

#[cfg(feature = "9p")]
fn ninep(url: &str, options: &UrlOptions) -> Result<Server, UrlError> {
    #[cfg(feature = "object-store")]
    if options.manifest.is_some() {
        return Err(unknown(url, "a manifest is of one object, not of a folder"));
    }
    let folder = memobj_9p::NineFolder::open(url, crate::open::nine_options(options));
    folder.map(Server::NineP).map_err(UrlError::NineP)
}

#[cfg(not(feature = "9p"))]
fn ninep(url: &str, _: &UrlOptions) -> Result<Server, UrlError> {
    Err(unknown(url, "the feature 9p of memobj-url is off"))
}

impl UrlFolder {
    /// The folder's URL, without a password or query.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What messages call the object `path`.
    pub fn name_of(&self, path: &str) -> String {
        format!("{}/{path}", self.url.trim_end_matches('/'))
    }

    /// What is in the folder `path`, ordered by name; `None` if there is no such folder.
    ///
    /// # Errors
    ///
    /// What the server said, that it did not answer, or that there are too many names for a list (`Denied`).
    pub fn entries(&self, path: &str) -> Result<Option<Vec<UrlEntry>>, UrlError> {
        Ok(match &self.server {
            #[cfg(not(any(feature = "object-store", feature = "9p")))]
            Server::None(none) => match *none {},
            #[cfg(feature = "object-store")]
            Server::ObjectStore(folder) => {
                let list = folder.entries(path).map_err(UrlError::ObjectStore)?;
                list.map(|list| list.into_iter().map(|entry| UrlEntry::new(entry.name, entry.kind)).collect())
            }
            #[cfg(feature = "9p")]
            Server::NineP(folder) => {
                let list = folder.entries(path).map_err(UrlError::NineP)?;
                list.map(|list| list.into_iter().map(|entry| UrlEntry::new(entry.name, entry.kind)).collect())
            }
        })
    }

    /// What stands under `path` now; `None` if nothing does. It asks for this name only, and is never `NameOnly`.
    ///
    /// # Errors
    ///
    /// What the server said, or that it did not answer.
    pub fn entry(&self, path: &str) -> Result<Option<UrlEntryKind>, UrlError> {
        Ok(match &self.server {
            #[cfg(not(any(feature = "object-store", feature = "9p")))]
            Server::None(none) => match *none {},
            #[cfg(feature = "object-store")]
            Server::ObjectStore(folder) => {
                folder.entry(path).map_err(UrlError::ObjectStore)?.map(UrlEntryKind::from)
            }
            #[cfg(feature = "9p")]
            Server::NineP(folder) => folder.entry(path).map_err(UrlError::NineP)?.map(UrlEntryKind::from),
        })
    }

    /// A pager of the version of the object `path` that is current now, with the options of the folder.
    ///
    /// # Errors
    ///
    /// As [`pager`](crate::pager).
    pub fn pager(&self, path: &str) -> Result<Box<dyn Pager>, UrlError> {
        Ok(match &self.server {
            #[cfg(not(any(feature = "object-store", feature = "9p")))]
            Server::None(none) => match *none {},
            #[cfg(feature = "object-store")]
            Server::ObjectStore(folder) => {
                let pager = folder.pager(path).map_err(UrlError::ObjectStore)?;
                // As the object is called when it is opened by its own URL.
                let url = pager.url().to_owned();
                kept(pager, &url, &self.options)
            }
            #[cfg(feature = "9p")]
            Server::NineP(folder) => {
                let pager = folder.pager(path).map_err(UrlError::NineP)?;
                // No URL has a zero: no other object is called so.
                let url = format!("{}\0{path}", self.full_url.0);
                kept(pager, &url, &self.options)
            }
        })
    }
}

impl UrlEntry {
    #[cfg(any(feature = "object-store", feature = "9p"))]
    fn new(name: String, kind: impl Into<UrlEntryKind>) -> Self {
        Self { name, kind: kind.into() }
    }
}

#[cfg(feature = "object-store")]
impl From<memobj_object_store::StoreEntryKind> for UrlEntryKind {
    fn from(kind: memobj_object_store::StoreEntryKind) -> Self {
        use memobj_object_store::StoreEntryKind as Kind;
        match kind {
            Kind::Folder => Self::Folder,
            Kind::Object { length, modified, version } => Self::Object { length, modified, version },
            _ => Self::NameOnly,
        }
    }
}

#[cfg(feature = "9p")]
impl From<memobj_9p::NineEntryKind> for UrlEntryKind {
    fn from(kind: memobj_9p::NineEntryKind) -> Self {
        use memobj_9p::NineEntryKind as Kind;
        match kind {
            Kind::Folder => Self::Folder,
            Kind::File { length, modified, version } => Self::Object { length, modified, version },
            _ => Self::NameOnly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_cannot_be_are_refused_with_what_to_do() {
        let refusal = |url: &str| folder(url, &UrlOptions::new()).unwrap_err().to_string();
        assert!(refusal("file:///tmp/").contains("opened by their paths"));
        assert!(refusal("ftp://me:secret@host/x/").starts_with("open ftp://...: folders are of s3"));
        #[cfg(feature = "object-store")]
        assert!(
            refusal("http://me:secret@127.0.0.1:1/x/")
                .ends_with("no lists of what is in a folder; name one object")
        );
    }
}
