//! Memory objects and their placement in this process.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::State;
use memobj_sys::area::{Area, AreaOptions, Frames, PinError, PinSet, Writes};
use memobj_sys::part::Part;
use memobj_sys::signal;
use memobj_sys::uffd::Announce;

use crate::cache::{CacheInner, CacheShared};
use crate::driver::Request;
use crate::error::{ErrorKind, MapError, SupplyError, WriteError, WriteStep};
use crate::fault;
use crate::locks::{self, Rank, RankedMutex};
use crate::mapping::Mapping;
use crate::options::{Advice, Delivery, FrameSize, MapOptions, ObjectOptions, Sharing, Store, Writing};
use crate::pagers::{self, Logged, Pager, Private, Source};
use crate::store::{ADDRESSES, FrameStore, STORES};
use crate::threads::Disposal;
use crate::write::{Changed, flush_at_exit};

/// From this size on an object that is read in sequence gets large frames under [`FrameSize::Auto`].
const LARGE_OBJECT_BYTES: u64 = 16 << 20;
/// Addresses that a mapped object which can be written gets at least.
const LEAST_CAPACITY: u64 = 1 << 30;

/// Sized bytes with an identity, mapped or not. Cheap to clone.
#[derive(Clone)]
pub struct MemoryObject {
    handle: Arc<ObjectHandle>,
}

impl std::fmt::Debug for MemoryObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryObject")
            .field("name", &self.name())
            .field("length", &self.len())
            .finish_non_exhaustive()
    }
}

/// What the user's handles of one object share; dropping the last ends the pager's calls.
#[derive(Debug)]
pub(crate) struct ObjectHandle {
    pub(crate) core: Arc<ObjectCore>,
    pub(crate) cache: Arc<CacheInner>,
    /// The frame store, while a mapping exists.
    mapped: RankedMutex<Weak<StoreHandle>>,
    /// The frame store of an object that can be written: its changes outlive the mappings.
    kept: RankedMutex<Option<Arc<StoreHandle>>>,
}

pub(crate) struct ObjectCore {
    pub(crate) name: Arc<str>,
    pub(crate) pager: Arc<dyn Pager>,
    source: KnownSource,
    /// Bytes, as the mapped pages have them.
    length: AtomicU64,
    pub(crate) options: ObjectOptions,
    /// Of an object that is committed to.
    pub(crate) log: Option<Arc<Logged>>,
    /// Whether changes are to reach the pager at the end: not those of private mappings.
    pub(crate) keeps_changes: bool,
    pub(crate) detached: AtomicBool,
    /// Whether large frames serve it best when it is mapped next: what was said last about all of it.
    is_sequential: AtomicBool,
    /// Of the cache.
    disposal: Arc<Disposal>,
}

impl ObjectCore {
    fn new(
        cache: &CacheShared,
        name: &str,
        pager: Box<dyn Pager>,
        options: ObjectOptions,
        log: Option<Arc<Logged>>,
    ) -> Self {
        let pager: Arc<dyn Pager> = pager.into();
        Self {
            name: name.into(),
            length: AtomicU64::new(pager.length()),
            source: KnownSource::of(&pager),
            pager,
            is_sequential: AtomicBool::new(options.advice == Advice::Sequential),
            options,
            log,
            keeps_changes: true,
            detached: AtomicBool::new(false),
            disposal: Arc::clone(&cache.disposal),
        }
    }

    /// What the pager said when the object was made, on the thread of who made it: nobody asks again. A file that only a
    /// server knows is to be called for, on threads that may wait. Safe in a signal handler.
    pub(crate) fn source(&self) -> Source<'_> {
        match &self.source {
            KnownSource::Call => Source::Call,
            KnownSource::Zero => Source::Zero,
            KnownSource::Memory(bytes) => Source::Memory(bytes),
            KnownSource::File(file) => Source::File(file),
        }
    }

    /// Takes advice about all of the object, for when it is mapped next: pages keep their size while it is mapped.
    pub(crate) fn advise_next(&self, advice: Advice) {
        self.is_sequential.store(advice == Advice::Sequential, Ordering::Relaxed);
    }

    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    pub(crate) fn set_length(&self, length: u64) {
        self.length.store(length, Ordering::Release);
    }

    fn is_writable(&self) -> bool {
        self.options.writing != Writing::ReadOnly
    }
}

