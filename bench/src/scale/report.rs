//! The tables of `scale`.

use serde::Serialize;

use super::job::Part;
use super::options::ScaleOptions;
use super::plan::{BASELINE, Group};
use crate::job::{Memory, MemoryUse, Sample};
use crate::machine::Machine;
use crate::report::{fixed, median, number};

const MIB: f64 = (1 << 20) as f64;

/// One line of a table with all its samples.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The part.
    pub part: Part,
    /// The contestant's name.
    pub contestant: &'static str,
    /// Bytes of the object, or of each.
    pub object_bytes: u64,
    /// Accesses, or objects.
    pub count: u64,
    /// The memory cgroup that was enough; `None` where there are no cgroups.
    pub limit_bytes: Option<u64>,
    /// Why samples are missing.
    pub note: Option<String>,
    /// One per repetition.
    pub samples: Vec<Sample>,
}

impl Line {
    /// A line without samples.
    pub fn new(group: &Group, contestant: &'static str) -> Self {
        Self {
            part: group.part,
            contestant,
            object_bytes: group.object_bytes,
            count: group.count,
            limit_bytes: None,
            note: None,
            samples: Vec::new(),
        }
    }

    /// What the line is about, for messages.
    pub fn name(&self) -> String {
        format!("{} {} of {}", self.part.name(), self.contestant, size(self.object_bytes))
    }

    fn median(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(value).collect())
    }

    /// Microseconds of one access, or to map one object: less is better.
    fn score(&self) -> Option<f64> {
        self.median(|sample| Some(score_of(sample)))
    }

    fn spread(&self) -> String {
        let scores = || self.samples.iter().map(score_of);
        format!("{} to {}", number(scores().reduce(f64::min)), number(scores().reduce(f64::max)))
    }

    /// The median of something of the memory, in MiB.
    fn mebibytes(&self, of: impl Fn(&Memory) -> u64) -> Option<f64> {
        self.median(|sample| Some(of(sample.memory.as_deref()?) as f64 / MIB))
    }

    /// The median of what something grew by since before anything was mapped, in bytes for each object.
    fn for_each(
        &self,
        at: impl Fn(&Memory) -> MemoryUse,
        of: impl Fn(&MemoryUse) -> Option<u64>,
    ) -> Option<f64> {
        self.median(|sample| {
            let memory = sample.memory.as_deref()?;
            let grown = of(&at(memory))? as f64 - of(&memory.before)? as f64;
            Some(grown / memory.objects.max(1) as f64)
        })
    }
}

fn score_of(sample: &Sample) -> f64 {
    sample.elapsed_ns as f64 / 1e3 / sample.accesses.max(1) as f64
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB")];
    let fits = units.into_iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift && bytes >> shift > 0);
    fits.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

/// The settings of the run, as one paragraph.
pub fn settings(options: &ScaleOptions) -> String {
    format!(
        "Budget {}. access: {} random accesses by one thread to an object that is a sparse file or computed. objects: {} \
         objects. Medians of {} interleaved repetitions. Every loaded word is checked.",
        size(options.budget),
        options.accesses,
        options.objects,
        options.reps
    )
}

/// The table of one part, in Markdown.
pub fn table(part: Part, lines: &[Line]) -> String {
    let (about, headings): (&str, &[&str]) = match part {
        Part::Access => (
            "Memory at the end. Limit: the memory cgroup that was enough.",
            &[
                "object",
                "us/access",
                "min to max",
                "ratio",
                "CPU us",
                "p50 us",
                "p99 us",
                "frames MiB",
                "RSS MiB",
                "page tables MiB",
                "beside frames MiB",
                "limit MiB",
                "peak cgroup MiB",
            ],
        ),
        Part::Objects => (
            "Everything but frames is for each object, memory in bytes. Memory is RSS and page tables; charged is what the cgroup counts, the kernel's own \
             structures too.",
            &[
                "objects",
                "us to map",
                "min to max",
                "ratio",
                "p99 us",
                "memory when mapped",
                "charged when mapped",
                "mappings",
                "descriptors",
                "memory beside frames after a page of each",
                "frames MiB",
            ],
        ),
    };
    let head = format!(
        "### {}\n\n{about}\n\n| contestant | {} |\n|---|{}\n",
        part.name(),
        headings.join(" | "),
        "--:|".repeat(headings.len())
    );
    let rows = lines.iter().filter(|line| line.part == part);
    head + &rows.map(|line| row(line, lines, headings.len())).collect::<String>()
}

