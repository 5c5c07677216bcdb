//! Which contestants meet in which pattern, with how much memory.

use super::job::Pattern;
use super::options::ReadOptions;
use crate::cgroup::Limit;

/// One line of a table: a contestant at a number of threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Its name.
    pub contestant: &'static str,
    /// Accessing threads.
    pub threads: u32,
    /// Its memory.
    pub limit: Limit,
}

/// Cells that are measured in turns.
#[derive(Clone, Debug)]
pub struct Group {
    /// The pattern of all of them.
    pub pattern: Pattern,
    /// The length of the test file, or of the part that is used.
    pub file_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// Who.
    pub cells: Vec<Cell>,
}

/// The contestants that fit a pattern, the baseline first.
fn contestants(pattern: Pattern) -> &'static [&'static str] {
    match pattern {
        Pattern::Random => &[
            "mmap",
            "mmap-default",
            "memmap2",
            "pread-buffered",
            "pread-direct",
            "ours-inthread",
            "ours-reader",
            "ours-pin",
        ],
        // Without read-ahead control or a cache a trace of this length takes minutes.
        Pattern::Zipf => &["mmap", "memmap2", "pread-buffered", "ours-inthread", "ours-reader", "ours-pin"],
        Pattern::Sequential => &[
            "mmap",
            "mmap-default",
            "memmap2",
            "pread-buffered",
            "pread-direct",
            "ours-inthread",
            "ours-inthread-2m",
            "ours-reader",
            "ours-reader-2m",
        ],
        Pattern::Reread | Pattern::Warmscan => &[
            "mmap",
            "memmap2",
            "pread-buffered",
            "ours-inthread",
            "ours-inthread-2m",
            "ours-reader",
            "ours-pin",
        ],
        Pattern::Fault => &["mmap", "ours-inthread", "ours-reader"],
        Pattern::Batch => &["mmap", "mmap-willneed", "pread-direct", "ours-prefetch", "ours-pin"],
    }
}

/// Whether `name` exists at all.
pub fn is_contestant(name: &str) -> bool {
    Pattern::ALL.into_iter().any(|pattern| contestants(pattern).contains(&name))
}

/// The threads of the line that the others of a batch are compared with: the most.
pub fn batch_baseline_threads(threads: &[u32]) -> u32 {
    threads.iter().copied().max().unwrap_or(1)
}

/// The groups of a run, in the order of the report.
pub fn groups(options: &ReadOptions) -> Vec<Group> {
    let wanted = |pattern: &Pattern| options.only.is_empty() || options.only.contains(pattern);
    Pattern::ALL.into_iter().filter(wanted).flat_map(|pattern| groups_of(pattern, options)).collect()
}

fn groups_of(pattern: Pattern, options: &ReadOptions) -> Vec<Group> {
    let (file_bytes, budget_bytes) = match pattern {
        Pattern::Sequential => (options.sequential_bytes(), options.sequential_bytes() / 4),
        // Half of what fits, so that no eviction mixes with the faults.
        Pattern::Fault => (options.size / 2, options.size),
        _ => (options.size, options.budget),
    };
    let group = |threads: &[u32]| Group {
        pattern,
        file_bytes,
        budget_bytes,
        cells: threads.iter().flat_map(|&threads| cells(pattern, threads, options)).collect(),
    };
    match pattern {
        Pattern::Zipf | Pattern::Fault => vec![group(&[1])],
        Pattern::Batch => {
            let mut threads = vec![1, batch_baseline_threads(&options.threads)];
            threads.dedup();
            vec![group(&threads)]
        }
        _ => options.threads.iter().map(|&threads| group(&[threads])).collect(),
    }
}

fn cells(pattern: Pattern, threads: u32, options: &ReadOptions) -> Vec<Cell> {
    let in_build = |name: &&str| cfg!(feature = "ours") || !name.starts_with("ours-");
    let wanted = |name: &&str| {
        **name == *"mmap"
            || options.contestants.is_empty()
            || options.contestants.iter().any(|want| want == *name)
    };
    contestants(pattern)
        .iter()
        .copied()
        .filter(|name| in_build(name) && wanted(name))
        .map(|contestant| Cell { contestant, threads, limit: limit(pattern, contestant) })
        .collect()
}

fn limit(pattern: Pattern, contestant: &str) -> Limit {
    match (pattern, contestant) {
        (Pattern::Fault, _) => Limit::Unlimited,
        (_, name) if name == "pread-direct" || name.starts_with("ours-") => Limit::Bound,
        _ => Limit::Budget,
    }
}
