//! Events for loops that wait for descriptors.

use memobj::pagers::{Bytes, Faulty};
use memobj::{Cache, CacheOptions, Event, MapOptions, Mapping, ObjectOptions, PollableEvents};
use memobj_sim::fixture::{GUARD, MIB, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const PAGE: u64 = 4096;

fn is_readable(events: &PollableEvents) -> bool {
    let mut descriptors = [PollFd::new(events, PollFlags::IN)];
    poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

fn failing(event_capacity: usize) -> (Cache, Mapping) {
    let options = CacheOptions::new().budget_bytes(MIB).event_capacity(event_capacity);
    let cache = Cache::new(options).unwrap();
    let pager = Faulty::failing(Bytes::new(vec![7; 16 * PAGE as usize]), 0..16 * PAGE);
    let object = cache.object("failing", pager, ObjectOptions::default()).unwrap();
    let mapping = object.map(.., MapOptions::default()).unwrap();
    (cache, mapping)
}

#[test]
fn the_descriptor_is_readable_while_an_event_waits() {
    let (cache, mapping) = failing(16);
    let events = cache.events().pollable().unwrap();
    assert!(!is_readable(&events));
    for page in 0..2 {
        mapping.pin(page * PAGE..(page + 1) * PAGE).unwrap_err();
    }
    let later = cache.events().pollable().unwrap();
    wait_until("the events wait", || is_readable(&events));
    assert!(is_readable(&later), "all descriptors of a cache say the same");
    assert!(matches!(events.try_next(), Some(Event::PageFailed(_))));
    wait_until("another one waits", || is_readable(&events));
    assert!(matches!(later.next_within(GUARD), Some(Event::PageFailed(_))));
    assert!(events.try_next().is_none() && !is_readable(&events) && !is_readable(&later));

    mapping.pin(2 * PAGE..3 * PAGE).unwrap_err();
    wait_until("it is readable again", || is_readable(&events));
}

#[test]
fn a_descriptor_that_is_made_late_knows_of_the_events_that_wait() {
    let (cache, mapping) = failing(16);
    mapping.pin(0..PAGE).unwrap_err();
    let events = cache.events();
    wait_until("the event waits", || format!("{events:?}").contains("waiting: 1"));
    assert!(is_readable(&events.pollable().unwrap()));
}

#[test]
fn the_end_of_the_cache_is_heard() {
    let (cache, mapping) = failing(16);
    let events = cache.events().pollable().unwrap();
    mapping.pin(0..PAGE).unwrap_err();
    drop((mapping, cache));
    wait_until("the event has been received and the cache has ended", || {
        assert!(is_readable(&events));
        events.try_next();
        events.is_ended()
    });
    assert!(is_readable(&events) && events.try_next().is_none(), "for good");
}

#[test]
fn who_waits_for_the_descriptor_gets_an_event_also_where_none_may_wait() {
    let (cache, mapping) = failing(0);
    mapping.pin(0..PAGE).unwrap_err();
    wait_until("the event is dropped", || cache.metrics().dropped_events == 1);
    let events = cache.events().pollable().unwrap();
    assert!(!is_readable(&events));
    mapping.pin(PAGE..2 * PAGE).unwrap_err();
    wait_until("the event waits", || is_readable(&events));
    assert!(events.try_next().is_some() && !is_readable(&events));
}
