//! What the threads of a cache share.

use std::io;
use std::sync::Arc;

use memobj_linux::capability::memory_bytes;
use memobj_linux::fork::MakerProcess;
use memobj_linux::region::SMALL;

use super::Requests;
use crate::allocator::{FrameAllocator, LEAST_FRAMES, Unwritten};
use crate::buffers::Buffers;
use crate::error::CacheError;
use crate::health::Health;
use crate::machine::Machine;
use crate::options::CacheOptions;
use crate::pages::CallPagers;
use crate::reporter::Reporter;
use crate::threads::Disposal;
use crate::write::Cleaner;

/// The parts of a cache. Whoever needs one takes it from here when he is made, and keeps it instead of the cache.
#[derive(Debug)]
pub(crate) struct CacheShared {
    pub(crate) options: CacheOptions,
    pub(crate) allocator: Arc<FrameAllocator>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) health: Arc<Health>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) workers: Arc<dyn CallPagers>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) machine: Machine,
    pub(crate) owner: Arc<MakerProcess>,
    pub(crate) disposal: Arc<Disposal>,
    pub(crate) cleaner: Arc<Cleaner>,
}

pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> CacheError {
    move |source| CacheError::System { what, source }
}

fn check_budget(budget_bytes: u64) -> Result<(), CacheError> {
    let minimum_bytes = LEAST_FRAMES * SMALL as u64;
    if budget_bytes < minimum_bytes {
        return Err(CacheError::BudgetTooSmall { budget_bytes, minimum_bytes });
    }
    let memory_bytes = memory_bytes();
    if budget_bytes > memory_bytes {
        return Err(CacheError::BudgetExceedsMemory { budget_bytes, memory_bytes });
    }
    Ok(())
}

impl CacheShared {
    pub(crate) fn new(options: CacheOptions, workers: Arc<dyn CallPagers>) -> Result<Self, CacheError> {
        check_budget(options.budget_bytes)?;
        let limit = options.budget_bytes;
        let unwritten = Unwritten::new(limit).map_err(system("create an eventfd"))?;
        let reporter = Arc::new(Reporter::new(options.event_capacity));
        let allocator = Arc::new(FrameAllocator::new(limit, unwritten, &reporter));
        let health = Arc::new(Health::new(&allocator, &reporter));
        let buffers = Buffers::new(options.reads).map_err(system("allocate pages for faults"))?;
        Ok(Self {
            requests: Arc::new(Requests::new(&health).map_err(system("create an eventfd"))?),
            cleaner: Arc::new(Cleaner::new(&allocator, &health, buffers.mechanism)),
            allocator,
            reporter,
            health,
            workers,
            buffers: Arc::new(buffers),
            machine: Machine::new(),
            owner: Arc::new(MakerProcess::new().map_err(system("mark the process"))?),
            disposal: Arc::new(Disposal::new()),
            options,
        })
    }
}
