//! Why changes are not where they should be.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{Cause, ErrorKind, PinHolder, SupplyError};

/// What was being done when it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WriteStep {
    /// Bytes were offered to the pager.
    WriteBack,
    /// The pager was to make them durable.
    Sync,
    /// The changes since the last commit were to become durable together.
    Commit,
    /// The length was to change.
    SetLength,
    /// Bytes were to be dropped.
    Discard,
}

/// Changes of an object that are not where they should be.
///
/// Unless the message says otherwise the pages are Dirty still, and the next `sync` or `commit` tries again.
#[derive(Clone, Debug)]
pub struct WriteError {
    pub(crate) object: Arc<str>,
    pub(crate) step: WriteStep,
    pub(crate) range: Range<u64>,
    pub(crate) kind: ErrorKind,
    pub(crate) lost: bool,
    /// What the kind does not say: it follows a time-out in the message, and stands for other kinds.
    pub(crate) why: Option<&'static str>,
    pub(crate) pinned_by: Option<PinHolder>,
    pub(crate) source: Option<Cause>,
}

impl WriteError {
    pub(crate) fn new(object: &Arc<str>, step: WriteStep, range: Range<u64>, error: &SupplyError) -> Self {
        let (kind, source) = (error.kind, error.source.clone());
        let object = Arc::clone(object);
        Self { object, step, range, kind, lost: false, why: None, pinned_by: None, source }
    }

    /// The same, with a message that says why.
    pub(crate) fn because(self, why: &'static str) -> Self {
        Self { why: Some(why), ..self }
    }

    pub(crate) fn held_by(self, holder: PinHolder) -> Self {
        Self { pinned_by: Some(holder), ..self }
    }

    /// The name of the object.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// What was being done.
    pub fn step(&self) -> WriteStep {
        self.step
    }

    /// The bytes of the object that it is about.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Why, in the closed set.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whose pin was in the way, if one was.
    pub fn pinned_by(&self) -> Option<PinHolder> {
        self.pinned_by
    }

    /// Whether the bytes are lost: they were handed to the system, which then failed to make them durable, and
    /// memory holds them no longer (then the step is `Sync`); or somebody outside has dropped the memory that held them,
    /// by madvise(2) on the object's addresses for example (`WriteBack`). Every `sync` and `commit` of them reports it
    /// until `discard` has taken note. In the second case the pages fail, for reading and storing, until then.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            WriteStep::WriteBack => "write",
            WriteStep::Sync => "sync",
            WriteStep::Commit => "commit",
            WriteStep::SetLength => "set the length of",
            WriteStep::Discard => "discard",
        };
        let Range { start, end } = self.range;
        match self.step {
            WriteStep::SetLength => write!(f, "{step} {} to {end}: ", self.object)?,
            _ => write!(f, "{step} [{start}, {end}) of {}: ", self.object)?,
        }
        match (self.kind, self.why) {
            (ErrorKind::Timeout, Some(why)) => write!(f, "{}, {why}", self.kind)?,
            (_, Some(why)) => f.write_str(why)?,
            (kind, None) => kind.fmt(f)?,
        }
        match (self.lost, self.step) {
            (true, WriteStep::WriteBack) => {
                f.write_str("; its changes are lost: the memory that held them was dropped")
            }
            (true, _) => f.write_str("; these bytes may be lost, an earlier sync of them failed"),
            (false, _) => Ok(()),
        }?;
        Ok(())
    }
}

impl Error for WriteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}
