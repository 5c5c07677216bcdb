//! The report for programs; `docs/run-report.md` is its schema.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde::Serialize;

use super::runs::{failed_runs, runs};
use super::summary::{Part, Summary, command, file_pages, outcome, places, process_count};
use crate::history::{History, ProcessHistory, ProgramEnd, Resolution, SegmentRecord};

/// Raised when a member changes its meaning or goes. New members may come without.
const VERSION: u32 = 1;

/// The history as one JSON object, in the stable form that `docs/run-report.md` describes, with a newline at its end.
///
/// Its length is proportional to the history's: some 40 bytes for a fault.
pub fn json(history: &History) -> String {
    // Texts, numbers, arrays and objects with texts as keys: nothing that JSON cannot say.
    serde_json::to_string(&Report::of(history)).unwrap_or_default() + "\n"
}

#[derive(Serialize)]
struct Report<'a> {
    format: &'static str,
    version: u32,
    command: Vec<String>,
    /// The bytes of each word, if one of them is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    command_hex: Option<Vec<String>>,
    end: Option<End>,
    duration_ns: u64,
    totals: Totals,
    files: Vec<File<'a>>,
    processes: Vec<Process<'a>>,
    fault_columns: [&'static str; 6],
    faults: Vec<Fault>,
}

/// A fault: when, how long, by which process, on which file and page, and what was done.
type Fault = (u64, u64, usize, usize, u64, &'static str);

const FAULT_COLUMNS: [&str; 6] = ["at_ns", "took_ns", "process", "file", "page", "resolution"];

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum End {
    Exited(i32),
    Killed(i32),
    Replaced(bool),
}

#[derive(Serialize)]
struct Totals {
    processes: usize,
    major_faults: u64,
    minor_faults: u64,
    failed_faults: u64,
    faults_left_out: u64,
    files_left_out: u64,
    programs_left_out: u64,
    pages_left_out: u64,
    segments_left_out: u64,
    slept_ns: u64,
    budget_bytes: u64,
    peak_frame_bytes: u64,
    read_bytes: u64,
    supplied_pages: u64,
    evicted_pages: u64,
    retries: u64,
    passed_through: u64,
    faults_held_back: u64,
    fault_calls_held_up: u64,
}

#[derive(Serialize)]
struct File<'a> {
    path: String,
    /// The bytes of the path, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    length_bytes: u64,
    modified: (i64, i64),
    mappings: u64,
    pages: u64,
    touched_pages: usize,
    major_faults: u64,
    minor_faults: u64,
    failed_faults: u64,
    slept_ns: u64,
    first_fault_ns: Option<u64>,
    last_fault_ns: Option<u64>,
    first_touches: Vec<(u64, u64)>,
    copied: Vec<(u64, u64)>,
    failed: Vec<Failed<'a>>,
}

#[derive(Serialize)]
struct Failed<'a> {
    first_page: u64,
    pages: u64,
    reason: &'a str,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    parent_pid: u32,
    parent: Option<usize>,
    replaces: Option<usize>,
    command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_hex: Option<Vec<String>>,
    started_ns: u64,
    ended_ns: Option<u64>,
    end: Option<End>,
    major_faults: u64,
    minor_faults: u64,
    failed_faults: u64,
    slept_ns: u64,
    segments: Vec<Segment<'a>>,
}

#[derive(Serialize)]
struct Segment<'a> {
    start: u64,
    end: u64,
    protection: String,
    file: Option<usize>,
    offset: Option<u64>,
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    present_pages: u64,
    copied_pages: u64,
}

