//! What the tasks of one pager share, and what they do.

use std::sync::Arc;

use memobj::ErrorKind;
use memobj::pagers::{Description, SupplyRequest};
use tokio::sync::{Notify, watch};

use crate::counters::Counters;
use crate::error::{ObjectStoreError, Step};
use crate::failure::Failure;
use crate::fetch::Base;
use crate::location::Location;
use crate::options::ObjectStoreOptions;
use crate::reader::Reader;
use crate::store::Store;
use crate::write::{Content, Publisher, Target, Unchanged};

/// One object that is open.
pub(crate) struct Shared {
    pub(crate) reader: Arc<Reader>,
    /// The version that was opened.
    pub(crate) base: Base,
    pub(crate) url: Arc<str>,
    pub(crate) options: ObjectStoreOptions,
    pub(crate) counters: Arc<Counters>,
    pub(crate) description: Description,
    /// Of an object that can be written.
    pub(crate) publisher: Option<Arc<Publisher>>,
    /// Becomes true when the object is closed.
    pub(crate) closed: watch::Sender<bool>,
}

impl Shared {
    /// Answers `request`, unless nobody waits any more.
    pub(crate) async fn answer(&self, mut request: SupplyRequest) {
        let unwanted = Arc::new(Notify::new());
        let told = Arc::clone(&unwanted);
        request.when_unwanted(move || told.notify_one());
        let mut closed = self.closed.subscribe();
        let step = Step::Supply(request.range());
        let filled = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => self.cancelled(),
            () = unwanted.notified() => self.cancelled(),
            filled = self.fill(&mut request) => filled,
        };
        match filled {
            Ok(()) => request.done(),
            Err(failure) => request.fail(ObjectStoreError::new(step, &self.url, failure).into()),
        }
    }

    fn cancelled(&self) -> Result<(), Failure> {
        self.counters.cancelled.add(1);
        Err(Failure::detached())
    }

    /// Fills `request`. Pieces are copied as they come.
    async fn fill(&self, request: &mut SupplyRequest) -> Result<(), Failure> {
        let range = request.range();
        let Some(publisher) = &self.publisher else {
            return self.reader.read(&self.base, range, |at, bytes| Ok(request.fill(at, bytes)?)).await;
        };
        loop {
            let base = publisher.layers.base();
            let content = Content::new(Arc::clone(&self.reader), publisher.layers.pieces(range.clone()));
            let filled = content.read(range.clone(), |at, bytes| Ok(request.fill(at, bytes)?)).await;
            match filled {
                // This pager published a new version while the old one was asked for.
                Err(failure) if failure.kind == ErrorKind::Stale && publisher.layers.base() != base => {}
                filled => return filled,
            }
        }
    }

    /// See [`ObjectStorePager::save_as`](crate::ObjectStorePager::save_as).
    pub(crate) async fn save_as(&self, location: &Location, unchanged: Unchanged) -> Result<(), Failure> {
        let publisher = self.publisher.as_ref();
        let publisher = publisher
            .ok_or_else(|| Failure::new(ErrorKind::Denied, "the object was not opened to be written"))?;
        let target = Target {
            store: Store::new(location, &self.options)?,
            transport: publisher.target.transport.clone(),
            kept: publisher.target.kept.clone(),
        };
        publisher.save_as(&target, location.url.host_str().unwrap_or(""), unchanged).await
    }

    /// Publishes, unless the object is closed before.
    pub(crate) async fn sync(&self) -> Result<(), Failure> {
        let Some(publisher) = &self.publisher else { return Ok(()) };
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            published = publisher.publish() => published,
            _ = closed.wait_for(|closed| *closed) => Err(Failure::detached()),
        }
    }
}
