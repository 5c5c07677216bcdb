//! The report for a screen.

use std::collections::HashMap;
use std::time::Duration;

use super::names::{command_line, cut_begin, cut_end, printable};
use super::runs::failed_runs;
use super::summary::{Counts, PAGE_BYTES, Summary, command, file_pages, outcome, process_count};
use crate::history::{History, ProgramEnd};

/// Columns of a screen. Lines about failures may be longer: they are not to be cut.
const COLUMNS: usize = 80;
/// Files with a line of their own,
const FILES: usize = 10;
/// ranges that failed,
const FAILURES: usize = 6;
/// and programs.
const PROGRAMS: usize = 8;

/// The history in few lines: a small run in less than a screen of 24 lines of 80 columns, any other in 40 lines.
///
/// Files are those with the most touched pages, programs those with the most faults; of the others it says how many
/// there are. Pages that could not be supplied are named by file and range in bytes, never cut. Control characters
/// in names are escaped. Ends with a newline.
pub fn text(history: &History) -> String {
    let summary = Summary::of(history);
    let mut lines = head(history, &summary);
    lines.extend(files(history, &summary));
    lines.extend(failures(history));
    lines.extend(programs(history, &summary));
    lines.join("\n") + "\n"
}

fn head(history: &History, summary: &Summary) -> Vec<String> {
    let end = format!(" {} after {}", ending(history), time(history.duration));
    let room = COLUMNS.saturating_sub(1 + end.chars().count());
    let line = cut_end(&command_line(&command(history)), room);
    let mut lines = vec![format!("{line}:{end}")];
    lines.extend(totals(history, summary).into_iter().map(|(name, value)| format!("{name:<10}{value}")));
    lines
}

/// The command and how it ended, in one line of any length.
pub(super) fn head_line(history: &History) -> String {
    format!("{}: {} after {}", command_line(&command(history)), ending(history), time(history.duration))
}

fn ending(history: &History) -> String {
    outcome(history).map_or("its end was not seen".to_string(), ended)
}

/// The numbers of the whole run, by what they are about.
pub(super) fn totals(history: &History, summary: &Summary) -> Vec<(&'static str, String)> {
    let totals = &history.totals;
    let Counts { major, minor, failed } = summary.whole.counts;
    let left_out = match history.faults_left_out {
        0 => String::new(),
        count => format!("; {count} more are not counted"),
    };
    let slept = time(summary.whole.slept);
    let (peak, budget) = (bytes(totals.peak_frame_bytes), bytes(totals.budget_bytes));
    let evicted = counted(totals.evicted_pages, "page");
    let supplied = counted(totals.supplied_pages, "page");
    vec![
        ("faults", format!("{major} major, {minor} minor, {failed} failed{left_out}")),
        ("slept", format!("{slept} on these faults, all threads together")),
        ("read", format!("{} from files; {supplied} supplied", bytes(totals.read_bytes))),
        ("frames", format!("{peak} at most of {budget}; {evicted} evicted")),
        ("retries", totals.retries.to_string()),
        ("mappings", format!("{} left to the kernel", totals.passed_through)),
    ]
}

fn files(history: &History, summary: &Summary) -> Vec<String> {
    let mut order: Vec<usize> = (0..history.files.len()).collect();
    let touched = |index: usize| history.files[index].first_touches.len();
    order.sort_by_key(|index| std::cmp::Reverse(touched(*index)));
    // A line that says "1 more" is no shorter than the file itself.
    let shown = if order.len() <= FILES + 1 { order.len() } else { FILES };
    let row = |index: &usize| {
        let (file, part) = (&history.files[*index], &summary.files[*index]);
        let when = |at: Option<Duration>| at.map_or("-".to_string(), time);
        let columns = format!(
            "{:>7} {:>7} {:>6} {:>6} {:>7} {:>7}",
            file.first_touches.len(),
            file_pages(file),
            file.copied.len(),
            file.failed.len(),
            when(part.first),
            when(part.last),
        );
        let name = printable(file.path.as_os_str());
        format!("{columns}  {}", cut_begin(&name, COLUMNS.saturating_sub(columns.chars().count() + 2)))
    };
    let title = "touched   pages copied failed   first    last  file";
    let mut lines = vec![String::new(), title.to_string()];
    lines.extend(order[..shown].iter().map(row));
    if shown < order.len() {
        let rest = order[shown..].iter().map(|index| touched(*index) as u64).sum();
        lines.push(format!("and {} more files: {} touched", order.len() - shown, counted(rest, "page")));
    }
    if history.files.is_empty() {
        return vec!["files     none was mapped".to_string()];
    }
    lines
}