/// A [`Source`] that keeps the pager.
enum KnownSource {
    Call,
    Zero,
    Memory(Part<dyn Pager, [u8]>),
    File(Part<dyn Pager, pagers::File>),
}

impl KnownSource {
    fn of(pager: &Arc<dyn Pager>) -> Self {
        let mut found = Self::Call;
        let file = Part::of(pager, |pager| match pager.source() {
            Source::File(file) => Some(file),
            Source::Zero => {
                found = Self::Zero;
                None
            }
            Source::Memory(_) | Source::Call => None,
        });
        match file {
            Some(file) if file.answers_at_once() => return Self::File(file),
            Some(_) => return Self::Call,
            None if matches!(found, Self::Zero) => return found,
            None => {}
        }
        let bytes = Part::of(pager, |pager| match pager.source() {
            Source::Memory(bytes) => Some(bytes),
            _ => None,
        });
        bytes.map_or(found, Self::Memory)
    }
}

impl Drop for ObjectCore {
    fn drop(&mut self) {
        // Threads that resolve faults can be the last to know an object; a pager may do anything while it is dropped.
        let pager = std::mem::replace(&mut self.pager, Arc::new(pagers::Zero::new(0)));
        let source = std::mem::replace(&mut self.source, KnownSource::Call);
        self.disposal.drop_aside((pager, source, self.log.take()));
    }
}

impl std::fmt::Debug for ObjectCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectCore")
            .field("name", &self.name)
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

/// Keeps a frame store registered; one for each mapped object, shared by its mappings.
#[derive(Debug)]
pub(crate) struct StoreHandle {
    pub(crate) store: Arc<FrameStore>,
    global_slot: usize,
    member_slot: usize,
}

impl MemoryObject {
    pub(crate) fn new(
        cache: Arc<CacheInner>,
        name: &str,
        pager: Box<dyn Pager>,
        options: ObjectOptions,
        log: Option<Arc<Logged>>,
    ) -> Self {
        let core = ObjectCore::new(&cache.shared, name, pager, options, log);
        Self::of(cache, core)
    }

    fn of(cache: Arc<CacheInner>, core: ObjectCore) -> Self {
        let core = Arc::new(core);
        let mapped = RankedMutex::new(Rank::Mapped, Weak::new());
        let handle = ObjectHandle { core, cache, mapped, kept: RankedMutex::new(Rank::Kept, None) };
        Self { handle: Arc::new(handle) }
    }

