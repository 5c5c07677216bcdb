//! Table, bars and JSON of `run`.

use serde::Serialize;

use super::plan::ProgramName;
use crate::machine::Machine;
use crate::report::{Bar, Direction};
use crate::report::{fixed, median, number};

/// One program in one way, with all its samples.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The program.
    pub program: ProgramName,
    /// The way it was run.
    pub way: &'static str,
    /// Why samples are missing.
    pub note: Option<String>,
    /// What each run took.
    pub elapsed_ns: Vec<u64>,
}

impl Line {
    /// A line without samples.
    pub fn new(program: ProgramName, way: &'static str) -> Self {
        Self { program, way, note: None, elapsed_ns: Vec::new() }
    }

    fn ms(&self) -> Vec<f64> {
        self.elapsed_ns.iter().map(|elapsed_ns| *elapsed_ns as f64 / 1e6).collect()
    }

    fn median_ms(&self) -> Option<f64> {
        median(self.ms())
    }
}

/// The median of the line beside that of the native program.
fn ratio(lines: &[Line], line: &Line) -> Option<f64> {
    let native = lines.iter().find(|other| other.program == line.program && other.way == "native")?;
    Some(line.median_ms()? / native.median_ms()?)
}

/// The table, in Markdown.
pub fn table(lines: &[Line]) -> String {
    let head = "### run\n\nTimes of whole programs, page cache warm. The ratio is to native.\n\n\
                | program | way | median ms | min to max | runs | ratio |\n|---|---|--:|--:|--:|--:|\n";
    let row = |line: &Line| {
        let begin = format!("| {} | {} ", line.program.name(), line.way);
        if let Some(note) = &line.note {
            return format!("{begin}| {} ||||\n", note.replace('|', "/").replace('\n', " "));
        }
        let ms = line.ms();
        let least = ms.iter().copied().reduce(f64::min);
        let most = ms.iter().copied().reduce(f64::max);
        format!(
            "{begin}| {} | {} to {} | {} | {} |\n",
            number(line.median_ms()),
            number(least),
            number(most),
            ms.len(),
            fixed(ratio(lines, line), 2),
        )
    };
    [head.to_string()].into_iter().chain(lines.iter().map(row)).collect()
}

/// The ratios that are to be reached, for which there are measurements. They inform; the exit status does not depend
/// on them.
pub fn bars(lines: &[Line]) -> Vec<Bar> {
    let bar = |line: &Line| {
        Some(Bar {
            what: format!("{} {}: ratio to native", line.program.name(), line.way),
            direction: Direction::AtMost,
            required: match line.way {
                "memobj-via" => line.program.required_ratio_via(),
                _ => line.program.required_ratio(),
            },
            measured: ratio(lines, line)?,
        })
    };
    lines.iter().filter(|line| line.way != "native" && line.note.is_none()).filter_map(bar).collect()
}

/// Everything, for other programs.
pub fn json(machine: &Machine, lines: &[Line], bars: &[Bar]) -> String {
    let all = serde_json::json!({ "machine": machine, "lines": lines, "bars": bars });
    format!("{all:#}\n")
}
