//! The tables of `read`.

use std::fmt::Write;

use serde::Serialize;

use super::job::Pattern;
use super::options::ReadOptions;
use super::plan::Cell;
use crate::cgroup::{BOUND_SLACK_BYTES, Limit, PROCESS_BYTES};
use crate::job::Sample;
use crate::machine::Machine;
use crate::report::{Bar, fixed, median, number};

const MIB: u64 = 1 << 20;

/// One line of a table with all its samples.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The pattern.
    pub pattern: Pattern,
    /// The contestant's name.
    pub contestant: &'static str,
    /// Accessing threads.
    pub threads: u32,
    /// Threads of the `mmap` line it is compared with.
    pub baseline_threads: u32,
    /// Whether a memory cgroup was wanted.
    pub wants_limit: bool,
    /// Whether there was one.
    pub limited: bool,
    /// Why samples are missing.
    pub note: Option<String>,
    /// One per repetition.
    pub samples: Vec<Sample>,
}

impl Line {
    /// A line without samples.
    pub fn new(pattern: Pattern, cell: &Cell, batch_baseline_threads: u32) -> Self {
        Self {
            pattern,
            contestant: cell.contestant,
            threads: cell.threads,
            baseline_threads: if pattern == Pattern::Batch { batch_baseline_threads } else { cell.threads },
            wants_limit: cell.limit != Limit::Unlimited,
            limited: false,
            note: None,
            samples: Vec::new(),
        }
    }

    /// The median over the samples, of those that have the value.
    pub fn median(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(value).collect())
    }

    /// The median of what the pattern is about, in the unit of its table.
    pub fn score(&self) -> Option<f64> {
        self.median(|sample| Some(score(self.pattern, sample)))
    }

    /// The median 99th percentile.
    pub fn p99_us(&self) -> Option<f64> {
        self.median(|sample| Some(sample.p99_ns as f64 / 1e3))
    }
}

/// What the pattern is about: more is better, except for `fault`.
fn score(pattern: Pattern, sample: &Sample) -> f64 {
    let elapsed_ns = sample.elapsed_ns.max(1) as f64;
    match pattern {
        Pattern::Random | Pattern::Zipf | Pattern::Reread | Pattern::Batch => {
            sample.accesses as f64 * 1e6 / elapsed_ns
        }
        Pattern::Sequential => sample.bytes as f64 * 1e3 / elapsed_ns,
        Pattern::Warmscan => sample.bytes as f64 / elapsed_ns,
        Pattern::Fault => elapsed_ns / sample.accesses.max(1) as f64,
    }
}

/// Unit of the score, unit of processor time, and what a latency is the latency of.
fn units(pattern: Pattern) -> (&'static str, &'static str, &'static str) {
    match pattern {
        Pattern::Random | Pattern::Zipf => ("kops/s", "us/op", "one access"),
        Pattern::Reread => ("kops/s", "us/op", "64 accesses"),
        Pattern::Batch => ("kpages/s", "us/page", "64 pages"),
        Pattern::Sequential => ("MB/s", "us/MiB", "1 MiB"),
        Pattern::Warmscan => ("GB/s", "us/MiB", "256 KiB"),
        Pattern::Fault => ("ns/fault", "us/fault", "one fault"),
    }
}

/// Processor time per operation, or per MiB where the pattern is about bytes.
fn per_operation(pattern: Pattern, sample: &Sample, cpu_ns: u64) -> f64 {
    let operations = match pattern {
        Pattern::Sequential | Pattern::Warmscan => sample.bytes as f64 / MIB as f64,
        _ => sample.accesses as f64,
    };
    cpu_ns as f64 / 1e3 / operations.max(1.0)
}

/// The line that `line` is compared with.
pub fn baseline<'a>(lines: &'a [Line], line: &Line) -> Option<&'a Line> {
    let fits = |other: &&Line| other.pattern == line.pattern && other.threads == line.baseline_threads;
    lines.iter().filter(fits).find(|other| other.contestant == "mmap")
}

