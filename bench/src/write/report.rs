//! The tables of `write`.

use serde::Serialize;

use super::job::WritePattern;
use super::options::WriteOptions;
use super::plan::Cell;
use crate::cgroup::{BOUND_SLACK_BYTES, Limit, PROCESS_BYTES};
use crate::job::Sample;
use crate::machine::Machine;
use crate::report::Bar;
use crate::report::{fixed, median, number};

const MIB: u64 = 1 << 20;

/// One line of a table with all its samples.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The pattern.
    pub pattern: WritePattern,
    /// The contestant's name.
    pub contestant: &'static str,
    /// Storing threads, or committers.
    pub threads: u32,
    /// Pages of one transaction; 0 in the other patterns.
    pub pages_per_commit: u32,
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
    pub fn new(pattern: WritePattern, cell: &Cell) -> Self {
        Self {
            pattern,
            contestant: cell.contestant,
            threads: cell.threads,
            pages_per_commit: cell.pages_per_commit,
            wants_limit: cell.limit != Limit::Unlimited,
            limited: false,
            note: None,
            samples: Vec::new(),
        }
    }

    /// What the line is about, for messages and bars.
    pub fn name(&self) -> String {
        let (pattern, contestant, threads) = (self.pattern.name(), self.contestant, self.threads);
        match self.pattern {
            WritePattern::Commit => {
                format!("commit of {} {contestant} at {threads}", self.pages_per_commit)
            }
            _ => format!("{pattern} {contestant} at {threads}"),
        }
    }

    /// The median over the samples, of those that have the value.
    pub fn median(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(value).collect())
    }

    /// The median of what the pattern is about: more is better.
    pub fn score(&self) -> Option<f64> {
        self.median(|sample| Some(score(self.pattern, sample)))
    }

    fn p99_us(&self) -> Option<f64> {
        self.median(|sample| Some(sample.p99_ns as f64 / 1e3))
    }
}

fn score(pattern: WritePattern, sample: &Sample) -> f64 {
    let elapsed_ns = sample.elapsed_ns.max(1) as f64;
    match pattern {
        WritePattern::Rmw => sample.accesses as f64 * 1e6 / elapsed_ns,
        WritePattern::Seqwrite => sample.bytes as f64 * 1e3 / elapsed_ns,
        WritePattern::Commit => sample.accesses as f64 * 1e9 / elapsed_ns,
    }
}

/// Unit of the score, unit of processor time, and what a latency is the latency of.
fn units(pattern: WritePattern) -> (&'static str, &'static str, &'static str) {
    match pattern {
        WritePattern::Rmw => ("kops/s", "us/op", "one load and store"),
        WritePattern::Seqwrite => ("MB/s", "us/MiB", "storing 1 MiB"),
        WritePattern::Commit => ("commits/s", "us/commit", "one transaction, durable"),
    }
}

/// The line of `contestant` in the same setting as `line`.
pub fn beside<'a>(lines: &'a [Line], line: &Line, contestant: &str) -> Option<&'a Line> {
    let setting = |line: &Line| (line.pattern, line.threads, line.pages_per_commit);
    lines.iter().find(|other| setting(other) == setting(line) && other.contestant == contestant)
}

/// The settings of the run, as one paragraph.
pub fn settings(options: &WriteOptions) -> String {
    format!(
        "rmw and seqwrite: file {} MiB, budget {} MiB; the kernel's contestants run in a memory cgroup of budget + {} \
         MiB, self-bounded ones in budget + {} MiB. commit: {} MiB, all of it in memory. Medians of {} interleaved \
         repetitions of {} s. All that was written is read back.",
        options.file_bytes() / MIB,
        options.budget / MIB,
        PROCESS_BYTES / MIB,
        BOUND_SLACK_BYTES / MIB,
        options.commit_size / MIB,
        options.reps,
        options.seconds,
    )
}

/// The table of one pattern, in Markdown.
pub fn table(pattern: WritePattern, lines: &[Line]) -> String {
    let (score, cpu, latency) = units(pattern);
    let threads = if pattern == WritePattern::Commit { "pages | committers" } else { "threads" };
    let rule = if pattern == WritePattern::Commit { "--:|--:" } else { "--:" };
    let head = format!(
        "### {}\n\nLatencies are those of {latency}. The ratio is to {}. Pages: the most frames held, or what the \
         kernel caches at the end.\n\n",
        pattern.name(),
        pattern.baseline()
    );
    let headings = format!(
        "| contestant | {threads} | {score} | min to max | ratio | CPU {cpu} | machine {cpu} | p50 us | p99 us | \
         p99 ratio | sync ms | major faults | pages MiB | peak RSS MiB | peak cgroup MiB |\n"
    );
    let rule = format!("|---|{rule}|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    let rows = lines.iter().filter(|line| line.pattern == pattern);
    let rows: String = rows.map(|line| row(line, beside(lines, line, pattern.baseline()))).collect();
    [head, headings, rule, rows].concat()
}

fn row(line: &Line, baseline: Option<&Line>) -> String {
    let unlimited = if line.wants_limit && !line.limited { " (unlimited)" } else { "" };
    let setting = match line.pattern {
        WritePattern::Commit => format!("{} | {}", line.pages_per_commit, line.threads),
        _ => line.threads.to_string(),
    };
    let head = format!("| {}{unlimited} | {setting} ", line.contestant);
    if let Some(note) = &line.note {
        return format!("{head}| {} |||||||||||||\n", note.replace('|', "/"));
    }
    format!("{head}| {} |\n", columns(line, baseline).join(" | "))
}

fn columns(line: &Line, baseline: Option<&Line>) -> [String; 13] {
    let scores: Vec<f64> = line.samples.iter().map(|sample| score(line.pattern, sample)).collect();
    let least = scores.iter().copied().reduce(f64::min);
    let most = scores.iter().copied().reduce(f64::max);
    let ratio = |value: Option<f64>, other: Option<f64>| Some(value? / other?);
    let per_operation = |sample: &Sample, cpu_ns: u64| {
        let operations = match line.pattern {
            WritePattern::Seqwrite => sample.bytes as f64 / MIB as f64,
            _ => sample.accesses as f64,
        };
        Some(cpu_ns as f64 / 1e3 / operations.max(1.0))
    };
    let mebibytes = |bytes: u64| bytes as f64 / MIB as f64;
    [
        number(line.score()),
        format!("{} to {}", number(least), number(most)),
        fixed(ratio(line.score(), baseline.and_then(Line::score)), 2),
        number(line.median(|sample| per_operation(sample, sample.cpu_ns))),
        number(line.median(|sample| per_operation(sample, sample.machine_cpu_ns))),
        number(line.median(|sample| Some(sample.p50_ns as f64 / 1e3))),
        number(line.p99_us()),
        fixed(ratio(line.p99_us(), baseline.and_then(Line::p99_us)), 2),
        number(line.median(|sample| Some(sample.sync_ns? as f64 / 1e6))),
        fixed(line.median(|sample| Some(sample.major_faults as f64)), 0),
        fixed(line.median(|sample| sample.peak_frame_bytes.or(sample.page_cache_bytes).map(mebibytes)), 0),
        fixed(line.median(|sample| Some(mebibytes(sample.peak_rss_bytes))), 0),
        fixed(line.median(|sample| sample.peak_cgroup_bytes.map(mebibytes)), 0),
    ]
}

/// Everything, for other programs.
pub fn json(machine: &Machine, lines: &[Line], bars: &[Bar]) -> String {
    let all = serde_json::json!({ "machine": machine, "lines": lines, "bars": bars });
    format!("{all:#}\n")
}
