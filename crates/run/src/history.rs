//! What happened in a run: gathered while it goes on, read by reports and by records.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use memobj_core::prot::Prot;

/// A run, from the start of its program to the end of the last process. It has a bounded size, however long the run is.
/// Of a run that counts totals only it has `command`, `duration` and `totals`.
///
/// Times count from the start of the run. Pages have 4 KiB.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// How long it took.
    pub duration: Duration,
    /// Files that were mapped as memory objects, in the order of their first mapping.
    pub files: Vec<FileHistory>,
    /// One entry for each program that a process ran: an exec ends an entry and begins another.
    pub processes: Vec<ProcessHistory>,
    /// Faults in the order in which they were resolved.
    pub faults: Vec<FaultRecord>,
    /// Faults that found no room in `faults`: there are 2^20 at most, of programs and files that are kept.
    pub faults_left_out: u64,
    /// Files that found no room in `files`: there are 2^16 at most.
    pub files_left_out: u64,
    /// Programs that found no room in `processes`: there are 2^16 at most.
    pub programs_left_out: u64,
    /// Pages that found no room in the lists of their files, which have 2^22 pages together at most; a page is counted
    /// each time that it was met.
    pub pages_left_out: u64,
    /// Segments that found no room in the tables of their programs, which have 2^20 together at most.
    pub segments_left_out: u64,
    /// What the cache counted.
    pub totals: Totals,
}

/// A file that was mapped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileHistory {
    /// Where it was when it was mapped first.
    pub path: PathBuf,
    /// Bytes.
    pub length_bytes: u64,
    /// Seconds and nanoseconds of the last change of its contents, by which a record knows it again.
    pub modified: (i64, i64),
    /// Pages in the order in which processes first faulted on them; each once.
    pub first_touches: Vec<u64>,
    /// How often programs mapped it.
    pub mappings: u64,
    /// Pages of which some process had a copy of its own when it was looked at; sorted.
    pub copied: Vec<u64>,
    /// Pages that could not be supplied, with what was said; sorted.
    pub failed: Vec<(u64, String)>,
}

/// A program that a process ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessHistory {
    /// Its number.
    pub pid: u32,
    /// That of the process that made it.
    pub parent: u32,
    /// The program and its first arguments: as many as have 4096 bytes together.
    pub command: Vec<OsString>,
    /// When the program was started.
    pub started: Duration,
    /// When it ended, and how; `None` if that was not seen.
    pub ended: Option<(Duration, ProgramEnd)>,
    /// The segment table shortly before the end, as far as it could be read.
    pub segments: Vec<SegmentRecord>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramEnd {
    /// The process exited with this status.
    Exited(i32),
    /// This signal killed the process.
    Killed(i32),
    /// The process went on with another program.
    Replaced,
}

/// A segment of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentRecord {
    /// The first address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// What is allowed.
    pub prot: Prot,
    /// The index in [`History::files`], and the offset of the segment in the file, in bytes. `None` for all that is
    /// not mapped from a memory object.
    pub file: Option<(usize, u64)>,
    /// What the kernel calls it, if it is not mapped from a memory object: a path, `[heap]`, nothing.
    pub name: OsString,
    /// Pages of it that the process had in its page table.
    pub present_pages: u64,
    /// Pages among them that are the process's own copies.
    pub copied_pages: u64,
}

/// A fault that was resolved, or could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// When it was read.
    pub at: Duration,
    /// How long the process slept on it.
    pub duration: Duration,
    /// The index in [`History::processes`].
    pub process: usize,
    /// The index in [`History::files`].
    pub file: usize,
    /// The page of the file.
    pub page: u64,
    /// What was done.
    pub resolution: Resolution,
}

/// What was done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The page was obtained from the file (a major fault).
    Supplied,
    /// A frame had it already (a minor fault).
    Resident,
    /// It could not be supplied: the process was sent SIGBUS.
    Failed,
}

/// What the cache counted in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that frames may take.
    pub budget_bytes: u64,
    /// Bytes that they took at most.
    pub peak_frame_bytes: u64,
    /// Bytes that were read from files.
    pub read_bytes: u64,
    /// Pages that were supplied.
    pub supplied_pages: u64,
    /// Pages that were evicted.
    pub evicted_pages: u64,
    /// Calls of pagers that were tried again.
    pub retries: u64,
    /// Mappings that were left to the kernel.
    pub passed_through: u64,
    /// How often no more faults of a program were read for a while, because so many of it waited.
    pub faults_held_back: u64,
    /// How often a call on a program's memory took so long that another thread went on with the others.
    pub fault_calls_held_up: u64,
}
