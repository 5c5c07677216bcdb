//! The options of `network`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::job::{BATCH, BATCHES};
use crate::parent::{Output, parse_size};

const MIB: u64 = 1 << 20;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Row {
    /// All of an object in order.
    Sequential,
    /// 64 pages in 64 blocks, at once.
    Scattered,
    /// An object whose blocks are all in the disk cache, beside a local file.
    Second,
    /// The first read with a disk cache, beside one without.
    First,
    /// All of a file of a 9P server in order.
    Ninep,
}

impl Row {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 5] = [Self::Sequential, Self::Scattered, Self::Second, Self::First, Self::Ninep];
}

/// Options of `network`. Sizes take the suffixes K, M and G.
#[derive(Args, Debug, Clone)]
pub struct NetworkOptions {
    /// Size of the object.
    #[arg(long, value_parser = parse_size, default_value = "256M")]
    pub size: u64,
    /// Memory for frames; the peers have no such bound.
    #[arg(long, value_parser = parse_size, default_value = "128M")]
    pub budget: u64,
    /// Bytes of one request of a sequential read.
    #[arg(long, value_parser = parse_size, default_value = "1M")]
    pub block: u64,
    /// Blocks of which scattered pages are.
    #[arg(long, value_delimiter = ',', value_parser = parse_size, default_value = "64K,1M")]
    pub scattered_blocks: Vec<u64>,
    /// Requests under way at once.
    #[arg(long, value_delimiter = ',', default_value = "64,16")]
    pub depths: Vec<usize>,
    /// What the proxy adds to each request, in milliseconds.
    #[arg(long, default_value_t = 20)]
    pub delay_ms: u64,
    /// Repetitions of every measurement; medians are reported.
    #[arg(long, default_value_t = 5)]
    pub reps: u32,
    /// What to measure, by default all.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<Row>,
    /// Contestants to run, by default all. The baseline of a table always runs.
    #[arg(long, value_delimiter = ',')]
    pub contestants: Vec<String>,
    /// The command `memobj`; by default the one beside this program.
    #[arg(long)]
    pub memobj: Option<PathBuf>,
    /// Where files are, and what is printed.
    #[command(flatten)]
    pub output: Output,
    /// A short run, to see that everything works: 16M in blocks of 64K under 8M, 2 repetitions.
    #[arg(long)]
    pub quick: bool,
}

impl NetworkOptions {
    /// The options with `--quick` applied.
    pub fn settled(&self) -> Self {
        if !self.quick {
            return self.clone();
        }
        Self {
            size: 16 * MIB,
            budget: 8 * MIB,
            block: 64 << 10,
            scattered_blocks: vec![64 << 10],
            reps: 2,
            ..self.clone()
        }
    }

    /// What the proxy adds to each request.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), String> {
        for block in self.scattered_blocks.iter().chain([&self.block]) {
            if !(64 << 10..=16 * MIB).contains(block) || !block.is_power_of_two() {
                return Err(format!("a block of {block} bytes is no power of two from 64K to 16M"));
            }
        }
        if self.size == 0 || !self.size.is_multiple_of(2 * MIB) {
            return Err(format!("--size {}: must be a multiple of 2 MiB", self.size));
        }
        if self.reps == 0 || self.depths.is_empty() || self.depths.contains(&0) {
            return Err("--reps and --depths must be positive".into());
        }
        let largest = self.scattered_blocks.iter().copied().max().unwrap_or(0);
        match largest * BATCH * BATCHES > self.size {
            true => Err(format!("--size {}: {} scattered blocks do not fit", self.size, BATCH * BATCHES)),
            false => Ok(()),
        }
    }
}
