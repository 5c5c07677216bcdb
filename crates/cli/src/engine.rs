//! The one place that uses the library: a cache, an open file, its bytes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::failure::Failure;
use crate::inject::{Action, InjectedFault};
use crate::options::Settings;
use crate::retry::Retry;
use crate::walk::Plan;

/// What the cache counted since it began.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counters {
    pub(crate) faults: u64,
    pub(crate) supplied_pages: u64,
    pub(crate) evicted_pages: u64,
    pub(crate) retries: u64,
    pub(crate) failed_pages: u64,
    pub(crate) peak_frame_bytes: u64,
    pub(crate) budget_bytes: u64,
    pub(crate) read_bytes: u64,
}

/// One line of the doctor's report.
#[derive(Debug, Serialize)]
pub(crate) struct Facility {
    pub(crate) name: String,
    /// `available`, `degraded` or `missing`.
    pub(crate) status: &'static str,
    pub(crate) detail: String,
    pub(crate) used_instead: Option<String>,
    pub(crate) fix: Option<String>,
}

// Everything from here to `doctor` reads files directly. It stands in for the library until that is there.

const FRAME_BYTES: u64 = 4096;

/// A cache with its settings.
#[derive(Debug)]
pub(crate) struct Engine {
    settings: Settings,
    read_bytes: AtomicU64,
}

/// An open file, all of it mapped.
#[derive(Debug)]
pub(crate) struct View<'a> {
    engine: &'a Engine,
    name: String,
    file: File,
    length: u64,
}

impl Engine {
    /// A cache with the budget of `settings`.
    pub(crate) fn new(settings: Settings) -> Result<Self, Failure> {
        if settings.budget_bytes < FRAME_BYTES {
            let budget = settings.budget_bytes;
            return Err(Failure::Message(format!(
                "a budget of {budget} bytes holds no frame of {FRAME_BYTES}"
            )));
        }
        let _ = (settings.frames, settings.access, settings.delivery);
        Ok(Self { settings, read_bytes: AtomicU64::new(0) })
    }

    /// Opens and maps the file at `path`.
    pub(crate) fn open(&self, path: &Path) -> Result<View<'_>, Failure> {
        let name = path.display().to_string();
        let failed = |error: io::Error| Failure::io(&format!("open {name}"), &error);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(Failure::Message(format!("open {name}: not a regular file")));
        }
        let file = File::open(path).map_err(failed)?;
        Ok(View { engine: self, name, file, length: metadata.len() })
    }

    /// What was counted so far.
    pub(crate) fn counters(&self) -> Counters {
        let budget_bytes = self.settings.budget_bytes;
        Counters { budget_bytes, read_bytes: self.read_bytes.load(Ordering::Relaxed), ..Counters::default() }
    }
}

impl View<'_> {
    /// The file's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// How to go through `range` within the budget.
    pub(crate) fn plan(&self, range: Range<u64>) -> Plan {
        let settings = &self.engine.settings;
        Plan::new(range, settings.threads.get(), settings.budget_bytes, FRAME_BYTES)
    }

    /// Calls `visit` with the bytes of `range`, which may be in `buffer`.
    pub(crate) fn load<T>(
        &self,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
        visit: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failure> {
        let failed = |start: u64, end: u64, error: &io::Error| {
            Failure::io(&format!("supply [{start}, {end}) of {}", self.name), error)
        };
        let goes_away =
            |fault: &&InjectedFault| fault.times.is_some() && self.engine.settings.retry != Retry::Never;
        for fault in self.engine.settings.faults.faults.iter().filter(|fault| !goes_away(fault)) {
            let start = fault.range.start.max(range.start) / FRAME_BYTES * FRAME_BYTES;
            let error = io::Error::from_raw_os_error(5);
            match fault.action {
                _ if start >= fault.range.end.min(range.end) => {}
                Action::Error | Action::Short => return Err(failed(start, start + FRAME_BYTES, &error)),
                Action::Delay(time) => std::thread::sleep(time),
                Action::Hang => loop {
                    std::thread::park();
                },
            }
        }
        let length = range.end - range.start;
        buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        let read = self.file.read_exact_at(buffer, range.start);
        read.map_err(|error| failed(range.start, range.end, &error))?;
        self.engine.read_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(visit(buffer))
    }
}

/// What this machine offers.
pub(crate) fn doctor() -> Vec<Facility> {
    let text = str::to_string;
    let fix = Some(text("wait for the library"));
    let detail = text("files are read directly");
    vec![Facility {
        name: text("library"),
        status: "missing",
        detail,
        used_instead: Some(text("read(2)")),
        fix,
    }]
}
