//! memobj. The only file here that knows the library's interface.

use std::fmt::Display;
use std::ops::Range;
use std::time::{Duration, Instant};

use memobj::{
    Advice, Cache, CacheOptions, Delivery, FrameSize, MapOptions, Mapping, MemoryObject, ObjectOptions,
};
use memobj_url::disk_cache::{DiskCache, DiskCacheOptions};
use memobj_url::{Open, UrlOptions, is_url};

use super::expected::{Expected, check_page};
use super::job::{BATCHES, Frames, NetworkJob, Task};
use crate::data::PAGE_BYTES;
use crate::job::{Failure, Sample};
use crate::timed::{latencies, record, sample};
use crate::usage;

/// How long the disk cache may take to write what was read.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// How bytes are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Copied into a buffer.
    Read,
    /// Pinned, in place.
    Pin,
}

/// Opens the object, which is not measured, and does the task.
pub fn measure(job: &NetworkJob, frames: Frames, reach: Reach) -> Result<Sample, Failure> {
    let cache = Cache::new(CacheOptions::new().budget_bytes(job.budget_bytes)).map_err(failed)?;
    let disk = job.disk_cache.as_ref().map(|folder| DiskCache::open(folder, DiskCacheOptions::new()));
    let disk = disk.transpose().map_err(failed)?;
    let object = open(job, frames, &cache, disk.clone())?;
    let mapping = object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).map_err(failed)?;
    let mut sample = match job.task {
        Task::Sequential => sequential(job, &mapping, reach)?,
        Task::Scattered => scattered(job, &mapping)?,
        Task::Hash | Task::Upload => return Err(Failure::Failed("not a task of the library".into())),
    };
    sample.peak_frame_bytes = Some(cache.metrics().peak_frame_bytes);
    let misses = object.pager_counters().into_iter().find(|(name, _)| *name == "disk_cache_misses");
    sample.missed_pages = misses.map(|(_, blocks)| blocks * job.block_bytes / PAGE_BYTES);
    if let Some(disk) = disk {
        let start = Instant::now();
        if !disk.settle(SETTLE_LIMIT) {
            return Err(Failure::Failed("the disk cache does not settle".into()));
        }
        sample.sync_ns = Some(start.elapsed().as_nanos() as u64);
    }
    Ok(sample)
}

fn open(
    job: &NetworkJob,
    frames: Frames,
    cache: &Cache,
    disk: Option<DiskCache>,
) -> Result<MemoryObject, Failure> {
    let frames = match frames {
        Frames::Auto => FrameSize::Auto,
        Frames::Small => FrameSize::Small,
        Frames::Large => FrameSize::Large,
    };
    let advice = if job.task == Task::Scattered { Advice::Random } else { Advice::Sequential };
    let options = ObjectOptions::new().advice(advice).frames(frames);
    if !is_url(&job.place) {
        return cache.open_file(&job.place, options).map_err(failed);
    }
    let options = UrlOptions::new().object(options).disk_cache(disk);
    // What suits a 9P server comes from its msize.
    let options = match job.place.starts_with("9p") {
        true => options,
        false => options.block_bytes(job.block_bytes).depth(job.depth),
    };
    cache.open(&job.place, options).map_err(failed)
}

fn failed(error: impl Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn sequential(job: &NetworkJob, mapping: &Mapping, reach: Reach) -> Result<Sample, Failure> {
    let expected = Expected::new(job.length_bytes, job.block_bytes);
    let mut buffer = vec![1; if reach == Reach::Read { job.block_bytes as usize } else { 0 }];
    let mut latencies = latencies();
    let (before, start) = (usage::now()?, Instant::now());
    for at in (0..job.length_bytes).step_by(job.block_bytes as usize) {
        let block_start = Instant::now();
        let end = job.length_bytes.min(at + job.block_bytes);
        match reach {
            Reach::Read => {
                let buffer = &mut buffer[..(end - at) as usize];
                mapping.read_at(at, buffer).map_err(failed)?;
                expected.check(at, buffer)?;
            }
            Reach::Pin => expected.check(at, &mapping.pin(at..end).map_err(failed)?)?,
        }
        record(&mut latencies, block_start.elapsed());
    }
    let (elapsed, after) = (start.elapsed(), usage::now()?);
    let blocks = job.length_bytes.div_ceil(job.block_bytes);
    let sample = sample(blocks, elapsed, (before, after), &latencies)?;
    Ok(Sample { bytes: job.length_bytes, ..sample })
}

fn scattered(job: &NetworkJob, mapping: &Mapping) -> Result<Sample, Failure> {
    batches(job, |pages| {
        let ranges: Vec<Range<u64>> = pages.iter().map(|start| *start..start + PAGE_BYTES).collect();
        let pinned = mapping.pin_ranges(&ranges).map_err(failed)?;
        pages.iter().zip(&pinned).try_for_each(|(start, page)| check_page(*start, page))
    })
}

/// Has `load` load and check the pages of each batch; each is an access.
pub fn batches(
    job: &NetworkJob,
    mut load: impl FnMut(&[u64]) -> Result<(), Failure>,
) -> Result<Sample, Failure> {
    let mut latencies = latencies();
    let (before, start) = (usage::now()?, Instant::now());
    for batch in 0..BATCHES {
        let pages = job.pages_of_batch(batch);
        let batch_start = Instant::now();
        load(&pages)?;
        record(&mut latencies, batch_start.elapsed());
    }
    sample(BATCHES, start.elapsed(), (before, usage::now()?), &latencies)
}
