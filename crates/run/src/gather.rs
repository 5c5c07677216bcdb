//! Gathers the history of a run.

use std::ffi::OsString;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::history::{
    FaultRecord, FileHistory, History, ProcessHistory, ProgramEnd, Resolution, SegmentRecord,
};

/// Faults that are kept one by one.
const MOST_FAULTS: usize = 1 << 20;

/// A history that is being made.
#[derive(Debug)]
pub(crate) struct Gather {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    history: History,
    /// For each file a bit for each page that was touched.
    touched: Vec<Vec<u64>>,
}

impl Gather {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the run began.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Adds a file, and returns its index.
    pub(crate) fn file(&self, file: FileHistory) -> usize {
        let mut state = self.lock();
        state.touched.push(vec![0; file.length_bytes.div_ceil(4096 * 64) as usize]);
        state.history.files.push(file);
        state.history.files.len() - 1
    }

    /// The path of a file, for messages.
    pub(crate) fn name_of(&self, file: usize) -> String {
        let state = self.lock();
        state.history.files.get(file).map_or_else(String::new, |file| file.path.display().to_string())
    }

    /// Counts a mapping of a file.
    pub(crate) fn mapping(&self, file: usize) {
        if let Some(file) = self.lock().history.files.get_mut(file) {
            file.mappings += 1;
        }
    }

    /// Counts a mapping that is left to the kernel.
    pub(crate) fn passed_through(&self) {
        self.lock().history.totals.passed_through += 1;
    }

    /// Notes what is run.
    pub(crate) fn command(&self, command: &[OsString]) {
        self.lock().history.command = command.to_vec();
    }

    /// Adds a program that a process begins, and returns its index.
    pub(crate) fn program(&self, pid: u32, parent: u32, command: Vec<String>) -> usize {
        let started = self.now();
        let mut state = self.lock();
        state.history.processes.push(ProcessHistory { pid, parent, command, started, ..Default::default() });
        state.history.processes.len() - 1
    }

    /// Notes how a program ended, unless that is known.
    pub(crate) fn ended(&self, program: usize, end: ProgramEnd) {
        let now = self.now();
        if let Some(process) = self.lock().history.processes.get_mut(program) {
            process.ended.get_or_insert((now, end));
        }
    }

    /// Notes what a program had, and which pages of files it had copied.
    pub(crate) fn segments(&self, program: usize, segments: Vec<SegmentRecord>, copied: &[(usize, u64)]) {
        let mut state = self.lock();
        if let Some(process) = state.history.processes.get_mut(program) {
            process.segments = segments;
        }
        for (file, page) in copied {
            let Some(file) = state.history.files.get_mut(*file) else { continue };
            if let Err(at) = file.copied.binary_search(page) {
                file.copied.insert(at, *page);
            }
        }
    }

    /// Adds a fault.
    pub(crate) fn fault(&self, record: FaultRecord) {
        let mut state = self.lock();
        let State { history, touched } = &mut *state;
        let word = touched.get_mut(record.file).and_then(|words| words.get_mut(record.page as usize / 64));
        if let (Some(word), Some(file)) = (word, history.files.get_mut(record.file))
            && *word & 1 << (record.page % 64) == 0
        {
            *word |= 1 << (record.page % 64);
            file.first_touches.push(record.page);
        }
        match history.faults.len() < MOST_FAULTS {
            true => history.faults.push(record),
            false => history.faults_left_out += 1,
        }
    }

    /// Notes a page that could not be supplied.
    pub(crate) fn failed(&self, record: FaultRecord, why: &str) {
        debug_assert_eq!(record.resolution, Resolution::Failed);
        self.fault(record);
        let mut state = self.lock();
        let Some(file) = state.history.files.get_mut(record.file) else { return };
        if let Err(at) = file.failed.binary_search_by_key(&record.page, |(page, _)| *page) {
            file.failed.insert(at, (record.page, why.to_string()));
        }
    }

    /// The history so far.
    pub(crate) fn history(&self) -> History {
        let mut history = self.lock().history.clone();
        history.duration = self.now();
        history
    }
}
