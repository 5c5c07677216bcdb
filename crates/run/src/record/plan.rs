//! What to prefetch, of a record and of the files as they are now.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{MOST_PAGES, PAGE_BYTES, PageRun, Record, RecordedFile};

/// Pages between two touches that are read over: 64 KiB. Reading them costs less than another request.
const GAP_PAGES: u64 = 16;

/// What to prefetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to read, in this order.
    pub requests: Vec<Prefetch>,
    /// Files that the record tells of, and which are not read.
    pub left_out: Vec<FilePlan>,
}

/// Ranges of one file that come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// The file.
    pub path: PathBuf,
    /// Ranges in bytes, none empty, none longer than 2 MiB, none twice in a plan; all begin at a page, and end at one
    /// or at the end of the file.
    pub ranges: Vec<Range<u64>>,
}

/// A file that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlan {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: LeftOut,
}

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftOut {
    /// It is not there now.
    Missing,
    /// It has another length, or was modified at another time, than when the run was recorded.
    Changed,
}

impl Record {
    /// What to prefetch of the files that are `known` now, in the order in which pages were touched first.
    ///
    /// Pages that are near one another in a file are read together, by the request of the one that was touched first:
    /// gaps of up to 64 KiB are read over, and requests grow up to 2 MiB. It ends before it would ask for more than
    /// `limit_bytes`, the room that frames have: what was fetched first, which is used first, would be evicted.
    ///
    /// Files that are not known or changed since are left out, and named in the order of the record. Of files that
    /// `known` names twice, the last counts.
    pub fn plan(&self, known: &[RecordedFile], limit_bytes: u64) -> Plan {
        let now: HashMap<&Path, &RecordedFile> =
            known.iter().map(|file| (file.path.as_path(), file)).collect();
        let judged: Vec<Option<LeftOut>> = self.files.iter().map(|file| judge(file, &now)).collect();
        let mut requests =
            Requests { all: Vec::new(), by_place: HashMap::new(), descriptors: limit_bytes / PAGE_BYTES };
        // A path that is recorded twice, of two versions, is that of one file now.
        let place = |run: &PageRun| {
            let index = run.file as usize;
            let path = &self.files.get(index)?.path;
            judged[index].is_none().then_some(path.as_path())
        };
        for run in &self.touches {
            if place(run).is_some_and(|path| !requests.touch(path, run)) {
                break;
            }
        }
        let left_out = |(file, reason): (&RecordedFile, Option<LeftOut>)| {
            Some(FilePlan { path: file.path.clone(), reason: reason? })
        };
        Plan {
            requests: requests.gathered(&now),
            left_out: self.files.iter().zip(judged.iter().copied()).filter_map(left_out).collect(),
        }
    }
}

fn judge(file: &RecordedFile, now: &HashMap<&Path, &RecordedFile>) -> Option<LeftOut> {
    match now.get(file.path.as_path()) {
        None => Some(LeftOut::Missing),
        Some(now) if **now != *file => Some(LeftOut::Changed),
        Some(_) => None,
    }
}

/// Ranges of pages of one file, by their first page, each with its number among all requests. None touch or overlap
/// that could be one request.
type Places = BTreeMap<u64, (u64, usize)>;

struct Requests<'a> {
    /// By number: the file and its pages. Without pages: part of an earlier request by now.
    all: Vec<(&'a Path, Range<u64>)>,
    by_place: HashMap<&'a Path, Places>,
    /// Pages that may be asked for yet.
    descriptors: u64,
}

impl<'a> Requests<'a> {
    /// Asks for what is not asked for yet; false if there is no room for it.
    fn touch(&mut self, path: &'a Path, run: &PageRun) -> bool {
        let end = run.first + run.pages;
        let mut at = run.first;
        while at < end {
            let pages = self.uncovered(path, at, end);
            at = pages.end;
            if !pages.is_empty() && !self.add(path, pages) {
                return false;
            }
        }
        true
    }

    /// The first pages in `at..end` that no request has.
    fn uncovered(&self, path: &Path, at: u64, end: u64) -> Range<u64> {
        let Some(places) = self.by_place.get(path) else { return at..end };
        let mut begin = at;
        // A request may begin where another one ends.
        while let Some((_, (until, _))) =
            places.range(..=begin).next_back().filter(|(_, (until, _))| *until > begin)
        {
            begin = *until;
            if begin >= end {
                return end..end;
            }
        }
        let next = places.range(begin + 1..).next().map_or(end, |(first, _)| end.min(*first));
        begin..next
    }

    /// Adds pages that no request has, to one that is near or as one of their own.
    fn add(&mut self, path: &'a Path, pages: Range<u64>) -> bool {
        let places = self.by_place.entry(path).or_default();
        let mut request = Joined { pages, number: self.all.len() };
        let mut known = 0;
        let before = places.range(..request.pages.start).next_back().map(|(first, rest)| (*first, *rest));
        let after = places.range(request.pages.end..).next().map(|(first, rest)| (*first, *rest));
        let mut gone = Vec::new();
        for (first, (until, number)) in [before, after].into_iter().flatten() {
            if let Some(joined) = request.with(first..until, number) {
                request = joined;
                known += until - first;
                gone.push((first, number));
            }
        }
        let more = request.pages.end - request.pages.start - known;
        let Some(room) = self.descriptors.checked_sub(more) else { return false };
        self.descriptors = room;
        for (first, number) in gone {
            places.remove(&first);
            self.all[number].1 = 0..0;
        }
        places.insert(request.pages.start, (request.pages.end, request.number));
        match self.all.get_mut(request.number) {
            Some(earlier) => earlier.1 = request.pages,
            None => self.all.push((path, request.pages)),
        }
        true
    }

    /// The requests by their number, those of one file that follow each other together.
    fn gathered(self, now: &HashMap<&Path, &RecordedFile>) -> Vec<Prefetch> {
        let mut gathered: Vec<Prefetch> = Vec::new();
        for (path, pages) in self.all.into_iter().filter(|(_, pages)| !pages.is_empty()) {
            let length_bytes = now.get(path).map_or(0, |file| file.length_bytes);
            // Within the file, whose length fits.
            let range = pages.start * PAGE_BYTES..(pages.end * PAGE_BYTES).min(length_bytes);
            match gathered.last_mut() {
                Some(last) if last.path == path => last.ranges.push(range),
                _ => gathered.push(Prefetch { path: path.to_path_buf(), ranges: vec![range] }),
            }
        }
        gathered
    }
}

/// A request that grows.
struct Joined {
    pages: Range<u64>,
    number: usize,
}

impl Joined {
    /// Both as one, if the gap is small enough and the whole not too long.
    fn with(&self, other: Range<u64>, number: usize) -> Option<Joined> {
        let (start, end) = (self.pages.start.min(other.start), self.pages.end.max(other.end));
        let both = (self.pages.end - self.pages.start) + (other.end - other.start);
        let fits = end - start <= MOST_PAGES && end - start - both <= GAP_PAGES;
        fits.then(|| Joined { pages: start..end, number: self.number.min(number) })
    }
}
