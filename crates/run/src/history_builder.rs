//! Gathers the history of a run.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use memobj_linux::locks::{Guard, Rank, RankedMutex};

use crate::history::{
    FaultRecord, FileHistory, History, ProcessHistory, ProgramEnd, Resolution, SegmentRecord,
};
use crate::options::Counting;

/// How much of a run is kept, however long it is.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Faults, one by one.
    faults: usize,
    /// Pages in the lists of all files together.
    pages: usize,
    files: usize,
    programs: usize,
    /// Of all programs together.
    segments: usize,
    /// Bytes of a program's arguments.
    command_bytes: usize,
}

const BOUNDS: Bounds = Bounds {
    faults: 1 << 20,
    pages: 1 << 22,
    files: 1 << 16,
    programs: 1 << 16,
    segments: 1 << 20,
    command_bytes: 4096,
};

/// The index of what is not kept.
const LEFT_OUT: usize = usize::MAX;

/// A history that is being made.
#[derive(Debug)]
pub(crate) struct HistoryBuilder {
    begun: Instant,
    counting: Counting,
    bounds: Bounds,
    state: RankedMutex<State>,
}

#[derive(Debug, Default)]
struct State {
    history: History,
    /// For each file the pages that were touched: a word of bits for 64 of them, where there is one.
    touched: Vec<HashMap<u64, u64>>,
    /// Pages and segments that are kept.
    pages: usize,
    segments: usize,
}

impl HistoryBuilder {
    /// With [`Counting::Totals`] nothing is kept but totals.
    pub(crate) fn new(counting: Counting) -> Self {
        let state = RankedMutex::new(Rank::History, State::default());
        Self { begun: Instant::now(), counting, bounds: BOUNDS, state }
    }