fn row(line: &Line, lines: &[Line], columns: usize) -> String {
    let of_what = match line.part {
        Part::Access => size(line.object_bytes),
        Part::Objects => objects_of(line),
    };
    let head = format!("| {} | {of_what} ", line.contestant);
    if let Some(note) = &line.note {
        return format!("{head}| {} {}\n", note.replace(['|', '\n'], "/"), "|".repeat(columns - 1));
    }
    let setting = |line: &Line| (line.part, line.object_bytes, line.count);
    let baseline = lines.iter().find(|other| setting(other) == setting(line) && other.contestant == BASELINE);
    let ratio = line.score().zip(baseline.and_then(Line::score)).map(|(ours, base)| ours / base);
    let time = [number(line.score()), line.spread(), fixed(ratio, 2)];
    let rest = match line.part {
        Part::Access => access_columns(line),
        Part::Objects => objects_columns(line),
    };
    format!("{head}| {} | {} |\n", time.join(" | "), rest.join(" | "))
}

/// How many objects, and of how many that were asked for if those were too many.
fn objects_of(line: &Line) -> String {
    let mapped = line.samples.iter().filter_map(|sample| Some(sample.memory.as_deref()?.objects)).min();
    match mapped {
        Some(mapped) if mapped < line.count => format!("{mapped} of {}", line.count),
        _ => line.count.to_string(),
    }
}

fn access_columns(line: &Line) -> Vec<String> {
    let per_access = |sample: &Sample| sample.cpu_ns as f64 / 1e3 / sample.accesses.max(1) as f64;
    vec![
        number(line.median(|sample| Some(per_access(sample)))),
        number(line.median(|sample| Some(sample.p50_ns as f64 / 1e3))),
        number(line.median(|sample| Some(sample.p99_ns as f64 / 1e3))),
        number(line.mebibytes(|memory| memory.used.frame_bytes)),
        number(line.mebibytes(|memory| memory.used.rss_bytes)),
        number(line.mebibytes(|memory| memory.used.page_table_bytes)),
        number(line.mebibytes(|memory| memory.used.beside_frames())),
        fixed(line.limit_bytes.map(|bytes| bytes as f64 / MIB), 0),
        fixed(line.median(|sample| Some(sample.peak_cgroup_bytes? as f64 / MIB)), 0),
    ]
}

fn objects_columns(line: &Line) -> Vec<String> {
    vec![
        number(line.median(|sample| Some(sample.p99_ns as f64 / 1e3))),
        fixed(line.for_each(|memory| memory.mapped, |held| Some(held.beside_frames())), 0),
        fixed(line.for_each(|memory| memory.mapped, |held| held.charged_bytes), 0),
        fixed(line.for_each(|memory| memory.mapped, |held| Some(held.mappings)), 2),
        fixed(line.for_each(|memory| memory.mapped, |held| Some(held.descriptors)), 2),
        fixed(line.for_each(|memory| memory.used, |held| Some(held.beside_frames())), 0),
        number(line.mebibytes(|memory| memory.used.frame_bytes)),
    ]
}

/// Everything, for other programs.
pub fn json(machine: &Machine, lines: &[Line]) -> String {
    let all = serde_json::json!({ "machine": machine, "lines": lines });
    format!("{all:#}\n")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_the_unit_that_leaves_no_rest() {
        let sizes = [(4 << 40, "4 TiB"), (1536 << 20, "1536 MiB"), (1 << 30, "1 GiB"), (100, "100 bytes")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
