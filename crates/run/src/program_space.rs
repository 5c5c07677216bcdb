//! The address spaces of the programs that run.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use memobj_linux::locks::{Rank, RankedMutex};
use memobj_linux::uffd::ForeignFaults;
use memobj_tracer::{By, MapCall, Maps, Registers, Sites, Thread, is_same_file};

use crate::error::NotServed;
use crate::files::{FramesId, MappedObject};

/// The address space of one program, and of its threads and vfork children.
#[derive(Debug)]
pub(crate) struct ProgramSpace {
    /// By which its faults are known.
    pub(crate) number: u64,
    /// Whose it is.
    pub(crate) process: i32,
    /// `None`: the kernel supplies all that it maps.
    faults: Option<Arc<ForeignFaults>>,
    pub(crate) maps: Arc<Maps>,
    pub(crate) site: Sites,
    /// The index of the program in the history. A forked child has its own.
    program: AtomicUsize,
    /// Threads that run in it.
    threads: AtomicUsize,
    /// It has made a filter of its own, or locks all that it maps in future.
    is_left_alone: AtomicBool,
    locks_future: AtomicBool,
    /// What it maps, and what it has mapped since it was looked last.
    objects: RankedMutex<HashMap<FramesId, KeptObject>>,
    /// Numbers that its threads were handed descriptors by, for a moment, and the last descriptor that each stood for.
    handed: RankedMutex<HashMap<i32, RawFd>>,
    /// How often descriptors were mapped, and whether programs may look at the tracer's.
    by_path: RankedMutex<HashMap<RawFd, u32>>,
    looks_at_tracer: AtomicBool,
    /// Userfaultfds of forked children that have not been looked at.
    children: RankedMutex<Vec<ForeignFaults>>,
    child_is_born: Condvar,
}

/// An object that a space may map.
#[derive(Clone, Debug)]
struct KeptObject {
    object: Arc<MappedObject>,
    /// Since its mappings are being handed over: the ranges of pages that the space had stored to. Where it has stored to
    /// none, a child that is forked meanwhile inherits marks, which look like pages.
    stored_to: Option<Vec<Range<u64>>>,
}

