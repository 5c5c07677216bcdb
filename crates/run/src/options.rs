//! How a program is run.

use std::path::PathBuf;

use memobj::FailurePolicy;
use memobj::pagers::Injection;

use crate::objects::MapTarget;

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
    /// What is counted.
    pub counting: Counting,
    /// How many bytes around a fault are read with it: a power of two, at least a page. No more than a sixteenth of the
    /// budget is.
    pub window_bytes: u64,
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
            counting: Counting::Totals,
            window_bytes: 64 << 10,
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
