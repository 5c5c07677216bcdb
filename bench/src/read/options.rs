//! The options of `read`.

use clap::Args;

use super::job::Pattern;
use crate::data::PAGE_BYTES;
use crate::parent::{Output, parse_size};

const MIB: u64 = 1 << 20;

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
        self.zipf_ops.unwrap_or(self.size / PAGE_BYTES * 600_000 / 131_072)
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
