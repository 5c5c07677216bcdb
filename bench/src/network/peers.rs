//! The crate object_store with its own transport, and a plain download.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use memobj_linux::peer::FileView;
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt};
use tokio::runtime::{Builder, Runtime};

use super::expected::{Expected, check_page};
use super::job::{Client, NetworkJob, Task};
use super::ours::batches;
use crate::data::{PAGE_BYTES, WORD_BYTES};
use crate::job::{Failure, Sample};
use crate::timed::{latencies, record, sample};
use crate::usage;

/// As many as the pagers have.
const WORKERS: usize = 2;

/// The store, the name of the object in it, and the threads.
struct Peer {
    store: Arc<dyn ObjectStore>,
    path: Path,
    runtime: Runtime,
}

/// Does what the job says.
pub fn measure(job: &NetworkJob) -> Result<Sample, Failure> {
    // Another one may be installed already, which does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let (store, path) = store(&job.place)?;
    let peer = Peer { store, path, runtime };
    match (job.task, job.client) {
        (Task::Upload, _) => peer.upload(job),
        (Task::Scattered, _) => peer.scattered(job),
        (_, Client::Download) => peer.download(job),
        _ => peer.sequential(job),
    }
}

fn failed(error: impl Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn store(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), Failure> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| failed("no URL"))?;
    let (authority, path) = rest.split_once('/').ok_or_else(|| failed("no path"))?;
    let path = Path::from_url_path(path).map_err(failed)?;
    let options = ClientOptions::new().with_allow_http(true);
    Ok(match scheme {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(authority);
            (Arc::new(builder.with_client_options(options).build().map_err(failed)?), path)
        }
        _ => {
            let builder = HttpBuilder::new().with_url(format!("{scheme}://{authority}"));
            (Arc::new(builder.with_client_options(options).build().map_err(failed)?), path)
        }
    })
}

impl Peer {
    /// Calls `take` with each of `ranges`, in their order, `depth` of them asked for at once.
    fn ranges(
        &self,
        ranges: Vec<Range<u64>>,
        depth: usize,
        client: Client,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let get = |range: Range<u64>| {
            let (store, path, start) = (Arc::clone(&self.store), self.path.clone(), range.start);
            async move {
                let get = async move { store.get_range(&path, range).await };
                let bytes = match client {
                    Client::ObjectStoreTasks => tokio::spawn(get).await.map_err(failed)?,
                    _ => get.await,
                };
                Ok::<_, Failure>((start, bytes.map_err(failed)?))
            }
        };
        self.runtime.block_on(async {
            let mut answers = stream::iter(ranges).map(get).buffered(depth);
            while let Some(answer) = answers.next().await {
                let (start, bytes) = answer?;
                take(start, &bytes)?;
            }
            Ok(())
        })
    }

    fn sequential(&self, job: &NetworkJob) -> Result<Sample, Failure> {
        let expected = Expected::new(job.length_bytes, job.block_bytes);
        let starts = (0..job.length_bytes).step_by(job.block_bytes as usize);
        let ranges: Vec<_> = starts.map(|at| at..job.length_bytes.min(at + job.block_bytes)).collect();
        let (mut latencies, count) = (latencies(), ranges.len() as u64);
        let (before, start) = (usage::now()?, Instant::now());
        let mut last = start;
        self.ranges(ranges, job.depth, job.client, |at, bytes| {
            expected.check(at, bytes)?;
            record(&mut latencies, last.elapsed());
            last = Instant::now();
            Ok(())
        })?;
        let sample = sample(count, start.elapsed(), (before, usage::now()?), &latencies)?;
        Ok(Sample { bytes: job.length_bytes, ..sample })
    }

    fn scattered(&self, job: &NetworkJob) -> Result<Sample, Failure> {
        batches(job, |pages| {
            let range = |page: &u64| match job.client {
                Client::ObjectStorePages => *page..page + PAGE_BYTES,
                _ => {
                    let start = page / job.block_bytes * job.block_bytes;
                    start..start + job.block_bytes
                }
            };
            let ranges = pages.iter().map(range).collect();
            self.ranges(ranges, pages.len(), job.client, |start, bytes| {
                let end = start + bytes.len() as u64;
                let page = pages.iter().find(|page| (start..end).contains(page));
                let page = *page.ok_or_else(|| failed("a range that was not asked for"))?;
                let at = (page - start) as usize;
                let bytes = bytes.get(at..at + PAGE_BYTES as usize);
                check_page(page, bytes.ok_or_else(|| failed("a short answer"))?)
            })
        })
    }

    fn download(&self, job: &NetworkJob) -> Result<Sample, Failure> {
        let expected = Expected::new(job.length_bytes, job.block_bytes);
        let (before, start) = (usage::now()?, Instant::now());
        let mut file = File::create(&job.file)?;
        self.runtime.block_on(async {
            let mut body = self.store.get(&self.path).await.map_err(failed)?.into_stream();
            while let Some(bytes) = body.next().await {
                file.write_all(&bytes.map_err(failed)?)?;
            }
            Ok::<_, Failure>(())
        })?;
        let view = FileView::map(&File::open(&job.file)?)?;
        for at in (0..job.length_bytes).step_by(job.block_bytes as usize) {
            let end = job.length_bytes.min(at + job.block_bytes);
            expected.check_sum(at, view.sum_u64(at / WORD_BYTES..end / WORD_BYTES, 1))?;
        }
        let sample = sample(1, start.elapsed(), (before, usage::now()?), &latencies())?;
        std::fs::remove_file(&job.file)?;
        Ok(Sample { bytes: job.length_bytes, ..sample })
    }

    fn upload(&self, job: &NetworkJob) -> Result<Sample, Failure> {
        let bytes = std::fs::read(&job.file)?;
        self.runtime.block_on(self.store.put(&self.path, bytes.into())).map_err(failed)?;
        Ok(Sample::default())
    }
}