/// The settings of the run, as one paragraph.
pub fn settings(options: &ReadOptions) -> String {
    format!(
        "File {} MiB, budget {} MiB (sequential: {} under {} MiB); medians of {} interleaved repetitions of {} s. \
         The kernel's contestants run in a memory cgroup of budget + {} MiB, self-bounded ones in budget + {} MiB. \
         Every loaded word is checked.",
        options.size / MIB,
        options.budget / MIB,
        options.sequential_bytes() / MIB,
        options.sequential_bytes() / 4 / MIB,
        options.reps,
        options.seconds,
        PROCESS_BYTES / MIB,
        BOUND_SLACK_BYTES / MIB
    )
}

/// The table of one pattern, in Markdown.
pub fn table(pattern: Pattern, lines: &[Line]) -> String {
    let (score, cpu, latency) = units(pattern);
    let mut text = format!(
        "### {}\n\nLatencies are those of {latency}. Pages: the most frames held, or what the kernel caches at the end.\n\n",
        pattern.name()
    );
    let headings = format!(
        "| contestant | threads | {score} | min to max | ratio | CPU {cpu} | machine {cpu} | p50 us | p99 us | p99 ratio \
         | major faults | hits % | pages MiB | peak RSS MiB | peak cgroup MiB |\n"
    );
    text.push_str(&headings);
    text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for line in lines.iter().filter(|line| line.pattern == pattern) {
        text.push_str(&row(line, baseline(lines, line)));
    }
    let lru =
        lines.iter().filter(|line| line.pattern == pattern).find_map(|line| line.median(|s| s.lru_hit_rate));
    if let Some(rate) = lru {
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "\nExact LRU on the same trace at the same budget: {:.2}% hits.", rate * 100.0);
    }
    text
}

fn row(line: &Line, baseline: Option<&Line>) -> String {
    let unlimited = if line.wants_limit && !line.limited { " (unlimited)" } else { "" };
    let head = format!("| {}{unlimited} | {} ", line.contestant, line.threads);
    if let Some(note) = &line.note {
        return format!("{head}| {} |||||||||||||\n", note.replace('|', "/"));
    }
    let pattern = line.pattern;
    let scores: Vec<f64> = line.samples.iter().map(|sample| score(pattern, sample)).collect();
    let least = scores.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let most = scores.iter().copied().reduce(f64::max).unwrap_or(0.0);
    let to_baseline = |value: Option<f64>, other: Option<f64>| Some(value? / other?);
    let mebibytes = |bytes: u64| bytes as f64 / MIB as f64;
    let columns = [
        number(line.score()),
        format!("{} to {}", number(Some(least)), number(Some(most))),
        fixed(to_baseline(line.score(), baseline.and_then(Line::score)), 2),
        number(line.median(|sample| Some(per_operation(pattern, sample, sample.cpu_ns)))),
        number(line.median(|sample| Some(per_operation(pattern, sample, sample.machine_cpu_ns)))),
        number(line.median(|sample| Some(sample.p50_ns as f64 / 1e3))),
        number(line.p99_us()),
        fixed(to_baseline(line.p99_us(), baseline.and_then(Line::p99_us)), 2),
        fixed(line.median(|sample| Some(sample.major_faults as f64)), 0),
        fixed(line.median(|sample| sample.hit_rate.map(|rate| rate * 100.0)), 2),
        fixed(line.median(|sample| sample.peak_frame_bytes.or(sample.page_cache_bytes).map(mebibytes)), 0),
        fixed(line.median(|sample| Some(mebibytes(sample.peak_rss_bytes))), 0),
        fixed(line.median(|sample| sample.peak_cgroup_bytes.map(mebibytes)), 0),
    ];
    format!("{head}| {} |\n", columns.join(" | "))
}

/// Everything, for other programs.
pub fn json(machine: &Machine, lines: &[Line], bars: &[Bar]) -> String {
    let all = serde_json::json!({ "machine": machine, "lines": lines, "bars": bars });
    format!("{all:#}\n")
}
