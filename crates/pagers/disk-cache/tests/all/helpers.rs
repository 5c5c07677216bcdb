//! What the tests share.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use memobj::SupplyError;
use memobj::pagers::{Blocking, BlockingPager, Description, Pager, PagerReports, SupplyRequest};
use memobj_disk_cache::{DiskCache, DiskCacheOptions};
use memobj_sim::fixture::{GUARD, folder, sample_bytes};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const BLOCK: u64 = 64 * KIB;

/// Gives a blocking pager a version and blocks.
pub(crate) struct Versioned<P>(pub(crate) P, pub(crate) &'static str, pub(crate) u64);

impl<P: BlockingPager> Pager for Versioned<P> {
    fn describe(&self) -> Description {
        let description = Description::new(self.0.length()).version(self.1).block_bytes(self.2);
        if self.0.is_writable() { description.writable() } else { description }
    }
    fn attach(&self, reports: PagerReports) {
        drop(reports);
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("inner_counter", 7)]
    }
    fn supply(&self, request: SupplyRequest) {
        Blocking(&self.0).supply(request);
    }
    fn write_back(&self, request: memobj::pagers::WriteRequest) {
        Blocking(&self.0).write_back(request);
    }
    fn sync(&self, request: memobj::pagers::SyncRequest) {
        Blocking(&self.0).sync(request);
    }
    fn set_length(&self, request: memobj::pagers::LengthRequest) {
        Blocking(&self.0).set_length(request);
    }
    fn detach(&self) {
        self.0.detach();
    }
}

/// A directory that goes when the test ends.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(folder()).unwrap()
}

pub(crate) fn open(directory: &Path, budget_bytes: u64) -> DiskCache {
    DiskCache::open(directory.join("blocks"), DiskCacheOptions::new().budget_bytes(budget_bytes)).unwrap()
}

pub(crate) type Answer = Result<Vec<u8>, SupplyError>;

pub(crate) fn ask<P: Pager + ?Sized>(pager: &P, range: Range<u64>) -> Receiver<Answer> {
    let (sender, answer) = channel();
    let request = SupplyRequest::new(range, move |answer| {
        // Who asked may have ended by a panic.
        let _ = sender.send(answer.map(<[u8]>::to_vec));
    });
    pager.supply(request.unwrap());
    answer
}

pub(crate) fn wait(answer: &Receiver<Answer>) -> Answer {
    answer.recv_timeout(GUARD).expect("an answer")
}

pub(crate) fn read<P: Pager + ?Sized>(pager: &P, range: Range<u64>) -> Vec<u8> {
    wait(&ask(pager, range)).unwrap()
}

/// Answers with the bytes of a sample.
pub(crate) fn answer(mut request: SupplyRequest) {
    let range = request.range();
    request.fill(range.start, &sample_bytes(range.end)[range.start as usize..]).unwrap();
    request.done();
}

pub(crate) fn settle(cache: &DiskCache) {
    assert!(cache.settle(GUARD), "blocks still wait to be written");
}

pub(crate) fn counters<P: Pager>(pager: &P) -> BTreeMap<&'static str, u64> {
    pager.counters().into_iter().collect()
}

pub(crate) fn count<P: Pager>(pager: &P, name: &str) -> u64 {
    counters(pager)[format!("disk_cache_{name}").as_str()]
}

/// Files below `folder`.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// Files of blocks.
pub(crate) fn blocks(directory: &Path) -> Vec<PathBuf> {
    let root = directory.join("blocks");
    let other = ["tmp", "removed"].map(|name| root.join(name));
    let is_block =
        |path: &PathBuf| path.parent() != Some(&root) && !other.iter().any(|other| path.starts_with(other));
    files(&root).into_iter().filter(is_block).collect()
}

/// What the files below the directory count.
pub(crate) fn bytes_on_disk(directory: &Path) -> u64 {
    let sizes = files(&directory.join("blocks")).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        let counts = !matches!(name.as_str(), "usage" | "turn");
        counts.then(|| std::fs::metadata(path).map_or(0, |data| data.len()))
    });
    sizes.sum()
}

/// Gives the block `age` seconds more.
pub(crate) fn make_older(path: &Path, seconds: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
    file.set_modified(then).unwrap();
}