    /// The name that errors carry.
    pub fn name(&self) -> &str {
        &self.handle.core.name
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.handle.core.length()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Maps the bytes of `range`.
    ///
    /// All mappings of an object in this process share its frames, and with [`Store::Local`] its addresses too.
    /// Frames stay while any mapping exists, and are returned with the last; those of an object that can be written
    /// stay until its last handle of any kind goes. Does not call the pager. A private mapping ([`Sharing::Private`])
    /// has frames and addresses of its own, also of objects that are read only.
    pub fn map(&self, range: Range<u64>, options: MapOptions) -> Result<Mapping, MapError> {
        let handle = &self.handle;
        if !handle.cache.shared.owner.is_this_process() {
            return Err(MapError::Detached);
        }
        if options.sharing == Sharing::Private {
            let shared = MapOptions { sharing: Sharing::Shared, ..options };
            return self.private_copy().map(range, shared);
        }
        if range.start > range.end || range.end > self.len() {
            return Err(MapError::OutOfRange { range, length: self.len() });
        }
        let announce = self.announce(options.delivery);
        // Pins of shared frames are in the view whose faults are queued. Who borrows frames has no pins.
        if announce == Some(Announce::Queued) || handle.core.options.store == Store::Shared {
            let shared = &self.handle.cache.shared;
            let refused =
                |source| MapError::System { what: "start the threads that read fault events", source };
            shared.lanes.start(shared).map_err(refused)?;
        }
        let store = self.frames(announce)?;
        let fits = announce.is_none_or(|announce| store.store.area.use_view(announce));
        if !fits {
            return Err(MapError::OtherDelivery { object: Arc::clone(&handle.core.name) });
        }
        Ok(Mapping::new(store, Arc::clone(handle), range, announce))
    }

    /// The frame store, which is made if nothing of the object is mapped.
    pub(crate) fn frames(&self, announce: Option<Announce>) -> Result<Arc<StoreHandle>, MapError> {
        let handle = &self.handle;
        let mut mapped = handle.mapped.lock();
        if let Some(store) = mapped.upgrade() {
            return Ok(store);
        }
        let store = Arc::new(StoreHandle::new(&handle.cache, &handle.core, announce)?);
        *mapped = Arc::downgrade(&store);
        if handle.core.is_writable() {
            *handle.kept.lock() = Some(Arc::clone(&store));
        }
        Ok(store)
    }

    /// What is kept alive with a mapping or a guest.
    pub(crate) fn handle(&self) -> &Arc<ObjectHandle> {
        &self.handle
    }

    /// An object of its own for one private mapping: it begins as this one, and keeps its changes to itself.
    fn private_copy(&self) -> Self {
        let base = &self.handle;
        let options = ObjectOptions {
            writing: Writing::InPlace,
            store: Store::Local,
            max_len: Some(base.core.length()),
            ..base.core.options.clone()
        };
        let pager = Box::new(Private::new(Arc::clone(base)));
        let mut core = ObjectCore::new(&base.cache.shared, &base.core.name, pager, options, None);
        core.keeps_changes = false;
        Self::of(Arc::clone(&base.cache), core)
    }

    /// `None` is not at all: the mapping cannot be touched.
    fn announce(&self, delivery: Delivery) -> Option<Announce> {
        match delivery {
            Delivery::ReaderThread => Some(Announce::Queued),
            Delivery::InThread => Some(Announce::Signalled),
            Delivery::PinOnly => None,
            Delivery::Auto => match &self.handle.cache.shared.queued {
                Ok(uffd) if !uffd.features().kernel_faults => Some(Announce::Signalled),
                Ok(_) => Some(Announce::Queued),
                Err(_) => None,
            },
        }
    }

    fn kept(&self) -> Option<Arc<StoreHandle>> {
        self.handle.kept.lock().clone()
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        self.handle.core.is_writable()
    }

    /// Writes back all changes and makes them durable, as [`Mapping::sync`] of everything does.
    pub fn sync(&self) -> Result<(), WriteError> {
        self.refuse_in_child(WriteStep::Sync)?;
        match self.kept() {
            Some(kept) => kept.store.sync_all(),
            None if self.handle.core.log.is_some() => self.commit_unmapped(),
            // It was never mapped, but its length may have changed.
            None if self.is_writable() => {
                self.call_unmapped(WriteStep::Sync, self.len(), |pager| pager.sync())
            }
            None => Ok(()),
        }
    }

    /// Makes all changes since the last commit durable together: after a crash of the process, of the system or of the
    /// power, all of them are there or none is. Objects of [`Writing::Atomic`](crate::Writing::Atomic) only.
    ///
    /// What each thread stored before it called is in the commit; of threads that store meanwhile, what they had
    /// stored up to one moment. Calls at once share a commit. Blocks for one durable write; stores go on after
    /// their pages were copied. Nothing of the object may be pinned for writing: a commit waits for such pins, and
    /// fails with `Timeout`.
    ///
    /// Room for all of it is made sure of first: `NoSpace` means that nothing has happened. After an `Io` error it is
    /// open whether the commit will be there after a crash; the changes are Dirty still, and the next commit either
    /// fails too, or has them. The format is in `docs/commit-log.md`.
    pub fn commit(&self) -> Result<(), WriteError> {
        self.refuse_in_child(WriteStep::Commit)?;
        let core = &self.handle.core;
        if core.log.is_none() {
            let error = SupplyError::new(ErrorKind::Denied);
            let error = WriteError::new(&core.name, WriteStep::Commit, 0..self.len(), &error);
            return Err(error.because("the object is not open for commits (Writing::Atomic)"));
        }
        match self.kept() {
            Some(kept) => kept.store.commit_all(),
            None => self.commit_unmapped(),
        }
    }

    /// Without pages in memory there can be a new length at most.
    fn commit_unmapped(&self) -> Result<(), WriteError> {
        let core = &self.handle.core;
        let Some(log) = core.log.as_ref().filter(|log| log.has_uncommitted()) else { return Ok(()) };
        let committed = log.begin_commit(&[], |_, _| {}).and_then(|commit| commit.finish());
        committed.map_err(|error| WriteError::new(&core.name, WriteStep::Commit, 0..self.len(), &error))
    }

    /// Writes back all changes, makes them durable, and tells how that went: what to call before the last handle
    /// is dropped. Stores may follow, and are then to be closed again.
    ///
    /// An object of [`Writing::InPlace`](crate::Writing::InPlace) that is dropped with changes still has them written
    /// back, but not made durable, and there is nobody left to tell of an error, other than
    /// [`Cache::events`](crate::Cache::events). One of [`Writing::Atomic`](crate::Writing::Atomic) is committed by
    /// this, and copied in place: after `Ok` the file has everything that was committed before the call, whatever
    /// reads it. That waits for a copy in place that is running already, and for the durable writes of its own. If the
    /// copy fails, that is the error; what is committed is then still in the log. Dropped without, such an object is
    /// left as of its last commit.
    pub fn close(&self) -> Result<(), WriteError> {
        self.sync()?;
        let core = &self.handle.core;
        let Some(log) = &core.log else { return Ok(()) };
        log.put_in_place()
            .map_err(|error| WriteError::new(&core.name, WriteStep::WriteBack, 0..self.len(), &error))
    }

    /// Cuts the object off at `length` bytes, or extends it with zeros. Blocks while pages behind the new end are
    /// pinned or being written, as long as the object's time-out says.
    ///
    /// The length is the pager's at once, and durable after the next sync; of an object of
    /// [`Writing::Atomic`](crate::Writing::Atomic) it is the file's after the next commit. While mapped, an object grows
    /// to at most [`ObjectOptions::max_len`]; beyond, it is `NoSpace`. Touching what is cut off traps.
    /// Mappings stay as long as they are: what they have behind the end of the object is there again once the
    /// object has grown again. On error nothing has changed.
    pub fn set_len(&self, length: u64) -> Result<(), WriteError> {
        self.change_len(length, 0..u64::MAX)
    }

    /// Extends the object to `length` bytes with zeros, unless it is that long: of several who do so at once none cuts
    /// off what another has added.
    pub(crate) fn grow_to(&self, length: u64) -> Result<(), WriteError> {
        self.change_len(length, 0..length)
    }

    /// Changes the length if it is in `from`.
    fn change_len(&self, length: u64, from: Range<u64>) -> Result<(), WriteError> {
        self.refuse_in_child(WriteStep::SetLength)?;
        let core = &self.handle.core;
        let refused =
            |error: &SupplyError| WriteError::new(&core.name, WriteStep::SetLength, 0..length, error);
        if !core.is_writable() {
            return Err(refused(&SupplyError::new(ErrorKind::Denied)).because("the object is read only"));
        }
        let mut until = None;
        loop {
            // Nobody maps it meanwhile.
            let mapped = self.handle.mapped.lock();
            if !from.contains(&core.length()) {
                return Ok(());
            }
            let Some(kept) = self.kept() else {
                self.call_unmapped(WriteStep::SetLength, length, |pager| pager.set_length(length))?;
                core.set_length(length);
                return Ok(());
            };
            match kept.store.set_len(length)? {
                Changed::Yes => return Ok(()),
                // Whoever pins a page may need these locks to go on.
                Changed::NotNow(page) => {
                    drop(mapped);
                    let until = *until.get_or_insert_with(|| kept.store.length_deadline());
                    kept.store.wait_to_set_length(page, length, until)?;
                }
            }
        }
    }

    /// Calls the pager of an object that was never mapped.
    fn call_unmapped(
        &self,
        step: WriteStep,
        length: u64,
        call: impl FnOnce(&dyn Pager) -> Result<(), SupplyError>,
    ) -> Result<(), WriteError> {
        let core = &self.handle.core;
        let answer =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| locks::outside(|| call(&*core.pager))));
        let answer = answer.unwrap_or_else(|_| Err(SupplyError::new(ErrorKind::Integrity)));
        answer.map_err(|error| WriteError::new(&core.name, step, 0..length, &error))
    }

    fn refuse_in_child(&self, step: WriteStep) -> Result<(), WriteError> {
        if self.handle.cache.shared.owner.is_this_process() {
            return Ok(());
        }
        let detached = SupplyError::new(ErrorKind::Detached);
        Err(WriteError::new(&self.handle.core.name, step, 0..self.len(), &detached))
    }
}

