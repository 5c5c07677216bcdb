//! From a URL and options to an object that is open.

use std::sync::Arc;

use memobj::ErrorKind;
use memobj::pagers::Description;
use tokio::sync::watch;

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
use crate::shared::Shared;
use crate::silence::Silence;
use crate::store::Store;
use crate::transport::Transport;
use crate::version::{Version, is_settled};
use crate::write::{Layers, Publisher, Target, generation, kept};

/// Opens the object at `location`.
pub(crate) async fn open_at(
    location: &Location,
    options: &ObjectStoreOptions,
) -> Result<Shared, ObjectStoreError> {
    let store = match location.scheme {
        Scheme::File => None,
        _ => {
            let store = Store::new(location, options);
            Some(store.map_err(|failure| ObjectStoreError::new(Step::Configure, &location.shown, failure))?)
        }
    };
    open_in(store, location, options).await
}

/// Opens the object at `location`, which `store` has; a local file if that is `None`.
pub(crate) async fn open_in(
    store: Option<Store>,
    location: &Location,
    options: &ObjectStoreOptions,
) -> Result<Shared, ObjectStoreError> {
    let failed = |step: Step| move |failure| ObjectStoreError::new(step.clone(), &location.shown, failure);
    let counters = Arc::new(Counters::default());
    let (source, opened) = match store {
        None => open_file(location).map_err(failed(Step::Open))?,
        Some(store) => {
            let fetcher = fetcher(store, location, options, &counters);
            let opened = open(&fetcher, options).await.map_err(failed(Step::Open))?;
            (Source::Server(Box::new(fetcher)), opened)
        }
    };
    let has_name = location.scheme != Scheme::Web || is_settled(&opened.headers);
    let description = describe(&opened.base, has_name, options).map_err(failed(Step::Open))?;
    let reader = Reader { source, manifest: options.manifest.clone(), counters: Arc::clone(&counters) };
    let reader = Arc::new(reader);
    let publisher = match options.is_writable {
        true => {
            let publisher = publisher(location, options, &reader, &opened);
            Some(Arc::new(publisher.map_err(failed(Step::Open))?))
        }
        false => None,
    };
    let (closed, _) = watch::channel(false);
    let (url, options, base) = (Arc::clone(&location.shown), options.clone(), opened.base);
    Ok(Shared { reader, base, url, options, counters, description, publisher, closed })
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

/// What the engine is told. The version `has_name` unless another one could have the same: it is kept by its name.
fn describe(base: &Base, has_name: bool, options: &ObjectStoreOptions) -> Result<Description, Failure> {
    let block = options.manifest.as_ref().map_or(options.block_bytes, |manifest| {
        // A block is asked for whole in any case.
        options.block_bytes.max(manifest.block_bytes())
    });
    if let Some(manifest) = options.manifest.as_ref().filter(|manifest| manifest.length() != base.length) {
        let what = format!("it has {} bytes, its manifest is of {}", base.length, manifest.length());
        return Err(Failure::new(ErrorKind::Stale, what));
    }
    let description = Description::new(base.length).block_bytes(block).depth(options.depth);
    let description = if options.is_writable { description.writable() } else { description.immutable() };
    Ok(match base.version.name(base.length).filter(|_| has_name) {
        Some(version) => description.version(version),
        None => description,
    })
}

/// Who publishes changes of an object that was opened; refuses objects of which none can be published.
fn publisher(
    location: &Location,
    options: &ObjectStoreOptions,
    reader: &Arc<Reader>,
    opened: &Opened,
) -> Result<Publisher, Failure> {
    let refused = |what| Err(Failure::new(ErrorKind::Denied, what));
    let Source::Server(fetcher) = &reader.source else {
        return refused("files are written by Cache::open_file, not by this pager");
    };
    if fetcher.store.is_web() {
        return refused("objects of web servers cannot be written");
    }
    if options.manifest.is_some() {
        return refused("an object with a manifest cannot be written: the manifest is of one version");
    }
    let is_to_be_made = options.creates && opened.headers.is_empty();
    if opened.base.version.tag().is_none() && !is_to_be_made {
        return refused(
            "an object without an ETag cannot be written: two writers could not notice each other",
        );
    }
    Ok(Publisher {
        reader: Arc::clone(reader),
        layers: Arc::new(Layers::new(opened.base.clone(), options.spool_folder.clone())?),
        target: Target {
            store: fetcher.store.clone(),
            transport: fetcher.transport.clone(),
            kept: kept(&opened.headers),
        },
        bucket: location.url.host_str().unwrap_or("").to_owned(),
        generation: tokio::sync::Mutex::new(generation(&opened.headers)),
    })
}
