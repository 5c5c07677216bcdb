//! What the part `pin` is compared with that serves no nodes: a bare atomic increment, and a get of redb.

use std::sync::atomic::{AtomicU64, Ordering};

use super::job::{IndexJob, Share};
use super::lookup::PIN_BATCH;
use crate::job::{Failure, Sample};
use crate::timed;

/// A counter in cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// Which of the counters, or values, a thread uses.
fn slot(job: &IndexJob, thread: u32) -> usize {
    if job.share == Share::Own { thread as usize } else { 0 }
}

/// The contestant `atomic`: each access adds one to a counter. In the end all of them must have been counted.
pub fn atomic(job: &IndexJob) -> Result<Sample, Failure> {
    let counters: Vec<Counter> = (0..job.threads).map(|_| Counter::default()).collect();
    let steps = AtomicU64::new(0);
    let sample = timed::repeat(
        job.threads,
        job.measured(),
        || Ok(None),
        |thread| {
            let counter = &counters[slot(job, thread)].0;
            let steps = &steps;
            Ok(move || {
                for _ in 0..PIN_BATCH {
                    counter.fetch_add(1, Ordering::AcqRel);
                }
                steps.fetch_add(1, Ordering::Relaxed);
                Ok(PIN_BATCH)
            })
        },
    )?;
    let counted: u64 = counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum();
    let expected = steps.load(Ordering::Relaxed) * PIN_BATCH;
    if counted != expected {
        return Err(Failure::WrongData(format!("{counted} increments instead of {expected}")));
    }
    Ok(sample)
}

/// The contestant `redb`: a get of one value of eight bytes, in a read transaction that stays open.
#[cfg(feature = "redb")]
pub fn redb(job: &IndexJob) -> Result<Sample, Failure> {
    use redb::{Builder, ReadableDatabase, TableDefinition, backends::InMemoryBackend};

    use super::tree::{key_of, value_of};

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("values");
    /// A few leaves, so that threads with a key of their own have a page of their own.
    const VALUES: u64 = 4096;

    fn failed(error: impl std::fmt::Display) -> Failure {
        Failure::Failed(error.to_string())
    }

    let database = Builder::new().create_with_backend(InMemoryBackend::new()).map_err(failed)?;
    let filling = database.begin_write().map_err(failed)?;
    let mut table = filling.open_table(TABLE).map_err(failed)?;
    for key in (0..VALUES).map(key_of) {
        table.insert(key, value_of(key)).map_err(failed)?;
    }
    drop(table);
    filling.commit().map_err(failed)?;
    timed::repeat(
        job.threads,
        job.measured(),
        || Ok(None),
        |thread| {
            let table = database.begin_read().map_err(failed)?.open_table(TABLE).map_err(failed)?;
            let key = key_of(1000 * slot(job, thread) as u64 % VALUES);
            Ok(move || {
                for _ in 0..PIN_BATCH {
                    let found = table.get(key).map_err(failed)?.map(|value| value.value());
                    if found != Some(value_of(key)) {
                        return Err(Failure::WrongData(format!("redb has {found:x?} for key {key:#x}")));
                    }
                }
                Ok(PIN_BATCH)
            })
        },
    )
}
