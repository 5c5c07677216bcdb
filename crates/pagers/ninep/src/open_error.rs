//! Why a file of a server could not be opened.

use std::error::Error;
use std::fmt;
use std::io;

use memobj::ErrorKind;

use crate::server_error::ServerError;

/// The step of opening that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OpenStep {
    /// The URL is wrong.
    Url,
    /// The name of the server has no address.
    Resolve,
    /// No connection.
    Connect,
    /// The server and this client have no dialect and size of messages in common.
    Version,
    /// The user may not attach, or there is no such tree.
    Attach,
    /// This name of the path.
    Walk(String),
    /// The file may not be opened so, or is none.
    Open,
    /// The server does not say how long the file is.
    Stat,
    /// What is in the folder.
    List,
}

impl fmt::Display for OpenStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("read the URL"),
            Self::Resolve => f.write_str("resolve"),
            Self::Connect => f.write_str("connect"),
            Self::Version => f.write_str("version"),
            Self::Attach => f.write_str("attach"),
            Self::Walk(name) => write!(f, "walk \"{name}\""),
            Self::Open => f.write_str("open"),
            Self::Stat => f.write_str("stat"),
            Self::List => f.write_str("list"),
        }
    }
}

/// Who is to blame.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The server refused.
    Server(ServerError),
    /// The connection failed, or no answer came in time.
    Connection(io::Error),
    /// The server broke the protocol, or answered what cannot be used.
    Answer(String),
    /// A folder stands where a file was to be.
    IsFolder,
    /// A folder has more names than are listed.
    TooMany(usize),
}

/// Why a file of a server could not be opened: the step that failed, and why.
#[derive(Debug)]
pub struct OpenError {
    what: String,
    step: OpenStep,
    cause: Cause,
}

impl OpenError {
    pub(crate) fn new(what: impl Into<String>, step: OpenStep, cause: Cause) -> Self {
        Self { what: what.into(), step, cause }
    }

    /// The step that failed.
    pub fn step(&self) -> &OpenStep {
        &self.step
    }

    /// Why, in the kinds of memobj. A file that is not there is Stale: it makes sense for one that was open before.
    pub fn kind(&self) -> ErrorKind {
        match &self.cause {
            Cause::Server(error) => error.kind(),
            Cause::Connection(error) if error.kind() == io::ErrorKind::TimedOut => ErrorKind::Timeout,
            Cause::Connection(_) => ErrorKind::Io,
            Cause::Answer(_) => ErrorKind::Integrity,
            Cause::IsFolder | Cause::TooMany(_) => ErrorKind::Denied,
        }
    }

    /// Whether it is not a file but a folder.
    pub fn is_folder(&self) -> bool {
        matches!(self.cause, Cause::IsFolder)
    }

    /// Whether the connection can be used for other requests.
    pub(crate) fn keeps_connection(&self) -> bool {
        matches!(self.cause, Cause::Server(_))
    }

    /// What the server said, if it did.
    pub fn server_error(&self) -> Option<&ServerError> {
        match &self.cause {
            Cause::Server(error) => Some(error),
            Cause::Connection(_) | Cause::Answer(_) | Cause::IsFolder | Cause::TooMany(_) => None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.what, self.step)?;
        match &self.cause {
            Cause::Server(error) => error.fmt(f),
            Cause::Connection(error) => error.fmt(f),
            Cause::Answer(what) => f.write_str(what),
            Cause::IsFolder => f.write_str("it is a folder"),
            Cause::TooMany(most) => {
                write!(f, "more than {most} names; what is in it can be opened by name")
            }
        }
    }
}

impl Error for OpenError {}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match (&error.cause, error.kind()) {
            (Cause::Connection(source), _) => source.kind(),
            (_, ErrorKind::Stale) => io::ErrorKind::NotFound,
            (_, ErrorKind::Denied) => io::ErrorKind::PermissionDenied,
            (_, ErrorKind::Integrity) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
