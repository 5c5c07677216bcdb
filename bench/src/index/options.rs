//! The options of `index`.

use clap::Args;

use super::job::Part;
use crate::parent::Output;

const PARTS: &str = "\
The tree: a static B+tree in a file, built in bulk. Nodes of 4 KiB with up to 255 keys of 8 bytes, and beside each
key a child or a value of 8 bytes. Ten million pairs are 154 MiB and three levels. Keys are drawn at random, all are
in the tree, and every value is checked; a wrong one ends the run.

Parts:
  resident  Lookups while the whole tree is in memory. kops/s. Latencies are those of 16 lookups.
  quarter   Lookups with memory for a quarter of the file. kops/s, and how many pages were read for each lookup: the
            inner nodes stay in memory, three leaves of four do not.
  pin       One access to one page in memory, again and again: what a lookup pays for each node beside the search. ns.
            `same`: all threads access one page. `own`: each accesses a page of its own.

Contestants:
  mmap            the kernel's mapping of the file, MADV_RANDOM; in `quarter` in a memory cgroup of the budget. In `pin`
                  one load. The ratio of all others is to this one.
  vmcache         a buffer pool of this benchmark: a page table of versioned words over one anonymous array, pread
                  (O_DIRECT) on a miss, optimistic reads. After Leis et al., Virtual-Memory Assisted Buffer Management,
                  SIGMOD 2023; without its madvise for each eviction, which would need unsafe code.
  ours-pin        Mapping::pin of each node, with frames of 4 KiB
  ours-pin-large  the same with frames of 2 MiB; a budget below 32 MiB gets 4 KiB
  ours-pin-auto   the same with FrameSize::Auto and no advice: what a program gets that says nothing. In `quarter` it is
                  to reach the better of small and large frames, divided by 1.1.
  ours-pin_ref    Mapping::pin_ref: a pin that borrows the mapping
  ours-with_pin   Mapping::with_pin: a call with the pinned bytes; -large as above
  ours-try_words  Mapping::try_words: words of the node without a pin, loaded again if the page changed meanwhile;
                  -large and -auto as above
  ours-read_at    Mapping::read_at of each node: a copy. In `pin` of 8 bytes.
  atomic          fetch_add of one counter (pin only)
  redb            get of one value of 8 bytes, in an open read transaction of a database in memory (pin only): it walks
                  from the root to a leaf, where the others look at one page

Examples:
  cargo xtask bench index --quick
  cargo xtask bench index --only pin --threads 1,2,4
  cargo xtask bench index --only quarter --contestants ours-pin,ours-pin-large --reps 3 --verbose";

/// Options of `index`.
#[derive(Args, Debug, Clone)]
#[command(after_help = PARTS)]
pub struct IndexOptions {
    /// Pairs of the tree.
    #[arg(long, default_value_t = 10_000_000)]
    pub pairs: u64,
    /// Thread counts.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub threads: Vec<u32>,
    /// Repetitions of every measurement; medians are reported.
    #[arg(long, default_value_t = 5)]
    pub reps: u32,
    /// Length of the measured phase.
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Parts to run, by default all.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<Part>,
    /// Contestants to run, by default all that fit the part. `mmap` always runs.
    #[arg(long, value_delimiter = ',')]
    pub contestants: Vec<String>,
    /// Where files are, and what is printed.
    #[command(flatten)]
    pub output: Output,
    /// A short run, to see that everything works: 500,000 pairs, 2 repetitions of 0.05 s. Its tree is so small that the
    /// cgroup of mmap in `quarter` holds all of it.
    #[arg(long)]
    pub quick: bool,
}

impl IndexOptions {
    /// The options with `--quick` applied.
    pub fn settled(&self) -> Self {
        if !self.quick {
            return self.clone();
        }
        Self { pairs: 500_000, reps: 2, seconds: 0.05, ..self.clone() }
    }

    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), String> {
        if self.threads.is_empty() || self.threads.contains(&0) || self.reps == 0 || self.seconds <= 0.0 {
            return Err("--threads, --reps and --seconds must be positive".into());
        }
        if !(100_000..=1 << 32).contains(&self.pairs) {
            return Err(format!("--pairs {}: from 100000 to {}", self.pairs, 1_u64 << 32));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::IndexOptions;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: IndexOptions,
    }

    fn check(line: &str) -> Result<(), String> {
        Line::parse_from(line.split(' ')).options.settled().check()
    }

    #[test]
    fn options_are_checked() {
        assert!(check("index").is_ok());
        assert!(check("index --quick").is_ok());
        assert!(check("index --threads 0").is_err());
        assert!(check("index --pairs 99").is_err());
    }
}
