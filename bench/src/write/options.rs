//! The options of `write`.

use clap::Args;

use super::job::WritePattern;
use crate::data::PAGE_BYTES;
use crate::parent::{Output, parse_size};

const MIB: u64 = 1 << 20;

const PATTERNS: &str = "\
Patterns:
  rmw       Each thread loads eight bytes at a random place and stores them changed, over a file of four times the
            budget, for --seconds. Then one sync, whose time counts. kops/s.
  seqwrite  The same amount overwritten from the start to the end, then one sync, whose time counts. MB/s.
  commit    Transactions of --commit-pages scattered pages of a file of --commit-size, each durable before the next
            one of its committer. commits/s.

Contestants:
  mmap          stores through a shared mapping; msync(MS_SYNC). MADV_RANDOM; for seqwrite MADV_SEQUENTIAL.
  mmap-default  the same without advice (seqwrite only)
  pwrite        pread and pwrite of pages, then fsync; in commit pwrite, then fdatasync
  sqlite, redb  one row for each page, one transaction for each commit (commit only)
mmap and pwrite may leave half a transaction after a crash; sqlite and redb never do.

rmw and seqwrite run in a memory cgroup of the budget; commit runs without one, with a budget that holds its file.
When a contestant's process is gone, all it wrote is read back. A word that was lost, torn or misplaced makes its
line read `failed`, and the exit status 1. Nothing here cuts the power: durability is asked for, not proven.

Examples:
  cargo xtask bench write --quick
  cargo xtask bench write --only commit --commit-pages 16 --committers 1 --contestants sqlite
  cargo xtask bench write --dir /path/on/the/disk --json result.json";

/// Options of `write`. Sizes take the suffixes K, M and G.
#[derive(Args, Debug, Clone)]
#[command(after_help = PATTERNS)]
pub struct WriteOptions {
    /// Memory each contestant may use for pages in rmw and seqwrite; their files have four times as much.
    #[arg(long, value_parser = parse_size, default_value = "128M")]
    pub budget: u64,
    /// Size of the file, or of the rows of the database, in commit.
    #[arg(long, value_parser = parse_size, default_value = "64M")]
    pub commit_size: u64,
    /// Thread counts of rmw.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    pub threads: Vec<u32>,
    /// Numbers of concurrent committers.
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    pub committers: Vec<u32>,
    /// Pages of one transaction.
    #[arg(long, value_delimiter = ',', default_value = "1,16,256")]
    pub commit_pages: Vec<u32>,
    /// Repetitions of every measurement; medians are reported.
    #[arg(long, default_value_t = 5)]
    pub reps: u32,
    /// Length of the measured phase of rmw and commit.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Patterns to run, by default all.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<WritePattern>,
    /// Contestants to run, by default all that fit the pattern. The baseline of a pattern always runs: mmap, in
    /// commit pwrite.
    #[arg(long, value_delimiter = ',')]
    pub contestants: Vec<String>,
    /// Where files are, and what is printed.
    #[command(flatten)]
    pub output: Output,
    /// A short run, to see that everything works: a budget of 16M, commits in 16M, 1 and 2 threads, 2 repetitions of
    /// 0.3 s.
    #[arg(long)]
    pub quick: bool,
}

impl WriteOptions {
    /// The options with `--quick` applied.
    pub fn settled(&self) -> Self {
        if !self.quick {
            return self.clone();
        }
        Self {
            budget: 16 * MIB,
            commit_size: 16 * MIB,
            threads: vec![1, 2],
            reps: 2,
            seconds: 0.3,
            ..self.clone()
        }
    }

    /// Length of the files of `rmw` and `seqwrite`.
    pub fn file_bytes(&self) -> u64 {
        4 * self.budget
    }

    /// Checks what the types do not: sizes in whole 2 MiB blocks, positive counts, transactions that find enough
    /// pages.
    pub fn check(&self) -> Result<(), String> {
        for (name, bytes) in [("budget", self.budget), ("commit-size", self.commit_size)] {
            if bytes < 8 * MIB || bytes % (2 * MIB) != 0 {
                return Err(format!("--{name} {bytes}: must be a multiple of 2 MiB and at least 8 MiB"));
            }
        }
        let counts = [&self.threads, &self.committers, &self.commit_pages];
        let is_positive = |counts: &&Vec<u32>| !counts.is_empty() && !counts.contains(&0);
        if !counts.iter().all(is_positive) || self.reps == 0 || self.seconds <= 0.0 {
            let names = "--threads, --committers, --commit-pages, --reps and --seconds";
            return Err(format!("{names} must be positive"));
        }
        let most = |counts: &[u32]| u64::from(counts.iter().copied().max().unwrap_or(1));
        if 2 * most(&self.committers) * most(&self.commit_pages) > self.commit_size / PAGE_BYTES {
            return Err("--commit-size must hold twice the pages of all concurrent transactions".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::WriteOptions;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: WriteOptions,
    }

    fn check(line: &str) -> Result<(), String> {
        Line::parse_from(line.split(' ')).options.settled().check()
    }

    #[test]
    fn options_are_checked() {
        assert!(check("write").is_ok());
        assert!(check("write --quick").is_ok());
        assert!(check("write --threads 0").is_err());
        assert!(check("write --budget 5M").is_err());
        assert!(check("write --commit-size 8M --commit-pages 512").is_err());
    }
}
