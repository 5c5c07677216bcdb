//! The ratios this project wants to reach in reading, beside what was measured. They inform; the exit code does not
//! depend on them.

use super::job::Pattern;
use super::report::{Line, baseline};
use crate::report::{Bar, Direction};

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
