//! Why one exchange with a server did not give what was asked for.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use memobj::ErrorKind;

/// A failure, before it is known for which step of which object.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// What happened, in lower case, with values; no secrets.
    pub(crate) what: String,
    /// The server's Retry-After.
    pub(crate) retry_after: Option<Duration>,
    /// No answer came at all: the server may be gone.
    pub(crate) is_silence: bool,
    /// The HTTP status, if there was an answer.
    pub(crate) status: Option<u16>,
    pub(crate) source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), retry_after: None, is_silence: false, status: None, source: None }
    }

    pub(crate) fn because(
        kind: ErrorKind,
        what: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { source: Some(Arc::new(source)), ..Self::new(kind, what) }
    }

    /// The same, of a server that gave no answer at all.
    pub(crate) fn silent(self) -> Self {
        Self { is_silence: true, ..self }
    }

    pub(crate) fn detached() -> Self {
        Self::new(ErrorKind::Detached, "the object is closed")
    }

    pub(crate) fn timeout(limit: Duration, what: &str) -> Self {
        Self::new(ErrorKind::Timeout, format!("{what} within {limit:?}")).silent()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let kind = memobj::SupplyError::from(std::io::Error::from(error.kind())).kind;
        Self::because(kind, format!("temporary file: {error}"), error)
    }
}

impl From<memobj::SupplyError> for Failure {
    fn from(error: memobj::SupplyError) -> Self {
        Self::because(error.kind, error.to_string(), error)
    }
}
