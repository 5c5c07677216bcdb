//! Folders of object stores: objects whose names have a common prefix.
//!
//! ```text
//!   entries(path)   list with the delimiter "/", page by page; at most MOST_ENTRIES names
//!   entry(path)     HEAD of the name; if there is no such object, a list of one name that begins with it and "/"
//!   pager(path)     HEAD of the name
//! ```
//!
//! Stores have no folders. There is one where names of objects begin with its name and `/`.

mod entry;
mod page;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderMap, LAST_MODIFIED};
use memobj::ErrorKind;
use object_store::path::Path;

pub use entry::{StoreEntry, StoreEntryKind};
use page::{Page, page};

use crate::answer;
use crate::counters::Counters;
use crate::error::{ObjectStoreError, Step};
use crate::failure::Failure;
use crate::location::{Location, Scheme};
use crate::open::refused;
use crate::opening::open_in;
use crate::options::{ObjectStoreOptions, VersionTrust};
use crate::pager::ObjectStorePager;
use crate::runtime;
use crate::store::Store;
use crate::transport::Transport;
use crate::version::Version;

/// The most names of one folder that are listed. One of more is refused: its list would take too much memory.
pub const MOST_ENTRIES: usize = 100_000;
/// The most answers that make one list.
const MOST_PAGES: usize = 4096;
/// Names in one answer; stores give no more.
const PAGE_ENTRIES: usize = 1000;

/// Objects of a bucket whose names begin with a prefix, as a tree of folders. It can be read only. Clones are the same one.
///
/// Paths are relative to the prefix, have `/` between their components, and none at their ends; the empty path is the
/// folder itself. All calls block. Each request to the store waits for its answer at most for
/// [`request_timeout`](ObjectStoreOptions::request_timeout), and is not made again.
///
/// Some names cannot be those of files. Objects whose names have an empty component, a component `.` or `..`, a
/// control character, or a component of more than 255 bytes are left out. A name that ends in `/` marks a folder, and is no
/// object. Where an object has the name of a folder the object is seen; if it is empty, which some tools mark folders by, the
/// folder is.
#[derive(Clone)]
pub struct ObjectStoreFolder {
    inner: Arc<Inner>,
}

struct Inner {
    location: Location,
    /// Ends in `/`, or is empty.
    prefix: String,
    store: Store,
    transport: Transport,
    options: ObjectStoreOptions,
}