impl StoreHandle {
    fn new(
        cache: &Arc<CacheInner>,
        object: &Arc<ObjectCore>,
        announce: Option<Announce>,
    ) -> Result<Self, MapError> {
        let shared = &cache.shared;
        if object.is_writable() {
            shared.cleaner.start(shared).map_err(refused("start the cleaner"))?;
            // Copies of pages end there when a frame was dropped from outside.
            signal::install(fault::resolve).map_err(refused("install the SIGBUS handler"))?;
            flush_at_exit();
        }
        let area = match choose_frames(cache, object, announce) {
            // The folder is there, but may refuse a file: to a user who has changed, for example.
            frames @ Frames::SharedLarge(_) => new_area(shared, object, frames, announce)
                .or_else(|_| new_area(shared, object, Frames::SharedSmall, announce)),
            frames => new_area(shared, object, frames, announce),
        }?;
        let store = FrameStore::new(Arc::clone(shared), Arc::clone(object), area)
            .map_err(refused("allocate tables for the object"))?;
        Self::register(store)
    }

    fn register(store: Arc<FrameStore>) -> Result<Self, MapError> {
        let full = |_| MapError::TooManyObjects { limit: memobj_sys::slots::MAX_SLOTS };
        let global_slot = STORES.insert(Arc::clone(&store)).map_err(full)?;
        let member_slot = match store.cache.members.insert(Arc::clone(&store)) {
            Ok(slot) => slot,
            Err(store) => {
                STORES.remove(global_slot);
                return Err(full(store));
            }
        };
        for (start, len, _) in store.area.views() {
            ADDRESSES.set(start, len, Some(global_slot));
        }
        Ok(Self { store, global_slot, member_slot })
    }
}

