//! How many bytes are in use: a number in a file that all processes share, changed under a lock.
//!
//! ```text
//!   reserve     lock: used + charge <= budget ? add, make tmp/w-..-charge and lock it : no room          unlock
//!   publish                                                      link to its name, drop the temporary one
//!   give back   lock: drop the temporary name, subtract                                                  unlock
//!   evict       unlink blocks, then                lock: subtract                                        unlock
//! ```
//!
//! Bytes are added before a file appears and subtracted after it is gone. A process that dies in between leaves the number too
//! high and never too low; [`heal`](Numbers::heal) puts it right.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock, fstat};
use twox_hash::XxHash3_64;

use crate::directory::{Directory, TEMPORARY};
use crate::lock_file::{LockFile, Locked};
use crate::scan::{charge_of_temporary, scan};

const NAME: &str = "usage";
const MAGIC: &[u8; 8] = b"memobjDU";
const RECORD_BYTES: usize = 32;

/// All bytes that were ever added, and all that were ever subtracted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) reserved: u64,
    pub(crate) freed: u64,
}

impl Numbers {
    pub(crate) fn used(self) -> u64 {
        self.reserved.saturating_sub(self.freed)
    }

    /// Corrects the number of bytes in use by a scan that found `total` bytes. It began when the numbers were `before`.
    ///
    /// What is in the directory now is at most what was found and what was reserved since, and at least what was found
    /// without what was subtracted since. So the numbers are corrected while others go on.
    pub(crate) fn heal(&mut self, total: u64, before: Numbers) {
        let (Some(reserved), Some(freed)) =
            (self.reserved.checked_sub(before.reserved), self.freed.checked_sub(before.freed))
        else {
            // Somebody began to count anew.
            return;
        };
        let most = total.saturating_add(reserved);
        let least = total.saturating_sub(freed);
        self.freed = self.freed.saturating_add(self.used().saturating_sub(most));
        self.reserved = self.reserved.saturating_add(least.saturating_sub(self.used()));
    }

    fn encode(self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        let (fields, checksum) = record.split_at_mut(24);
        fields[..8].copy_from_slice(MAGIC);
        fields[8..16].copy_from_slice(&self.reserved.to_le_bytes());
        fields[16..].copy_from_slice(&self.freed.to_le_bytes());
        checksum.copy_from_slice(&XxHash3_64::oneshot(fields).to_le_bytes());
        record
    }

    fn decode(record: &[u8; RECORD_BYTES]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
        let numbers = Self { reserved: number(8)?, freed: number(16)? };
        (numbers.encode() == *record).then_some(numbers)
    }
}

#[derive(Debug)]
pub(crate) struct Usage {
    directory: Arc<Directory>,
    lock: LockFile,
    /// Names of temporary files begin with it; no two handles have the same.
    mark: u64,
    next: AtomicU64,
}

/// The numbers, while nobody else changes them.
pub(crate) struct LockedUsage<'a> {
    file: Locked<'a>,
    pub(crate) numbers: Numbers,
}

impl LockedUsage<'_> {
    pub(crate) fn store(&self) -> io::Result<()> {
        self.file.write_all_at(&self.numbers.encode(), 0)
    }

    pub(crate) fn free(&mut self, bytes: u64) -> io::Result<()> {
        self.numbers.freed = self.numbers.freed.saturating_add(bytes);
        self.store()
    }
}

/// A file that is being written, and the bytes that are reserved for it. It is locked as long as its process lives.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) file: File,
    pub(crate) name: String,
    charge: u64,
}

impl Usage {
    pub(crate) fn open(directory: &Arc<Directory>) -> io::Result<Self> {
        let lock = LockFile::open(directory, NAME)?;
        // The keys of a RandomState are the process's random numbers; the time and the number tell forked ones apart.
        let mark = RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
        Ok(Self { directory: Arc::clone(directory), lock, mark, next: AtomicU64::new(0) })
    }