impl fmt::Debug for ObjectStoreFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreFolder").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl ObjectStoreFolder {
    /// Finds the folder at `url`: `s3://bucket/prefix/`, `gs://bucket/prefix/`, `az://container/prefix/`; the `/` at the end
    /// need not be there. Without a prefix it is the whole bucket. Blocks for one round trip, and for credentials if they
    /// have to be asked for.
    ///
    /// # Errors
    ///
    /// [`Step::Parse`] and [`Step::Configure`] if no server was asked; [`Step::List`] for what it answered. `Denied`: no name
    /// begins with the prefix, which has the status 404; the server has no lists; or the options are of a single object
    /// (a manifest, writing).
    pub fn open(url: &str, options: ObjectStoreOptions) -> Result<Self, ObjectStoreError> {
        let location = Location::parse_folder(url)?;
        let shown = Arc::clone(&location.shown);
        let failed = |step: Step| move |failure| ObjectStoreError::new(step, &shown, failure);
        let inner = Arc::new(Inner::new(location, options).map_err(failed(Step::Configure))?);
        let folder = Self { inner };
        match folder.wait(Step::List, "", |inner| async move { inner.has_any(&inner.prefix).await })? {
            // A bucket without objects is one.
            is_there if is_there || folder.inner.prefix.is_empty() => Ok(folder),
            _ => {
                let mut failure = Failure::new(ErrorKind::Denied, "no object has a name that begins so");
                failure.status = Some(StatusCode::NOT_FOUND.as_u16());
                Err(ObjectStoreError::new(Step::List, &folder.inner.location.shown, failure))
            }
        }
    }

    /// The folder's URL, without secrets.
    pub fn url(&self) -> &str {
        &self.inner.location.shown
    }

    /// What is in the folder `path`, ordered by name; `None` if there is no such folder. A name that is there twice is listed
    /// once.
    ///
    /// # Errors
    ///
    /// [`Step::List`]. `Denied` without a status: the folder has more than [`MOST_ENTRIES`] names.
    pub fn entries(&self, path: &str) -> Result<Option<Vec<StoreEntry>>, ObjectStoreError> {
        let prefix = match self.inner.name_of(path) {
            Some(_) if path.is_empty() => self.inner.prefix.clone(),
            Some(name) => format!("{name}/"),
            None => return Ok(None),
        };
        self.wait(Step::List, path, |inner| async move { inner.entries(&prefix).await })
    }

    /// What stands under `path` now; `None` if nothing does. One request if it is an object, else two.
    ///
    /// # Errors
    ///
    /// [`Step::LookUp`].
    pub fn entry(&self, path: &str) -> Result<Option<StoreEntryKind>, ObjectStoreError> {
        match self.inner.name_of(path) {
            Some(_) if path.is_empty() => Ok(Some(StoreEntryKind::Folder)),
            Some(name) => self.wait(Step::LookUp, path, |inner| async move { inner.entry(&name).await }),
            None => Ok(None),
        }
    }

    /// Opens the version of the object `path` that is current now: see [`ObjectStorePager::open`]. It has the options of the
    /// folder. Its [version](memobj::pagers::Description::version_name) is to be compared with the one that was
    /// [listed](StoreEntryKind::Object).
    ///
    /// # Errors
    ///
    /// [`Step::Open`]; `Denied` with the status 404 if there is no such object.
    pub fn pager(&self, path: &str) -> Result<ObjectStorePager, ObjectStoreError> {
        let Some(name) = self.inner.name_of(path).filter(|_| !path.is_empty()) else {
            let failure = Failure::new(ErrorKind::Denied, format!("{path:?} is not the name of a file"));
            return Err(ObjectStoreError::new(Step::Open, &self.inner.location.shown, failure));
        };
        let (inner, location) = (Arc::clone(&self.inner), self.inner.location.of_object(&name));
        let shown = Arc::clone(&location.shown);
        let opened = runtime::wait_for(async move {
            let store = inner.store.at(path_of(&name).map_err(|failure| of_name(&location, failure))?);
            open_in(Some(store), &location, &inner.options).await
        });
        let opened =
            opened.unwrap_or_else(|error| Err(ObjectStoreError::new(Step::Open, &shown, error.into())));
        Ok(ObjectStorePager::of(opened?))
    }

    /// Runs `work` on the runtime, and names what failed.
    fn wait<T, F>(
        &self,
        step: Step,
        path: &str,
        work: impl FnOnce(Arc<Inner>) -> F,
    ) -> Result<T, ObjectStoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let done = runtime::wait_for(work(Arc::clone(&self.inner)));
        done.unwrap_or_else(|error| Err(error.into())).map_err(|failure| {
            let name = format!("{}{path}", self.inner.prefix);
            let location = &self.inner.location;
            let shown =
                if path.is_empty() { Arc::clone(&location.shown) } else { location.of_object(&name).shown };
            ObjectStoreError::new(step, &shown, failure)
        })
    }
}

fn of_name(location: &Location, failure: Failure) -> ObjectStoreError {
    ObjectStoreError::new(Step::Open, &location.shown, failure)
}

/// The name of an object as object_store has it.
fn path_of(name: &str) -> Result<Path, Failure> {
    let refused = |what: String| Failure::new(ErrorKind::Denied, what);
    let path = Path::parse(name).map_err(|error| refused(format!("the name {name:?}: {error}")))?;
    match path.as_ref() == name {
        true => Ok(path),
        // It would be another object.
        false => Err(refused(format!("the name {name:?} cannot be asked for"))),
    }
}

