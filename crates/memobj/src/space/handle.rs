//! The handle, and its verbs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;
use memobj_linux::fault_loop::{FaultLoop, Registration};
use memobj_linux::space::SpaceMemory;
use memobj_vm::space::{
    Advice, Change, MapRequest, ObjectId, Pattern, ProtectFrom, RemapTo, Segment, Sharing, SpaceError,
};

use super::faults::SpaceFaults;
use super::state::{State, translate};
use super::{SegmentRequest, SegmentSource, SpaceOptions, VerbError};
use crate::error::{MapError, PageError};
use crate::locks::{Guard, Rank, RankedMutex};
use crate::object::MemoryObject;

const PAGE: u64 = 4096;

/// An address space of this process: a window of addresses, and segments in it.
///
/// When it is dropped all of it is unmapped and its objects are free; who accesses it then, or
/// sleeps on a fault in it, traps. Whoever uses addresses keeps the space: memobj hands out no references into it. It
/// can be used from several threads at once, each verb is done as a whole.
///
/// # Soundness
///
/// No reference into the window is ever made. [`read_at`](Self::read_at) and [`write_at`](Self::write_at) copy to and from
/// the caller's own memory, and never outside of segments; segments are placed in the window only, where nothing else of
/// this process is. Frames of objects are mapped privately: what is stored in a space changes no frame.
pub struct Space {
    pub(super) inner: Arc<Inner>,
    /// `None` at the very end.
    faults: Option<Registration>,
    options: SpaceOptions,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("window", &self.inner.memory.window()).finish_non_exhaustive()
    }
}

/// What the event loop shares with the handle of a space.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) memory: SpaceMemory,
    state: RankedMutex<State>,
    closing: AtomicBool,
    /// The loop that reads faults has panicked.
    refusing: AtomicBool,
}

impl Inner {
    /// Nothing panics while it has the lock, and nobody touches memory of the space.
    pub(super) fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    pub(super) fn refuse(&self) {
        self.refusing.store(true, Ordering::Release);
    }

    /// Whether faults are not resolved any more.
    pub(super) fn refuses(&self) -> bool {
        self.refusing.load(Ordering::Acquire)
    }

    /// Whether the space is not being dropped.
    pub(super) fn goes_on(&self) -> bool {
        !self.closing.load(Ordering::Acquire)
    }
}

impl Space {
    /// Sets addresses aside. The event loop of the process, which is started if there is none, resolves the faults.
    ///
    /// # Errors
    ///
    /// `NoUserfaultfd` where the kernel gives this process none; `System`, if there is no room, or the place that was
    /// asked for is taken.
    pub fn new(options: SpaceOptions) -> Result<Self, MapError> {
        let system = |what| move |source| MapError::System { what, source };
        let whole = options.window_bytes.checked_next_multiple_of(PAGE);
        let length = whole.and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
        let start = options.window_start.map(|start| start.0 as usize);
        if let Err(source) = memobj_linux::uffd::probe() {
            return Err(MapError::NoUserfaultfd { source });
        }
        let memory = SpaceMemory::new(start, length).map_err(system("set addresses aside"))?;
        let state = RankedMutex::new(Rank::SpaceTable, State::new(memory.window(), &options));
        let inner = Arc::new(Inner {
            memory,
            state,
            closing: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
        });
        let client = Arc::new(SpaceFaults(Arc::clone(&inner)));
        let faults = FaultLoop::of_process().and_then(|all| all.add(client));
        let faults = faults.map_err(system("start the event loop for faults"))?;
        Ok(Self { inner, faults: Some(faults), options })
    }

    /// The first address of the window, and one past the last.
    pub fn window(&self) -> (VirtAddr, VirtAddr) {
        let window = self.inner.memory.window();
        (VirtAddr(window.start as u64), VirtAddr(window.end as u64))
    }

