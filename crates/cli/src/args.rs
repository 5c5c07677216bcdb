//! The command line and the help that teaches it.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::image_args::{IMAGE_HELP, ImageArguments, SEGMENTS_HELP, SegmentsArguments};
use crate::inject::{self, FaultPlan};
use crate::ninep_proxy::{PROXY_HELP, ProxyArguments};
use crate::options::{AccessMethod, Delivery, Frames, LogArguments, Settings, StatsFormat};
use crate::retry::{self, Retry};
use crate::run_args::{RUN_HELP, RunArguments};
use crate::serve_args::{SERVE_HELP, ServeArguments};
use crate::servers::ServerArguments;
use crate::size;
use crate::top::{TOP_HELP, TopArguments};
use crate::uploads::{UPLOADS_HELP, UploadsArguments};
use crate::write_args::{
    COPY_HELP, CopyArguments, PATCH_HELP, PatchArguments, TORTURE_HELP, TortureArguments, WorkerArguments,
};

const CONCEPTS: &str = "\
Concepts:
  Budget   A hard upper bound on the memory that holds pages of files. A file may be any number of
           times larger: pages are supplied when they are needed and evicted when frames run out.
           Sizes are bytes or 4k, 64M, 1.5G, in powers of 1024.
  AccessMethod   touch  plain loads from the mapping, demand paged, as from mmap(2)
           pin    resolve a whole range, then use it in place; it cannot be evicted meanwhile
           copy   copy a range out, as read(2) does
           All three see the same pages and report the same errors.
  Failure  A page that cannot be supplied is an error that names the file and the range. It is never
           read as zeros and never kills the process.
  Sync     What is written reaches the file page by page, when memory is short, and is durable when
           the command ends with status 0.
  Commit   All that is written becomes durable together, or nothing of it, whatever crashes.

Exit status: 0 done, 1 something failed, 2 wrong usage, 130 interrupted, 141 output closed early.";

const EXAMPLES: &str = "\
Examples:
  memobj hash --budget 64M big.img                 digest a file through 64 MiB of memory
  memobj hash --threads 2 --access pin *.iso       two threads, pages pinned while they are hashed
  memobj read --offset 1M --length 4k big.img      4 KiB from the second mebibyte, to stdout
  memobj hash --inject error@4k+4k big.img         what a bad sector looks like
  memobj copy --budget 64M disk.img backup.img     a copy with the same holes, durable at the end
  memobj patch disk.img --at 1M <block             overwrite bytes in place
  memobj torture --rounds 20                       kill writers and check what they had synced
  memobj image /bin/ls                             what of a program is mapped where
  memobj segments --format umem --self             the segment table of a process
  memobj run -- ls -l                              a program over demand-paged files
  memobj hash s3://bucket/key                      an object of a store, in the same memory
  memobj copy --retry 1m https://host/big.iso big.iso
  memobj 9p-proxy 0.0.0.0:5640 fileserver:564      clients do not notice that the server restarts
  memobj serve S.sock --export model=big.img       other processes map it, in one memory
  memobj top S.sock                                what that server does
  memobj doctor                                    what this machine offers, and how to get more";

const HASH_EXAMPLES: &str = "\
Examples:
  memobj hash --budget 64M big.img
  memobj hash --frames 4k --stats json big.img 2>stats.json
  memobj hash --inject error@1M+4k:times=2 --retry 10s big.img   an error that goes away in time
  memobj hash --inject delay=20@0+1G,seed=7 big.img              a slow disk
  memobj hash --retry forever --disk-cache /var/tmp/cache:20G s3://bucket/big.img

The digest is BLAKE3. Each line is DIGEST, two spaces, FILE, as b3sum prints it, so that
`b3sum --check` can read it: a name with a backslash or newline is escaped and its line begins with
a backslash. A file that fails is reported and the next one is tried; the exit status is then 1.";

const READ_EXAMPLES: &str = "\
Examples:
  memobj read big.img | cmp - big.img
  memobj read --offset 1M --length 4k big.img | xxd | head

An offset past the end of the file is an error. A length past the end stops at the end.";

const DIGEST_HELP: &str = "\
Examples:
  memobj digest big.img >big.img.digest
  memobj hash --manifest big.img.digest https://host/big.img    a wrong byte is an error with its range
  memobj digest s3://bucket/key >key.digest                     of what the store has now