fn refused(what: &'static str) -> impl Fn(std::io::Error) -> MapError {
    move |source| MapError::System { what, source }
}

/// How far an object that can be written may grow while it is mapped.
fn capacity(object: &ObjectCore) -> u64 {
    let length = object.length();
    let wanted = object.options.max_len.unwrap_or_else(|| length.saturating_mul(2).max(LEAST_CAPACITY));
    wanted.max(length)
}

fn new_area(
    shared: &Arc<CacheShared>,
    object: &ObjectCore,
    frames: Frames,
    announce: Option<Announce>,
) -> Result<Arc<Area>, MapError> {
    let wanted = match frames {
        Frames::SharedSmall | Frames::SharedLarge(_) => vec![Announce::Queued, Announce::Signalled],
        Frames::LocalSmall | Frames::LocalLarge(_) => announce.into_iter().collect(),
    };
    let mut views = Vec::new();
    for announce in wanted {
        views.push(shared.uffd(announce).map_err(|source| MapError::NoUserfaultfd { source })?);
        match announce {
            // The engine's own stores go through this view, and may fault.
            Announce::Queued if object.is_writable() => {
                shared.lanes.start(shared).map_err(refused("start the threads that read fault events"))?;
            }
            // The first mapping starts them.
            Announce::Queued => {}
            Announce::Signalled => {
                signal::install(fault::resolve).map_err(refused("install the SIGBUS handler"))?;
            }
        }
    }
    Area::new(AreaOptions {
        name: object.name.to_string(),
        length: object.length(),
        capacity: if object.is_writable() { capacity(object) } else { object.length() },
        writes: if object.is_writable() { Writes::Yes } else { Writes::No },
        frames,
        views,
        budget: Arc::clone(&shared.budget),
        pin_budget: Arc::clone(&shared.pin_budget),
        unwritten: Arc::clone(&shared.unwritten),
    })
    .map_err(refused("reserve addresses for the object"))
}

