//! A record of a history.

use std::collections::HashSet;

use super::{MOST_PAGES, PageRun, Record, RecordedFile};
use crate::history::{FileHistory, History, Resolution};

impl Record {
    /// The first touches of a run.
    ///
    /// The order over all files is that of the faults. Pages whose first fault the history left out, since there were
    /// too many, come after these, file by file in the order in which each file's were touched. Pages that could not
    /// be supplied are left out, and so are files without a page.
    pub fn from_history(history: &History) -> Record {
        let mut gathered =
            TouchesOnce { seen: vec![HashSet::new(); history.files.len()], touches: Vec::new() };
        for fault in history.faults.iter().filter(|fault| fault.resolution != Resolution::Failed) {
            if let Some(file) = history.files.get(fault.file) {
                gathered.touch(fault.file, file, fault.page);
            }
        }
        for (index, file) in history.files.iter().enumerate() {
            for page in file.first_touches.iter().filter(|page| !has_failed(file, **page)) {
                gathered.touch(index, file, *page);
            }
        }
        gathered.record(&history.files)
    }
}

fn has_failed(file: &FileHistory, page: u64) -> bool {
    file.failed.binary_search_by_key(&page, |(failed, _)| *failed).is_ok()
}

struct TouchesOnce {
    seen: Vec<HashSet<u64>>,
    /// The file's index in the history, its page, and how many.
    touches: Vec<(usize, u64, u64)>,
}

impl TouchesOnce {
    /// Counts the page, if it is one of the file's and not there yet.
    fn touch(&mut self, index: usize, file: &FileHistory, page: u64) {
        let pages = file.length_bytes.div_ceil(super::PAGE_BYTES);
        if page >= pages || !self.seen[index].insert(page) {
            return;
        }
        match self.touches.last_mut() {
            Some((of, first, count)) if *of == index && *first + *count == page && *count < MOST_PAGES => {
                *count += 1
            }
            _ => self.touches.push((index, page, 1)),
        }
    }

    /// The record, with the files that have touches only.
    fn record(self, files: &[FileHistory]) -> Record {
        let mut record = Record::default();
        let mut numbers: Vec<Option<u32>> = vec![None; files.len()];
        for (index, file) in files.iter().enumerate().filter(|(index, _)| !self.seen[*index].is_empty()) {
            let Ok(number) = u32::try_from(record.files.len()) else { break };
            let Some(recorded) = super::format::storable(file) else { continue };
            numbers[index] = Some(number);
            record.files.push(recorded);
        }
        for (index, first, pages) in self.touches {
            if let Some(file) = numbers[index] {
                record.touches.push(PageRun { file, first, pages });
            }
        }
        record
    }
}

impl From<&FileHistory> for RecordedFile {
    fn from(file: &FileHistory) -> RecordedFile {
        RecordedFile { path: file.path.clone(), length_bytes: file.length_bytes, modified: file.modified }
    }
}
