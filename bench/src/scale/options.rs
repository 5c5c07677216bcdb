//! The options of `scale`.

use clap::Args;

use super::job::Part;
use crate::parent::{Output, parse_size};

const PARTS: &str = "\
Parts:
  access   Random accesses to one object, each of one word of a random page, by one thread. The object is a sparse file:
           holes, and 4096 written pages, to which one access in 256 goes. us/access. Beside it the memory of the process
           at the end: frames, resident memory (VmRSS) and page tables (VmPTE).
  objects  Many objects of 1 MiB with the same bytes: us to open and map one; resident memory and page tables for each
           when all are mapped, and beside frames when one page of each was accessed; and what is charged to the memory
           cgroup for each, which has the kernel's own structures too. Descriptors and mappings (vm.max_map_count) for
           each are what else may run out.

Contestants of access:
  mmap                 the kernel's mapping of the sparse file, MADV_RANDOM
  ours-pin             Mapping::pin of the page; frames of 4 KiB, faults resolved in the faulting thread
  ours-touch           a plain load through the mapping
  ours-pin-computed, ours-touch-computed
                       the same with a pager that computes every word: no file, no holes
Contestants of objects:
  mmap                 a mapping of one file for each object; the descriptor is closed
  ours-file            the same file, opened for each object, which keeps descriptors: a low limit (ulimit -n) ends this
                       earlier, and the table says at how many objects
  ours-computed        a pager that computes every word

Each measurement is a process of its own in a memory cgroup: of the budget and 8 MiB for mmap, of the budget and 72 MiB
for ours. Both pay for their page tables there. A process that the kernel kills for lack of memory is started again with
four times as much, until it lives or had half of the machine's memory or 16 GiB; the limit that was enough is in the
table. Every loaded word is checked. With the defaults all of it takes about half an hour.

Examples:
  cargo xtask bench scale --quick
  cargo xtask bench scale --only access --sizes 1G,4T --accesses 100000
  cargo xtask bench scale --only objects --objects 1000 --reps 1";

/// Options of `scale`. Sizes take the suffixes K, M, G and T.
#[derive(Args, Debug, Clone)]
#[command(after_help = PARTS)]
pub struct ScaleOptions {
    /// Lengths of the object.
    #[arg(long, value_delimiter = ',', value_parser = parse_size, default_value = "1G,16G,256G,4T")]
    pub sizes: Vec<u64>,
    /// Accesses to it.
    #[arg(long, default_value_t = 1_000_000)]
    pub accesses: u64,
    /// Memory for pages.
    #[arg(long, value_parser = parse_size, default_value = "64M")]
    pub budget: u64,
    /// How many objects are many. A page of each must fit into the budget.
    #[arg(long, default_value_t = 10_000)]
    pub objects: u64,
    /// Repetitions of every measurement; medians are reported.
    #[arg(long, default_value_t = 3)]
    pub reps: u32,
    /// Parts to run, by default both.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<Part>,
    /// Contestants to run, by default all that fit the part. `mmap` always runs.
    #[arg(long, value_delimiter = ',')]
    pub contestants: Vec<String>,
    /// Where files are, and what is printed.
    #[command(flatten)]
    pub output: Output,
    /// A short run, to see that everything works: 1G and 256G, 5000 accesses, 200 objects, 2 repetitions.
    #[arg(long)]
    pub quick: bool,
}

impl ScaleOptions {
    /// The options with `--quick` applied.
    pub fn settled(&self) -> Self {
        if !self.quick {
            return self.clone();
        }
        let sizes = vec![1 << 30, 256 << 30];
        Self { sizes, accesses: 5000, objects: 200, reps: 2, ..self.clone() }
    }

    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), String> {
        for &bytes in &self.sizes {
            if bytes < 16 << 20 || bytes % (16 << 20) != 0 {
                return Err(format!("--sizes {bytes}: each must be a multiple of 16 MiB"));
            }
        }
        if self.budget < 8 << 20 || self.objects > self.budget / 6144 {
            return Err(format!(
                "--budget {}: at least 8 MiB, and 6 KiB for each of --objects {}",
                self.budget, self.objects
            ));
        }
        if self.accesses == 0 || self.objects == 0 || self.reps == 0 {
            return Err("--accesses, --objects and --reps must be positive".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::ScaleOptions;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: ScaleOptions,
    }

    fn check(line: &str) -> Result<(), String> {
        Line::parse_from(line.split(' ')).options.settled().check()
    }

    #[test]
    fn options_are_checked() {
        assert!(check("scale").is_ok());
        assert!(check("scale --objects 20000").is_err());
        assert!(check("scale --quick").is_ok());
        assert!(check("scale --reps 0").is_err());
        assert!(check("scale --sizes 5M").is_err());
    }
}
