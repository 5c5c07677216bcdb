//! Errors of this crate: a step, an object, a kind.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use memobj::{ErrorKind, SupplyError};

use crate::failure::Failure;

/// What was being done.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// The URL was read.
    Parse,
    /// Credentials, the endpoint and other settings were looked for.
    Configure,
    /// The object's length and version were asked for.
    Open,
    /// These bytes of the object were asked for.
    Supply(Range<u64>),
    /// These bytes were put into the spool.
    WriteBack(Range<u64>),
    /// A new version of the object was to be published.
    Publish,
    /// The object with its changes was to be stored elsewhere.
    SaveAs,
    /// What is in a folder, or whether there is one, was asked for.
    List,
    /// What stands under a name of a folder was asked for.
    LookUp,
    /// Uploads that were left were asked for.
    ListUploads,
    /// An upload was to be removed.
    AbortUpload,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse => f.write_str("read the URL"),
            Self::Configure => f.write_str("configure access to"),
            Self::Open => f.write_str("open"),
            Self::Supply(range) => write!(f, "supply [{}, {}) of", range.start, range.end),
            Self::WriteBack(range) => write!(f, "keep [{}, {}) of", range.start, range.end),
            Self::Publish => f.write_str("publish"),
            Self::SaveAs => f.write_str("save as"),
            Self::List => f.write_str("list"),
            Self::LookUp => f.write_str("look up"),
            Self::ListUploads => f.write_str("list uploads of"),
            Self::AbortUpload => f.write_str("abort an upload of"),
        }
    }
}

/// What failed, and why. The URL in it has no password and no query.
#[derive(Clone, Debug)]
pub struct ObjectStoreError {
    step: Step,
    url: Arc<str>,
    failure: Failure,
}

impl ObjectStoreError {
    pub(crate) fn new(step: Step, url: &Arc<str>, failure: Failure) -> Self {
        Self { step, url: Arc::clone(url), failure }
    }

    /// What was being done.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// The object, without secrets.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Why, in the closed set.
    pub fn kind(&self) -> ErrorKind {
        self.failure.kind
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure.retry_after
    }

    /// The status of the server's answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.failure.status
    }
}

impl fmt::Display for ObjectStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.step, self.url, self.failure.what)
    }
}

impl Error for ObjectStoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failure.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

impl From<ObjectStoreError> for SupplyError {
    fn from(error: ObjectStoreError) -> Self {
        let (kind, pause) = (error.kind(), error.retry_after());
        let supply = SupplyError::because(kind, error);
        match pause {
            Some(pause) => supply.retry_after(pause),
            None => supply,
        }
    }
}
