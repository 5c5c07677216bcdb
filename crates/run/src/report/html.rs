//! The report for a browser: one page with everything in it.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::names::{command_line, printable};
use super::runs::{failed_runs, runs};
use super::summary::{Part, Summary, command, file_pages, places, tree};
use super::text::{head_line, totals};
use crate::history::{FaultRecord, FileHistory, History, ProcessHistory, ProgramEnd, Resolution};

const STYLE: &str = include_str!("page/style.css");
const BODY: &str = include_str!("page/body.html");
/// One script, in the order of what needs what.
const SCRIPTS: [&str; 5] = [
    include_str!("page/base.js"),
    include_str!("page/heat.js"),
    include_str!("page/timeline.js"),
    include_str!("page/processes.js"),
    include_str!("page/main.js"),
];
/// The page loads nothing, whatever names it shows.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The history as one page of HTML that needs nothing else: no network, no library, no other file.
///
/// It shows for each file a heat map of its pages, the faults against time, the processes as a tree with their segment
/// tables, and the totals. What it shows is in it as JSON; the script puts all names into the page as text. Without
/// scripts the page shows the report that [`text`](super::text()) gives. Some 15 bytes for a fault.
pub fn html(history: &History) -> String {
    let title = command_line(&command(history));
    let mut page = String::new();
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    // Writing to a `String` does not fail.
    let _ = writeln!(page, "<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    let _ = write!(page, "<title>{} - memobj run</title>\n<style>\n{STYLE}</style>\n", escaped(&title));
    page.push_str("</head>\n<body>\n");
    let _ = write!(page, "<noscript><pre>{}</pre></noscript>\n{BODY}", escaped(&super::text(history)));
    let _ = writeln!(page, "<script type=\"application/json\" id=\"data\">{}</script>", data(history));
    page.push_str("<script>\n(() => {\n\"use strict\";\n");
    for script in SCRIPTS {
        page.push_str(script);
    }
    page.push_str("})();\n</script>\n</body>\n</html>\n");
    page
}

/// Text between tags, or in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// What the script shows, as JSON without any character that means something to HTML.
fn data(history: &History) -> String {
    // Texts, numbers and arrays: nothing that JSON cannot say.
    let json = serde_json::to_string(&Data::of(history)).unwrap_or_default();
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // These occur within strings only, where an escape means the same.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(safe, "\\u{:04x}", u32::from(character));
            }
            _ => safe.push(character),
        }
    }
    safe
}

/// Times are in microseconds. `page/base.js` reads this.
#[derive(Serialize)]
struct Data {
    head: String,
    duration: u64,
    totals: Vec<(&'static str, String)>,
    files: Vec<File>,
    processes: Vec<Process>,
    faults: Faults,
}

#[derive(Serialize)]
struct File {
    name: String,
    length: u64,
    pages: u64,
    mappings: u64,
    /// First page and count of each run, flat; in the order of the first touches.
    touches: Vec<u64>,
    copied: Vec<u64>,
    failed: Vec<(u64, u64, String)>,
    /// Major, minor, failed.
    counts: [u64; 3],
    slept: u64,
}

#[derive(Serialize)]
struct Process {
    /// By which faults name it.
    index: usize,
    pid: u32,
    depth: usize,
    /// Took the place of the program before it in the same process.
    replaces: bool,
    command: String,
    started: u64,
    ended: Option<u64>,
    end: String,
    counts: [u64; 3],
    slept: u64,
    /// Addresses and protection, index of the file or -1, offset in it, name, pages present and copied.
    segments: Vec<(String, String, i64, String, String, u64, u64)>,
}

/// The faults by columns.
#[derive(Serialize)]
struct Faults {
    left_out: u64,
    /// Each from the one before.
    at: Vec<i64>,
    duration: Vec<u64>,
    file: Vec<usize>,
    page: Vec<u64>,
    process: Vec<usize>,
    /// One letter for each: `0` major, `1` minor, `2` failed.
    resolution: String,
}

impl Data {
    fn of(history: &History) -> Data {
        let summary = Summary::of(history);
        Data {
            head: head_line(history),
            duration: us(history.duration),
            totals: totals(history, &summary),
            files: history.files.iter().zip(&summary.files).map(File::of).collect(),
            processes: processes(history, &summary),
            faults: Faults::of(history),
        }
    }
}

impl File {
    fn of((file, part): (&FileHistory, &Part)) -> File {
        let flat = |pages: &[u64]| {
            runs(pages.iter().copied()).into_iter().flat_map(|(first, count)| [first, count]).collect()
        };
        let failed = failed_runs(file).into_iter();
        File {
            name: printable(file.path.as_os_str()),
            length: file.length_bytes,
            pages: file_pages(file),
            mappings: file.mappings,
            touches: flat(&file.first_touches),
            copied: flat(&file.copied),
            failed: failed.map(|(first, count, why)| (first, count, printable(why.as_ref()))).collect(),
            counts: counts(part),
            slept: us(part.slept),
        }
    }
}

/// The programs in the order of the tree.
fn processes(history: &History, summary: &Summary) -> Vec<Process> {
    let places = places(history);
    let row = |(index, depth): (usize, usize)| {
        let process = &history.processes[index];
        Process {
            index,
            pid: process.pid,
            depth,
            replaces: places[index].replaces.is_some(),
            command: command_line(&process.command),
            started: us(process.started),
            ended: process.ended.map(|(at, _)| us(at)),
            end: process.ended.map_or("not seen".to_string(), |(_, end)| ended(end)),
            counts: counts(&summary.processes[index]),
            slept: us(summary.processes[index].slept),
            segments: segments(process),
        }
    };
    tree(history).into_iter().map(row).collect()
}

fn segments(process: &ProcessHistory) -> Vec<(String, String, i64, String, String, u64, u64)> {
    let row = |segment: &crate::history::SegmentRecord| {
        let (file, offset) = match segment.file {
            Some((file, offset)) => (i64::try_from(file).unwrap_or(-1), format!("{offset:x}")),
            None => (-1, String::new()),
        };
        (
            format!("{:x}-{:x}", segment.start, segment.end),
            segment.prot.to_string(),
            file,
            offset,
            printable(&segment.name),
            segment.present_pages,
            segment.copied_pages,
        )
    };
    process.segments.iter().map(row).collect()
}

impl Faults {
    fn of(history: &History) -> Faults {
        let faults = &history.faults;
        let mut before = 0;
        let mut since = |fault: &FaultRecord| {
            let at = i64::try_from(us(fault.at)).unwrap_or(i64::MAX);
            at - std::mem::replace(&mut before, at)
        };
        let letter = |fault: &FaultRecord| match fault.resolution {
            Resolution::Supplied => '0',
            Resolution::Resident => '1',
            Resolution::Failed => '2',
        };
        Faults {
            left_out: history.faults_left_out,
            at: faults.iter().map(&mut since).collect(),
            duration: faults.iter().map(|fault| us(fault.duration)).collect(),
            file: faults.iter().map(|fault| fault.file).collect(),
            page: faults.iter().map(|fault| fault.page).collect(),
            process: faults.iter().map(|fault| fault.process).collect(),
            resolution: faults.iter().map(letter).collect(),
        }
    }
}

fn counts(part: &Part) -> [u64; 3] {
    [part.counts.major, part.counts.minor, part.counts.failed]
}

fn ended(end: ProgramEnd) -> String {
    match end {
        ProgramEnd::Exited(status) => format!("exit {status}"),
        ProgramEnd::Killed(signal) => format!("signal {signal}"),
        ProgramEnd::Replaced => "exec".to_string(),
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
