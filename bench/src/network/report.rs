//! The tables of `network`.

use serde::Serialize;

use super::disk::PageCache;
use super::job::{BATCH, Task};
use super::options::{NetworkOptions, Row};
use super::plan::{Cell, Group};
use super::servers::Kind;
use crate::data::PAGE_BYTES;
use crate::job::Sample;
use crate::machine::Machine;
use crate::report::{Bar, fixed, median, number};

const MIB: u64 = 1 << 20;

/// One line of a table with all its samples.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The table.
    pub title: String,
    /// What it is about.
    pub row: Row,
    /// What is done.
    pub task: Task,
    /// Whose object.
    pub server: Kind,
    /// Bytes of a request.
    pub block_bytes: u64,
    /// The contestant's name.
    pub contestant: &'static str,
    /// Why samples are missing.
    pub note: Option<String>,
    /// One per repetition.
    pub samples: Vec<Sample>,
}

impl Line {
    /// A line without samples.
    pub fn new(group: &Group, cell: &Cell, server_name: &str) -> Self {
        Self {
            title: title(group, server_name),
            row: group.row,
            task: group.task,
            server: group.server,
            block_bytes: group.block_bytes,
            contestant: cell.contestant,
            note: None,
            samples: Vec::new(),
        }
    }

    /// The median over the samples, of those that have the value.
    pub fn median(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(value).collect())
    }

    /// The median of what the table is about: milliseconds of a batch, or else MB/s.
    pub fn score(&self) -> Option<f64> {
        self.median(|sample| Some(score(self.task, sample)))
    }

    /// The first line of the table that was measured.
    pub fn baseline<'a>(&self, lines: &'a [Self]) -> Option<&'a Self> {
        lines.iter().find(|line| line.title == self.title)
    }
}

fn title(group: &Group, server_name: &str) -> String {
    let kib = group.block_bytes >> 10;
    let state = if group.page_cache == PageCache::Warm { "warm" } else { "cold" };
    match group.row {
        Row::Sequential => format!("sequential, {server_name}, {} at once", group.depth),
        Row::Scattered => format!("scattered, {server_name}, blocks of {kib} KiB"),
        Row::Second if group.task == Task::Hash => format!("second hash, {state}"),
        Row::Second => {
            let frames = group.cells[0].contestant.trim_start_matches("file-");
            format!("second read, frames {frames}, {state}")
        }
        Row::First => format!("first read, {server_name}"),
        Row::Ninep => format!("sequential, {server_name}"),
    }
}

fn score(task: Task, sample: &Sample) -> f64 {
    match task {
        Task::Scattered => sample.p50_ns as f64 / 1e6,
        _ => sample.bytes as f64 * 1e3 / sample.elapsed_ns.max(1) as f64,
    }
}

/// The settings of the run, as one paragraph.
pub fn settings(options: &NetworkOptions) -> String {
    format!(
        "Object {} MiB, blocks of {} KiB, {} ms added to each request, budget {} MiB; medians of {} interleaved \
         repetitions, opening and mounting left out. Scattered: {BATCH} pages at once; the median of four such batches, \
         and the longest. All bytes are checked. Peak RSS is that of the client, and of the process that serves a mount.",
        options.size / MIB,
        options.block >> 10,
        options.delay_ms,
        options.budget / MIB,
        options.reps,
    )
}

/// The table of the last group in `lines`.
pub fn table(lines: &[Line]) -> String {
    let Some(last) = lines.last() else { return String::new() };
    let unit = if last.task == Task::Scattered { "ms" } else { "MB/s" };
    let mut text = format!(
        "### {}\n\n| contestant | {unit} | min to max | ratio | longest ms | CPU ms | machine CPU ms | peak RSS MiB \
         | frames MiB | settle ms | misses MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        last.title
    );
    for line in lines.iter().filter(|line| line.title == last.title) {
        text.push_str(&row(line, line.baseline(lines)));
    }
    text
}

fn row(line: &Line, baseline: Option<&Line>) -> String {
    if let Some(note) = &line.note {
        return format!("| {} | {} ||||||||||\n", line.contestant, note.replace('|', "/"));
    }
    let scores: Vec<f64> = line.samples.iter().map(|sample| score(line.task, sample)).collect();
    let least = scores.iter().copied().reduce(f64::min);
    let most = scores.iter().copied().reduce(f64::max);
    let ratio = line.score().zip(baseline.and_then(Line::score)).map(|(own, other)| own / other);
    let mebibytes = |bytes: u64| Some(bytes as f64 / MIB as f64);
    // A command is a process of its own, of which neither is known.
    let known = |value: u64| Some(value as f64).filter(|_| value > 0);
    let columns = [
        number(line.score()),
        format!("{} to {}", number(least), number(most)),
        fixed(ratio, 2),
        number(line.median(|sample| known(sample.max_ns).map(|value| value / 1e6))),
        number(line.median(|sample| known(sample.cpu_ns).map(|value| value / 1e6))),
        number(line.median(|sample| known(sample.machine_cpu_ns).map(|value| value / 1e6))),
        fixed(line.median(|sample| known(sample.peak_rss_bytes).map(|value| value / MIB as f64)), 0),
        fixed(line.median(|sample| sample.peak_frame_bytes.and_then(mebibytes)), 0),
        number(line.median(|sample| sample.sync_ns.map(|value| value as f64 / 1e6))),
        number(line.median(|sample| sample.missed_pages.and_then(|pages| mebibytes(pages * PAGE_BYTES)))),
    ];
    format!("| {} | {} |\n", line.contestant, columns.join(" | "))
}

/// Everything, for other programs.
pub fn json(machine: &Machine, lines: &[Line], bars: &[Bar]) -> String {
    let all = serde_json::json!({ "machine": machine, "lines": lines, "bars": bars });
    format!("{all:#}\n")
}
