//! What the commands do with the library: a cache, an open file, its bytes. What is written is a [`Target`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError};

use memobj::pagers::{self, Awaited, BlockingPager, Faulty, ForeignLog, Inject, Injection, Pager};
use memobj::{
    Advice, Cache, CacheOptions, Delivery, FailurePolicy, FrameSize, MapOptions, Mapping, MemoryObject,
    ObjectOptions, OpenError, Writing,
};
use memobj_url::Scheme;
use serde::Serialize;

use crate::counted::{Counted, Totals};
use crate::failure::{Failure, failure};
use crate::inject::{Action, FaultPlan, InjectedFault};
use crate::interrupt::Interrupt;
use crate::options::{self, AccessMethod, Frames, Settings};
use crate::retry::Retry;
use crate::servers::{self, Missing, Servers};
use crate::spool::{self, Contents};
use crate::target::{Ending, Target};
use crate::walk::Plan;

/// What the cache counted since it began.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Counters {
    pub(crate) faults: u64,
    pub(crate) supplied_pages: u64,
    pub(crate) evicted_pages: u64,
    pub(crate) retries: u64,
    pub(crate) failed_pages: u64,
    pub(crate) peak_frame_bytes: u64,
    pub(crate) budget_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    /// What pagers of servers count, by their names.
    #[serde(flatten)]
    pub(crate) pagers: BTreeMap<&'static str, u64>,
}

/// One line of the doctor's report.
#[derive(Debug, Serialize)]
pub(crate) struct Facility {
    pub(crate) name: String,
    /// `available`, `degraded` or `missing`.
    pub(crate) status: &'static str,
    pub(crate) detail: String,
    pub(crate) used_instead: Option<String>,
    pub(crate) fix: Option<String>,
}

/// A cache with its settings.
#[derive(Debug)]
pub(crate) struct Engine {
    settings: Settings,
    cache: Cache,
    servers: Servers,
    /// Events of servers are told since the first one was opened.
    is_telling: OnceLock<()>,
    totals: Arc<Totals>,
}

/// An open file, all of it mapped.
#[derive(Debug)]
pub(crate) struct View {
    mapping: Mapping,
    settings: Settings,
    origin: Origin,
    /// Of an object of a server.
    _counted: Option<Counted>,
}

/// Where the bytes of a view come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Origin {
    /// The file itself.
    File,
    /// A copy of a file that does not tell its length: what it was when it was opened.
    Copy,
    /// A server, which has answered for one version only.
    Server,
}

/// Opens a file for reading, with what was committed to it in place. `None`: it does not tell its length.
pub(crate) fn open_file(
    path: &Path,
    foreign_log: options::ForeignLog,
) -> Result<Option<pagers::File>, Failure> {
    let foreign_log = match foreign_log {
        options::ForeignLog::Refuse => ForeignLog::Refuse,
        options::ForeignLog::Ignore => ForeignLog::Ignore,
    };
    match pagers::File::open_beside(path, foreign_log) {
        Ok(file) => Ok(Some(file)),
        Err(OpenError::LengthUntold { .. }) => Ok(None),
        Err(error @ OpenError::ForeignLog { .. }) => {
            Err(Failure::Message(format!("{error}; --ignore-foreign-log reads the file without it")))
        }
        Err(error) => Err(failure(error)),
    }
}

/// The library's names for faults to inject.
pub(crate) fn injections(plan: &FaultPlan) -> Vec<Injection> {
    let injection = |fault: &InjectedFault| {
        Injection::new(
            fault.range.clone(),
            match fault.action {
                Action::Error => Inject::Error,
                Action::Short => Inject::Short,
                Action::Delay(time) => Inject::Delay(time),
                Action::Hang => Inject::Hang,
            },
        )
        .times(fault.times)
    };
    plan.faults.iter().map(injection).collect()
}

/// The library's name for a way of fault delivery.
pub(crate) fn delivery(delivery: options::Delivery) -> Delivery {
    match delivery {
        options::Delivery::Auto => Delivery::Auto,
        options::Delivery::Reader => Delivery::ReaderThread,
        options::Delivery::Inthread => Delivery::InThread,
    }
}

impl Engine {
    /// A cache with the budget of `settings`.
    pub(crate) fn new(settings: Settings) -> Result<Self, Failure> {
        let options = CacheOptions::new().budget_bytes(settings.budget_bytes);
        let servers = Servers::new(&settings.servers, settings.retry)?;
        let cache = Cache::new(options).map_err(failure)?;
        Ok(Self { settings, cache, servers, is_telling: OnceLock::new(), totals: Arc::default() })
    }

    /// Opens and maps the file at `path`. One that does not tell its length is read to its end first.
    pub(crate) fn open(&self, path: &Path, interrupt: &Interrupt) -> Result<View, Failure> {
        if let Some(url) = servers::url_of(path) {
            return self.open_url(url, interrupt);
        }
        let path = &servers::local(path)?;
        let name = path.display().to_string();
        if let Some(file) = open_file(path, self.settings.foreign_log)? {
            return self.view(&name, file, Origin::File);
        }
        match spool::read_to_end(path, self.settings.budget_bytes, interrupt)? {
            Contents::Kept(bytes) => self.view(&name, pagers::Bytes::new(bytes), Origin::Copy),
            Contents::Spilled(file) => {
                let refused = |error| Failure::io(&format!("read {name}"), &error);
                self.view(&name, pagers::File::follow(file).map_err(refused)?, Origin::Copy)
            }
        }
    }

    fn view(
        &self,
        name: &str,
        pager: impl Pager + BlockingPager + 'static,
        origin: Origin,
    ) -> Result<View, Failure> {
        let options = self.object_options();
        let faults = &self.settings.faults;
        let object = if faults.faults.is_empty() {
            self.cache.object(name, pager, options)
        } else {
            self.cache.object(name, Faulty::new(pager, injections(faults), faults.seed), options)
        };
        self.map(object.map_err(failure)?, origin)
    }

