//! Figures, with MEMOBJ_MEASURE set: a server that takes 20 ms for each request.

use std::time::{Duration, Instant};

use memobj::{EngineClock, FailurePolicy};
use memobj_object_store::{ObjectStoreOptions, ObjectStorePager};
use memobj_sim::fixture::{MIB, sample_bytes};

use crate::help::{BLOCK, cache, map, options};
use crate::scripted::{Scripted, Served};

#[test]
fn speed() {
    if std::env::var_os("MEMOBJ_MEASURE").is_none() {
        println!("skipped: MEMOBJ_MEASURE is not set");
        return;
    }
    let (clock, length) = (EngineClock::system(), 24 * MIB);
    let server = Scripted::start(Served::new(sample_bytes(length), "one"));
    server.delay(Duration::from_millis(20));
    for block in [BLOCK, MIB] {
        let pager = ObjectStorePager::open(&server.url(), options(&clock).block_bytes(block)).unwrap();
        let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
        let count = 64.min(length / block);
        let ranges: Vec<_> = (0..count).map(|index| index * block + 4096..index * block + 4097).collect();
        let start = Instant::now();
        drop(mapping.pin_ranges(&ranges).unwrap());
        println!(
            "{count} scattered pages in blocks of {block}: {:?}; most at once {}",
            start.elapsed(),
            server.most()
        );
    }
    let pager = ObjectStorePager::open(&server.url(), ObjectStoreOptions::new()).unwrap();
    let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
    let (mut bytes, start) = (vec![0; length as usize], Instant::now());
    mapping.read_at(0, &mut bytes).unwrap();
    println!("{length} bytes in order: {:?}", start.elapsed());
}
