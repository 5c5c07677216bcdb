//! A file that is written: what is stored into it, and how that becomes durable.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use memobj::{
    AccessError, Cache, Delivery, FrameSize, MapOptions, Mapping, MemoryObject, ObjectOptions, WriteError,
    Writing,
};

use crate::counted::Counted;
use crate::failure::{Failure, complain, failure};
use crate::interrupt::Interrupt;
use crate::retry::Retry;

/// How long to wait for another process that is writing the file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// The least step in which is found out how far a write that failed is durable.
const LEAST_STEP_BYTES: u64 = 1 << 20;
/// The most such steps.
const MOST_STEPS: u64 = 64;

/// How what was written becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Page by page, at any time; all of it at the end.
    Sync,
    /// All of it at the end, or nothing.
    Commit,
}

/// Makes all changes of `object` since the last commit durable, or none.
pub(crate) fn commit(object: &MemoryObject) -> Result<(), Failure> {
    object.commit().map_err(failure)
}

/// Why what was written is not durable.
#[derive(Debug)]
pub(crate) struct NotDurable {
    pub(crate) failure: Failure,
    /// What was written from this offset on may be lost: a server that had it has ended. Written again, it is whole.
    pub(crate) lost_from: Option<u64>,
}

impl From<Failure> for NotDurable {
    fn from(failure: Failure) -> Self {
        Self { failure, lost_from: None }
    }
}

/// A file open for writing, all of it mapped.
#[derive(Debug)]
pub(crate) struct Target {
    object: MemoryObject,
    mapping: Mapping,
    ending: Ending,
    retry: Retry,
    is_by_parts: bool,
    /// Of an object of a server.
    _counted: Option<Counted>,
}

impl Target {
    /// Opens the file at `path`. It can grow to `room_bytes`.
    pub(crate) fn open(
        cache: &Cache,
        path: &Path,
        (ending, retry): (Ending, Retry),
        room_bytes: u64,
    ) -> Result<Self, Failure> {
        let writing = match ending {
            Ending::Sync => Writing::InPlace,
            Ending::Commit => Writing::Atomic,
        };
        let object = cache.open_file(path, Self::options(writing, room_bytes)).map_err(failure)?;
        Self::of(object, (ending, retry), None)
    }

    /// How it is opened.
    pub(crate) fn options(writing: Writing, room_bytes: u64) -> ObjectOptions {
        ObjectOptions::new()
            .writing(writing)
            .frames(FrameSize::Small)
            .lock_timeout(LOCK_TIMEOUT)
            .max_len(room_bytes)
    }

    /// An object that is open.
    pub(crate) fn of(
        object: MemoryObject,
        (ending, retry): (Ending, Retry),
        counted: Option<Counted>,
    ) -> Result<Self, Failure> {
        let mapping = map(&object)?;
        Ok(Self { object, mapping, ending, retry, is_by_parts: false, _counted: counted })
    }

    /// The same, of a server that has each page as soon as it is written.
    pub(crate) fn by_parts(self, is_by_parts: bool) -> Self {
        Self { is_by_parts, ..self }
    }

    /// The file's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.object.len()
    }

    /// Cuts the file off, or extends it with zeros.
    pub(crate) fn set_length(&mut self, length: u64, interrupt: &Interrupt) -> Result<(), Failure> {
        self.retry.until_done(interrupt, WriteError::may_retry, || self.object.set_len(length))?;
        self.mapping = map(&self.object)?;
        Ok(())
    }

    /// Stores `bytes` at `offset`, inside the length. They are durable after [`finish`](Self::finish).
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.mapping.write_at(offset, bytes).map_err(failure)
    }

    /// Whether parts can be made durable before all is written: not where that would show a new version with a part only.
    pub(crate) fn is_durable_by_parts(&self) -> bool {
        self.is_by_parts
    }

    /// Makes everything durable that was written.
    pub(crate) fn sync(&self, interrupt: &Interrupt) -> Result<(), NotDurable> {
        self.make_durable(interrupt, || self.object.sync())
    }

    /// Makes everything durable that was written. A failure that is `Reported` came after that.
    pub(crate) fn finish(&self, interrupt: &Interrupt) -> Result<(), NotDurable> {
        match self.ending {
            Ending::Sync => self.make_durable(interrupt, || self.object.close()),
            Ending::Commit => {
                commit(&self.object)?;
                Ok(self.put_in_place()?)
            }
        }
    }

    fn make_durable(
        &self,
        interrupt: &Interrupt,
        mut attempt: impl FnMut() -> Result<(), WriteError>,
    ) -> Result<(), NotDurable> {
        let mut lost_from = None;
        let attempt =
            || attempt().inspect_err(|error| lost_from = error.is_lost().then(|| error.range().start));
        let done = self.retry.until_done(interrupt, WriteError::may_retry, attempt);
        done.map_err(|failure| NotDurable { failure, lost_from })
    }

    /// Whether what is lost can be written again: not without `--retry`.
    pub(crate) fn may_begin_again(&self) -> bool {
        self.retry != Retry::Never
    }

    /// Forgets what was written from `offset` on, durable or not, so that it can be written again.
    pub(crate) fn begin_again(&self, offset: u64, interrupt: &Interrupt) -> Result<(), Failure> {
        let discard = || self.mapping.discard(offset..self.length());
        self.retry.until_done(interrupt, AccessError::may_retry, discard).map(drop)
    }

    /// What is committed cannot get lost, but until it is in place only this library finds it.
    fn put_in_place(&self) -> Result<(), Failure> {
        self.object.close().map_err(|error| {
            let name = self.object.name();
            complain(&format!("{name} is committed, but in its log until it is opened again: {error}"));
            Failure::Reported
        })
    }

    /// After something failed: makes durable what it can of `range`, from its beginning on, and says up to where.
    /// That is where it begins if only a commit makes anything durable.
    pub(crate) fn rescue(&self, range: Range<u64>) -> u64 {
        if self.ending == Ending::Commit {
            return range.start;
        }
        let step = ((range.end - range.start) / MOST_STEPS).max(LEAST_STEP_BYTES).next_multiple_of(4096);
        let mut durable = range.start;
        while durable < range.end {
            let next = (durable.saturating_add(step) / step * step).min(range.end);
            // An error of the background is told to one sync, whatever that is about: the second one knows.
            let synced = (0..2).any(|_| self.mapping.sync(durable..next).is_ok());
            if !synced {
                break;
            }
            durable = next;
        }
        durable
    }
}

/// Stores by calls need no addresses to touch.
fn map(object: &MemoryObject) -> Result<Mapping, Failure> {
    let options = MapOptions::new().delivery(Delivery::PinOnly);
    object.map(0..object.len(), options).map_err(failure)
}
