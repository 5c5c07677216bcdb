//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::index::options::IndexOptions;
use crate::job::Pattern;
use crate::parent::Output;
use crate::programs::options::RunOptions;
use crate::scale::options::ScaleOptions;
use crate::write::options::WriteOptions;

const MIB: u64 = 1 << 20;

/// Benchmarks of memobj beside its peers.
#[derive(Parser, Debug)]
#[command(version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Measure reading: random, zipf, sequential, reread, warmscan, fault, batch.
    Read(ReadOptions),
    /// Measure writing: rmw, seqwrite, commit.
    Write(WriteOptions),
    /// Measure whole programs under `memobj run`: true, ls, echo, json, compile.
    Run(RunOptions),
    /// Measure lookups in a B+tree in a file, and one access to a page in memory.
    Index(IndexOptions),
    /// Measure very long objects, and very many: cost of accesses, page tables, memory.
    Scale(ScaleOptions),
    /// Measure address spaces: looking up, mapping and unmapping among many segments, and their memory.
    #[cfg(feature = "ours")]
    Space(SpaceOptions),
    /// Runs programs for `run`, as a child of it.
    #[cfg(feature = "ours")]
    #[command(hide = true)]
    Supervise,
    /// One measurement, as a child of `read`, `write` or another command.
    #[command(hide = true)]
    One {
        /// The task as JSON.
        task: String,
    },
}

/// Options of `read`. Sizes take the suffixes K, M and G.
#[derive(Args, Debug, Clone)]
pub struct ReadOptions {
    /// Size of the test file.
    #[arg(long, value_parser = parse_size, default_value = "512M")]
    pub size: u64,
    /// Memory each contestant may use for pages.
    #[arg(long, value_parser = parse_size, default_value = "128M")]
    pub budget: u64,
    /// Size of the file read sequentially, by default twice `--size`; its budget is a quarter of it.
    #[arg(long, value_parser = parse_size)]
    pub seq_size: Option<u64>,
    /// Thread counts.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    pub threads: Vec<u32>,
    /// Repetitions of every measurement; medians are reported.
    #[arg(long, default_value_t = 5)]
    pub reps: u32,
    /// Length of the measured phase of patterns that run for a time.
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Accesses of the zipf trace, a third of them warm-up; by default 600,000 for each 512 MiB.
    #[arg(long)]
    pub zipf_ops: Option<u64>,
    /// Patterns to run, by default all.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<Pattern>,
    /// Contestants to run, by default all that fit the pattern. The baseline of a pattern always runs.
    #[arg(long, value_delimiter = ',')]
    pub contestants: Vec<String>,
    /// Where files are, and what is printed.
    #[command(flatten)]
    pub output: Output,
    /// A short run, to see that everything works: 64M under 16M, 1 and 2 threads, 2 repetitions of 0.3 s.
    #[arg(long)]
    pub quick: bool,
}

impl ReadOptions {
    /// The options with `--quick` applied.
    pub fn settled(&self) -> Self {
        if !self.quick {
            return self.clone();
        }
        Self { size: 64 * MIB, budget: 16 * MIB, threads: vec![1, 2], reps: 2, seconds: 0.3, ..self.clone() }
    }

    /// Length of the file read sequentially.
    pub fn sequential_bytes(&self) -> u64 {
        self.seq_size.unwrap_or(2 * self.size)
    }

    /// Length of the zipf trace.
    pub fn zipf_accesses(&self) -> u64 {
        self.zipf_ops.unwrap_or(self.size / crate::data::PAGE_BYTES * 600_000 / 131_072)
    }

    /// Checks what the types do not: sizes in whole 2 MiB blocks, at least one thread and repetition.
    pub fn check(&self) -> Result<(), String> {
        for (name, bytes) in
            [("size", self.size), ("budget", self.budget), ("seq-size", self.sequential_bytes())]
        {
            if bytes < 8 * MIB || bytes % (2 * MIB) != 0 {
                return Err(format!("--{name} {bytes}: must be a multiple of 2 MiB and at least 8 MiB"));
            }
        }
        if self.budget > self.size {
            return Err("--budget is larger than --size, so nothing would be evicted".into());
        }
        if self.threads.is_empty() || self.threads.contains(&0) || self.reps == 0 || self.seconds <= 0.0 {
            return Err("--threads, --reps and --seconds must be positive".into());
        }
        Ok(())
    }
}

/// Options of `space`.
#[cfg(feature = "ours")]
#[derive(Args, Debug, Clone)]
pub struct SpaceOptions {
    /// Segments of our address space.
    #[arg(long, default_value_t = 1_000_000)]
    pub segments: u64,
    /// Mappings of the kernel's; below the limit of vm.max_map_count.
    #[arg(long, default_value_t = 60_000)]
    pub mappings: u64,
    /// Operations of each kind.
    #[arg(long, default_value_t = 1_000_000)]
    pub operations: u64,
}

/// A number of bytes, with one of the suffixes K, M, G and T if it has any.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size such as 512M"))?;
    count.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_take_suffixes() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4T"), Ok(4 << 40));
        assert!(parse_size("M").is_err());
        assert!(parse_size("99999999999G").is_err());
    }
}
