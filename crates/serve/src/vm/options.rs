//! How machines are served, and what is told of it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use memobj::{FailurePolicy, MapError, OpenError};

use super::record::Touches;
use crate::keep::Kept;
use crate::peer::Allowed;

/// What becomes of a machine that touches a page which cannot be supplied. It never reads anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFailure {
    /// It is ended by SIGKILL.
    #[default]
    End,
    /// It waits; the page is asked for again every second.
    Wait,
}

/// How machines are served.
pub struct Options {
    /// When failed supplies are tried again, before the machine hears of it.
    pub policy: FailurePolicy,
    /// What becomes of a machine that touches a page which cannot be supplied.
    pub on_failure: OnFailure,
    /// Whose monitors may connect.
    pub allowed: Allowed,
    /// The most machines at once.
    pub most_machines: usize,
    /// How many bytes around a fault are obtained with it: a power of two, at least a page.
    pub window_bytes: u64,
    /// Whether first touches are noted.
    pub records: bool,
    /// What is copied before it is touched.
    pub touches: Option<Touches>,
    /// Whether all pages are copied in the background.
    pub completes: bool,
    /// What keeps machines for the next server, if this one dies.
    pub kept: Option<Arc<Kept>>,
}

impl Default for Options {
    /// Failures at once end a machine; 256 machines; 64 KiB around a fault; nothing else.
    fn default() -> Self {
        Self {
            policy: FailurePolicy::FailAtOnce,
            on_failure: OnFailure::End,
            allowed: Allowed::default(),
            most_machines: 256,
            window_bytes: 64 << 10,
            records: false,
            touches: None,
            completes: false,
            kept: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("on_failure", &self.on_failure).finish_non_exhaustive()
    }
}

/// Why no machines are served.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The object is refused.
    Object(OpenError),
    /// It cannot be mapped.
    Map(MapError),
    /// It has no bytes.
    Empty(String),
    /// The system refuses something.
    System(&'static str, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(error) => write!(f, "{error}"),
            Self::Map(error) => write!(f, "{error}"),
            Self::Empty(name) => write!(f, "{name} has no bytes"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What a server has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Machines now.
    pub machines: usize,
    /// Machines that were served, all together.
    pub served: u64,
    /// Monitors that were refused.
    pub refused: u64,
    /// Faults that were resolved.
    pub faults: u64,
    /// The time from when a fault was read until it was resolved, that half of them did not take longer than; and 99 of a hundred.
    pub median: Duration,
    /// As above.
    pub percentile_99: Duration,
}
