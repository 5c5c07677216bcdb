//! What can keep a program from being run.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use memobj_tracer::CallError;

/// Why a program was not run, or not to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// This process cannot be told of the faults of others inside system calls.
    NoFaults {
        /// What the system said; `None` if it tells of faults in user code only.
        source: Option<io::Error>,
    },
    /// There is no such program, or it may not be run.
    NotFound {
        /// What was asked for.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// It could not be started.
    NotStarted {
        /// What was asked for.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// The cache was refused.
    Cache(memobj::CacheError),
    /// There is no server that lends frames to this process.
    Via {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        why: String,
    },
    /// What makes the options has failed.
    Options(Box<dyn std::error::Error + Send + Sync>),
    /// An object cannot be read on demand here, and could not be copied.
    Copy {
        /// Which.
        object: String,
        /// Why.
        source: io::Error,
    },
    /// An object cannot be read on demand here, and is too large to be copied before the program starts.
    NoRoomToCopy {
        /// Which.
        object: String,
        /// Bytes that it has.
        length_bytes: u64,
        /// Bytes that copies may have, all together.
        budget_bytes: u64,
        /// What it takes to read on demand.
        missing: String,
    },
    /// The system refused something.
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFaults { source } => {
                f.write_str("page faults inside system calls are not reported to this user")?;
                if let Some(source) = source {
                    write!(f, " ({source})")?;
                }
                f.write_str(
                    "; enable it by `sysctl vm.unprivileged_userfaultfd=1`, or by permission to read and write /dev/userfaultfd",
                )
            }
            Self::NotFound { program, source } | Self::NotStarted { program, source } => {
                write!(f, "{}: {source}", program.to_string_lossy())
            }
            Self::Cache(error) => write!(f, "{error}"),
            Self::Via { socket, why } => {
                write!(f, "borrow frames at {}: {why}", socket.display())
            }
            Self::Options(error) => write!(f, "{error}"),
            Self::Copy { object, source } => write!(f, "copy {object}: {source}"),
            Self::NoRoomToCopy { object, length_bytes, budget_bytes, missing } => write!(
                f,
                "{object} has {length_bytes} bytes, and no room for a copy in the budget of {budget_bytes} bytes; \
                 objects cannot be read on demand here ({missing})"
            ),
            Self::System { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoFaults { source } => source.as_ref().map(|source| source as _),
            Self::NotFound { source, .. }
            | Self::NotStarted { source, .. }
            | Self::Copy { source, .. }
            | Self::System { source, .. } => Some(source),
            Self::Options(error) => Some(&**error),
            Self::NoRoomToCopy { .. } | Self::Via { .. } => None,
            Self::Cache(error) => Some(error),
        }
    }
}

/// Why a program is not served.
#[derive(Debug)]
pub(crate) enum NotServed {
    /// The thread has ended, or is about to: the next reports tell of it.
    Ended,
    /// Something was refused.
    Refused(String),
}

impl From<CallError> for NotServed {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Ended => Self::Ended,
            CallError::System(error) => error.into(),
        }
    }
}

impl From<io::Error> for NotServed {
    fn from(error: io::Error) -> Self {
        /// What calls on a process that has ended answer.
        const ESRCH: i32 = 3;
        match error.raw_os_error() {
            Some(ESRCH) => Self::Ended,
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl std::fmt::Display for NotServed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended => f.write_str("it has ended"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}
