//! The pager: starts a task for each request, and ends it when nobody waits.

use std::fmt;
use std::sync::Arc;

use memobj::pagers::{Description, Pager, PagerReports, SupplyRequest};
use memobj::{ErrorKind, SupplyError};
use tokio::sync::{Notify, watch};

use crate::counters::Counters;
use crate::error::{ObjectStoreError, Step};
use crate::failure::Failure;
use crate::fetch::{Base, Fetcher};
use crate::file::LocalFile;
use crate::hedge::Latencies;
use crate::location::{Location, Scheme};
use crate::open::{Opened, open};
use crate::options::ObjectStoreOptions;
use crate::reader::{Reader, Source};
use crate::runtime;
use crate::silence::Silence;
use crate::store::Store;
use crate::transport::Transport;
use crate::version::Version;

/// A pager of one object of a store or web server. Clones are the same pager.
#[derive(Clone)]
pub struct ObjectStorePager {
    shared: Arc<Shared>,
}

/// What tasks use.
struct Shared {
    reader: Reader,
    base: Base,
    url: Arc<str>,
    counters: Arc<Counters>,
    description: Description,
    /// Becomes true when the object is closed.
    closed: watch::Sender<bool>,
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
        let opening = async move { open_at(&location, &options).await };
        let opened = runtime::wait_for(opening);
        opened.unwrap_or_else(|error| {
            let failure = Failure::because(ErrorKind::Io, format!("threads: {error}"), error);
            Err(ObjectStoreError::new(Step::Open, &shown, failure))
        })
    }

    /// The object's URL, without secrets.
    pub fn url(&self) -> &str {
        &self.shared.url
    }
}

async fn open_at(
    location: &Location,
    options: &ObjectStoreOptions,
) -> Result<ObjectStorePager, ObjectStoreError> {
    let failed = |step: Step| move |failure| ObjectStoreError::new(step.clone(), &location.shown, failure);
    let counters = Arc::new(Counters::default());
    let (source, opened) = match location.scheme {
        Scheme::File => open_file(location).map_err(failed(Step::Open))?,
        _ => {
            let store = Store::new(location, options).map_err(failed(Step::Configure))?;
            let fetcher = fetcher(store, location, options, &counters);
            let opened = open(&fetcher, options).await.map_err(failed(Step::Open))?;
            (Source::Server(Box::new(fetcher)), opened)
        }
    };
    let description = describe(&opened.base, options).map_err(failed(Step::Open))?;
    let reader = Reader { source, manifest: options.manifest.clone(), counters: Arc::clone(&counters) };
    let (closed, _) = watch::channel(false);
    let url = Arc::clone(&location.shown);
    let shared = Shared { reader, base: opened.base, url, counters, description, closed };
    Ok(ObjectStorePager { shared: Arc::new(shared) })
}

fn fetcher(
    store: Store,
    location: &Location,
    options: &ObjectStoreOptions,
    counters: &Arc<Counters>,
) -> Fetcher {
    let clock = options.clock.clone();
    Fetcher {
        store,
        transport: Transport {
            counters: Arc::clone(counters),
            clock: clock.clone(),
            timeout: options.request_timeout,
        },
        silence: Silence::new(location.server(), clock),
        latencies: Latencies::default(),
        hedging: options.hedging,
    }
}

fn open_file(location: &Location) -> Result<(Source, Opened), Failure> {
    let file = LocalFile::open(&location.url)?;
    let base = Base { version: Version::Tag(file.version()), length: file.length(), is_whole: false };
    Ok((Source::File(file), Opened { base, headers: Default::default() }))
}

fn describe(base: &Base, options: &ObjectStoreOptions) -> Result<Description, Failure> {
    let block = options.manifest.as_ref().map_or(options.block_bytes, |manifest| {
        // A block is asked for whole in any case.
        options.block_bytes.max(manifest.block_bytes())
    });
    if let Some(manifest) = options.manifest.as_ref().filter(|manifest| manifest.length() != base.length) {
        let what = format!("it has {} bytes, its manifest is of {}", base.length, manifest.length());
        return Err(Failure::new(ErrorKind::Stale, what));
    }
    let description = Description::new(base.length).block_bytes(block).depth(options.depth).immutable();
    Ok(match base.version.name(base.length) {
        Some(version) => description.version(version),
        None => description,
    })
}

impl Shared {
    /// Fills `request`. Pieces are copied as they come.
    async fn fill(&self, request: &mut SupplyRequest) -> Result<(), Failure> {
        let range = request.range();
        self.reader.read(&self.base, range, |at, bytes| Ok(request.fill(at, bytes)?)).await
    }

    fn cancelled(&self) -> Result<(), Failure> {
        self.counters.cancelled.add(1);
        Err(Failure::detached())
    }

    /// Answers `request`, unless nobody waits any more.
    async fn answer(&self, mut request: SupplyRequest) {
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

    fn detach(&self) {
        self.shared.closed.send_replace(true);
    }
}