    /// A random number that no other handle has.
    pub(crate) fn mark(&self) -> u64 {
        self.mark
    }

    /// Waits for others that have the lock. A file that is not right, as a new one, is made by counting.
    pub(crate) fn lock(&self) -> io::Result<LockedUsage<'_>> {
        let file = self.lock.lock()?;
        let mut record = [0; RECORD_BYTES];
        let read = file.read_exact_at(&mut record, 0).is_ok();
        if let Some(numbers) = Numbers::decode(&record).filter(|_| read) {
            return Ok(LockedUsage { file, numbers });
        }
        let counted = Numbers { reserved: scan(&self.directory, 0)?.total, freed: 0 };
        let locked = LockedUsage { file, numbers: counted };
        locked.store()?;
        Ok(locked)
    }

    /// Reserves `charge` bytes and makes the file for them. `None`: they are not within `budget`.
    pub(crate) fn reserve(&self, charge: u64, budget: u64) -> io::Result<Option<Temporary>> {
        let mut locked = self.lock()?;
        if locked.numbers.used().saturating_add(charge) > budget {
            return Ok(None);
        }
        locked.numbers.reserved = locked.numbers.reserved.saturating_add(charge);
        locked.store()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{TEMPORARY}/w-{:016x}-{number}-{charge}", self.mark);
        let made = self.directory.make(&name).and_then(|file| {
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Ok(file)
        });
        match made {
            Ok(file) => Ok(Some(Temporary { file, name, charge })),
            Err(error) => {
                let _ = self.directory.unlink(&name);
                locked.free(charge)?;
                Err(error)
            }
        }
    }

    /// The file was not published: its bytes are free again.
    pub(crate) fn give_back(&self, temporary: Temporary) -> io::Result<()> {
        let mut locked = self.lock()?;
        self.directory.unlink(&temporary.name)?;
        locked.free(temporary.charge)
    }

    /// Removes temporary files whose owner has died: those that nobody has locked.
    pub(crate) fn remove_leftovers(&self) -> io::Result<()> {
        let mut locked = self.lock()?;
        for name in self.directory.names(TEMPORARY)? {
            let Some(charge) = charge_of_temporary(&name) else { continue };
            let name = format!("{TEMPORARY}/{name}");
            let Ok(file) = self.directory.open_file(&name) else { continue };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let was_published = fstat(&file)?.st_nlink > 1;
            // Its owner can have finished just before the lock: then the name is gone, and the bytes are a block's.
            if self.directory.unlink(&name).is_ok() && !was_published {
                locked.free(charge)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(reserved: u64, freed: u64) -> Numbers {
        Numbers { reserved, freed }
    }

    #[test]
    fn a_record_that_is_damaged_is_none() {
        let record = numbers(7, 3).encode();
        assert_eq!(Numbers::decode(&record), Some(numbers(7, 3)));
        for at in 0..RECORD_BYTES {
            let mut bad = record;
            bad[at] ^= 1;
            assert_eq!(Numbers::decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn healing_corrects_leaks_and_leaves_alone_what_may_be_right() {
        let healed = |mut now: Numbers, total, before| {
            now.heal(total, before);
            now.used()
        };
        // Nothing happened meanwhile: exactly what was found.
        assert_eq!(healed(numbers(100, 0), 60, numbers(100, 0)), 60);
        assert_eq!(healed(numbers(100, 0), 160, numbers(100, 0)), 160);
        // 30 were reserved and 10 subtracted meanwhile: anything from 50 to 90 may be right.
        for used in [50, 70, 90] {
            assert_eq!(healed(numbers(used + 40, 40), 60, numbers(used + 10, 30)), used);
        }
        assert_eq!(healed(numbers(200, 40), 60, numbers(170, 30)), 90);
        assert_eq!(healed(numbers(60, 40), 60, numbers(30, 30)), 50);
        // The file was made anew.
        assert_eq!(healed(numbers(5, 0), 60, numbers(170, 30)), 5);
    }
}
