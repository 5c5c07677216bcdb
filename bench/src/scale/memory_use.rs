//! What this process holds now.

use std::fs;
use std::io;
use std::path::Path;

use crate::job::MemoryUse;
use crate::{cgroup, usage};

/// Looks at /proc and the cgroup; the caller says how much of it is frames.
pub fn now(cgroup: Option<&Path>, frame_bytes: u64) -> io::Result<MemoryUse> {
    // The text of thousands of mappings is read last: it is memory of this process too.
    Ok(MemoryUse {
        rss_bytes: usage::status_bytes("VmRSS:")?,
        page_table_bytes: usage::status_bytes("VmPTE:")?,
        frame_bytes,
        charged_bytes: cgroup.and_then(cgroup::charged_bytes),
        descriptors: fs::read_dir("/proc/self/fd")?.count() as u64,
        mappings: fs::read_to_string("/proc/self/maps")?.lines().count() as u64,
    })
}

/// Resident pages of files.
pub fn file_bytes() -> io::Result<u64> {
    usage::status_bytes("RssFile:")
}
