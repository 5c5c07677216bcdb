//! What the tests share.

use memobj::{
    AccessError, Cache, CacheOptions, Delivery, EngineClock, ErrorKind, FailurePolicy, MapOptions, Mapping,
    ObjectOptions, PageError,
};
use memobj_object_store::{ObjectStoreOptions, ObjectStorePager};
use memobj_sim::fixture::MIB;

pub const BLOCK: u64 = 64 << 10;

/// Small blocks, one clock.
pub fn options(clock: &EngineClock) -> ObjectStoreOptions {
    ObjectStoreOptions::new().block_bytes(BLOCK).clock(clock.clone())
}

/// A cache on `clock`.
pub fn cache(clock: &EngineClock) -> Cache {
    Cache::new(CacheOptions::new().budget_bytes(32 * MIB).clock(clock.clone())).unwrap()
}

pub fn map(cache: &Cache, pager: &ObjectStorePager, policy: FailurePolicy) -> Mapping {
    let options = ObjectOptions::new().policy(policy);
    let object = cache.object("object", pager.clone(), options).unwrap();
    object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap()
}

/// The page error in an error of an access.
pub fn page_error(error: &AccessError) -> &PageError {
    error.page_error().unwrap_or_else(|| panic!("{error}"))
}

pub fn kind(error: &AccessError) -> ErrorKind {
    page_error(error).kind()
}

/// The message with all its causes.
pub fn message(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

/// One of the pager's counters.
pub fn counter(pager: &ObjectStorePager, name: &str) -> u64 {
    use memobj::pagers::Pager;
    pager.counters().into_iter().find(|(counter, _)| *counter == name).unwrap().1
}
