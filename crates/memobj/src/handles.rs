//! What the handles of an object share, and the placement of its frames in this process.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once, Weak};

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::decide::{Decision, Intent, WaitFor, decide};
use memobj_linux::area::{
    self, Area, AreaOptions, Frames, Inherited, PinError, PinSet, PinShares, Storage, Writes,
};
use memobj_linux::region::LARGE;
use memobj_linux::signal;
use memobj_linux::uffd::Announce;

use crate::engine::CacheInner;
use crate::error::{ErrorKind, MapError, SupplyError};
use crate::fault;
use crate::locks::{Rank, RankedMutex};
use crate::options::{FrameSize, FrameVisibility, Writing};
use crate::pages::ObjectCore;
use crate::parts::{ADDRESSES, CacheShared, KeptParts, OBJECTS, ObjectParts, Request};
use crate::place::{self, Home};

/// From this size on an object that is read in sequence gets large frames under [`FrameSize::Auto`].
const LARGE_OBJECT_BYTES: u64 = 16 << 20;
/// Addresses that a mapped object which can be written gets at least.
const LEAST_CAPACITY: u64 = 1 << 30;

/// What the user's handles of one object share; dropping the last ends the pager's calls.
#[derive(Debug)]
pub(crate) struct ObjectHandle {
    pub(crate) core: Arc<ObjectCore>,
    pub(crate) cache: Arc<CacheInner>,
    /// The parts, while a mapping exists.
    pub(crate) mapped: RankedMutex<Weak<PartsHandle>>,
    /// The parts of an object that can be written: its changes outlive the mappings.
    pub(crate) kept: RankedMutex<Option<Arc<PartsHandle>>>,
}

/// That an object is kept beyond the life of this process, and by which.
#[derive(Clone, Debug)]
pub(crate) struct Keeping {
    /// Its words and frames.
    pub(crate) storage: Storage,
    /// The process that keeps them.
    pub(crate) keeper: Arc<OwnedFd>,
}

/// Keeps the parts of an object registered; one for each mapped object, shared by its mappings.
#[derive(Debug)]
pub(crate) struct PartsHandle {
    pub(crate) parts: Arc<ObjectParts>,
    shared: Arc<CacheShared>,
    global_slot: usize,
    allocator_slot: usize,
    cleaner_slot: Option<usize>,
    /// What mappings keep the store by for pins of single pages.
    pins: RankedMutex<Weak<PinShares>>,
}

impl PartsHandle {
    pub(crate) fn new(
        cache: &CacheInner,
        object: &Arc<ObjectCore>,
        announce: Option<Announce>,
        home: Option<Home>,
        keeping: Option<Keeping>,
    ) -> Result<Self, MapError> {
        let shared = &cache.shared;
        if object.is_writable() {
            shared.cleaner.start().map_err(refused("start the cleaner"))?;
            // Copies of pages end there when a frame was dropped from outside.
            signal::install(fault::resolve).map_err(refused("install the SIGBUS handler"))?;
            flush_at_exit();
        }
        let storage = keeping.as_ref().map_or(Storage::Own, |keeping| keeping.storage.clone());
        let place = |frames| new_area(cache, object, (frames, &storage), announce, home);
        let (area, found) = match choose_frames(cache, object, announce) {
            // The folder is there, but may refuse a file: to a user who has changed, for example.
            frames @ Frames::SharedLarge(_) => place(frames).or_else(|_| place(Frames::SharedSmall)),
            frames => place(frames),
        }?;
        let kept = keeping.map(|keeping| KeptParts {
            keeper: keeping.keeper,
            is_inherited: matches!(keeping.storage, Storage::Inherited { .. }),
            may_trap: found.may_trap,
            lost: found.lost,
        });
        let parts = ObjectParts::new(shared, object, area, kept)
            .map_err(refused("allocate tables for the object"))?;
        Self::register(shared, parts)
    }

