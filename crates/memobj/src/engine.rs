//! A cache with its threads.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::driver::{self, Lanes};
use crate::error::CacheError;
use crate::locks::{Rank, RankedMutex};
use crate::options::CacheOptions;
use crate::parts::{CacheShared, system};
use crate::threads;
use crate::workers::Workers;

const MOST_WORKERS: usize = 1024;

#[derive(Debug)]
pub(crate) struct CacheInner {
    pub(crate) shared: Arc<CacheShared>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) workers: Arc<Workers>,
    driver: RankedMutex<Option<JoinHandle<()>>>,
}

impl CacheInner {
    pub(crate) fn start(options: CacheOptions) -> Result<Self, CacheError> {
        let limit = options.workers.clamp(1, MOST_WORKERS);
        let workers = Arc::new(Workers::new(limit, options.budget_bytes, options.clock.clone()));
        let called: Arc<Workers> = Arc::clone(&workers);
        let shared = Arc::new(CacheShared::new(options, called)?);
        let lanes = Arc::new(Lanes::new());
        let driver = driver::start(&shared, &lanes).map_err(system("start the reader thread"))?;
        let driver = RankedMutex::new(Rank::Threads, Some(driver));
        Ok(Self { shared, lanes, workers, driver })
    }
}

impl Drop for CacheInner {
    fn drop(&mut self) {
        if !self.shared.owner.is_this_process() {
            // A child of fork: the threads, and the work they do, are the parent's.
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        self.shared.health.close();
        self.shared.requests.eventfd.notify();
        let driver = self.driver.lock().take();
        // A pager that owns handles of its own cache can be dropped last, by one of the cache's own threads.
        threads::join(driver);
        self.lanes.stop();
        self.shared.cleaner.stop();
        let reporter = &self.shared.reporter;
        self.workers.stop(&|event| reporter.event(event));
        self.shared.disposal.finish();
        self.shared.buffers.clear();
    }
}