impl Inner {
    fn new(location: Location, options: ObjectStoreOptions) -> Result<Self, Failure> {
        let refused = |what: &str| Err(Failure::new(ErrorKind::Denied, what));
        match location.scheme {
            Scheme::Web => {
                return refused("web servers have no lists of what is in a folder; name one object");
            }
            Scheme::File => return refused("folders of this machine are named by their paths"),
            Scheme::S3 | Scheme::GoogleCloudStorage | Scheme::Azure => {}
        }
        if options.manifest.is_some() {
            return refused("a manifest is of one object, not of a folder");
        }
        if options.is_writable {
            return refused("folders can be read only");
        }
        let store = Store::new(&location, &options)?;
        let prefix = store.known().map_or("", |(_, path)| path.as_ref());
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let transport = Transport {
            counters: Arc::new(Counters::default()),
            clock: options.clock.clone(),
            timeout: options.request_timeout,
        };
        Ok(Self { location, prefix, store, transport, options })
    }

    /// The name in the bucket of what stands under `path`. `None`: no file can have such a path.
    fn name_of(&self, path: &str) -> Option<String> {
        let is_name = path.is_empty() || path.split('/').all(entry::can_be_a_name);
        is_name.then(|| format!("{}{path}", self.prefix))
    }

    async fn page(&self, prefix: &str, token: Option<String>, most: usize) -> Result<Page, Failure> {
        page((&self.store, &self.transport), prefix, token, most).await
    }

    /// Whether there is a name that begins with `prefix`.
    async fn has_any(&self, prefix: &str) -> Result<bool, Failure> {
        let mut token = None;
        for _ in 0..MOST_PAGES {
            let page = self.page(prefix, token, 1).await?;
            match page.next {
                _ if page.names > 0 => return Ok(true),
                None => return Ok(false),
                // Stores may answer with nothing, and say that there is more.
                next => token = next,
            }
        }
        Err(page::endless())
    }

    async fn entries(&self, prefix: &str) -> Result<Option<Vec<StoreEntry>>, Failure> {
        let mut entries = BTreeMap::new();
        let (mut names, mut token) = (0, None);
        for _ in 0..MOST_PAGES {
            let page = self.page(prefix, token, PAGE_ENTRIES).await?;
            names += page.names;
            if names > MOST_ENTRIES {
                let what = format!("more than {MOST_ENTRIES} names; what is in it can be opened by name");
                return Err(Failure::new(ErrorKind::Denied, what));
            }
            page.entries.into_iter().for_each(|entry| entry.add_to(&mut entries));
            if page.next.is_none() {
                let is_there = names > 0 || prefix.is_empty();
                let list = entries.into_iter().map(|(name, kind)| StoreEntry { name, kind });
                return Ok(is_there.then(|| list.collect()));
            }
            token = page.next;
        }
        Err(page::endless())
    }

    async fn entry(&self, name: &str) -> Result<Option<StoreEntryKind>, Failure> {
        let object = match path_of(name) {
            Ok(path) => self.head(&self.store.at(path)).await?,
            Err(_) => return Ok(None),
        };
        match object {
            Some(object) if !object.is_empty() => Ok(Some(object)),
            object => match self.has_any(&format!("{name}/")).await? {
                true => Ok(Some(StoreEntryKind::Folder)),
                false => Ok(object),
            },
        }
    }

    async fn head(&self, store: &Store) -> Result<Option<StoreEntryKind>, Failure> {
        let response = self.transport.send(store.head().await?).await?;
        match response.status() {
            StatusCode::OK => self.of_headers(response.headers()).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused(&self.transport, response).await),
        }
    }

    fn of_headers(&self, headers: &HeaderMap) -> Result<StoreEntryKind, Failure> {
        if headers.get("x-ms-meta-hdi_isfolder").is_some_and(|value| value == "true") {
            return Ok(StoreEntryKind::Folder);
        }
        let version = Version::of(headers);
        if version == Version::Untold && self.options.version_trust == VersionTrust::Required {
            return Err(Failure::new(ErrorKind::Denied, "the server names no version of it"));
        }
        let length = answer::content_length(headers)
            .ok_or_else(|| Failure::new(ErrorKind::Denied, "the server does not say how long it is"))?;
        let date = headers.get(LAST_MODIFIED).and_then(|value| value.to_str().ok());
        Ok(StoreEntryKind::Object {
            length,
            modified: date.and_then(entry::time).unwrap_or(std::time::SystemTime::UNIX_EPOCH),
            version: version.tag().map(Into::into),
        })
    }
}
