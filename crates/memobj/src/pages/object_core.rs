//! What all parts know of an object.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

use super::length_change::{Changed, LengthChange, PagerLength};
use crate::clock::{Deadline, EngineClock};
use crate::error::{ErrorKind, SupplyError, WriteError, WriteStep};
use crate::metrics::Timed;
use crate::options::{Advice, FailurePolicy, ObjectOptions, Writing};
use crate::pagers::{self, Description, File, Local, Logged, Pager, SupplyRequest};
use crate::reporter::{ObjectTell, Reporter};
use crate::threads::Disposal;

pub(crate) struct ObjectCore {
    /// A number that no other object has, ever.
    pub(crate) number: u64,
    pub(crate) name: Arc<str>,
    pub(crate) pager: Arc<dyn Pager>,
    /// What the pager said when the object was made, on the thread that made it. Nobody asks again.
    pub(crate) description: Description,
    local: Option<Local>,
    /// Bytes, as the mapped pages have them.
    length: AtomicU64,
    pub(crate) pager_length: PagerLength,
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
    pub(crate) reporter: Arc<ObjectTell>,
}

impl ObjectCore {
    pub(crate) fn new(
        clock: &EngineClock,
        disposal: &Arc<Disposal>,
        reporter: &Arc<Reporter>,
        name: &str,
        (pager, mut description): (Box<dyn Pager>, Description),
        options: ObjectOptions,
        log: Option<Arc<Logged>>,
    ) -> Self {
        let pager: Arc<dyn Pager> = pager.into();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            length: AtomicU64::new(description.length()),
            pager_length: PagerLength::default(),
            local: description.take_local(),
            description,
            pager,
            is_sequential: AtomicBool::new(options.advice == Advice::Sequential),
            options,
            log,
            keeps_changes: true,
            detached: AtomicBool::new(false),
            disposal: Arc::clone(disposal),
            clock: clock.clone(),
            reporter: Arc::new(ObjectTell::new(reporter)),
        }
    }

    /// The local file that has the bytes, if one has: rings read and write it. A file that only a server knows is called for,
    /// on threads that may wait. Safe in a signal handler.
    pub(crate) fn file(&self) -> Option<&File> {
        self.origin().filter(|file| file.answers_at_once())
    }

    /// The file that has the bytes, local or not.
    pub(crate) fn origin(&self) -> Option<&File> {
        match &self.local {
            Some(Local::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Bytes that need no waiting. Safe in a signal handler.
    pub(crate) fn at_once(&self) -> AtOnce<'_> {
        match &self.local {
            Some(Local::Zeros) => AtOnce::Zeros,
            Some(Local::Memory(bytes)) => AtOnce::Memory(bytes),
            Some(Local::File(_)) | None => AtOnce::Nothing,
        }
    }

    /// Whether the bytes need no waiting.
    pub(crate) fn has_bytes_at_once(&self) -> bool {
        !matches!(self.at_once(), AtOnce::Nothing)
    }

    /// Asks the pager for `range` and waits for the answer. For threads that nobody else waits for.
    pub(crate) fn supply_now(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<(), SupplyError> {
        if let Some(file) = self.origin() {
            let got = pagers::BlockingPager::supply(file, range, buffer)?;
            return if got == buffer.len() { Ok(()) } else { Err(SupplyError::new(ErrorKind::Truncated)) };
        }
        let (sender, answer) = sync_channel(1);
        let request = SupplyRequest::new(range, move |answer| {
            let _ = sender.send(answer.map(<[u8]>::to_vec));
        })?;
        self.pager.supply(request);
        let bytes = answer.recv().map_err(|_| SupplyError::new(ErrorKind::Detached))??;
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    /// Has `ask` ask the pager on this thread, and waits for the answer as long as the object's time-out says.
    pub(crate) fn ask_now(&self, ask: impl FnOnce(&dyn Pager, AnswerTo)) -> Result<(), SupplyError> {
        let (to, answer) = answer_channel();
        let asked = catch_unwind(AssertUnwindSafe(|| ask(&*self.pager, to)));
        if asked.is_err() {
            return Err(SupplyError::new(ErrorKind::Integrity));
        }
        self.wait_for(&answer)
    }

    /// Waits for the answer to what the pager was asked, as long as the object's time-out says.
    pub(crate) fn wait_for(&self, answer: &Receiver<Result<(), SupplyError>>) -> Result<(), SupplyError> {
        let limit = self.options.supply_timeout.filter(|_| self.options.policy != FailurePolicy::WaitForEver);
        let until = limit.and_then(|limit| self.clock.now().checked_add(limit));
        let received = match until {
            Some(until) => self.clock.receive(answer, until),
            None => answer.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        received.unwrap_or_else(|error| {
            Err(SupplyError::new(match error {
                RecvTimeoutError::Timeout => ErrorKind::Timeout,
                RecvTimeoutError::Disconnected => ErrorKind::Detached,
            }))
        })
    }

    /// Has `ask` hand a change of the length to the pager, and waits for the answer.
    pub(crate) fn change_pager_length(
        &self,
        ask: impl FnOnce(LengthChange) -> Result<(), SupplyError>,
    ) -> Result<(), LengthError> {
        let change = self.pager_length.begin().map_err(LengthError::Unchanged)?;
        let Err(error) = ask(change.clone()) else { return Ok(()) };
        match change.end() {
            Changed::Answered(Ok(())) => Ok(()),
            Changed::Answered(Err(error)) => Err(LengthError::Unchanged(error)),
            Changed::NotMade => Err(LengthError::Unchanged(error)),
            Changed::Unknown => Err(LengthError::Unknown(error)),
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

/// Why a pager has not changed its length as asked.
#[derive(Debug)]
pub(crate) enum LengthError {
    /// It has the length that it had.
    Unchanged(SupplyError),
    /// It was called and has not answered: it has one length or the other.
    Unknown(SupplyError),
}

/// Bytes of an object that need no waiting.
pub(crate) enum AtOnce<'a> {
    /// There are none.
    Nothing,
    /// All are zero.
    Zeros,
    /// They are the first bytes of this slice.
    Memory(&'a [u8]),
}

impl Drop for ObjectCore {
    fn drop(&mut self) {
        // Threads that resolve faults can be the last to know an object; a pager may do anything while it is dropped.
        let pager = std::mem::replace(&mut self.pager, Arc::new(pagers::Zero::new(0)));
        self.disposal.drop_aside((pager, self.local.take(), self.log.take()));
    }
}

/// Who hears one answer of a pager.
pub(crate) type AnswerTo = Box<dyn FnOnce(Result<(), SupplyError>) + Send>;

/// Both ends of one answer.
pub(crate) fn answer_channel() -> (AnswerTo, Receiver<Result<(), SupplyError>>) {
    let (sender, receiver) = sync_channel(1);
    let to = Box::new(move |answer| {
        let _ = sender.send(answer);
    });
    (to, receiver)
}

impl std::fmt::Debug for ObjectCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectCore")
            .field("name", &self.name)
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}
