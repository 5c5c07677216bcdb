//! The tables of `index`.

use serde::Serialize;

use super::job::{Part, Share};
use super::options::IndexOptions;
use super::plan::{BASELINE, Cell};
use super::tree::Shape;
use crate::cgroup::{BOUND_SLACK_BYTES, Limit, PROCESS_BYTES};
use crate::job::Sample;
use crate::machine::Machine;
use crate::report::{fixed, median, number};

const MIB: u64 = 1 << 20;

/// One line of a table with all its samples.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The part.
    pub part: Part,
    /// The contestant's name.
    pub contestant: &'static str,
    /// Threads.
    pub threads: u32,
    /// Whose page they access, in the part `pin`.
    pub share: Share,
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
    pub fn new(part: Part, cell: &Cell) -> Self {
        Self {
            part,
            contestant: cell.contestant,
            threads: cell.threads,
            share: cell.share,
            wants_limit: cell.limit != Limit::Unlimited,
            limited: false,
            note: None,
            samples: Vec::new(),
        }
    }

    /// What the line is about, for messages.
    pub fn name(&self) -> String {
        format!("{} {} at {} threads", self.part.name(), self.contestant, self.threads)
    }

    fn median(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(value).collect())
    }

    /// Lookups in a second, more is better; or nanoseconds of one access, less is better.
    fn score(&self) -> Option<f64> {
        self.median(|sample| Some(self.score_of(sample)))
    }

    fn score_of(&self, sample: &Sample) -> f64 {
        let elapsed_ns = sample.elapsed_ns.max(1) as f64;
        match self.part {
            Part::Resident | Part::Quarter => sample.accesses as f64 * 1e6 / elapsed_ns,
            Part::Pin => elapsed_ns * f64::from(self.threads) / sample.accesses.max(1) as f64,
        }
    }

    fn spread(&self) -> String {
        let scores = || self.samples.iter().map(|sample| self.score_of(sample));
        format!("{} to {}", number(scores().reduce(f64::min)), number(scores().reduce(f64::max)))
    }

    fn p99_us(&self) -> Option<f64> {
        self.median(|sample| Some(sample.p99_ns as f64 / 1e3))
    }
}

/// The line that `line` is compared with.
fn baseline<'a>(lines: &'a [Line], line: &Line) -> Option<&'a Line> {
    let setting = |line: &Line| (line.part, line.threads, line.share);
    lines.iter().find(|other| setting(other) == setting(line) && other.contestant == BASELINE)
}

/// The settings of the run, as one paragraph.
pub fn settings(options: &IndexOptions) -> String {
    let shape = Shape::of(options.pairs);
    format!(
        "B+tree of {} pairs: {:.1} MiB, {} levels. Medians of {} interleaved repetitions of {} s. In `quarter` mmap runs \
         in a memory cgroup of budget + {} MiB, self-bounded contestants in budget + {} MiB. Every value is checked.",
        options.pairs,
        shape.bytes() as f64 / MIB as f64,
        shape.height(),
        options.reps,
        options.seconds,
        PROCESS_BYTES / MIB,
        BOUND_SLACK_BYTES / MIB
    )
}

/// The table of one part, in Markdown.
pub fn table(part: Part, budget_bytes: u64, lines: &[Line]) -> String {
    let about = match part {
        Part::Resident => "The whole tree is in memory. Latencies are those of 16 lookups.".to_string(),
        Part::Quarter => format!(
            "Memory for {:.1} MiB of the tree. Latencies are those of one lookup.",
            budget_bytes as f64 / MIB as f64
        ),
        Part::Pin => {
            "Nanoseconds of one access to one page in memory, in one thread; `same` is one page for all threads, \
             `own` one for each."
                .to_string()
        }
    };
    let headings: &[&str] = match part {
        Part::Pin => &["page", "ns/access", "min to max", "ratio", "CPU ns/access"],
        Part::Resident | Part::Quarter => &[
            "kops/s",
            "min to max",
            "ratio",
            "CPU us/op",
            "p50 us",
            "p99 us",
            "p99 ratio",
            "reads/op",
            "pages MiB",
            "peak RSS MiB",
            "peak cgroup MiB",
        ],
    };
    let rule = "--:|".repeat(headings.len());
    let head = format!(
        "### {}\n\n{about}\n\n| contestant | threads | {} |\n|---|--:|{rule}\n",
        part.name(),
        headings.join(" | ")
    );
    let rows = lines.iter().filter(|line| line.part == part);
    head + &rows.map(|line| row(line, baseline(lines, line), headings.len())).collect::<String>()
}

fn row(line: &Line, baseline: Option<&Line>, columns: usize) -> String {
    let unlimited = if line.wants_limit && !line.limited { " (unlimited)" } else { "" };
    let head = format!("| {}{unlimited} | {} ", line.contestant, line.threads);
    if let Some(note) = &line.note {
        return format!("{head}| {} {}\n", note.replace(['|', '\n'], "/"), "|".repeat(columns));
    }
    let ratio = fixed(line.score().zip(baseline.and_then(Line::score)).map(|(ours, base)| ours / base), 2);
    let values = match line.part {
        Part::Pin => pin_columns(line, ratio),
        Part::Resident | Part::Quarter => lookup_columns(line, baseline, ratio),
    };
    format!("{head}| {} |\n", values.join(" | "))
}

fn pin_columns(line: &Line, ratio: String) -> Vec<String> {
    let share = match line.share {
        _ if line.threads == 1 => "-",
        Share::Same => "same",
        Share::Own => "own",
    };
    let cpu_ns = |sample: &Sample| Some(sample.cpu_ns as f64 / sample.accesses.max(1) as f64);
    vec![share.into(), number(line.score()), line.spread(), ratio, number(line.median(cpu_ns))]
}

fn lookup_columns(line: &Line, baseline: Option<&Line>, ratio: String) -> Vec<String> {
    let operations = |sample: &Sample| sample.accesses.max(1) as f64;
    let mebibytes = |bytes: u64| bytes as f64 / MIB as f64;
    let p99_ratio = line.p99_us().zip(baseline.and_then(Line::p99_us)).map(|(ours, base)| ours / base);
    vec![
        number(line.score()),
        line.spread(),
        ratio,
        number(line.median(|sample| Some(sample.cpu_ns as f64 / 1e3 / operations(sample)))),
        number(line.median(|sample| Some(sample.p50_ns as f64 / 1e3))),
        number(line.p99_us()),
        fixed(p99_ratio, 2),
        fixed(line.median(|sample| Some(sample.missed_pages? as f64 / operations(sample))), 3),
        number(line.median(|sample| sample.peak_frame_bytes.or(sample.page_cache_bytes).map(mebibytes))),
        fixed(line.median(|sample| Some(mebibytes(sample.peak_rss_bytes))), 0),
        fixed(line.median(|sample| sample.peak_cgroup_bytes.map(mebibytes)), 0),
    ]
}

/// Everything, for other programs.
pub fn json(machine: &Machine, lines: &[Line]) -> String {
    let all = serde_json::json!({ "machine": machine, "lines": lines });
    format!("{all:#}\n")
}
