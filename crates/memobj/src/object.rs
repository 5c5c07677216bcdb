//! Memory objects and their placement in this process.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memobj_core::address::PageRange;
use memobj_sys::area::{Area, AreaOptions, Frames, Writes};
use memobj_sys::signal;
use memobj_sys::uffd::Announce;

use crate::cache::{CacheInner, CacheShared};
use crate::driver::Request;
use crate::error::{ErrorKind, MapError, SupplyError, WriteError, WriteStep};
use crate::fault;
use crate::mapping::Mapping;
use crate::options::{Delivery, FrameSize, MapOptions, ObjectOptions, Store, Writing};
use crate::pagers::Pager;
use crate::store::{ADDRESSES, FrameStore, STORES};
use crate::write::flush_at_exit;

/// From this size on an object gets large frames under [`FrameSize::Auto`].
const LARGE_OBJECT_BYTES: u64 = 16 << 20;
/// Addresses that a mapped object which can be written gets at least.
const LEAST_CAPACITY: u64 = 1 << 30;

/// Sized bytes with an identity, mapped or not. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryObject {
    handle: Arc<ObjectHandle>,
}

/// What the user's handles of one object share; dropping the last ends the pager's calls.
#[derive(Debug)]
pub(crate) struct ObjectHandle {
    core: Arc<ObjectCore>,
    cache: Arc<CacheInner>,
    /// The frame store, while a mapping exists.
    mapped: Mutex<Weak<StoreHandle>>,
    /// The frame store of an object that can be written: its changes outlive the mappings.
    kept: Mutex<Option<Arc<StoreHandle>>>,
}

pub(crate) struct ObjectCore {
    pub(crate) name: Arc<str>,
    pub(crate) pager: Box<dyn Pager>,
    /// Bytes, as the mapped pages have them.
    length: AtomicU64,
    pub(crate) options: ObjectOptions,
    /// Whether changes are to reach the pager at the end: not those of private mappings.
    pub(crate) keeps_changes: bool,
    pub(crate) detached: AtomicBool,
}

impl ObjectCore {
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    fn is_writable(&self) -> bool {
        self.options.writing != Writing::ReadOnly
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
    ) -> Self {
        let length = pager.length();
        let core = Arc::new(ObjectCore {
            name: name.into(),
            pager,
            length: AtomicU64::new(length),
            options,
            keeps_changes: true,
            detached: AtomicBool::new(false),
        });
        let handle = ObjectHandle { core, cache, mapped: Mutex::new(Weak::new()), kept: Mutex::default() };
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
    /// Frames stay while any mapping exists, and are returned with the last. Does not call the pager.
    pub fn map(&self, range: Range<u64>, options: MapOptions) -> Result<Mapping, MapError> {
        let handle = &self.handle;
        if !handle.cache.shared.owner.is_this_process() {
            return Err(MapError::Detached);
        }
        if range.start > range.end || range.end > self.len() {
            return Err(MapError::OutOfRange { range, length: self.len() });
        }
        let announce = self.announce(options.delivery);
        let mut mapped = handle.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match mapped.upgrade() {
            Some(store) => store,
            None => {
                let store = Arc::new(StoreHandle::new(&handle.cache, &handle.core, announce)?);
                *mapped = Arc::downgrade(&store);
                if handle.core.is_writable() {
                    *handle.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&store));
                }
                store
            }
        };
        drop(mapped);
        let fits = announce.is_none_or(|announce| store.store.area.use_view(announce));
        if !fits {
            return Err(MapError::OtherDelivery { object: Arc::clone(&handle.core.name) });
        }
        Ok(Mapping::new(store, Arc::clone(handle), range, announce))
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
        self.handle.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            // It was never mapped, but its length may have changed.
            None if self.is_writable() => {
                self.call_unmapped(WriteStep::Sync, self.len(), |pager| pager.sync())
            }
            None => Ok(()),
        }
    }

    /// Writes back all changes, makes them durable, and tells how that went: what to call before the last handle
    /// is dropped. Stores may follow, and are then to be closed again.
    ///
    /// An object that is dropped with changes still has them written back, but there is nobody left to tell of an
    /// error, other than [`Cache::events`](crate::Cache::events).
    pub fn close(&self) -> Result<(), WriteError> {
        self.sync()
    }

    /// Cuts the object off at `length` bytes, or extends it with zeros. Blocks while pages behind the new end are
    /// pinned or being written, as long as the object's time-out says.
    ///
    /// The length is the pager's at once; it is durable after the next sync. Touching what is cut off traps.
    /// Mappings stay as long as they are: what they have behind the end of the object is there again once the
    /// object has grown again. On error nothing has changed.
    pub fn set_len(&self, length: u64) -> Result<(), WriteError> {
        self.refuse_in_child(WriteStep::SetLength)?;
        let core = &self.handle.core;
        let refused =
            |error: &SupplyError| WriteError::new(&core.name, WriteStep::SetLength, 0..length, error);
        if !core.is_writable() {
            return Err(refused(&SupplyError::new(ErrorKind::Denied)));
        }
        // Nobody maps it meanwhile.
        let mapped = self.handle.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        match self.kept() {
            Some(kept) => kept.store.set_len(length)?,
            None => {
                self.call_unmapped(WriteStep::SetLength, length, |pager| pager.set_length(length))?;
            }
        }
        core.length.store(length, Ordering::Release);
        drop(mapped);
        Ok(())
    }

    /// Calls the pager of an object that was never mapped.
    fn call_unmapped(
        &self,
        step: WriteStep,
        length: u64,
        call: impl FnOnce(&dyn Pager) -> Result<(), SupplyError>,
    ) -> Result<(), WriteError> {
        let core = &self.handle.core;
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(&*core.pager)));
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
    shared: &CacheShared,
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
        if announce == Announce::Signalled {
            signal::install(fault::resolve).map_err(refused("install the SIGBUS handler"))?;
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
    if object.is_writable() || announce.is_none() {
        return Frames::LocalSmall;
    }
    let wants_large = match object.options.frames {
        FrameSize::Small => false,
        FrameSize::Large => true,
        FrameSize::Auto => object.length() >= LARGE_OBJECT_BYTES,
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

impl Drop for ObjectHandle {
    fn drop(&mut self) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        // Its changes go to the pager, which must still be there.
        drop(kept);
        if self.cache.shared.owner.is_this_process() {
            self.core.detached.store(true, Ordering::Release);
            self.core.pager.detach();
        }
    }
}
