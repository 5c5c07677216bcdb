//! What all parts know of an object.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memobj_linux::part::Part;

use crate::clock::{Deadline, EngineClock};
use crate::error::{SupplyError, WriteError, WriteStep};
use crate::metrics::Timed;
use crate::options::{Advice, ObjectOptions, Writing};
use crate::pagers::{self, Logged, Pager, Source};
use crate::tell::{ObjectTell, Tell};
use crate::threads::Disposal;

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
    pub(crate) is_sequential: AtomicBool,
    /// Of the cache, as the clock.
    pub(crate) disposal: Arc<Disposal>,
    pub(crate) clock: EngineClock,
    pub(crate) tell: Arc<ObjectTell>,
}

impl ObjectCore {
    pub(crate) fn new(
        clock: &EngineClock,
        disposal: &Arc<Disposal>,
        tell: &Arc<Tell>,
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
            disposal: Arc::clone(disposal),
            clock: clock.clone(),
            tell: Arc::new(ObjectTell::new(tell)),
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

    /// The end of a wait for pins that begins now.
    pub(crate) fn pin_deadline(&self) -> Deadline<'_> {
        self.clock.deadline(self.options.pin_timeout)
    }

    /// Calls `act`, and adds how long it took to `counter`.
    pub(crate) fn timed<R>(&self, counter: &Timed, act: impl FnOnce() -> R) -> R {
        let begun = self.clock.now();
        let answer = act();
        counter.add(self.clock.now().saturating_duration_since(begun));
        answer
    }

    pub(crate) fn write_error(&self, step: WriteStep, range: Range<u64>, error: &SupplyError) -> WriteError {
        WriteError::new(&self.name, step, range, error)
    }

    pub(crate) fn is_writable(&self) -> bool {
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