    fn register(shared: &Arc<CacheShared>, parts: Arc<ObjectParts>) -> Result<Self, MapError> {
        let full = MapError::TooManyObjects { limit: memobj_linux::slots::MAX_SLOTS };
        let Ok(global_slot) = OBJECTS.insert(Arc::clone(&parts)) else { return Err(full) };
        let Ok(allocator_slot) = shared.allocator.members.insert(Arc::clone(&parts.area)) else {
            OBJECTS.remove(global_slot);
            return Err(full);
        };
        // As large as that of the room, and never with more in it.
        let admit = |writes| shared.cleaner.members.insert(Arc::new(writes)).ok();
        let cleaner_slot = parts.writes.clone().and_then(admit);
        for (start, len, _) in parts.area.views() {
            ADDRESSES.set(start, len, Some(global_slot));
        }
        let pins = RankedMutex::new(Rank::PinShares, Weak::new());
        Ok(Self { parts, shared: Arc::clone(shared), global_slot, allocator_slot, cleaner_slot, pins })
    }

    /// The shares by which pins of single pages keep this.
    pub(crate) fn pins(self: &Arc<Self>) -> Arc<PinShares> {
        let mut pins = self.pins.lock();
        pins.upgrade().unwrap_or_else(|| {
            let kept: Arc<Self> = Arc::clone(self);
            let new = Arc::new(PinShares::new(Arc::clone(&self.parts.area), kept));
            *pins = Arc::downgrade(&new);
            new
        })
    }
}

fn refused(what: &'static str) -> impl Fn(std::io::Error) -> MapError {
    move |source| MapError::System { what, source }
}

/// How far an object that can be written may grow while it is mapped.
pub(crate) fn capacity(object: &ObjectCore) -> u64 {
    let length = object.length();
    let wanted = object.options.max_len.unwrap_or_else(|| length.saturating_mul(2).max(LEAST_CAPACITY));
    wanted.max(length)
}

fn new_area(
    cache: &CacheInner,
    object: &ObjectCore,
    (frames, storage): (Frames, &Storage),
    announce: Option<Announce>,
    home: Option<Home>,
) -> Result<(Arc<Area>, Inherited), MapError> {
    let shared = &cache.shared;
    let wanted = match frames {
        Frames::SharedSmall | Frames::SharedLarge(_) => vec![Announce::Queued, Announce::Signalled],
        Frames::LocalSmall | Frames::LocalLarge(_) => announce.into_iter().collect(),
    };
    let mut views = Vec::new();
    for announce in wanted {
        views.push(shared.machine.uffd(announce).map_err(|source| MapError::NoUserfaultfd { source })?);
        match announce {
            // The engine's own stores go through this view, and may fault.
            Announce::Queued if object.is_writable() => {
                cache.lanes.start(shared).map_err(refused("start the threads that read fault events"))?;
            }
            // The first mapping starts them.
            Announce::Queued => {}
            Announce::Signalled => {
                signal::install(fault::resolve).map_err(refused("install the SIGBUS handler"))?;
            }
        }
    }
    let capacity = if object.is_writable() { capacity(object) } else { object.length() };
    place::at_home(home, capacity, |start| {
        let options = AreaOptions {
            name: object.name.to_string(),
            length: object.length(),
            capacity,
            writes: if object.is_writable() { Writes::Yes } else { Writes::No },
            frames: frames.clone(),
            views: views.clone(),
            home: home.map(|home| home.announce).zip(start),
            budget: Arc::clone(&shared.allocator.budget),
            pin_budget: Arc::clone(&shared.allocator.pins),
            tables: Arc::clone(&shared.allocator.tables),
            unwritten: Arc::clone(&shared.allocator.unwritten.bytes),
            storage: storage.clone(),
        };
        match storage {
            Storage::Inherited { .. } => area::inherit(options),
            Storage::Own | Storage::Kept(_) => area::new(options).map(|area| (area, Inherited::default())),
        }
    })
}