    /// How long ago the run began.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// When `moment` was, counted from the beginning of the run.
    pub(crate) fn time_of(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.begun)
    }

    /// What is kept, if anything but totals is.
    fn kept(&self) -> Option<Guard<'_, State>> {
        match self.counting {
            Counting::Totals => None,
            Counting::Touches => Some(self.state.lock()),
        }
    }

    /// Adds a file, and returns its index.
    pub(crate) fn file(&self, file: FileHistory) -> usize {
        let Some(mut state) = self.kept() else { return LEFT_OUT };
        if state.history.files.len() >= self.bounds.files {
            state.history.files_left_out += 1;
            return LEFT_OUT;
        }
        state.touched.push(HashMap::new());
        state.history.files.push(file);
        state.history.files.len() - 1
    }

    /// The path of a file, for messages.
    pub(crate) fn name_of(&self, file: usize) -> String {
        let state = self.state.lock();
        state.history.files.get(file).map_or_else(String::new, |file| file.path.display().to_string())
    }

    /// Counts a mapping of a file.
    pub(crate) fn mapping(&self, file: usize) {
        let Some(mut state) = self.kept() else { return };
        if let Some(file) = state.history.files.get_mut(file) {
            file.mappings += 1;
        }
    }

    /// Counts a mapping that is left to the kernel.
    pub(crate) fn passed_through(&self) {
        self.state.lock().history.totals.passed_through += 1;
    }

    /// Notes what is run.
    pub(crate) fn command(&self, command: &[OsString]) {
        self.state.lock().history.command = command.to_vec();
    }

    /// Adds a program that a process begins, and returns its index.
    pub(crate) fn program(&self, pid: u32, parent: u32, command: Vec<OsString>) -> usize {
        let started = self.now();
        let Some(mut state) = self.kept() else { return LEFT_OUT };
        if state.history.processes.len() >= self.bounds.programs {
            state.history.programs_left_out += 1;
            return LEFT_OUT;
        }
        let mut room = self.bounds.command_bytes;
        let fits = |word: &OsString| {
            let left = room.checked_sub(word.len());
            room = left.unwrap_or(0);
            left.is_some()
        };
        let command = command.into_iter().take_while(fits).collect();
        state.history.processes.push(ProcessHistory { pid, parent, command, started, ..Default::default() });
        state.history.processes.len() - 1
    }

    /// Notes how a program ended, unless that is known.
    pub(crate) fn ended(&self, program: usize, end: ProgramEnd) {
        let now = self.now();
        let Some(mut state) = self.kept() else { return };
        if let Some(process) = state.history.processes.get_mut(program) {
            process.ended.get_or_insert((now, end));
        }
    }

    /// Notes what a program had, and which pages of files it had copied.
    pub(crate) fn segments(&self, program: usize, mut segments: Vec<SegmentRecord>, copied: &[(usize, u64)]) {
        let Some(mut state) = self.kept() else { return };
        let state = &mut *state;
        let files = state.history.files.len();
        segments.iter_mut().for_each(|segment| segment.file = segment.file.filter(|(file, _)| *file < files));
        if let Some(process) = state.history.processes.get_mut(program) {
            state.segments -= process.segments.len();
            let room = self.bounds.segments - state.segments;
            state.history.segments_left_out += segments.len().saturating_sub(room) as u64;
            process.segments = segments;
            process.segments.truncate(room);
            state.segments += process.segments.len();
        }
        for (file, page) in copied {
            let Some(file) = state.history.files.get_mut(*file) else { continue };
            let Err(at) = file.copied.binary_search(page) else { continue };
            if state.pages < self.bounds.pages {
                file.copied.insert(at, *page);
                state.pages += 1;
            } else {
                state.history.pages_left_out += 1;
            }
        }
    }

    /// Adds a fault.
    pub(crate) fn fault(&self, record: FaultRecord) {
        let Some(mut state) = self.kept() else { return };
        let State { history, touched, pages, .. } = &mut *state;
        if let (Some(words), Some(file)) = (touched.get_mut(record.file), history.files.get_mut(record.file))
        {
            let (at, bit) = (record.page / 64, 1 << (record.page % 64));
            let is_new = words.get(&at).is_none_or(|word| word & bit == 0);
            if is_new && *pages < self.bounds.pages {
                *words.entry(at).or_default() |= bit;
                file.first_touches.push(record.page);
                *pages += 1;
            } else if is_new {
                history.pages_left_out += 1;
            }
        }
        let is_of_ours = record.file < history.files.len() && record.process < history.processes.len();
        match is_of_ours && history.faults.len() < self.bounds.faults {
            true => history.faults.push(record),
            false => history.faults_left_out += 1,
        }
    }

    /// Notes a page that could not be supplied.
    pub(crate) fn failed(&self, record: FaultRecord, why: &str) {
        debug_assert_eq!(record.resolution, Resolution::Failed);
        self.fault(record);
        let Some(mut state) = self.kept() else { return };
        let state = &mut *state;
        let Some(file) = state.history.files.get_mut(record.file) else { return };
        let Err(at) = file.failed.binary_search_by_key(&record.page, |(page, _)| *page) else { return };
        if state.pages < self.bounds.pages {
            file.failed.insert(at, (record.page, why.to_string()));
            state.pages += 1;
        } else {
            state.history.pages_left_out += 1;
        }
    }

    /// The history so far.
    pub(crate) fn history(&self) -> History {
        let mut history = self.state.lock().history.clone();
        history.duration = self.now();
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Bounds = Bounds { faults: 5, pages: 6, files: 2, programs: 3, segments: 4, command_bytes: 10 };

    fn fault(process: usize, file: usize, page: u64) -> FaultRecord {
        let (at, duration) = (Duration::ZERO, Duration::ZERO);
        FaultRecord { at, duration, process, file, page, resolution: Resolution::Supplied }
    }

    fn file(length_bytes: u64) -> FileHistory {
        FileHistory { length_bytes, ..Default::default() }
    }

    /// A run of many programs, files, pages and segments.
    fn busy(history_builder: &HistoryBuilder) -> History {
        for round in 0..20 {
            let file = history_builder.file(file(u64::MAX));
            history_builder.mapping(file);
            let program = history_builder.program(round, 1, vec!["make".into(), "x".repeat(100).into()]);
            for page in 0..10 {
                history_builder.fault(fault(program, file, page << 40));
                let failed = FaultRecord { resolution: Resolution::Failed, ..fault(program, file, page) };
                history_builder.failed(failed, "input/output error");
            }
            history_builder.segments(program, vec![SegmentRecord::default(); 3], &[(file, 7), (file, 9)]);
            history_builder.ended(program, ProgramEnd::Exited(0));
            history_builder.passed_through();
        }
        history_builder.history()
    }

    #[test]
    fn a_run_that_nobody_reports_keeps_totals_only() {
        let history = busy(&HistoryBuilder::new(Counting::Totals));
        let totals = history.totals;
        assert_eq!(totals.passed_through, 20);
        assert_eq!(History { duration: Duration::ZERO, ..history }, History { totals, ..History::default() });
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_rest_is_counted() {
        let history = busy(&HistoryBuilder { bounds: FEW, ..HistoryBuilder::new(Counting::Touches) });
        assert_eq!((history.files.len(), history.processes.len(), history.faults.len()), (2, 3, 5));
        assert_eq!((history.files_left_out, history.programs_left_out), (18, 17));
        assert_eq!(history.faults_left_out, 20 * 20 - 5);
        let pages = |file: &FileHistory| file.first_touches.len() + file.copied.len() + file.failed.len();
        assert_eq!(history.files.iter().map(pages).sum::<usize>(), 6);
        assert!(history.pages_left_out > 0);
        assert_eq!(history.processes.iter().map(|process| process.segments.len()).sum::<usize>(), 4);
        assert_eq!(history.segments_left_out, 5);
        assert_eq!(history.processes[0].command, ["make"]);
    }
}
