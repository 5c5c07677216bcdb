//! What is in the directory: how much, and what was not used for the longest time.

use std::collections::{BinaryHeap, HashSet};
use std::io;

use rustix::fs::Stat;

use crate::directory::{Directory, REMOVED, TEMPORARY, is_file, size};
use crate::format;

/// A block that can be evicted. The order is that of use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Candidate {
    /// Nanoseconds since 1970 of the file's last modification: when it was written or used.
    used_at: i128,
    number: u64,
    folder: usize,
    pub(crate) charge: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// What all that was found counts in the budget.
    pub(crate) total: u64,
    folders: Vec<String>,
    /// The newest on top.
    oldest: BinaryHeap<Candidate>,
    oldest_bytes: u64,
    /// Inodes that are counted already: a block can be seen under two names while it moves.
    counted: HashSet<u64>,
}

/// Looks at everything. Keeps candidates of `wanted` bytes, those that were not used for the longest time.
///
/// Files move from [`TEMPORARY`] to their folders, and from these to [`REMOVED`]. They are looked at in this order, so none is
/// missed.
pub(crate) fn scan(directory: &Directory, wanted: u64) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for name in directory.names(TEMPORARY)? {
        if let (Some(charge), Some(stat)) =
            (charge_of_temporary(&name), found(directory, &format!("{TEMPORARY}/{name}"))?)
        {
            scan.counted.insert(stat.st_ino);
            scan.total = scan.total.saturating_add(charge);
        }
    }
    for first in directory.names(".")?.into_iter().filter(|name| is_hex(name, 2)) {
        for rest in directory.names(&first)?.into_iter().filter(|name| is_hex(name, 62)) {
            scan.folder(directory, format!("{first}/{rest}"), wanted)?;
        }
    }
    for name in directory.names(REMOVED)? {
        scan.removed(directory, &format!("{REMOVED}/{name}"))?;
    }
    Ok(scan)
}

impl Scan {
    fn folder(&mut self, directory: &Directory, folder: String, wanted: u64) -> io::Result<()> {
        let index = self.folders.len();
        for name in directory.names(&folder)? {
            let Some(number) = name.parse::<u64>().ok().filter(|number| number.to_string() == name) else {
                continue;
            };
            if let Some(stat) = found(directory, &format!("{folder}/{name}"))? {
                self.block(index, number, &stat, wanted);
            }
        }
        self.folders.push(folder);
        Ok(())
    }

    fn count(&mut self, stat: &Stat) -> u64 {
        let charge = format::charge(size(stat));
        if !self.counted.contains(&stat.st_ino) {
            self.total = self.total.saturating_add(charge);
        }
        charge
    }

    fn block(&mut self, folder: usize, number: u64, stat: &Stat, wanted: u64) {
        let charge = self.count(stat);
        // A second name: somebody is just publishing it, or died while doing so.
        if stat.st_nlink > 1 {
            return;
        }
        let used_at = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        self.oldest.push(Candidate { used_at, number, folder, charge });
        self.oldest_bytes = self.oldest_bytes.saturating_add(charge);
        while let Some(newest) = self.oldest.peek()
            && self.oldest_bytes - newest.charge >= wanted
        {
            self.oldest_bytes -= newest.charge;
            self.oldest.pop();
        }
    }

    /// A block, or a folder of blocks. Blocks can be seen here that were counted in their folder: that is too much for a
    /// while, which harms nothing.
    fn removed(&mut self, directory: &Directory, name: &str) -> io::Result<()> {
        if let Some(stat) = found(directory, name)? {
            self.count(&stat);
            return Ok(());
        }
        for inner in directory.names(name)? {
            if let Some(stat) = found(directory, &format!("{name}/{inner}"))? {
                self.count(&stat);
            }
        }
        Ok(())
    }

    /// Candidates, the one that was not used for the longest time first, and their files.
    pub(crate) fn into_candidates(self) -> (Vec<Candidate>, Vec<String>) {
        (self.oldest.into_sorted_vec(), self.folders)
    }
}

impl Candidate {
    pub(crate) fn path(&self, folders: &[String]) -> Option<String> {
        Some(format!("{}/{}", folders.get(self.folder)?, self.number))
    }

    pub(crate) fn folder<'a>(&self, folders: &'a [String]) -> Option<&'a str> {
        folders.get(self.folder).map(String::as_str)
    }
}

/// What a file is, or `None` if it is none or no longer there.
pub(crate) fn found(directory: &Directory, name: &str) -> io::Result<Option<Stat>> {
    match directory.stat(name) {
        Ok(stat) => Ok(Some(stat).filter(is_file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_hex(name: &str, digits: usize) -> bool {
    name.len() == digits && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of a temporary file ends with what it counts in the budget, so that whoever finds it knows.
pub(crate) fn charge_of_temporary(name: &str) -> Option<u64> {
    name.strip_prefix("w-")?.rsplit_once('-')?.1.parse().ok()
}
