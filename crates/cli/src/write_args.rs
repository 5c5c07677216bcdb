//! The arguments of the commands that write, and their help.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::options::{Delivery, LogArguments, Settings, StatsFormat};
use crate::retry::{self, Retry};
use crate::servers::ServerArguments;
use crate::size;
use crate::target::Ending;

/// The smallest and the largest file of `torture`.
const TORTURE_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);

pub(crate) const COPY_HELP: &str = "\
Examples:
  memobj copy disk.img backup.img
  memobj copy --budget 16M disk.img backup.img     through less memory
  memobj copy --commit new.db live.db              live.db is the old or the new one, never a mix

  memobj copy s3://bucket/key local.img            a download, checked against one version of the object
  memobj copy --retry 1m local.img 9p://host/img   files of 9P servers are overwritten page by page

DST is created with the permission bits of SRC, less the umask, or overwritten. Its length becomes
that of SRC, holes of SRC become holes of DST, and it is durable when the command ends with status
0. A copy that fails or is interrupted says how far it is durable; with --commit an existing DST is
as it was, and a new one is removed. An object of a store has the new bytes when the command has
ended with status 0, and the old ones until then.";

pub(crate) const PATCH_HELP: &str = "\
Examples:
  head -c 4096 /dev/zero | memobj patch disk.img --at 1M
  memobj patch --commit --at 512 live.db <new-header
  memobj patch s3://bucket/key --at 1M <block      a new version; what is unchanged is copied in the store
  zcat dump.gz | memobj patch disk.img --at 4G     any length, in bounded memory

The file must exist. It is extended where the bytes reach past its end. Nothing is printed when all
went well; what was written is then durable. A patch that fails or is interrupted says how far it is
durable; with --commit the file is as it was.";

pub(crate) const TORTURE_HELP: &str = "\
Examples:
  memobj torture
  memobj torture --rounds 200 --dir /mnt/disk-under-test
  memobj torture --seed 7 --writers 8 --size 256M --budget 4M

Each round starts a process whose threads update records all over a file and report, through a
pipe, which records are synced (or which commit is done). It is killed with SIGKILL at a random
moment, and the file is checked: every synced record is there, with at least the sequence number
that was synced; no record is torn; every commit is whole, and none that was reported is missing.
In some rounds a second process is killed while it begins, on what the first one left. Rounds
alternate between ways to store (write_at, pin_mut, shared words), fault deliveries, and syncs in
place and commits. The exit status is 1 after the first violation, which is printed with the seed;
the files are then kept.

The seed determines the rounds and how long each worker lives, not how its threads interleave.

SIGKILL ends the process, not the machine: the kernel still has what was written to it. Loss of
power is NOT tested here, and a device that lies about its cache passes.";

/// `memobj copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyArguments {
    #[command(flatten)]
    pub(crate) common: WriteArguments,
    #[command(flatten)]
    pub(crate) log: LogArguments,
    /// The file to read
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// The file to write
    #[arg(value_name = "DST")]
    pub(crate) target: PathBuf,
}

/// `memobj patch`.
#[derive(Debug, Args)]
pub(crate) struct PatchArguments {
    /// Where the bytes go
    #[arg(long, value_name = "OFFSET", value_parser = size::parse)]
    pub(crate) at: u64,
    #[command(flatten)]
    pub(crate) common: WriteArguments,
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// The options that `copy` and `patch` share.
#[derive(Debug, Args)]
pub(crate) struct WriteArguments {
    /// Most memory to hold pages in, a hard bound; at least 64k
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size::parse_budget)]
    pub(crate) budget: u64,
    /// All of it or nothing, whatever crashes; else page by page
    #[arg(long)]
    commit: bool,
    /// Try what fails at a server again for this long: a time such as 500ms, 10s or 2m, never, or forever
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = retry::parse)]
    retry: Retry,
    /// Print statistics on standard error at the end, as one JSON object
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) stats: Option<StatsFormat>,
    #[command(flatten)]
    servers: ServerArguments,
}

impl WriteArguments {
    /// What the engine is told.
    pub(crate) fn settings(&self) -> Settings {
        Settings { retry: self.retry, servers: self.servers.clone(), ..Settings::sequential(self.budget) }
    }

    /// How what is written becomes durable.
    pub(crate) fn ending(&self) -> Ending {
        if self.commit { Ending::Commit } else { Ending::Sync }
    }
}

/// `memobj torture`.
#[derive(Debug, Args)]
pub(crate) struct TortureArguments {
    /// Where a directory for the files is made; the system's directory for temporary files if not given
    #[arg(long, value_name = "D")]
    pub(crate) dir: Option<PathBuf>,
    /// Rounds, each with one kill or two
    #[arg(long, value_name = "N", default_value = "20")]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
}

/// What `torture` passes on to its workers.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArguments {
    /// Where random choices come from; another one each time if not given
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Threads that write, at most 64
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) writers: u16,
    /// Size of each file, 64k to 1G
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = torture_size)]
    pub(crate) size: u64,
    /// Most memory to hold pages in; at least 64k, and 16k for each writer
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = size::parse_budget)]
    pub(crate) budget: u64,
    /// Do something wrong on purpose, to test that it is detected
    #[arg(long, value_enum, hide = true)]
    pub(crate) sabotage: Option<Sabotage>,
}

/// `memobj torture-worker`: one round.
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    #[arg(long, value_enum)]
    pub(crate) promise: Promise,
    #[arg(long, value_enum)]
    pub(crate) way: Way,
    #[arg(long, value_enum)]
    pub(crate) delivery: Delivery,
    pub(crate) file: PathBuf,
}

/// What a worker is promised when a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Promise {
    /// By sync: the records are durable, each for itself
    Sync,
    /// By commit: all since the last commit are, together
    Commit,
}

/// How a worker stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Copies into the mapping
    WriteAt,
    /// Stores into an exclusive pin
    PinMut,
    /// Atomic stores of words, which fault
    SharedWords,
}

/// What a worker does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// It reports syncs and commits that it did not make
    LieAboutSync,
}

fn torture_size(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text)?;
    match TORTURE_BYTES.contains(&bytes) {
        true => Ok(bytes.next_multiple_of(4096)),
        false => Err(format!("{text} is not between 64k and 1G")),
    }
}
