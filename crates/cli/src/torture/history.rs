//! What was promised of a file, and whether it is kept.

use super::random::Random;
use super::record::{Copies, RECORD_BYTES, decode};
use super::report::Report;
use crate::write_args::Promise;

/// Most records that one writer changes in one commit.
const MOST_IN_COMMIT: u64 = 16;

/// What is known of the records of one file.
#[derive(Debug)]
pub(super) struct History {
    promise: Promise,
    copies: Copies,
    seed: u64,
    writers: u64,
    /// The least sequence number that each record must have; or exactly the one that it has by commits.
    sequences: Vec<u64>,
    /// The last commit that is known to be durable.
    commit: u64,
    /// The last one that was reported since.
    reported: u64,
}

/// The records that commit `number` changes, besides record 0, its header.
pub(super) fn records_of_commit(seed: u64, number: u64, writer: u64, writers: u64, records: u64) -> Vec<u64> {
    let mut random = Random::new(seed, number << 16 | writer);
    let own = (records - 1) / writers;
    let count = 1 + random.below(MOST_IN_COMMIT);
    (0..count).map(|_| 1 + writer + random.below(own) * writers).collect()
}

impl History {
    /// Of a file of zeros.
    pub(super) fn new(promise: Promise, copies: Copies, seed: u64, writers: u64, bytes: u64) -> Self {
        let sequences = vec![0; (bytes / RECORD_BYTES) as usize];
        Self { promise, copies, seed, writers, sequences, commit: 0, reported: 0 }
    }

    /// Takes note of a promise; an error if the worker says that something went wrong.
    pub(super) fn promised(&mut self, report: Report) -> Result<(), String> {
        match report {
            Report::Synced(records) => {
                for (index, sequence) in records {
                    let least = self.sequences.get_mut(index as usize);
                    let least = least.ok_or_else(|| format!("the worker reports a record {index}"))?;
                    *least = sequence.max(*least);
                }
                Ok(())
            }
            Report::Committed(commit) => {
                self.reported = commit;
                Ok(())
            }
            Report::Failed(why) => Err(format!("the worker could not go on: {why}")),
        }
    }

    /// Compares the bytes of the file with what was promised, and goes on from what is there. The error is the first
    /// violation.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        let promised = self.sequences.len() as u64 * RECORD_BYTES;
        if bytes.len() as u64 != promised {
            return Err(format!("the file has {} bytes, not {promised}", bytes.len()));
        }
        match self.promise {
            Promise::Sync => self.check_synced(bytes),
            Promise::Commit => self.check_committed(bytes),
        }
    }

    fn check_synced(&mut self, bytes: &[u8]) -> Result<(), String> {
        for (index, least) in self.sequences.iter_mut().enumerate() {
            let found = record(bytes, index as u64, self.copies)?;
            if found < *least {
                return Err(format!(
                    "{}: it was synced with sequence number {least} and has {found}",
                    name(index as u64)
                ));
            }
            *least = found;
        }
        Ok(())
    }

    fn check_committed(&mut self, bytes: &[u8]) -> Result<(), String> {
        let found = record(bytes, 0, self.copies)?;
        let known = self.commit.max(self.reported);
        // The commit after the last one that was reported can have been done and not yet told.
        if !(known..=known + 1).contains(&found) {
            return Err(format!("{}: commit {known} was done and the file is at {found}", name(0)));
        }
        for number in self.commit + 1..=found {
            self.apply(number);
        }
        (self.commit, self.reported) = (found, found);
        for (index, expected) in self.sequences.iter().enumerate() {
            let found = record(bytes, index as u64, self.copies)?;
            if found != *expected {
                return Err(format!(
                    "{}: at commit {} it must be of commit {expected} and is of {found}",
                    name(index as u64),
                    self.commit
                ));
            }
        }
        Ok(())
    }

    fn apply(&mut self, number: u64) {
        let records = self.sequences.len() as u64;
        self.sequences[0] = number;
        for writer in 0..self.writers {
            for index in records_of_commit(self.seed, number, writer, self.writers, records) {
                self.sequences[index as usize] = number;
            }
        }
    }

    /// How many commits are known to be whole.
    pub(super) fn commits(&self) -> u64 {
        self.commit
    }
}

fn record(bytes: &[u8], index: u64, copies: Copies) -> Result<u64, String> {
    let at = (index * RECORD_BYTES) as usize;
    let record = &bytes[at..at + RECORD_BYTES as usize];
    decode(record, index, copies).map_err(|what| format!("{}: {what}", name(index)))
}

fn name(index: u64) -> String {
    let at = index * RECORD_BYTES;
    format!("record {index} at [{at}, {})", at + RECORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Copies, encode};
    use super::super::report::Report;
    use super::{History, records_of_commit};
    use crate::write_args::Promise;

    const RECORDS: u64 = 1024;

    fn put(bytes: &mut [u8], index: u64, sequence: u64) {
        bytes[index as usize * 64..][..64].copy_from_slice(&encode(sequence, index));
    }

    fn committed(bytes: &mut [u8], number: u64) {
        put(bytes, 0, number);
        for index in (0..2).flat_map(|writer| records_of_commit(5, number, writer, 2, RECORDS)) {
            put(bytes, index, number);
        }
    }

    #[test]
    fn a_synced_record_that_is_older_or_torn_is_a_violation() {
        let mut bytes = vec![0; RECORDS as usize * 64];
        let mut history = History::new(Promise::Sync, Copies::Together, 5, 2, RECORDS * 64);
        put(&mut bytes, 9, 3);
        history.promised(Report::Synced(vec![(9, 2)])).expect("a record");
        assert_eq!(history.check(&bytes), Ok(()));
        put(&mut bytes, 9, 2);
        let older = history.check(&bytes).expect_err("it was seen with 3");
        assert!(older.contains("record 9") && older.contains('3'), "{older}");
        put(&mut bytes, 9, 4);
        bytes[9 * 64] = 0;
        assert!(history.check(&bytes).expect_err("it is torn").contains("torn"));
        assert!(history.check(&bytes[64..]).expect_err("it is shorter").contains("bytes"));
    }

    #[test]
    fn a_commit_is_whole_and_none_that_was_reported_is_missing() {
        let mut bytes = vec![0; RECORDS as usize * 64];
        let mut history = History::new(Promise::Commit, Copies::Together, 5, 2, RECORDS * 64);
        committed(&mut bytes, 1);
        committed(&mut bytes, 2);
        history.promised(Report::Committed(1)).expect("a commit");
        assert_eq!((history.check(&bytes), history.commits()), (Ok(()), 2));
        history.promised(Report::Committed(3)).expect("a commit");
        assert!(history.check(&bytes).expect_err("3 is missing").contains("commit 3"));
        put(&mut bytes, 0, 3);
        assert!(history.check(&bytes).expect_err("half of 3 is missing").contains("must be of commit 3"));
    }
}
