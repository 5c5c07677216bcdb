//! The ratios this project wants to reach, beside what was measured. They inform; the exit code does not
//! depend on them.

use std::fmt::Write;

use serde::Serialize;

use crate::job::Pattern;
use crate::report::{Line, baseline};

/// One requirement and its measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// What is compared.
    pub what: String,
    /// Which side of the bound is good.
    pub direction: Direction,
    /// The bound.
    pub required: f64,
    /// The measurement.
    pub measured: f64,
}

/// The good side of a bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Direction {
    /// As much as the bound or more.
    AtLeast,
    /// As much as the bound or less.
    AtMost,
}

impl Bar {
    fn is_met(&self) -> bool {
        match self.direction {
            Direction::AtLeast => self.measured >= self.required,
            Direction::AtMost => self.measured <= self.required,
        }
    }
}

/// The bound on the ratio of scores, where there is one.
fn required_score(line: &Line) -> Option<(Direction, f64)> {
    use Direction::{AtLeast, AtMost};
    Some(match (line.pattern, line.contestant) {
        (Pattern::Random, "ours-inthread") => (AtLeast, 0.95),
        (Pattern::Random, "ours-reader") => (AtLeast, 0.8),
        (Pattern::Zipf, "ours-inthread" | "ours-reader") => (AtLeast, 1.0),
        (Pattern::Sequential, "ours-inthread-2m" | "ours-reader-2m") => (AtLeast, 1.0),
        (Pattern::Reread, "ours-inthread" | "ours-inthread-2m" | "ours-reader") => (AtLeast, 0.95),
        (Pattern::Warmscan, "ours-inthread" | "ours-inthread-2m" | "ours-reader") => (AtLeast, 0.9),
        (Pattern::Fault, "ours-inthread") => (AtMost, 5.0),
        (Pattern::Fault, "ours-reader") => (AtMost, 7.0),
        (Pattern::Batch, "ours-prefetch" | "ours-pin") => (AtLeast, 1.6),
        _ => return None,
    })
}

/// All bars for which there are measurements.
pub fn bars(lines: &[Line]) -> Vec<Bar> {
    lines.iter().flat_map(|line| bars_of(lines, line)).collect()
}

fn bars_of(lines: &[Line], line: &Line) -> Vec<Bar> {
    let name = format!("{} {} at {}", line.pattern.name(), line.contestant, line.threads);
    let mut bars = Vec::new();
    if let (Some((direction, required)), Some(score), Some(to_beat)) =
        (required_score(line), line.score(), score_to_beat(lines, line))
    {
        bars.push(Bar {
            what: format!("{name}: ratio to mmap"),
            direction,
            required,
            measured: score / to_beat,
        });
    }
    let judged = required_score(line).is_some();
    if judged
        && line.pattern == Pattern::Random
        && let (Some(p99), Some(to_beat)) = (line.p99_us(), baseline(lines, line).and_then(Line::p99_us))
    {
        let what = format!("{name}: p99 to mmap");
        bars.push(Bar { what, direction: Direction::AtMost, required: 1.2, measured: p99 / to_beat });
    }
    if judged && line.pattern == Pattern::Zipf {
        let behind = line.median(|sample| Some((sample.lru_hit_rate? - sample.hit_rate?) * 100.0));
        if let Some(measured) = behind {
            let what = format!("{name}: points of hit rate behind exact LRU");
            bars.push(Bar { what, direction: Direction::AtMost, required: 1.0, measured });
        }
    }
    bars
}

/// The best score of `mmap`, with advice or, for a sequential scan, without.
fn score_to_beat(lines: &[Line], line: &Line) -> Option<f64> {
    let advised = baseline(lines, line)?.score()?;
    if line.pattern != Pattern::Sequential {
        return Some(advised);
    }
    let plain = |other: &&Line| {
        other.pattern == line.pattern && other.threads == line.threads && other.contestant == "mmap-default"
    };
    let default = lines.iter().find(plain).and_then(Line::score);
    Some(default.map_or(advised, |default| advised.max(default)))
}

/// The bars in Markdown; nothing if there are none.
pub fn table(bars: &[Bar]) -> String {
    if bars.is_empty() {
        return String::new();
    }
    let mut text = String::from("### bars\n\n| what | required | measured | |\n|---|--:|--:|---|\n");
    for bar in bars {
        let sign = if bar.direction == Direction::AtLeast { ">=" } else { "<=" };
        let met = if bar.is_met() { "met" } else { "MISSED" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {sign} {:.2} | {:.2} | {met} |", bar.what, bar.required, bar.measured);
    }
    text
}