impl<'a> Report<'a> {
    fn of(history: &'a History) -> Report<'a> {
        let summary = Summary::of(history);
        let places = places(history);
        let process = |(index, process): (usize, &'a ProcessHistory)| {
            let mut row = Process::of(process, &summary.processes[index]);
            (row.parent, row.replaces) = (places[index].parent, places[index].replaces);
            row
        };
        Report {
            format: "memobj-run-report",
            version: VERSION,
            command: texts(&command(history)),
            command_hex: texts_hex(&command(history)),
            end: outcome(history).map(End::of),
            duration_ns: ns(history.duration),
            totals: Totals::of(history, &summary.whole),
            files: files(history, &summary),
            processes: history.processes.iter().enumerate().map(process).collect(),
            fault_columns: FAULT_COLUMNS,
            faults: faults(history),
        }
    }
}

impl End {
    fn of(end: ProgramEnd) -> End {
        match end {
            ProgramEnd::Exited(status) => End::Exited(status),
            ProgramEnd::Killed(signal) => End::Killed(signal),
            ProgramEnd::Replaced => End::Replaced(true),
        }
    }
}

impl Totals {
    fn of(history: &History, whole: &Part) -> Totals {
        let totals = &history.totals;
        Totals {
            processes: process_count(history),
            major_faults: whole.counts.major,
            minor_faults: whole.counts.minor,
            failed_faults: whole.counts.failed,
            faults_left_out: history.faults_left_out,
            files_left_out: history.files_left_out,
            programs_left_out: history.programs_left_out,
            pages_left_out: history.pages_left_out,
            segments_left_out: history.segments_left_out,
            slept_ns: ns(whole.slept),
            budget_bytes: totals.budget_bytes,
            peak_frame_bytes: totals.peak_frame_bytes,
            read_bytes: totals.read_bytes,
            supplied_pages: totals.supplied_pages,
            evicted_pages: totals.evicted_pages,
            retries: totals.retries,
            passed_through: totals.passed_through,
            faults_held_back: totals.faults_held_back,
            fault_calls_held_up: totals.fault_calls_held_up,
        }
    }
}

fn files<'a>(history: &'a History, summary: &Summary) -> Vec<File<'a>> {
    let pairs = history.files.iter().zip(&summary.files);
    let row = |(file, part): (&'a crate::history::FileHistory, &Part)| File {
        path: file.path.to_string_lossy().into_owned(),
        path_hex: hex_unless_utf8(file.path.as_os_str()),
        length_bytes: file.length_bytes,
        modified: file.modified,
        mappings: file.mappings,
        pages: file_pages(file),
        touched_pages: file.first_touches.len(),
        major_faults: part.counts.major,
        minor_faults: part.counts.minor,
        failed_faults: part.counts.failed,
        slept_ns: ns(part.slept),
        first_fault_ns: part.first.map(ns),
        last_fault_ns: part.last.map(ns),
        first_touches: runs(file.first_touches.iter().copied()),
        copied: runs(file.copied.iter().copied()),
        failed: failed_runs(file).into_iter().map(Failed::of).collect(),
    };
    pairs.map(row).collect()
}

impl<'a> Failed<'a> {
    fn of((first_page, pages, reason): (u64, u64, &'a str)) -> Failed<'a> {
        Failed { first_page, pages, reason }
    }
}

impl<'a> Process<'a> {
    fn of(process: &'a ProcessHistory, part: &Part) -> Process<'a> {
        Process {
            pid: process.pid,
            parent_pid: process.parent,
            parent: None,
            replaces: None,
            command: texts(&process.command),
            command_hex: texts_hex(&process.command),
            started_ns: ns(process.started),
            ended_ns: process.ended.map(|(at, _)| ns(at)),
            end: process.ended.map(|(_, end)| End::of(end)),
            major_faults: part.counts.major,
            minor_faults: part.counts.minor,
            failed_faults: part.counts.failed,
            slept_ns: ns(part.slept),
            segments: process.segments.iter().map(Segment::of).collect(),
        }
    }
}

impl<'a> Segment<'a> {
    fn of(segment: &'a SegmentRecord) -> Segment<'a> {
        Segment {
            start: segment.start,
            end: segment.end,
            protection: segment.prot.to_string(),
            file: segment.file.map(|(file, _)| file),
            offset: segment.file.map(|(_, offset)| offset),
            name: segment.name.to_string_lossy(),
            name_hex: hex_unless_utf8(&segment.name),
            present_pages: segment.present_pages,
            copied_pages: segment.copied_pages,
        }
    }
}

fn faults(history: &History) -> Vec<Fault> {
    let row = |fault: &crate::history::FaultRecord| {
        let resolution = match fault.resolution {
            Resolution::Supplied => "major",
            Resolution::Resident => "minor",
            Resolution::Failed => "failed",
        };
        (ns(fault.at), ns(fault.duration), fault.process, fault.file, fault.page, resolution)
    };
    history.faults.iter().map(row).collect()
}

/// Nanoseconds, or the most that fit: after 584 years.
fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn texts(words: &[OsString]) -> Vec<String> {
    words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn texts_hex(words: &[OsString]) -> Option<Vec<String>> {
    let is_needed = words.iter().any(|word| word.to_str().is_none());
    is_needed.then(|| words.iter().map(|word| hex(word)).collect())
}

fn hex_unless_utf8(text: &OsStr) -> Option<String> {
    text.to_str().is_none().then(|| hex(text))
}

fn hex(text: &OsStr) -> String {
    text.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
