//! The command line of `image` and `segments`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::options::LogArguments;
use crate::retry::{self, Retry};
use crate::servers::ServerArguments;
use crate::size;

pub(crate) const IMAGE_HELP: &str = "\
Examples:
  memobj image /bin/ls                     what of it is mapped where; compare readelf -lW /bin/ls
  memobj image --padding 64k libx.so       with 64 KiB before and behind that cannot be accessed
  memobj image --flat notes.txt            any file, as it is
  memobj image --plan --json prog          the plan only: the steps that a host would execute
  memobj image s3://bucket/prog            an object of a store, which is copied to a temporary file first

Columns: the address in this process (with --plan: from the beginning of the image, or fixed),
bytes in memory and bytes from the file, where in the first page the segment begins, protection,
and kind. The bytes of the file lie at address + offset; zeros follow up to address + size.
Everything is unmapped at the end. A program of fixed addresses cannot be mapped where something
is mapped already; --plan shows it all the same.";

pub(crate) const SEGMENTS_HELP: &str = "\
Examples:
  memobj segments --self                   of this command
  memobj segments --format umem 4711       the rows of acid's umem: segment, range, where the bytes are
  memobj segments --format plan9 4711      the rows of Plan 9's /proc/n/segment, the stack first
  memobj segments --format json --from maps.txt
                                           of a saved table, of any length

A segment of a memory object that is named for a file, as those of `memobj run` are, is shown as that
file; JSON says of each whether it is one. For a process of another user you need the right to
trace it (ptrace(2)).";

/// `memobj image`.
#[derive(Debug, Args)]
pub(crate) struct ImageArguments {
    /// Inaccessible bytes before the first and behind the last segment; rounded up to pages
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size::parse)]
    pub(crate) padding: u64,
    /// Map the whole file as it is, whatever its format
    #[arg(long)]
    pub(crate) flat: bool,
    /// Plan only: map nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Print one JSON object, with the steps that map the file
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArguments,
    /// Ask a server again for this long: a time such as 500ms, 10s or 2m, never, or forever
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = retry::parse)]
    pub(crate) retry: Retry,
    #[command(flatten)]
    pub(crate) servers: ServerArguments,
    /// An ELF file: a program, a shared or other object, a core file; or its URL
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `memobj segments`.
#[derive(Debug, Args)]
pub(crate) struct SegmentsArguments {
    /// How to print them
    #[arg(long, value_enum, default_value_t = SegmentsFormat::Linux)]
    pub(crate) format: SegmentsFormat,
    /// Those of this process
    #[arg(long = "self", conflicts_with_all = ["pid", "from"], required_unless_present_any = ["pid", "from"])]
    pub(crate) own: bool,
    /// Those in a file, in the form of /proc/PID/maps
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub(crate) from: Option<PathBuf>,
    /// The number of a process
    #[arg(value_name = "PID")]
    pub(crate) pid: Option<u32>,
}

/// How segments are printed.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum SegmentsFormat {
    /// As /proc/PID/maps
    Linux,
    /// As Plan 9's /proc/n/segment
    Plan9,
    /// As acid's umem
    Umem,
    /// One JSON array
    Json,
}