fn choose_frames(cache: &CacheInner, object: &ObjectCore, announce: Option<Announce>) -> Frames {
    if announce.is_none() {
        return Frames::LocalSmall;
    }
    if object.is_writable() {
        return match object.options.store {
            Store::Local => Frames::LocalSmall,
            Store::Shared => Frames::SharedSmall,
        };
    }
    let wants_large = match object.options.frames {
        FrameSize::Small => false,
        FrameSize::Large => true,
        FrameSize::Auto => {
            object.length() >= LARGE_OBJECT_BYTES && object.is_sequential.load(Ordering::Relaxed)
        }
    };
    match object.options.store {
        Store::Shared => match wants_large.then(|| cache.shared.huge_folder()).flatten() {
            Some(folder) => Frames::SharedLarge(Arc::clone(folder)),
            None => Frames::SharedSmall,
        },
        Store::Local => match wants_large.then(|| cache.shared.pool()).flatten() {
            Some(pool) => Frames::LocalLarge(Arc::clone(pool)),
            None => Frames::LocalSmall,
        },
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        let store = &self.store;
        if !store.cache.owner.is_this_process() {
            // A child of fork has neither the memory nor the threads; the parent goes on with both.
            std::mem::forget(Arc::clone(store));
            return;
        }
        store.end_writes();
        store.close();
        for (start, len, _) in store.area.views() {
            ADDRESSES.set(start, len, None);
        }
        STORES.remove(self.global_slot);
        store.cache.members.remove(self.member_slot);
        store.cache.ask(Request::Forget(Arc::as_ptr(store) as usize));
        let all = PageRange { start: 0, end: store.area.page_size().pages_for(store.area.capacity()) };
        let evicted = store.area.evict_all(all, store.cache.clock.now());
        store.cache.counters.evicted_pages.add(evicted.pages);
    }
}

impl ObjectHandle {
    /// A number that no other object has while this one lives.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.core) as *const () as usize
    }

    pub(crate) fn length(&self) -> u64 {
        self.core.length()
    }

    /// Reads (a part of) one page as the object's mappings have it at some moment of the call. For workers: waits for
    /// nothing but the pager.
    pub(crate) fn read_page(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<(), SupplyError> {
        let mapped = self.mapped.lock().upgrade();
        let Some(mapped) = mapped.filter(|_| self.core.is_writable()) else {
            self.ask_pager(range.clone(), buffer)?;
            return match self.core.is_writable() && self.is_mapped() {
                // Mapped meanwhile, and perhaps written.
                true => self.read_page(range, buffer),
                false => Ok(()),
            };
        };
        let area = &mapped.store.area;
        let page = PageIndex(range.start / area.page_size().bytes());
        loop {
            // The object can have been made shorter since it was mapped privately.
            if range.end > area.length() {
                return Err(SupplyError::new(ErrorKind::Truncated));
            }
            let bytes = ByteRange { start: range.start, end: range.end };
            if let Some(mut pin) = PinSet::new(Arc::clone(area), PageRange::one(page)) {
                match pin.try_pin(page) {
                    Ok(()) => {
                        return pin.copy_to(bytes, buffer).map_err(|_| SupplyError::new(ErrorKind::Io));
                    }
                    Err(PinError::FrameGone) => mapped.store.look(page, page.0 * area.page_size().bytes()),
                    Err(_) => {}
                }
            }
            // The number first: a write that begins after it is seen by the number, one before it by the word.
            let writes_begun = area.writes_begun(page);
            let word = area.word(page);
            if word.state() == State::Failed && mapped.store.has_lost_changes(page) {
                return Err(mapped.store.lost_changes());
            }
            let pager_has_it = matches!(word.state(), State::Absent | State::Failed | State::Filling);
            if pager_has_it && !word.is_writing() {
                self.ask_pager(range.clone(), buffer)?;
                // A page that came, changed and was written back meanwhile could have been read half before and half
                // after. Its word would not tell: it can have gone again, and be as it was. Holding the page instead
                // would make everybody else wait for this call of the pager.
                if area.writes_begun(page) == writes_begun {
                    return Ok(());
                }
            }
            area.wait_as_writer(page, Some(std::time::Duration::from_millis(1)));
        }
    }

    fn is_mapped(&self) -> bool {
        self.mapped.lock().strong_count() > 0
    }

    fn ask_pager(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<(), SupplyError> {
        match self.core.pager.supply(range, buffer)? {
            count if count == buffer.len() => Ok(()),
            _ => Err(SupplyError::new(ErrorKind::Truncated)),
        }
    }
}

impl Drop for ObjectHandle {
    fn drop(&mut self) {
        let kept = std::mem::take(&mut *self.kept.lock());
        // Its changes go to the pager, which must still be there.
        drop(kept);
        if self.cache.shared.owner.is_this_process() {
            self.core.detached.store(true, Ordering::Release);
            self.core.pager.detach();
        }
    }
}
