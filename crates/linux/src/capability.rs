//! What this machine offers to memobj, found by trying.

use std::io;

use memobj_vm::space::Loads;

use crate::frame_file::FrameFile;
use crate::huge_folder::HugeFolder;
use crate::pool::FramePool;
use crate::ring::{Mechanism, Ring, RingUser};
use crate::uffd::{self, Features};

/// The findings.
#[derive(Debug)]
pub struct Capabilities {
    /// userfaultfd, or why there is none.
    pub userfaultfd: io::Result<Features>,
    /// io_uring, or why there is none.
    pub io_uring: bool,
    /// 2 MiB frames that are really one huge page: moved in and out in one step.
    pub large_frames: io::Result<()>,
    /// Memory files with 2 MiB frames; whether those are really one huge page each.
    pub large_shared_frames: io::Result<bool>,
    /// The setting of /sys/kernel/mm/transparent_hugepage/enabled.
    pub huge_pages: String,
    /// Most mappings that the process may have.
    pub max_mappings: Option<u64>,
    /// Bytes of memory of the machine, or of the memory cgroup if that is less.
    pub memory_bytes: u64,
    /// cachestat(2) tells what the host's page cache holds.
    pub cachestat: bool,
    /// PAGEMAP_SCAN tells which pages are present.
    pub pagemap_scan: bool,
    /// Most open files.
    pub max_files: Option<u64>,
}

/// Tries everything once; takes a few milliseconds.
pub fn probe() -> Capabilities {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    Capabilities {
        userfaultfd: uffd::probe(),
        io_uring: Ring::<()>::new(8, Mechanism::Auto, RingUser::OneAtATime).is_ok_and(|ring| ring.is_uring()),
        large_frames: probe_large_frames(),
        large_shared_frames: HugeFolder::new()
            .and_then(|folder| FrameFile::new_large(&folder, 1)?.frames_are_huge()),
        huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled"),
        max_mappings: read("/proc/sys/vm/max_map_count").parse().ok(),
        memory_bytes: memory_bytes(),
        cachestat: probe_cachestat(),
        pagemap_scan: crate::pagemap::present_pages(probe as *const () as usize & !0xfff, 4096).is_ok(),
        max_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
    }
}

/// On a file of our own: of others' files the kernel tells only those who may write them.
fn probe_cachestat() -> bool {
    let memory = rustix::fs::memfd_create(c"memobj-probe", rustix::fs::MemfdFlags::CLOEXEC);
    memory.is_ok_and(|memory| crate::file::cached_pages(&memory.into()).is_some())
}

fn probe_large_frames() -> io::Result<()> {
    let budget = std::sync::Arc::new(memobj_core::budget::Budget::new(2 << 20));
    let pool = FramePool::new(budget)?;
    match pool.take() {
        crate::pool::Take::Frame(_) => Ok(()),
        crate::pool::Take::OverBudget => Err(io::Error::other("a frame does not fit the probe's budget")),
        crate::pool::Take::NoMemory(error) => Err(error),
    }
}

/// Bytes of memory that this process can hope for: the machine's, or its memory cgroup's if that is less.
pub fn memory_bytes() -> u64 {
    let machine = rustix::system::sysinfo();
    let total = machine.totalram as u64 * u64::from(machine.mem_unit);
    cgroup_limit().map_or(total, |limit| limit.min(total))
}

/// What this processor, as the kernel uses it, lets pass for a load.
pub fn loads() -> Loads {
    // "ospke" is there where the kernel uses protection keys.
    let has_keys = |flags: &str| flags.split_ascii_whitespace().any(|flag| flag == "ospke");
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processors.lines().find(|line| line.starts_with("flags"));
    if flags.is_some_and(has_keys) { Loads::ImpliedByStores } else { Loads::Implied }
}

fn cgroup_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let number = |path: String| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            match controllers {
                "" => number(format!("/sys/fs/cgroup{path}/memory.max")),
                "memory" => number(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")),
                _ => None,
            }
        })
        .min()
}