fn failures(history: &History) -> Vec<String> {
    let ranges = history.files.iter().flat_map(|file| {
        failed_runs(file).into_iter().map(move |(first, count, reason)| {
            let begin = first.saturating_mul(PAGE_BYTES);
            let end =
                first.saturating_add(count).saturating_mul(PAGE_BYTES).min(file.length_bytes.max(begin));
            let name = printable(file.path.as_os_str());
            format!("  [{begin}, {end}) of {name}: {}", printable(reason.as_ref()))
        })
    });
    let all: Vec<String> = ranges.collect();
    if all.is_empty() {
        return Vec::new();
    }
    let shown = if all.len() <= FAILURES + 1 { all.len() } else { FAILURES };
    let mut lines = vec![String::new(), "could not be supplied".to_string()];
    lines.extend(all[..shown].iter().cloned());
    if shown < all.len() {
        lines.push(format!("  and {} more ranges", all.len() - shown));
    }
    lines
}

/// What is said of all processes that ran one program.
#[derive(Default)]
struct Program {
    runs: u64,
    counts: Counts,
    present_pages: u64,
    copied_pages: u64,
    killed: u64,
    /// Exited with another status than 0.
    unhappy: u64,
}

fn programs(history: &History, summary: &Summary) -> Vec<String> {
    let all = by_name(history, summary);
    let shown = if all.len() <= PROGRAMS + 1 { all.len() } else { PROGRAMS };
    let processes = counted(process_count(history) as u64, "process");
    let mut lines = vec![String::new()];
    lines.push(format!("   times    major    minor   failed  present   copied  program ({processes})"));
    lines.extend(all[..shown].iter().map(|(name, program)| {
        let Program { runs, counts, present_pages, copied_pages, killed, unhappy } = program;
        let columns = format!(
            "{runs:>8} {:>8} {:>8} {:>8} {present_pages:>8} {copied_pages:>8}",
            counts.major, counts.minor, counts.failed,
        );
        let mut ends = String::new();
        for (count, what) in [(unhappy, "exited otherwise than 0"), (killed, "killed")] {
            if *count > 0 && *runs > 1 {
                ends.push_str(&format!(", {count} {what}"));
            }
        }
        let room = COLUMNS.saturating_sub(columns.len() + 2 + ends.chars().count()).max(8);
        cut_end(&format!("{columns}  {}{ends}", cut_begin(name, room)), COLUMNS)
    }));
    if shown < all.len() {
        let runs: u64 = all[shown..].iter().map(|(_, program)| program.runs).sum();
        lines.push(format!("and {} more programs, run {}", all.len() - shown, counted(runs, "time")));
    }
    lines
}

/// The programs by the first word of their command, those with the most faults first.
fn by_name(history: &History, summary: &Summary) -> Vec<(String, Program)> {
    let mut programs: HashMap<String, Program> = HashMap::new();
    for (process, part) in history.processes.iter().zip(&summary.processes) {
        let name = process.command.first().map_or("?".to_string(), |name| printable(name));
        let program = programs.entry(name).or_default();
        program.runs += 1;
        program.counts.major += part.counts.major;
        program.counts.minor += part.counts.minor;
        program.counts.failed += part.counts.failed;
        program.present_pages += process.segments.iter().map(|segment| segment.present_pages).sum::<u64>();
        program.copied_pages += process.segments.iter().map(|segment| segment.copied_pages).sum::<u64>();
        match process.ended {
            Some((_, ProgramEnd::Killed(_))) => program.killed += 1,
            Some((_, ProgramEnd::Exited(status))) if status != 0 => program.unhappy += 1,
            _ => {}
        }
    }
    let mut all: Vec<(String, Program)> = programs.into_iter().collect();
    all.sort_by(|(name, program), (other_name, other)| {
        (other.counts.all(), name).cmp(&(program.counts.all(), other_name))
    });
    all
}

fn ended(end: ProgramEnd) -> String {
    match end {
        ProgramEnd::Exited(status) => format!("exited with {status}"),
        ProgramEnd::Killed(signal) => format!("was killed by signal {signal}"),
        ProgramEnd::Replaced => "went on with another program".to_string(),
    }
}

/// `1 page`, `2 pages`, `2 processes`.
fn counted(count: u64, what: &str) -> String {
    match (count, what) {
        (1, _) => format!("1 {what}"),
        (_, "process") => format!("{count} processes"),
        _ => format!("{count} {what}s"),
    }
}

/// A duration with three digits or so.
pub(super) fn time(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos() as f64;
    let (value, unit) = match nanoseconds {
        less if less < 1e3 => return format!("{less:.0} ns"),
        less if less < 1e6 => (less / 1e3, "us"),
        less if less < 1e9 => (less / 1e6, "ms"),
        more => (more / 1e9, "s"),
    };
    if value < 100.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A number of bytes with a unit in powers of 1024.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "bytes" { counted(count, "byte") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