fn choose_frames(cache: &CacheInner, object: &ObjectCore, announce: Option<Announce>) -> Frames {
    if announce.is_none() {
        return Frames::LocalSmall;
    }
    if object.is_writable() {
        return match object.options.visibility {
            FrameVisibility::Local => Frames::LocalSmall,
            FrameVisibility::Shared => Frames::SharedSmall,
        };
    }
    let shared = &cache.shared;
    let wants_large = match object.options.frames {
        _ if !shared.allocator.is_large_enough() => false,
        FrameSize::Small => false,
        FrameSize::Large => true,
        // A pager that likes smaller blocks is asked for these.
        FrameSize::Auto if object.description.names_block_below(LARGE as u64) => false,
        FrameSize::Auto => {
            object.length() >= LARGE_OBJECT_BYTES && object.is_sequential.load(Ordering::Relaxed)
        }
    };
    match object.options.visibility {
        FrameVisibility::Shared => match wants_large.then(|| shared.machine.huge_folder()).flatten() {
            Some(folder) => Frames::SharedLarge(Arc::clone(folder)),
            None => Frames::SharedSmall,
        },
        FrameVisibility::Local => match wants_large.then(|| shared.allocator.pool()).flatten() {
            Some(pool) => Frames::LocalLarge(Arc::clone(pool)),
            None => Frames::LocalSmall,
        },
    }
}

impl Drop for PartsHandle {
    fn drop(&mut self) {
        let parts = &self.parts;
        if !parts.owner.is_this_process() {
            // A child of fork has neither the memory nor the threads; the parent goes on with both.
            std::mem::forget(Arc::clone(parts));
            return;
        }
        if let Some(writes) = &parts.writes {
            writes.hold_back(false);
            writes.end();
        }
        parts.close();
        for (start, len, _) in parts.area.views() {
            ADDRESSES.set(start, len, None);
        }
        OBJECTS.remove(self.global_slot);
        if let Some(slot) = self.cleaner_slot {
            self.shared.cleaner.members.remove(slot);
        }
        self.shared.allocator.members.remove(self.allocator_slot);
        self.shared.workers.forget(&parts.fill);
        self.shared.requests.ask(Request::Forget(Arc::as_ptr(parts) as usize));
        let all = PageRange { start: 0, end: parts.area.page_size().pages_for(parts.area.capacity()) };
        self.shared.allocator.evict(&parts.area, all);
    }
}

impl ObjectHandle {
    /// A number that no other object has while this one lives.
    #[cfg(feature = "spaces")]
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
            self.core.supply_now(range.clone(), buffer)?;
            return match self.core.is_writable() && self.is_mapped() {
                // Mapped meanwhile, and perhaps written.
                true => self.read_page(range, buffer),
                false => Ok(()),
            };
        };
        let area = &mapped.parts.area;
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
                        return area::copy_pinned(&pin, bytes, buffer)
                            .map_err(|_| SupplyError::new(ErrorKind::Io));
                    }
                    Err(PinError::FrameGone) => {
                        mapped.parts.errors.look(page, page.0 * area.page_size().bytes())
                    }
                    Err(_) => {}
                }
            }
            // The number first: a write that begins after it is seen by the number, one before it by the word.
            let writes_begun = area.writes_begun(page);
            let word = area.word(page);
            if word.has_failed()
                && let Some(lost) = mapped.parts.errors.lost_changes(page)
            {
                return Err(lost);
            }
            let pager_has_it = matches!(
                decide(word, Intent::Presence),
                Decision::Claim | Decision::Trap | Decision::Demand | Decision::Wait(WaitFor::Filler)
            );
            if pager_has_it && !word.is_writing() {
                self.core.supply_now(range.clone(), buffer)?;
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

/// Hands the changes of all objects that are written in place to their files when the process exits by `exit` or
/// by returning from `main`: the system makes them durable in its own time, as it does with what was mapped.
fn flush_at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| memobj_linux::exit::at_exit(flush_all));
}

fn flush_all() {
    for slot in 0..OBJECTS.end() {
        let parts = OBJECTS.with(slot, |parts| parts.this.upgrade()).flatten();
        let Some(parts) = parts.filter(|parts| parts.object.keeps_changes) else { continue };
        if !parts.owner.is_this_process() || parts.object.options.writing != Writing::InPlace {
            continue;
        }
        if let Some(writes) = &parts.writes {
            writes.flush_for_exit();
        }
    }
}
