//! Memory cgroups, version 1 or 2: one per measurement, removed when its guard is dropped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// What a child needs besides pages of the file: stacks, histograms, the trace, and charged kernel memory
/// such as page tables and the index of the page cache. Measured at 512 MiB under 128 MiB: 3 MiB with one
/// thread, up to 7 with four. Rounded up, in favour of the kernel; the tables show how many pages it really
/// held.
pub const PROCESS_BYTES: u64 = 8 << 20;
/// What is added to the budget of contestants that bound themselves, to prove the bound without being the
/// bound.
pub const BOUND_SLACK_BYTES: u64 = 72 << 20;

/// The memory cgroup of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// None: the pattern has all data in memory.
    Unlimited,
    /// The cgroup is what bounds the contestant: budget and [`PROCESS_BYTES`].
    Budget,
    /// The contestant bounds itself: budget and [`BOUND_SLACK_BYTES`].
    Bound,
}

const PREFIX: &str = "memobj-bench-";

/// The names of the control files, which differ between the versions.
#[derive(Debug)]
struct Controls {
    limit: &'static str,
    peak: &'static str,
    /// Has a line `oom_kill N`.
    kills: &'static str,
    /// Written to give pages back before removal.
    empty: &'static str,
}

const VERSION_1: Controls = Controls {
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    kills: "memory.oom_control",
    empty: "memory.force_empty",
};
const VERSION_2: Controls =
    Controls { limit: "memory.max", peak: "memory.peak", kills: "memory.events", empty: "memory.reclaim" };
/// What is charged now, in version 1 and 2.
const USED: [&str; 2] = ["memory.usage_in_bytes", "memory.current"];

/// A place where memory cgroups can be made.
#[derive(Debug)]
pub struct Cgroups {
    root: PathBuf,
    controls: &'static Controls,
    made: AtomicU32,
}

impl Cgroups {
    /// Finds a hierarchy where a limit can be set, tries it, and removes what dead runs left there.
    pub fn detect() -> Result<Self, String> {
        let mut reasons = Vec::new();
        for (root, controls) in [("/sys/fs/cgroup/memory", &VERSION_1), ("/sys/fs/cgroup", &VERSION_2)] {
            let cgroups = Self { root: root.into(), controls, made: AtomicU32::new(0) };
            if !Path::new(root).is_dir() {
                continue;
            }
            cgroups.remove_stale();
            match cgroups.create(64 << 20) {
                Ok(_removed_again) => return Ok(cgroups),
                Err(error) => reasons.push(format!("{root}: {error}")),
            }
        }
        if reasons.is_empty() { Err("not mounted".into()) } else { Err(reasons.join("; ")) }
    }

    /// Makes a cgroup that may hold `limit_bytes`.
    pub fn create(&self, limit_bytes: u64) -> io::Result<Cgroup> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(format!("{PREFIX}{}-{number}", process::id()));
        fs::create_dir(&path)?;
        let cgroup = Cgroup { path, controls: self.controls };
        let limit = cgroup.path.join(self.controls.limit);
        if !limit.exists() {
            return Err(io::Error::other("the memory controller is not enabled"));
        }
        fs::write(limit, limit_bytes.to_string())?;
        Ok(cgroup)
    }

    /// Removes cgroups of runs whose process is gone.
    fn remove_stale(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let owner = rest.split('-').next().unwrap_or("");
            if owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists() {
                drop(Cgroup { path: entry.path(), controls: self.controls });
            }
        }
    }
}

/// One memory cgroup. Its processes must be gone before it is dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    controls: &'static Controls,
}

impl Cgroup {
    /// Where it is, for [`enter`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The most memory that was charged at once.
    pub fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.path.join(self.controls.peak)).ok()?.trim().parse().ok()
    }

    /// How many of its processes the kernel has killed for lack of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(self.controls.kills)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.parse().ok()
    }
}

/// Bytes charged to the cgroup at `directory`, the kernel's own for its processes included.
pub fn charged_bytes(directory: &Path) -> Option<u64> {
    let text = USED.iter().find_map(|name| fs::read_to_string(directory.join(name)).ok());
    text?.trim().parse().ok()
}

/// Moves this process into the cgroup at `directory`.
pub fn enter(directory: &Path) -> io::Result<()> {
    fs::write(directory.join("cgroup.procs"), process::id().to_string())
}

/// Bytes of files that the cgroup at `directory` holds in the page cache (shared memory included).
pub fn page_cache_bytes(directory: &Path) -> Option<u64> {
    let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
    // "cache" in version 1, "file" in version 2.
    let value = |line: &str| line.strip_prefix("cache ").or_else(|| line.strip_prefix("file "))?.parse().ok();
    stat.lines().find_map(value)
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Version 1 takes any number, version 2 an amount; either may refuse, and then the pages go to the
        // parent.
        let _ = fs::write(self.path.join(self.controls.empty), "1073741824");
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                // A process that has just been reaped may still be on its way out.
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
        eprintln!("memobj-bench: could not remove {}", self.path.display());
    }
}
