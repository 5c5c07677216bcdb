//! The pager: starts a task for each request.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use memobj::pagers::{
    Description, LengthRequest, Pager, PagerReports, SupplyRequest, SyncRequest, WriteRequest,
};
use memobj::{ErrorKind, SupplyError};

use crate::error::{ObjectStoreError, Step};
use crate::location::Location;
use crate::opening::open_at;
use crate::options::ObjectStoreOptions;
use crate::reader::Source;
use crate::runtime;
use crate::shared::Shared;
use crate::write::{Origin, Unchanged};

/// A pager of one object of a store or web server. Clones are the same pager.
#[derive(Clone)]
pub struct ObjectStorePager {
    shared: Arc<Shared>,
}

impl fmt::Debug for ObjectStorePager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStorePager").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

impl ObjectStorePager {
    /// Opens the object at `url`: `s3://bucket/key`, `gs://bucket/key`, `az://container/key`, `http://`, `https://` or
    /// `file://`. Blocks for one round trip, and for credentials if they have to be asked for.
    ///
    /// # Errors
    ///
    /// [`Step::Parse`] and [`Step::Configure`] if no server was asked; [`Step::Open`] for what it answered. An object
    /// that is not there is `Denied`, with the status 404.
    pub fn open(url: &str, options: ObjectStoreOptions) -> Result<Self, ObjectStoreError> {
        let location = Location::parse(url)?;
        let shown = Arc::clone(&location.shown);
        let opened = runtime::wait_for(async move { open_at(&location, &options).await });
        let opened =
            opened.unwrap_or_else(|error| Err(ObjectStoreError::new(Step::Open, &shown, error.into())));
        Ok(Self { shared: Arc::new(opened?) })
    }

    /// A pager of an object that is open.
    pub(crate) fn of(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Stores the object with all changes as another one, which must not exist: what is left to do when another writer was
    /// faster, and [`sync`](Pager::sync) failed as Stale. Blocks until all is stored.
    ///
    /// # Errors
    ///
    /// [`Step::SaveAs`]; `Stale` if there is an object at `url`, or if bytes are wanted of a version that is gone. The changes
    /// stay in the spool in any case.
    pub fn save_as(&self, url: &str, unchanged: Unchanged) -> Result<(), ObjectStoreError> {
        let location = Location::parse(url)?;
        let shown = Arc::clone(&location.shown);
        let shared = Arc::clone(&self.shared);
        let saved = runtime::wait_for(async move { shared.save_as(&location, unchanged).await });
        let saved = saved.unwrap_or_else(|error| Err(error.into()));
        saved.map_err(|failure| ObjectStoreError::new(Step::SaveAs, &shown, failure))
    }

    /// The ranges that were written, or whose length has changed, since the last version was published.
    pub fn unpublished(&self) -> Vec<Range<u64>> {
        let Some(publisher) = &self.shared.publisher else { return Vec::new() };
        let pieces = publisher.layers.pieces(0..publisher.layers.length());
        let written = pieces.into_iter().filter(|piece| !matches!(piece.origin, Origin::Base(_)));
        written.map(|piece| piece.range).collect()
    }

    /// The object's URL, without secrets.
    pub fn url(&self) -> &str {
        &self.shared.url
    }
}

impl Pager for ObjectStorePager {
    fn describe(&self) -> Description {
        self.shared.description.clone()
    }

    fn attach(&self, reports: PagerReports) {
        if let Source::Server(fetcher) = &self.shared.reader.source {
            fetcher.silence.attach(reports);
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters.list()
    }

    fn supply(&self, request: SupplyRequest) {
        let shared = Arc::clone(&self.shared);
        match runtime::handle() {
            Ok(runtime) => drop(runtime.spawn(async move { shared.answer(request).await })),
            Err(error) => request.fail(SupplyError::from(error)),
        }
    }

    fn write_back(&self, request: WriteRequest) {
        let Some(publisher) = &self.shared.publisher else {
            return request.fail(SupplyError::new(ErrorKind::Denied));
        };
        let (layers, url) = (Arc::clone(&publisher.layers), Arc::clone(&self.shared.url));
        let write = move || {
            request.answer(|range, bytes| {
                let kept = layers.write(range.start, bytes);
                kept.map_err(|error| ObjectStoreError::new(Step::WriteBack(range), &url, error.into()).into())
            });
        };
        match runtime::handle() {
            Ok(runtime) => drop(runtime.spawn_blocking(write)),
            // The request is dropped, which leaves its pages Dirty.
            Err(_) => drop(write),
        }
    }

    /// Publishes what was written as a new version, or makes the object. A failure of the kind `Stale` means that another writer has published one:
    /// this pager has all changes still, and [`save_as`](ObjectStorePager::save_as) stores them elsewhere. After failures of
    /// other kinds the next sync tries again with all of them.
    fn sync(&self, request: SyncRequest) {
        let shared = Arc::clone(&self.shared);
        let publish = async move {
            let synced = shared.sync().await;
            request.answer(synced.map_err(|failure| {
                // All that was written is in the spool.
                let error = ObjectStoreError::new(Step::Publish, &shared.url, failure);
                SupplyError::from(error).keeps_written()
            }));
        };
        match runtime::handle() {
            Ok(runtime) => drop(runtime.spawn(publish)),
            // The request is dropped, which fails it.
            Err(_) => drop(publish),
        }
    }

    /// Takes effect for others with the next [`sync`](Pager::sync).
    fn set_length(&self, request: LengthRequest) {
        match &self.shared.publisher {
            None => request.fail(SupplyError::new(ErrorKind::Denied)),
            Some(publisher) => {
                publisher.layers.set_length(request.length());
                request.done();
            }
        }
    }

    fn detach(&self) {
        self.shared.closed.send_replace(true);
    }
}
