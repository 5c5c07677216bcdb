//! The ratios this project wants to reach in writing, beside what was measured. They inform; the exit code does not
//! depend on them.

use super::job::WritePattern;
use super::report::{Line, beside};
use crate::report::{Bar, Direction};

/// The size of the transactions that are judged.
const JUDGED_PAGES: u32 = 16;

/// All bars for which there are measurements.
pub fn bars(lines: &[Line]) -> Vec<Bar> {
    lines
        .iter()
        .filter(|line| line.contestant.starts_with("ours-"))
        .flat_map(|line| bars_of(lines, line))
        .collect()
}

fn bars_of(lines: &[Line], line: &Line) -> Vec<Bar> {
    let Some(score) = line.score() else { return Vec::new() };
    let score_of = |contestant: &str| beside(lines, line, contestant)?.score();
    let bar = |what: &str, direction, required, measured| Bar {
        what: format!("{}: {what}", line.name()),
        direction,
        required,
        measured,
    };
    let at_least = |what: &str, required, other: Option<f64>| {
        other.map(|other| bar(what, Direction::AtLeast, required, score / other))
    };
    let bars = match line.pattern {
        WritePattern::Rmw => [at_least("ratio to mmap", 1.1, score_of("mmap")), None],
        WritePattern::Seqwrite => {
            let best = [score_of("mmap"), score_of("mmap-default")].into_iter().flatten().reduce(f64::max);
            [at_least("ratio to the better mmap", 1.0, best), None]
        }
        WritePattern::Commit if line.pages_per_commit == JUDGED_PAGES => [
            at_least("ratio to sqlite", 1.0, score_of("sqlite")),
            score_of("pwrite")
                .map(|other| bar("time to that of pwrite", Direction::AtMost, 2.0, other / score)),
        ],
        WritePattern::Commit => [None, None],
    };
    bars.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::{Line, WritePattern, bars};
    use crate::cgroup::Limit;
    use crate::job::Sample;
    use crate::write::plan::Cell;

    fn commit_line(contestant: &'static str, pages_per_commit: u32, elapsed_ns: u64) -> Line {
        let cell = Cell { contestant, threads: 1, pages_per_commit, limit: Limit::Unlimited };
        let mut line = Line::new(WritePattern::Commit, &cell);
        line.samples.push(Sample { accesses: 1000, elapsed_ns, ..Sample::default() });
        line
    }

    #[test]
    fn commits_of_sixteen_are_judged_by_sqlite_and_pwrite() {
        let lines = [("pwrite", 16, 100), ("sqlite", 16, 400), ("ours-touch", 16, 200), ("ours-touch", 1, 9)];
        let lines = lines.map(|(name, pages, elapsed_ns)| commit_line(name, pages, elapsed_ns));
        let measured: Vec<f64> = bars(&lines).iter().map(|bar| bar.measured).collect();
        assert_eq!(measured, [2.0, 2.0]);
    }
}
