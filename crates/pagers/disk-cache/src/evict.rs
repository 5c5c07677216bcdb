//! Evicts what was not used for the longest time, and puts the directory in order.
//!
//! ```text
//!   turn: one process at a time
//!     1  leftovers of dead processes, and what is in removed/, are deleted
//!     2  numbers before; scan; heal the numbers          nobody waits for a scan
//!     3  the oldest blocks are unlinked until the bytes in use are as wanted
//! ```
//!
//! Blocks are deleted in here only, so a scan sees no block go that it has counted. Others put blocks into `removed/`, where they
//! count until they are deleted.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Timestamps, futimens};

use crate::counters::HandleCounters;
use crate::directory::{REMOVED, size};
use crate::format;
use crate::lock_file::{LockFile, Locked};
use crate::scan::{Candidate, found, scan};
use crate::store::Store;

const NAME: &str = "turn";
/// So many blocks are deleted before the numbers are changed.
const BATCH: usize = 64;
/// A process that opens the directory scans it if that was not done for so long.
const SCAN_EVERY: Duration = Duration::from_secs(600);

/// Deletes blocks of a directory.
#[derive(Debug)]
pub(crate) struct Evictor {
    store: Arc<Store>,
    turn: LockFile,
    counters: Arc<HandleCounters>,
}

impl Evictor {
    pub(crate) fn open(store: Arc<Store>, counters: Arc<HandleCounters>) -> io::Result<Self> {
        let turn = LockFile::open(&store.directory, NAME)?;
        Ok(Self { store, turn, counters })
    }

    /// Above this blocks are evicted: seven eighths of the budget.
    pub(crate) fn high(&self) -> u64 {
        self.store.budget - self.store.budget / 8
    }

    /// Until this is in use: three quarters.
    fn low(&self) -> u64 {
        self.store.budget - self.store.budget / 4
    }

    /// Evicts if too much is in use, if no other process is at it.
    pub(crate) fn evict_if_high(&self) -> io::Result<()> {
        if self.store.usage.lock()?.numbers.used() <= self.high() {
            return Ok(());
        }
        self.evict_to(self.low())
    }

    /// Evicts until `charge` more bytes fit, if no other process is at it.
    pub(crate) fn make_room(&self, charge: u64) -> io::Result<()> {
        self.evict_to(self.low().min(self.store.budget.saturating_sub(charge)))
    }

    fn evict_to(&self, most: u64) -> io::Result<()> {
        match self.turn.try_lock()? {
            Some(turn) => self.in_order(&turn, most),
            None => Ok(()),
        }
    }

    /// Counts anew what is in use, deletes what is left of dead processes, and evicts what is above the budget. Waits for
    /// another process that is at it.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let turn = self.turn.lock()?;
        self.in_order(&turn, self.store.budget)
    }

    /// What a process does that opens the directory.
    pub(crate) fn tidy_if_due(&self) -> io::Result<()> {
        let Some(turn) = self.turn.try_lock()? else { return Ok(()) };
        let age = turn.metadata()?.modified()?.elapsed().unwrap_or(SCAN_EVERY);
        if age >= SCAN_EVERY
            || turn.metadata()?.len() == 0
            || self.store.usage.lock()?.numbers.used() > self.high()
        {
            return self.in_order(&turn, self.high());
        }
        self.store.usage.remove_leftovers()?;
        self.delete_removed()
    }

    /// Deletes what was removed from its place, if no other process is at it.
    pub(crate) fn delete_removed_now(&self) -> io::Result<()> {
        match self.turn.try_lock()? {
            Some(_turn) => self.delete_removed(),
            None => Ok(()),
        }
    }

    fn in_order(&self, turn: &Locked<'_>, most: u64) -> io::Result<()> {
        let store = &self.store;
        store.usage.remove_leftovers()?;
        self.delete_removed()?;
        let before = store.usage.lock()?.numbers;
        // Twice as much, since the number can be too low.
        let wanted = before.used().saturating_sub(most).saturating_mul(2);
        let scan = scan(&store.directory, wanted.max(store.budget / 16))?;
        let used = {
            let mut locked = store.usage.lock()?;
            locked.numbers.heal(scan.total, before);
            locked.store()?;
            locked.numbers.used()
        };
        let (candidates, folders) = scan.into_candidates();
        self.evict(&candidates, &folders, used.saturating_sub(most))?;
        // Anything but an empty file: a scan was done.
        turn.set_len(1)?;
        Ok(futimens(&**turn, &now())?)
    }

    fn evict(&self, candidates: &[Candidate], folders: &[String], bytes: u64) -> io::Result<()> {
        let (mut left, mut emptied) = (bytes, BTreeSet::new());
        for batch in candidates.chunks(BATCH) {
            if left == 0 {
                break;
            }
            let mut freed: u64 = 0;
            for candidate in batch {
                if left == 0 {
                    break;
                }
                let Some(path) = candidate.path(folders) else { continue };
                // It can be gone: moved to be removed.
                if self.store.directory.unlink(&path).is_ok() {
                    freed = freed.saturating_add(candidate.charge);
                    left = left.saturating_sub(candidate.charge);
                    emptied.extend(candidate.folder(folders));
                }
            }
            self.free(freed)?;
            self.counters.evicted_bytes.add(freed);
        }
        for folder in emptied {
            self.store.directory.remove_if_empty(folder);
        }
        Ok(())
    }

    fn free(&self, bytes: u64) -> io::Result<()> {
        match bytes {
            0 => Ok(()),
            bytes => self.store.usage.lock()?.free(bytes),
        }
    }

    /// Blocks, and folders of blocks.
    fn delete_removed(&self) -> io::Result<()> {
        let directory = &self.store.directory;
        for name in directory.names(REMOVED)? {
            let name = format!("{REMOVED}/{name}");
            let freed = self.delete(&name)?;
            self.free(freed)?;
            for inner in directory.names(&name)? {
                let freed = self.delete(&format!("{name}/{inner}"))?;
                self.free(freed)?;
            }
            directory.remove_if_empty(&name);
        }
        Ok(())
    }

    /// Deletes what is no folder, and says what it counted. A file with a second name stays: it counts by that.
    fn delete(&self, name: &str) -> io::Result<u64> {
        let directory = &self.store.directory;
        let counted = match found(directory, name)? {
            Some(stat) if stat.st_nlink > 1 => return Ok(0),
            Some(stat) => format::charge(size(&stat)),
            None => 0,
        };
        match directory.unlink(name) {
            Ok(()) => Ok(counted),
            // A folder.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn now() -> Timestamps {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    Timestamps { last_access: now, last_modification: now }
}