    /// Opens and maps an object of a server.
    fn open_url(&self, url: &str, interrupt: &Interrupt) -> Result<View, Failure> {
        let (name, options) = (memobj_url::shown(url), self.object_options());
        let pager = self.pager(url, &options, Missing::IsAnError, interrupt)?;
        let faults = &self.settings.faults;
        let object = if faults.faults.is_empty() {
            self.cache.object(&name, pager, options)
        } else {
            let faulty = Faulty::new(Awaited::new(pager), injections(faults), faults.seed);
            self.cache.object(&name, faulty, options)
        };
        let object = object.map_err(failure)?;
        let counted = Counted::new(&object, &self.totals);
        Ok(View { _counted: Some(counted), ..self.map(object, Origin::Server)? })
    }

    fn pager(
        &self,
        url: &str,
        options: &ObjectOptions,
        missing: Missing,
        interrupt: &Interrupt,
    ) -> Result<Box<dyn Pager>, Failure> {
        self.is_telling.get_or_init(|| servers::tell(self.cache.events()));
        self.servers.pager(url, options, missing, interrupt)
    }

    fn map(&self, object: MemoryObject, origin: Origin) -> Result<View, Failure> {
        let delivery = delivery(self.settings.delivery);
        let mapping = object.map(0..object.len(), MapOptions::new().delivery(delivery)).map_err(failure)?;
        mapping.advise(0..object.len(), Advice::Sequential).map_err(failure)?;
        Ok(View { mapping, settings: self.settings.clone(), origin, _counted: None })
    }

    /// Opens the file at `path` for writing. It can grow to `room_bytes`. Of servers, `missing` says whether an object is made.
    pub(crate) fn open_target(
        &self,
        path: &Path,
        ending: Ending,
        room_bytes: u64,
        missing: Missing,
        interrupt: &Interrupt,
    ) -> Result<Target, Failure> {
        let Some(url) = servers::url_of(path) else {
            return Target::open(
                &self.cache,
                &servers::local(path)?,
                (ending, self.settings.retry),
                room_bytes,
            );
        };
        let policy = self.object_options().policy;
        let options = Target::options(Writing::InPlace, room_bytes).policy(policy);
        let pager = self.pager(url, &options, missing, interrupt)?;
        let object = self.cache.object(&memobj_url::shown(url), pager, options).map_err(failure)?;
        let counted = Counted::new(&object, &self.totals);
        let target = Target::of(object, (ending, self.settings.retry), Some(counted))?;
        Ok(target.by_parts(Scheme::of(url).is_some_and(Scheme::is_written_in_place)))
    }

    /// Lets what is done in the background end: what was read is kept in the disk cache.
    pub(crate) fn settle(&self) {
        self.servers.settle();
    }

    fn object_options(&self) -> ObjectOptions {
        let frames = match self.settings.frames {
            Frames::Small => FrameSize::Small,
            Frames::Large => FrameSize::Large,
            Frames::Auto => FrameSize::Auto,
        };
        let policy = match self.settings.retry {
            Retry::Never => FailurePolicy::FailAtOnce,
            Retry::For(limit) => FailurePolicy::RetryFor(limit),
            Retry::Forever => FailurePolicy::WaitForEver,
        };
        // All commands go from the beginning to the end.
        ObjectOptions::new().frames(frames).policy(policy).advice(Advice::Sequential)
    }

    /// What was counted so far.
    pub(crate) fn counters(&self) -> Counters {
        let metrics = self.cache.metrics();
        Counters {
            pagers: self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            faults: metrics.faults,
            supplied_pages: metrics.supplied_pages,
            evicted_pages: metrics.evicted_pages,
            retries: metrics.retries,
            failed_pages: metrics.failed_pages,
            peak_frame_bytes: metrics.peak_frame_bytes,
            budget_bytes: metrics.budget_bytes,
            read_bytes: metrics.read_bytes,
            written_bytes: metrics.written_bytes,
        }
    }
}

impl View {
    /// The file's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.mapping.len()
    }

    /// Its bytes, from the first on.
    pub(crate) fn reader(&self) -> impl std::io::Read {
        self.mapping.reader()
    }

    /// Where its bytes come from.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// How to go through `range` within the budget.
    pub(crate) fn plan(&self, range: Range<u64>) -> Plan {
        let settings = &self.settings;
        Plan::new(range, settings.threads.get(), settings.budget_bytes, self.mapping.page_bytes())
    }

    /// Calls `visit` with the bytes of `range`, which may be in `buffer`.
    pub(crate) fn load<T>(
        &self,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
        visit: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failure> {
        if self.settings.access == AccessMethod::Pin {
            return Ok(visit(&self.mapping.pin(range).map_err(failure)?));
        }
        buffer.resize(usize::try_from(range.end - range.start).unwrap_or(usize::MAX), 0);
        let loaded = match self.settings.access {
            AccessMethod::Copy => self.mapping.read_at(range.start, buffer),
            AccessMethod::Touch | AccessMethod::Pin => self.mapping.touch_at(range.start, buffer),
        };
        loaded.map_err(failure)?;
        Ok(visit(buffer))
    }
}

/// What this machine offers.
pub(crate) fn doctor() -> Vec<Facility> {
    let facility = |found: memobj::doctor::Facility| Facility {
        name: found.name.to_string(),
        status: found.status.as_str(),
        detail: found.detail,
        used_instead: found.used_instead.map(str::to_string),
        fix: found.fix.map(str::to_string),
    };
    memobj::doctor::report().into_iter().map(facility).collect()
}
