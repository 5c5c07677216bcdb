//! The process that is killed: it writes records, and reports what it was promised.

use std::fs::File;
use std::io::stdout;
use std::ops::Range;
use std::os::fd::AsFd;
use std::process;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use super::history::records_of_commit;
use super::random::Random;
use super::record::{RECORD_BYTES, decode};
use super::record_file::{RecordFile, copies_of};
use super::report::{MOST_RECORDS, Report};
use crate::failure::Failure;
use crate::options::Delivery;
use crate::write_args::{Promise, Sabotage, WorkerArguments};

/// Most records that a thread changes before it syncs.
const MOST_IN_BATCH: u64 = 64;

/// What the threads of a worker share.
struct Worker<'a> {
    arguments: &'a WorkerArguments,
    seed: u64,
    writers: u64,
    record_file: RecordFile,
    pipe: Mutex<File>,
}

/// Writes until it is killed. Returns only if something failed, which is reported through the pipe.
pub(crate) fn work(arguments: &WorkerArguments) -> Result<(), Failure> {
    let result = open(arguments).and_then(|worker| match arguments.promise {
        Promise::Sync => worker.sync_for_ever(),
        Promise::Commit => worker.commit_for_ever(),
    });
    if let Err(Failure::Message(why)) = &result {
        // If nobody listens any more there is nobody to tell.
        let _ = Report::Failed(why.clone()).send(&mut stdout());
    }
    result.map_err(|_| Failure::Reported)
}

fn open(arguments: &WorkerArguments) -> Result<Worker<'_>, Failure> {
    let load = &arguments.load;
    let delivery: Delivery = arguments.delivery;
    let record_file =
        RecordFile::open(&arguments.file, arguments.promise, arguments.way, delivery, load.budget)?;
    // Without the buffer of standard output, which would cut frames at line ends.
    let pipe = stdout().as_fd().try_clone_to_owned();
    let pipe = pipe.map_err(|error| Failure::io("use standard output", &error))?;
    let pipe = Mutex::new(File::from(pipe));
    let seed = load.seed.unwrap_or_default();
    Ok(Worker { arguments, seed, writers: load.writers.into(), record_file, pipe })
}

impl Worker<'_> {
    /// Ends the process if the parent is gone.
    fn report(&self, report: &Report) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if report.send(&mut *pipe).is_err() {
            process::exit(1);
        }
    }

    /// A thread that fails ends the process, since others may wait for it.
    fn or_end<T>(&self, result: Result<T, Failure>) -> T {
        result.unwrap_or_else(|failure| {
            let why = if let Failure::Message(why) = failure { why } else { "it was stopped".to_string() };
            self.report(&Report::Failed(why));
            process::exit(1)
        })
    }

    fn lies(&self) -> bool {
        self.arguments.load.sabotage == Some(Sabotage::LieAboutSync)
    }

    /// The sequence numbers of all records.
    fn sequences(&self) -> Result<Vec<u64>, Failure> {
        let copies = copies_of(self.arguments.promise, self.arguments.way);
        let bytes = self.record_file.read()?;
        let records = bytes.chunks_exact(RECORD_BYTES as usize).zip(0..);
        records.map(|(record, index)| decode(record, index, copies).map_err(Failure::Message)).collect()
    }

    fn sync_for_ever(&self) -> Result<(), Failure> {
        let sequences = self.sequences()?;
        // Every process takes other choices, or a thread would write what the one before it wrote.
        let life = sequences.iter().sum::<u64>();
        thread::scope(|scope| {
            for writer in 0..self.writers {
                let own: Vec<u64> =
                    sequences.iter().copied().skip(writer as usize).step_by(self.writers as usize).collect();
                let random = Random::new(self.seed, life << 16 | writer);
                scope.spawn(move || self.or_end(self.write_and_sync(writer, own, random)));
            }
        });
        Ok(())
    }

    /// One thread: changes some of its records, syncs, reports.
    fn write_and_sync(&self, writer: u64, mut own: Vec<u64>, mut random: Random) -> Result<(), Failure> {
        let mut changed = Vec::new();
        loop {
            let window = window(&mut random, own.len() as u64);
            for _ in 0..=random.below(MOST_IN_BATCH) {
                let slot = window.start + random.below(window.end - window.start);
                own[slot as usize] += 1;
                let index = slot * self.writers + writer;
                self.record_file.put(index, own[slot as usize])?;
                changed.push((index, own[slot as usize]));
            }
            // Some batches wait for the next sync.
            if changed.len() + MOST_IN_BATCH as usize <= MOST_RECORDS && random.below(4) == 0 {
                continue;
            }
            if !self.lies() {
                self.record_file.sync(self.range_to_sync(&changed, &mut random))?;
            }
            self.report(&Report::Synced(std::mem::take(&mut changed)));
        }
    }

    /// Everything, or what was changed.
    fn range_to_sync(&self, changed: &[(u64, u64)], random: &mut Random) -> Range<u64> {
        let all = 0..self.record_file.records();
        let indices = || changed.iter().map(|(index, _)| *index);
        let range = match (random.below(2), indices().min(), indices().max()) {
            (0, Some(first), Some(last)) => first..last + 1,
            _ => all,
        };
        range.start * RECORD_BYTES..range.end * RECORD_BYTES
    }

    fn commit_for_ever(&self) -> Result<(), Failure> {
        let last = self.sequences()?[0];
        let (begun, ended) = (Barrier::new(self.writers as usize), Barrier::new(self.writers as usize));
        thread::scope(|scope| {
            for writer in 0..self.writers {
                let (begun, ended) = (&begun, &ended);
                scope.spawn(move || {
                    for number in last + 1.. {
                        self.or_end(self.write_part(number, writer));
                        begun.wait();
                        if writer == 0 {
                            self.or_end(self.commit(number));
                        }
                        ended.wait();
                    }
                });
            }
        });
        Ok(())
    }

    fn write_part(&self, number: u64, writer: u64) -> Result<(), Failure> {
        if writer == 0 {
            self.record_file.put(0, number)?;
        }
        for index in records_of_commit(self.seed, number, writer, self.writers, self.record_file.records()) {
            self.record_file.put(index, number)?;
        }
        Ok(())
    }

    fn commit(&self, number: u64) -> Result<(), Failure> {
        if !self.lies() {
            self.record_file.commit()?;
        }
        self.report(&Report::Committed(number));
        Ok(())
    }
}

/// All of `count` places, or a sixteenth of them.
fn window(random: &mut Random, count: u64) -> Range<u64> {
    let length = (count / 16).max(1);
    match random.below(2) {
        0 => 0..count,
        _ => {
            let start = random.below(count - length + 1);
            start..start + length
        }
    }
}
