//! memobj maps anything into memory, and tells you when it fails.
#![forbid(unsafe_code)]

mod batch;
mod cache;
pub mod doctor;
mod driver;
mod error;
mod event;
mod fault;
mod mapping;
mod metrics;
mod object;
mod options;
pub mod pagers;
mod reclaim;
mod store;
mod streams;
mod workers;

pub use cache::Cache;
pub use error::{AccessError, CacheError, ErrorKind, MapError, OpenError, PageError, SupplyError};
pub use event::{Event, Events};
pub use mapping::{Mapping, Pinned};
pub use memobj_sys::volatile::VolatileWords;
pub use metrics::Metrics;
pub use object::MemoryObject;
pub use options::{
    Advice, CacheOptions, Delivery, FailurePolicy, FrameSize, MapOptions, ObjectOptions, Reads, Store,
};
