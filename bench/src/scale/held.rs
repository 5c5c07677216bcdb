//! What this process holds now.

use std::io;
use std::path::Path;

use super::job::Held;
use crate::{cgroup, usage};

/// Looks at /proc and the cgroup; the caller says how much of it is frames.
pub fn now(cgroup: Option<&Path>, frame_bytes: u64) -> io::Result<Held> {
    Ok(Held {
        rss_bytes: usage::status_bytes("VmRSS:")?,
        page_table_bytes: usage::status_bytes("VmPTE:")?,
        frame_bytes,
        charged_bytes: cgroup.and_then(cgroup::charged_bytes),
    })
}

/// Resident pages of files.
pub fn file_bytes() -> io::Result<u64> {
    usage::status_bytes("RssFile:")
}