    /// All segments, lowest first. What is mapped is what is said here.
    pub fn table(&self) -> Vec<Segment> {
        self.inner.lock().space.iter().collect()
    }

    /// The segment that holds `address`.
    pub fn lookup(&self, address: VirtAddr) -> Option<Segment> {
        self.inner.lock().space.lookup(address)
    }

    /// The name by which [`Backing::Object`](super::Backing::Object) knows an object that has segments here.
    pub fn id_of(&self, object: &MemoryObject) -> Option<ObjectId> {
        self.inner.lock().objects.known(object.handle().key())
    }

    /// Maps what `request` asks for, and returns it as it was before it was joined to its neighbours. Blocks for a copy
    /// segment as long as making the copy takes; else calls no pager.
    ///
    /// # Errors
    ///
    /// `Space`, in the order of mmap(2), as for an object that was opened for reading: stores into a shared segment are
    /// refused with `ObjectDenied`. Then `Map`, if the object cannot lend its frames, and `NoCopy`. `Unsupported` for
    /// anonymous memory that is shared.
    pub fn map(&self, request: &SegmentRequest<'_>) -> Result<Segment, VerbError> {
        let SegmentSource::Object { object, offset } = request.source else {
            return self.map_plain(request);
        };
        let is_copy = request.sharing == Sharing::Copy;
        let known = self.with_state(|state| {
            let known = state.objects.known(object.handle().key()).filter(|_| !is_copy);
            match known.and_then(|id| state.objects.frames(id)) {
                Some(frames) => Ok(Some(frames.clone())),
                // Before anything is made for it.
                None => state.check(&translate(request, ObjectId(0))).map(|_| None),
            }
        })??;
        let lent = match known {
            Some(frames) => frames,
            None if is_copy => self.copy_of(object, offset, request.length)?.lend_frames()?,
            None => object.lend_frames()?,
        };
        self.verb(|state, changes| {
            let id = state.objects.admit(lent);
            state.space.map(&translate(request, id), changes)
        })
    }

    /// Maps what has no object.
    fn map_plain(&self, request: &SegmentRequest<'_>) -> Result<Segment, VerbError> {
        let request = match (request.source, request.sharing) {
            (SegmentSource::Anonymous, Sharing::Shared) => {
                return Err(VerbError::Unsupported { what: "anonymous memory that is shared" });
            }
            (_, Sharing::Copy) => (*request).sharing(Sharing::Private),
            _ => *request,
        };
        let request: MapRequest = translate(&request, ObjectId(0));
        self.verb(|state, changes| state.space.map(&request, changes))
    }

    /// How the copy segments of this space are made.
    pub(super) fn copy_limit(&self) -> u64 {
        self.options.copy_bytes
    }

    /// Frees the `length` bytes at `start`, rounded up to pages, as munmap(2) does.
    pub fn unmap(&self, start: VirtAddr, length: u64) -> Result<(), VerbError> {
        self.verb(|state, changes| state.space.unmap(start, length, changes))
    }

    /// Gives the `length` bytes at `start`, rounded up to pages, the protection `prot`, as mprotect(2) does: upward,
    /// until a segment or a hole refuses it.
    pub fn protect(&self, start: VirtAddr, length: u64, prot: Prot) -> Result<(), VerbError> {
        let from = ProtectFrom::Start;
        self.verb(|state, changes| state.space.protect(start, length, Ok(prot), from, changes))
    }

    /// Makes what is at the `old` bytes at `from` `new` bytes long, perhaps elsewhere, and returns where it is, as
    /// mremap(2) does. Private pages move along. Whoever accesses what is being moved traps, or finds it at its old or
    /// its new place.
    pub fn remap(&self, from: VirtAddr, old: u64, new: u64, to: RemapTo) -> Result<VirtAddr, VerbError> {
        self.verb(|state, changes| state.space.remap(from, old, new, to, changes))
    }

