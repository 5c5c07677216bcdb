//! What this project wants to reach over the network, beside what was measured. The exit code does not depend on it.

use super::job::BATCH;
use super::options::{NetworkOptions, Row};
use super::report::Line;
use super::servers::Kind;
use crate::report::{Bar, Direction};

/// Parts of the baseline's throughput that are asked for.
const REQUIRED: f64 = 0.9;

/// All bars for which there are measurements.
pub fn bars(options: &NetworkOptions, lines: &[Line]) -> Vec<Bar> {
    lines.iter().filter_map(|line| bar(options, lines, line)).collect()
}

fn bar(options: &NetworkOptions, lines: &[Line], line: &Line) -> Option<Bar> {
    let is_ours = line.contestant.starts_with("ours-");
    match line.row {
        Row::Scattered if is_ours => at_most_two_round_trips(options, lines, line),
        Row::Sequential | Row::Ninep if is_ours => ratio(lines, line),
        Row::Second if line.contestant.contains("cached") => ratio(lines, line),
        _ => None,
    }
}

/// At least a part of the throughput of the table's first line.
fn ratio(lines: &[Line], line: &Line) -> Option<Bar> {
    let baseline = line.baseline(lines)?;
    Some(Bar {
        what: format!("{}: {} to {}", line.title, line.contestant, baseline.contestant),
        direction: Direction::AtLeast,
        required: REQUIRED,
        measured: line.score()? / baseline.score()?,
    })
}

/// In milliseconds: two round trips, and the time that the best sequential read of the run needs for as many bytes.
fn at_most_two_round_trips(options: &NetworkOptions, lines: &[Line], line: &Line) -> Option<Bar> {
    let best = best_throughput(lines, line.server)?;
    let transfer_ms = (BATCH * line.block_bytes) as f64 / 1e3 / best;
    Some(Bar {
        what: format!("{}: {}, ms", line.title, line.contestant),
        direction: Direction::AtMost,
        required: 2.0 * options.delay_ms as f64 + transfer_ms,
        measured: line.score()?,
    })
}

/// MB/s.
fn best_throughput(lines: &[Line], server: Kind) -> Option<f64> {
    let reads = lines.iter().filter(|line| line.row == Row::Sequential && line.server == server);
    let by_ranges =
        |line: &&Line| line.contestant.starts_with("object_store") || line.contestant.starts_with("ours-");
    reads.filter(by_ranges).filter_map(Line::score).reduce(f64::max)
}