/// Mappings of one file in one space that are separate open files.
const MOST_BY_PATH: u32 = 16;
/// How long the event of a fork may take.
const BIRTH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether the child is there still.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl ProgramSpace {
    pub(crate) fn new(
        number: u64,
        process: i32,
        program: usize,
        faults: Option<ForeignFaults>,
        site: Sites,
    ) -> Self {
        Self {
            number,
            process,
            faults: faults.map(Arc::new),
            maps: Arc::clone(site.maps()),
            site,
            program: AtomicUsize::new(program),
            threads: AtomicUsize::new(1),
            is_left_alone: AtomicBool::new(false),
            locks_future: AtomicBool::new(false),
            objects: RankedMutex::new(Rank::SpaceObjects, HashMap::new()),
            handed: RankedMutex::new(Rank::HandedDescriptors, HashMap::new()),
            by_path: RankedMutex::new(Rank::MappedByPath, HashMap::new()),
            looks_at_tracer: AtomicBool::new(true),
            children: RankedMutex::new(Rank::BornChildren, Vec::new()),
            child_is_born: Condvar::new(),
        }
    }

    /// By which it is told of its faults. `None`: nothing of it is served but names.
    pub(crate) fn faults(&self) -> Option<&Arc<ForeignFaults>> {
        self.faults.as_ref()
    }

    /// The same, where something of it is served.
    pub(crate) fn served(&self) -> io::Result<&ForeignFaults> {
        let none = || io::Error::other("the kernel supplies all that it maps");
        self.faults.as_deref().ok_or_else(none)
    }

    pub(crate) fn program(&self) -> usize {
        self.program.load(Ordering::Relaxed)
    }

    /// What another space that is a copy of this one takes over.
    pub(crate) fn inherit_from(&self, parent: &Self) {
        let objects = parent.objects.lock().clone();
        *self.objects.lock() = objects;
        self.is_left_alone.store(parent.is_left_alone(), Ordering::Relaxed);
    }

    /// Keeps `object` until it is known that the space does not map it.
    pub(crate) fn keep(&self, object: &Arc<MappedObject>) {
        let kept = || KeptObject { object: Arc::clone(object), stored_to: None };
        self.objects.lock().entry(object.frames).or_insert_with(kept);
    }

    /// It maps no other frames than these.
    pub(crate) fn keep_only(&self, mapped: &HashSet<FramesId>) {
        self.objects.lock().retain(|frames, _| mapped.contains(frames));
    }

    /// Whether it may map `object`.
    pub(crate) fn keeps(&self, object: &MappedObject) -> bool {
        self.objects.lock().contains_key(&object.frames)
    }

    /// All that it may map.
    pub(crate) fn kept(&self) -> Vec<Arc<MappedObject>> {
        self.objects.lock().values().map(|kept| Arc::clone(&kept.object)).collect()
    }

    /// A mapping of `object` is being handed over, and of it these ranges are the space's own pages.
    pub(crate) fn hands_over(&self, object: &MappedObject, own: &[Range<u64>]) {
        if let Some(kept) = self.objects.lock().get_mut(&object.frames) {
            let known = kept.stored_to.get_or_insert_default();
            known.extend_from_slice(own);
            known.sort_unstable_by_key(|range| range.start);
            known.dedup_by(|next, before| {
                let is_joined = next.start <= before.end;
                before.end = if is_joined { before.end.max(next.end) } else { before.end };
                is_joined
            });
        }
    }

    /// The own pages of what was being handed over of `object`, here or in the space that this one is a copy of. `None`:
    /// nothing was.
    pub(crate) fn handed_over(&self, object: &MappedObject) -> Option<Vec<Range<u64>>> {
        self.objects.lock().get(&object.frames)?.stored_to.clone()
    }

    /// Maps a descriptor of this process in the name of a stopped thread that runs in the space; the answer is the
    /// kernel's.
    pub(crate) fn map_descriptor(
        &self,
        thread: Thread,
        base: &Registers,
        descriptor: BorrowedFd<'_>,
        map: MapCall,
    ) -> Result<i64, NotServed> {
        let ours = descriptor.as_raw_fd();
        let mut mapped = None;
        if self.goes_by_path(ours) {
            mapped = self.site.map(thread, base, (ours, By::Path), map)?;
            self.looks_at_tracer.fetch_and(mapped.is_some(), Ordering::Relaxed);
        }
        if mapped.is_none() {
            mapped = self.site.map(thread, base, (ours, By::Hand), map)?;
        }
        let mapped = mapped.ok_or_else(|| NotServed::Refused("it cannot be handed descriptors".into()))?;
        if !self.has_one_thread() {
            self.handed.lock().insert(mapped.number, ours);
        }
        Ok(mapped.answer)
    }

    /// Whether the next mapping of this descriptor is quicker by its path: a few are, and then mappings had better be
    /// joined.
    fn goes_by_path(&self, ours: RawFd) -> bool {
        if !self.looks_at_tracer.load(Ordering::Relaxed) {
            return false;
        }
        let mut counts = self.by_path.lock();
        let count = counts.entry(ours).or_default();
        *count += 1;
        *count <= MOST_BY_PATH
    }

    /// Descriptors that a process, which was forked from one that runs in this space and has not run yet, has by accident:
    /// another thread had been handed them at that moment. They are its own numbers.
    pub(crate) fn leaked_to(&self, process: i32) -> Vec<i32> {
        let handed = self.handed.lock();
        let is_ours = |number: i32, ours: RawFd| {
            let link = std::fs::read_link(format!("/proc/{process}/fd/{number}")).unwrap_or_default();
            link.as_os_str().as_encoded_bytes().starts_with(b"/memfd:memobj:")
                || (!link.as_os_str().is_empty() && is_same_file(process, number, ours))
        };
        handed.iter().filter(|(number, ours)| is_ours(**number, **ours)).map(|(number, _)| *number).collect()
    }

    /// Forks were told of.
    pub(crate) fn has_children(&self, faults: Vec<ForeignFaults>) {
        if !faults.is_empty() {
            self.children.lock().extend(faults);
            self.child_is_born.notify_all();
        }
    }

    /// Waits for the userfaultfd of a forked child, the first that `is_it` says yes to.
    ///
    /// Ends early when `is_alive` says no more; forgets those of children that have ended.
    pub(crate) fn take_child(
        &self,
        is_it: impl Fn(&ForeignFaults) -> bool,
        is_alive: impl Fn() -> bool,
    ) -> Option<ForeignFaults> {
        let until = Instant::now() + BIRTH_TIMEOUT;
        let mut children = self.children.lock();
        loop {
            children.retain(ForeignFaults::has_address_space);
            if let Some(at) = children.iter().position(&is_it) {
                return Some(children.remove(at));
            }
            let left = until.checked_duration_since(Instant::now()).filter(|_| is_alive())?;
            children = children.wait_within(&self.child_is_born, left.min(LOOK_AGAIN));
        }
    }

    pub(crate) fn thread_begins(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn thread_ends(&self) {
        self.threads.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether nobody else could touch what the stopped thread maps, and nothing touches it by itself.
    pub(crate) fn is_quiet(&self) -> bool {
        self.has_one_thread() && !self.locks_future.load(Ordering::Relaxed)
    }

    pub(crate) fn has_one_thread(&self) -> bool {
        self.threads.load(Ordering::Relaxed) <= 1
    }

    /// Nothing more of it is served.
    pub(crate) fn leave_alone(&self) {
        self.is_left_alone.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_left_alone(&self) -> bool {
        self.is_left_alone.load(Ordering::Relaxed)
    }

    /// What it maps from now on is touched by the kernel at once.
    pub(crate) fn lock_future(&self) {
        self.locks_future.store(true, Ordering::Relaxed);
    }
}