    /// Takes advice, as madvise(2) does: `DontNeed` drops private pages, and what is behind the segment shows again.
    ///
    /// Hints and patterns are noted, and nothing else. Fork, dumps and guards are `Unsupported`.
    pub fn advise(&self, start: VirtAddr, length: u64, advice: Advice) -> Result<(), VerbError> {
        let what = match advice {
            Advice::DontFork | Advice::DoFork | Advice::WipeOnFork | Advice::KeepOnFork => "forked children",
            Advice::Dump(_) => "advice about dumps",
            Advice::Guard(_) => "guards",
            Advice::Use(Pattern::Normal | Pattern::Random | Pattern::Sequential)
            | Advice::Hint
            | Advice::Cold
            | Advice::DontNeed
            | Advice::DontNeedLocked
            | Advice::Free
            | Advice::Remove => {
                return self.verb(|state, changes| state.space.advise(start, length, Ok(advice), changes));
            }
        };
        Err(VerbError::Unsupported { what })
    }

    /// The pages that trap because they could not be supplied, where they are, and why.
    pub fn errors(&self) -> Vec<(VirtAddr, PageError)> {
        self.inner.lock().failures.iter().map(|(page, error)| (page, error.clone())).collect()
    }

    /// The error of the page that failed last.
    pub fn last_error(&self) -> Option<PageError> {
        self.inner.lock().failures.last().cloned()
    }

    /// Lets the failed pages of the `length` bytes at `start` be asked for again; returns how many addresses trapped.
    ///
    /// The pages of the objects are tried again for all who map them. Where else in this space they are mapped, and have
    /// trapped, they trap until that range is retried, too.
    pub fn retry(&self, start: VirtAddr, length: u64) -> Result<u64, VerbError> {
        self.with_state(|state| {
            let range = start.0..start.0.saturating_add(length);
            for segment in state.space.iter_range(start, length) {
                let part = segment.part(start, VirtAddr(range.end));
                let behind = part.and_then(|part| Some((part.object_at(part.start)?, part.length)));
                if let Some(((id, offset), length)) = behind
                    && let Some(frames) = state.objects.frames(id)
                {
                    // First: what is accessed from here on must not find the page Failed still.
                    frames.retry(offset.0..offset.0.saturating_add(length));
                }
            }
            let pages = state.failures.in_range(range.start / PAGE * PAGE..range.end);
            for page in &pages {
                let at = *page as usize;
                let lifted = self.inner.memory.drop_pages(at..at + PAGE as usize);
                lifted.map_err(|source| VerbError::System { what: "lift the poison of a page", source })?;
                state.failures.forget(*page..page + PAGE);
            }
            Ok(pages.len() as u64)
        })?
    }

    /// Does `verb`, and applies what it changed, whether it was refused or not.
    fn verb<T>(
        &self,
        verb: impl FnOnce(&mut State, &mut Vec<Change>) -> Result<T, SpaceError>,
    ) -> Result<T, VerbError> {
        self.with_state(|state| {
            let mut changes = Vec::new();
            let done = verb(state, &mut changes);
            state.apply(&self.inner.memory, &changes)?;
            Ok(done?)
        })?
    }

    /// Drops the frames of objects that have lost their last segment only when the lock is gone.
    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, VerbError> {
        if !self.inner.memory.is_here() {
            return Err(VerbError::Detached);
        }
        let mut state = self.inner.lock();
        let done = work(&mut state);
        let unused = state.objects.take_unused();
        drop(state);
        drop(unused);
        Ok(done)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if !self.inner.memory.is_here() {
            // A child of fork: all of it is the parent's.
            std::mem::forget(Arc::clone(&self.inner));
            std::mem::forget(self.faults.take());
            return;
        }
        self.inner.closing.store(true, Ordering::Release);
        // Before the userfaultfd is closed, or a load of a missing page would make zeros of it.
        self.inner.memory.close();
        self.faults = None;
    }
}