The output has the BLAKE3 digest of each block, and their root, which is what `memobj hash` prints. It is written to a
file or a pipe, not to a terminal. With --manifest, a block whose digest is wrong is asked for once
more; if it is wrong again, it fails as \"wrong answer from the pager\".";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "memobj",
    version,
    about = "Reads and writes files through demand paging under a hard memory budget, and tells you what fails",
    after_help = EXAMPLES,
    after_long_help = format!("{CONCEPTS}\n\n{EXAMPLES}"),
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the BLAKE3 digest of each file
    #[command(after_help = HASH_EXAMPLES)]
    Hash(HashArguments),
    /// Write the bytes of a file to standard output
    #[command(after_help = READ_EXAMPLES)]
    Read(ReadArguments),
    /// Copy a file, with its holes
    #[command(after_help = COPY_HELP)]
    Copy(CopyArguments),
    /// Write standard input into a file, in place
    #[command(after_help = PATCH_HELP)]
    Patch(PatchArguments),
    /// Kill processes that write, and check that nothing they synced or committed is lost
    #[command(after_help = TORTURE_HELP)]
    Torture(TortureArguments),
    /// The process that `torture` kills
    #[command(hide = true)]
    TortureWorker(WorkerArguments),
    /// Map the segments of an ELF file and show them
    #[command(after_help = IMAGE_HELP)]
    Image(ImageArguments),
    /// Print the segment table of a process
    #[command(after_help = SEGMENTS_HELP)]
    Segments(SegmentsArguments),
    /// Run a program whose file mappings are pages of memobj
    #[command(after_help = RUN_HELP)]
    Run(RunArguments),
    /// Write digests of the blocks of a file, for --manifest
    #[command(after_help = DIGEST_HELP)]
    Digest(DigestArguments),
    /// List uploads that killed writers have left in a store, or remove them
    #[command(after_help = UPLOADS_HELP)]
    Uploads(UploadsArguments),
    /// Stand between 9P clients and a server that may be restarted
    #[command(name = "9p-proxy", after_help = PROXY_HELP)]
    NinepProxy(ProxyArguments),
    /// Serve objects to other processes, which map them
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArguments),
    /// Show what a server does: clients, faults, hit rate, memory
    #[command(after_help = TOP_HELP)]
    Top(TopArguments),
    /// Say what this machine offers, what is missing, what is used instead, and how to fix it
    Doctor(DoctorArguments),
}

/// `memobj hash`.
#[derive(Debug, Args)]
pub(crate) struct HashArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    /// The files, in the order their digests are printed
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// `memobj read`.
#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    /// Where to begin
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size::parse)]
    pub(crate) offset: u64,
    /// How much to write, at most; to the end of the file if not given
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) length: Option<u64>,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `memobj digest`.
#[derive(Debug, Args)]
pub(crate) struct DigestArguments {
    /// Bytes of a block, a power of two from 64k to 16M
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = size::parse)]
    pub(crate) digest_block: u64,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    /// The file or URL
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `memobj doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// A URL: says whether its server answers, what it is good for, and how fast it is
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) servers: ServerArguments,
}

/// The options that `hash` and `read` share.
#[derive(Debug, Args)]
pub(crate) struct CommonArguments {
    /// Most memory to hold pages in, a hard bound; at least 64k
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size::parse_budget)]
    budget: u64,
    /// Size of a frame
    #[arg(long, value_enum, default_value_t = Frames::Auto)]
    frames: Frames,
    /// Threads that load successive pieces of a file (and hash them); fewer if the budget is too small to
    /// give each a piece. The output is in order whatever their number
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroU16,
    /// How the bytes are accessed
    #[arg(long, value_enum, default_value_t = AccessMethod::Touch)]
    access: AccessMethod,
    /// Who resolves a fault
    #[arg(long, value_enum, default_value_t = Delivery::Auto)]
    delivery: Delivery,
    /// Inject faults below the pages: a comma list of error@OFFSET+LENGTH, short@OFFSET+LENGTH,
    /// delay=MS@OFFSET+LENGTH, hang@OFFSET+LENGTH, each with an optional :times=N; and seed=N
    #[arg(long, value_name = "SPEC", value_parser = inject::parse)]
    inject: Option<FaultPlan>,
    /// Try a failed page again for this long: a time such as 500ms, 10s or 2m, never, or forever
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = retry::parse)]
    retry: Retry,
    #[command(flatten)]
    pub(crate) log: LogArguments,
    /// Print statistics on standard error at the end, as one JSON object
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) stats: Option<StatsFormat>,
    #[command(flatten)]
    servers: ServerArguments,
}

impl CommonArguments {
    /// What the engine is told.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            budget_bytes: self.budget,
            frames: self.frames,
            threads: self.threads,
            access: self.access,
            delivery: self.delivery,
            faults: self.inject.clone().unwrap_or_default(),
            retry: self.retry,
            foreign_log: self.log.foreign_log(),
            servers: self.servers.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Command};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_as_documented() {
        let arguments = Arguments::try_parse_from(["memobj", "hash", "x"]).expect("a file is enough");
        let Command::Hash(hash) = arguments.command else { panic!("hash") };
        let settings = hash.common.settings();
        assert_eq!(settings.budget_bytes, 64 << 20);
        assert_eq!(settings.threads.get(), 1);
        assert!(settings.faults.faults.is_empty());
        assert_eq!(hash.common.stats, None);
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        let wrong: [&[&str]; 8] = [
            &["hash"],
            &["hash", "--budget", "0", "x"],
            &["hash", "--budget", "12Q", "x"],
            &["hash", "--threads", "0", "x"],
            &["hash", "--frames", "8k", "x"],
            &["hash", "--inject", "error", "x"],
            &["read", "--offset", "-1", "x"],
            &["read", "a", "b"],
        ];
        for arguments in wrong {
            let error = Arguments::try_parse_from([&["memobj"], arguments].concat()).expect_err("is wrong");
            assert!(error.use_stderr(), "{arguments:?}");
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
