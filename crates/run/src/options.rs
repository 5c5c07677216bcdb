//! How a program is run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use memobj::FailurePolicy;
use memobj::pagers::Injection;

use crate::map_target::MapTarget;

/// A budget below this is too small for most programs: an interpreter and its libraries touch about as much before they do
/// anything, and read the same pages again and again in less.
pub const LEAST_BUDGET_BYTES: u64 = 4 << 20;

/// For [`Supervisor::new`](crate::Supervisor::new).
#[derive(Clone, Debug)]
pub struct Options {
    /// The most bytes of frames, of all files together. Pages that programs have stored to are their own and not
    /// among them.
    pub budget_bytes: u64,
    /// What happens when a page cannot be supplied.
    pub policy: FailurePolicy,
    /// Faults to inject into files.
    pub injections: Vec<FileInjections>,
    /// Names that stand for other files, or for objects.
    pub names: Vec<NameMap>,
    /// How programs come to the bytes of objects.
    pub object_access: ObjectAccess,
    /// Hears how objects are copied.
    pub copying: Option<CopyProgress>,
    /// What is counted.
    pub counting: Counting,
    /// How many bytes around a fault are read with it: a power of two, at least a page. No more than a sixteenth of the
    /// budget is.
    pub window_bytes: u64,
    /// The socket of a server that lends frames (`memobj serve --lend`): it has the cache and the budget, and decides about
    /// failures. `None`: this process has them.
    pub via: Option<PathBuf>,
    /// Whether a line tells of each page that could not be supplied, and of programs that cannot be served.
    pub messages: Messages,
}

impl Default for Options {
    /// 256 MiB, failures at once, nothing counted but totals, windows of 64 KiB, messages to standard error.
    fn default() -> Self {
        Self {
            budget_bytes: 256 << 20,
            policy: FailurePolicy::FailAtOnce,
            injections: Vec::new(),
            names: Vec::new(),
            object_access: ObjectAccess::Auto,
            copying: None,
            counting: Counting::Totals,
            window_bytes: 64 << 10,
            via: None,
            messages: Messages::StandardError,
        }
    }
}

/// Faults to inject into files whose path ends with `path`.
#[derive(Clone, Debug)]
pub struct FileInjections {
    /// Whole names at the end of a path: `libc.so.6`, `lib/libc.so.6`. `*` is every file.
    pub path: PathBuf,
    /// The faults.
    pub faults: Vec<Injection>,
    /// What is random about them.
    pub seed: u64,
}

/// A name that stands for another file, or for an object.
#[derive(Clone, Debug)]
pub struct NameMap {
    /// What programs say: an absolute path, or one of a folder.
    pub guest: PathBuf,
    /// What they get.
    pub target: MapTarget,
}

/// How programs come to the bytes of objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ObjectAccess {
    /// On demand, where there can be a file system of FUSE; else by copies.
    #[default]
    Auto,
    /// By copies in temporary files, made before the program starts. All together have at most as many bytes as the budget.
    Copies,
}

/// Hears how objects are copied: the object, bytes that are copied, and bytes that it has.
#[derive(Clone)]
pub struct CopyProgress(Arc<HearCopies>);

type HearCopies = dyn Fn(&str, u64, u64) + Send + Sync;

impl CopyProgress {
    /// `hear` is called after each piece, by the thread that copies.
    pub fn new(hear: impl Fn(&str, u64, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    pub(crate) fn tell(&self, object: &str, done_bytes: u64, length_bytes: u64) {
        (self.0)(object, done_bytes, length_bytes);
    }
}

impl fmt::Debug for CopyProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyProgress").finish_non_exhaustive()
    }
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Counting {
    /// Totals. A page that is resident costs no fault.
    #[default]
    Totals,
    /// The first touch of each page by each process, and what each had at its end. Each touch is a fault, and calls that
    /// begin or end programs stop.
    Touches,
}

/// Where messages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Messages {
    /// To standard error, a line each.
    #[default]
    StandardError,
    /// Nowhere.
    None,
}
