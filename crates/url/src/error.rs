//! Why an object of a server could not be opened.

use std::error::Error;
use std::fmt;
use std::io;

use memobj::{ErrorKind, OpenError};
#[cfg(feature = "object-store")]
use memobj_object_store::Step;

/// Why a URL could not be opened. The text has no password and no query of the URL.
#[derive(Debug)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no URL that is known here, or its scheme is behind a feature that is off.
    Unknown {
        /// The scheme, or what stands where it should be.
        scheme: String,
        /// What is known instead.
        why: &'static str,
    },
    /// What the memory object refuses, or a local file.
    Open(OpenError),
    /// What the object store or the web server said.
    #[cfg(feature = "object-store")]
    ObjectStore(memobj_object_store::ObjectStoreError),
    /// What the 9P server said.
    #[cfg(feature = "9p")]
    NineP(memobj_9p::OpenError),
}

impl UrlError {
    /// Why, in the closed set.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::Denied,
            Self::Open(error) if error.may_retry() => ErrorKind::Io,
            Self::Open(_) => ErrorKind::Denied,
            #[cfg(feature = "object-store")]
            Self::ObjectStore(error) => error.kind(),
            #[cfg(feature = "9p")]
            Self::NineP(error) => error.kind(),
        }
    }

    /// Whether the server says that there is no such object, or folder.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Open(_) => false,
            #[cfg(feature = "object-store")]
            Self::ObjectStore(error) => error.status() == Some(404),
            #[cfg(feature = "9p")]
            Self::NineP(error) => {
                matches!(error.step(), memobj_9p::OpenStep::Walk(_)) && error.kind() == ErrorKind::Stale
            }
        }
    }

    /// Whether a [folder](crate::folder) can be of this URL, of which there is no object.
    pub fn may_be_folder(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Open(_) => false,
            #[cfg(feature = "object-store")]
            Self::ObjectStore(error) => error.status() == Some(404) || error.step() == &Step::Parse,
            #[cfg(feature = "9p")]
            Self::NineP(error) => error.is_folder(),
        }
    }

    /// Whether the same call can succeed later without anybody changing anything: the server is away, or has too much to do.
    pub fn may_retry(&self) -> bool {
        self.kind().may_retry()
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { scheme, why } => write!(f, "open {scheme}://...: {why}"),
            Self::Open(error) => error.fmt(f),
            #[cfg(feature = "object-store")]
            Self::ObjectStore(error) => error.fmt(f),
            #[cfg(feature = "9p")]
            Self::NineP(error) => error.fmt(f),
        }
    }
}

impl Error for UrlError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unknown { .. } => None,
            Self::Open(error) => error.source(),
            #[cfg(feature = "object-store")]
            Self::ObjectStore(error) => error.source(),
            #[cfg(feature = "9p")]
            Self::NineP(error) => error.source(),
        }
    }
}

impl From<UrlError> for io::Error {
    /// The kind is the nearest that there is. The error is kept: [`get_ref`](io::Error::get_ref).
    fn from(error: UrlError) -> Self {
        let kind = match error.kind() {
            _ if error.is_missing() => io::ErrorKind::NotFound,
            ErrorKind::Denied => io::ErrorKind::PermissionDenied,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Stale => io::ErrorKind::StaleNetworkFileHandle,
            ErrorKind::Integrity => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<OpenError> for UrlError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}
