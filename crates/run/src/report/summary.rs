//! What all reports count.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use crate::history::{FaultRecord, FileHistory, History, ProgramEnd, Resolution};

/// Bytes of a page.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Faults by what was done about them. Faults that the history left out are in none of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// The page was obtained from the file.
    pub(super) major: u64,
    /// A frame had it already.
    pub(super) minor: u64,
    /// The page could not be supplied.
    pub(super) failed: u64,
}

impl Counts {
    fn add(&mut self, resolution: Resolution) {
        match resolution {
            Resolution::Supplied => self.major += 1,
            Resolution::Resident => self.minor += 1,
            Resolution::Failed => self.failed += 1,
        }
    }

    /// All of them.
    pub(super) fn all(self) -> u64 {
        self.major + self.minor + self.failed
    }
}

/// The faults on one file, or by one process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub(super) counts: Counts,
    /// How long processes slept on them.
    pub(super) slept: Duration,
    /// When the first was read.
    pub(super) first: Option<Duration>,
    /// When the last was read.
    pub(super) last: Option<Duration>,
}

impl Part {
    fn add(&mut self, fault: &FaultRecord) {
        self.counts.add(fault.resolution);
        self.slept = self.slept.saturating_add(fault.duration);
        self.first = Some(self.first.map_or(fault.at, |first| first.min(fault.at)));
        self.last = Some(self.last.map_or(fault.at, |last| last.max(fault.at)));
    }
}

/// The counts of a run. `files` and `processes` are as long as those of the history.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) whole: Part,
    pub(super) files: Vec<Part>,
    pub(super) processes: Vec<Part>,
}

impl Summary {
    /// Counts. A fault on a file or by a process that is not in the history counts for the whole only.
    pub(super) fn of(history: &History) -> Summary {
        let mut summary = Summary {
            whole: Part::default(),
            files: vec![Part::default(); history.files.len()],
            processes: vec![Part::default(); history.processes.len()],
        };
        for fault in &history.faults {
            summary.whole.add(fault);
            if let Some(file) = summary.files.get_mut(fault.file) {
                file.add(fault);
            }
            if let Some(process) = summary.processes.get_mut(fault.process) {
                process.add(fault);
            }
        }
        summary
    }
}

/// Pages of the file; its last one may be cut short.
pub(super) fn file_pages(file: &FileHistory) -> u64 {
    file.length_bytes.div_ceil(PAGE_BYTES)
}

/// The program that was asked for and its arguments; if the history does not say, those of the first process.
pub(super) fn command(history: &History) -> Vec<OsString> {
    match history.processes.first() {
        Some(first) if history.command.is_empty() => first.command.clone(),
        _ => history.command.clone(),
    }
}

/// How the program that was asked for ended: the last one that the first process ran.
pub(super) fn outcome(history: &History) -> Option<ProgramEnd> {
    let first = history.processes.first()?;
    let last = history.processes.iter().rev().find(|process| process.pid == first.pid)?;
    last.ended.map(|(_, end)| end)
}

/// How many processes there were: programs that did not take the place of another one.
pub(super) fn process_count(history: &History) -> usize {
    places(history).iter().filter(|place| place.replaces.is_none()).count()
}

/// Where a program is in the tree of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The program that made the process, an index in the history's processes; always less than this one's own.
    pub(super) parent: Option<usize>,
    /// The program of the same process whose place it took.
    pub(super) replaces: Option<usize>,
}

/// The place of every program. Numbers of processes are used again, so a parent is the last program of that number
/// before the child, and only a program that ended by exec is replaced.
pub(super) fn places(history: &History) -> Vec<Place> {
    let mut latest: HashMap<u32, usize> = HashMap::new();
    let mut places: Vec<Place> = Vec::with_capacity(history.processes.len());
    for (index, process) in history.processes.iter().enumerate() {
        let was_replaced =
            |earlier: &usize| matches!(history.processes[*earlier].ended, Some((_, ProgramEnd::Replaced)));
        let replaces = latest.get(&process.pid).copied().filter(was_replaced);
        let parent = match replaces {
            Some(earlier) => places[earlier].parent,
            None => latest.get(&process.parent).copied().filter(|_| process.parent != process.pid),
        };
        places.push(Place { parent, replaces });
        latest.insert(process.pid, index);
    }
    places
}

/// The programs with their depth, each behind the one that made it or whose place it took.
pub(super) fn tree(history: &History) -> Vec<(usize, usize)> {
    let places = places(history);
    let mut below: Vec<Vec<usize>> = vec![Vec::new(); places.len()];
    let mut stack: Vec<(usize, usize)> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        match place.replaces.or(place.parent) {
            Some(above) => below[above].push(index),
            None => stack.push((index, 0)),
        }
    }
    stack.reverse();
    let mut tree = Vec::with_capacity(places.len());
    while let Some((index, depth)) = stack.pop() {
        tree.push((index, depth));
        for child in below[index].iter().rev() {
            // What takes another's place is beside it, not below.
            let deeper = usize::from(places[*child].replaces.is_none());
            stack.push((*child, depth + deeper));
        }
    }
    tree
}
