//! Memory objects and their placement in this process.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memobj_core::address::PageRange;
use memobj_sys::area::{Area, AreaOptions, Frames};
use memobj_sys::signal;
use memobj_sys::uffd::Announce;

use crate::cache::{CacheInner, CacheShared};
use crate::driver::Request;
use crate::error::MapError;
use crate::fault;
use crate::mapping::Mapping;
use crate::options::{Delivery, FrameSize, MapOptions, ObjectOptions, Store};
use crate::pagers::Pager;
use crate::store::{ADDRESSES, FrameStore, STORES};

/// From this size on an object gets large frames under [`FrameSize::Auto`].
const LARGE_OBJECT_BYTES: u64 = 16 << 20;

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
}

pub(crate) struct ObjectCore {
    pub(crate) name: Arc<str>,
    pub(crate) pager: Box<dyn Pager>,
    pub(crate) length: u64,
    pub(crate) options: ObjectOptions,
    pub(crate) detached: AtomicBool,
}

impl std::fmt::Debug for ObjectCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectCore")
            .field("name", &self.name)
            .field("length", &self.length)
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
            length,
            options,
            detached: AtomicBool::new(false),
        });
        Self { handle: Arc::new(ObjectHandle { core, cache, mapped: Mutex::new(Weak::new()) }) }
    }

    /// The name that errors carry.
    pub fn name(&self) -> &str {
        &self.handle.core.name
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.handle.core.length
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
                store
            }
        };
        drop(mapped);
        if !store.store.area.use_view(announce) {
            return Err(MapError::OtherDelivery { object: Arc::clone(&handle.core.name) });
        }
        Ok(Mapping::new(store, Arc::clone(handle), range, announce))
    }

    fn announce(&self, delivery: Delivery) -> Announce {
        match delivery {
            Delivery::ReaderThread => Announce::Queued,
            Delivery::InThread => Announce::Signalled,
            Delivery::Auto => match &self.handle.cache.shared.queued {
                Ok(uffd) if !uffd.features().kernel_faults => Announce::Signalled,
                _ => Announce::Queued,
            },
        }
    }
}

impl StoreHandle {
    fn new(cache: &Arc<CacheInner>, object: &Arc<ObjectCore>, announce: Announce) -> Result<Self, MapError> {
        let shared = &cache.shared;
        let area = match choose_frames(cache, object) {
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

fn new_area(
    shared: &CacheShared,
    object: &ObjectCore,
    frames: Frames,
    announce: Announce,
) -> Result<Arc<Area>, MapError> {
    let wanted = match frames {
        Frames::SharedSmall | Frames::SharedLarge(_) => vec![Announce::Queued, Announce::Signalled],
        Frames::LocalSmall | Frames::LocalLarge(_) => vec![announce],
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
        length: object.length,
        frames,
        views,
        budget: Arc::clone(&shared.budget),
        pin_budget: Arc::clone(&shared.pin_budget),
    })
    .map_err(refused("reserve addresses for the object"))
}

fn choose_frames(cache: &CacheInner, object: &ObjectCore) -> Frames {
    let wants_large = match object.options.frames {
        FrameSize::Small => false,
        FrameSize::Large => true,
        FrameSize::Auto => object.length >= LARGE_OBJECT_BYTES,
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
        store.close();
        for (start, len, _) in store.area.views() {
            ADDRESSES.set(start, len, None);
        }
        STORES.remove(self.global_slot);
        store.cache.members.remove(self.member_slot);
        store.cache.ask(Request::Forget(Arc::as_ptr(store) as usize));
        let all = PageRange { start: 0, end: store.area.pages() };
        let evicted = store.area.evict_all(all, store.cache.clock.now());
        store.cache.counters.evicted_pages.add(evicted.pages);
    }
}

impl Drop for ObjectHandle {
    fn drop(&mut self) {
        if self.cache.shared.owner.is_this_process() {
            self.core.detached.store(true, Ordering::Release);
            self.core.pager.detach();
        }
    }
}
