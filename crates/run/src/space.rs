//! The address spaces of the programs that run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use memobj_sys::trace::{CallSite, ForeignFaults, Maps};

use crate::files::MappedObject;

/// The address space of one program, and of its threads and vfork children.
#[derive(Debug)]
pub(crate) struct Space {
    /// By which its faults are known.
    pub(crate) number: u64,
    /// Whose it is.
    pub(crate) process: i32,
    pub(crate) faults: ForeignFaults,
    pub(crate) maps: Maps,
    pub(crate) site: CallSite,
    /// The index of the program in the history. A forked child has its own.
    program: AtomicUsize,
    /// Threads that run in it.
    threads: AtomicUsize,
    /// It has made a filter of its own, or locks all that it maps in future.
    is_left_alone: AtomicBool,
    locks_future: AtomicBool,
    /// What it maps or has mapped: kept as long as it lives.
    objects: std::sync::Mutex<Vec<Arc<MappedObject>>>,
}

impl Space {
    pub(crate) fn new(
        number: u64,
        process: i32,
        program: usize,
        faults: ForeignFaults,
        maps: Maps,
        site: CallSite,
    ) -> Self {
        Self {
            number,
            process,
            faults,
            maps,
            site,
            program: AtomicUsize::new(program),
            threads: AtomicUsize::new(1),
            is_left_alone: AtomicBool::new(false),
            locks_future: AtomicBool::new(false),
            objects: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn program(&self) -> usize {
        self.program.load(Ordering::Relaxed)
    }

    /// What another space that is a copy of this one takes over.
    pub(crate) fn inherit_from(&self, parent: &Self) {
        let objects = parent.objects.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        *self.objects.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = objects;
        self.is_left_alone.store(parent.is_left_alone(), Ordering::Relaxed);
    }

    /// Keeps `object` as long as the space.
    pub(crate) fn keep(&self, object: &Arc<MappedObject>) {
        let mut objects = self.objects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !objects.iter().any(|kept| Arc::ptr_eq(kept, object)) {
            objects.push(Arc::clone(object));
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
        self.threads.load(Ordering::Relaxed) <= 1 && !self.locks_future.load(Ordering::Relaxed)
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
