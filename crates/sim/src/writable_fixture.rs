//! Objects to write to, on a disk in memory that fails when told to.

use std::ops::Range;
use std::sync::Arc;

use memobj::pagers::{Faulty, Inject, Injection, Operation};
use memobj::{
    Cache, Delivery, EngineClock, Event, FrameSize, FrameVisibility, MapOptions, Mapping, MemoryObject,
    ObjectOptions, Writing,
};

use crate::disk::Disk;
use crate::fixture::{GUARD, cache, sample_bytes};
use crate::time::timeless;

/// All ways to have a mapping that can be written.
pub const DELIVERIES: [Delivery; 3] = [Delivery::InThread, Delivery::ReaderThread, Delivery::PinOnly];

/// Options of an object that is written in place.
pub fn writable() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::InPlace).frames(FrameSize::Small).visibility(visibility())
}

/// Where frames are in tests of writing: local, but in runs that [`rerun_shared`](crate::process::rerun_shared) began.
pub fn visibility() -> FrameVisibility {
    if std::env::var_os(crate::process::SHARED).is_some() {
        FrameVisibility::Shared
    } else {
        FrameVisibility::Local
    }
}

/// Options of a mapping with this delivery.
pub fn mapped(delivery: Delivery) -> MapOptions {
    MapOptions::new().delivery(delivery)
}

/// An object of sample bytes that can be written, mapped whole, and the disk under it.
#[derive(Debug)]
pub struct WritableFixture {
    /// The mapping of all of the object.
    pub mapping: Mapping,
    /// The object.
    pub object: MemoryObject,
    /// Its cache.
    pub cache: Cache,
    /// Where failures are planned.
    pub pager: Arc<Faulty<Disk>>,
    /// The disk.
    pub disk: Disk,
}

impl WritableFixture {
    /// `length` bytes under a budget of their own.
    pub fn new(delivery: Delivery, budget_bytes: u64, length: u64, options: ObjectOptions) -> Self {
        Self::in_cache(&cache(budget_bytes), delivery, length, options)
    }

    /// As [`new`](Self::new), with a clock that stands still until the test advances it.
    pub fn timeless(
        delivery: Delivery,
        budget_bytes: u64,
        length: u64,
        options: ObjectOptions,
    ) -> (Self, EngineClock) {
        let (cache, clock) = timeless(budget_bytes);
        (Self::in_cache(&cache, delivery, length, options), clock)
    }

    /// `length` bytes, named `sample`, in `cache`.
    pub fn in_cache(cache: &Cache, delivery: Delivery, length: u64, options: ObjectOptions) -> Self {
        let disk = Disk::new(sample_bytes(length));
        let pager = Arc::new(Faulty::new(disk.clone(), Vec::new(), 1));
        let object = cache.object("sample", Arc::clone(&pager), options).unwrap();
        let mapping = object.map(0..length, mapped(delivery)).unwrap();
        Self { mapping, object, cache: cache.clone(), pager, disk }
    }

    /// Plans a failure of `operation` at `range`; `None` is always.
    pub fn inject(&self, operation: Operation, range: Range<u64>, action: Inject, times: Option<u32>) {
        self.pager.inject(operation, Injection::new(range, action).times(times));
    }

    /// Waits for an event of the cache that `wanted` accepts.
    pub fn event<R>(&self, what: &str, wanted: impl Fn(&Event) -> Option<R>) -> R {
        let events = self.cache.events();
        loop {
            let event = events.next_within(GUARD);
            let event = event.unwrap_or_else(|| panic!("in vain waited for {what}"));
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }
}

/// Whether `range` of `image` is all `byte`.
pub fn is_all(image: &[u8], range: Range<u64>, byte: u8) -> bool {
    image[range.start as usize..range.end as usize].iter().all(|got| *got == byte)
}
