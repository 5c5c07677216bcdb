//! Pins of bytes that will be written whole.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memobj::pagers::{Inject, Operation};
use memobj::{AccessError, Advice, Delivery, ErrorKind, ObjectOptions, PinHolder};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, check_sample, sample_bytes, within};
use memobj_sim::writable_fixture::{DELIVERIES, WritableFixture, is_all, writable};

const PAGE: u64 = 4096;

fn in_each_delivery(body: impl Fn(Delivery) + Send + Copy + 'static) {
    for delivery in DELIVERIES {
        within(60, &format!("{delivery:?}"), move || body(delivery));
    }
}

#[test]
fn whole_pages_that_are_absent_are_never_read() {
    in_each_delivery(|delivery| {
        // The last page is cut short, and whole if everything of it is pinned.
        let length = 40 * PAGE + 100;
        let fixture = WritableFixture::new(delivery, MIB, length, writable());
        fixture.inject(Operation::Supply, 0..u64::MAX, Inject::Error, None);
        for range in [0..PAGE, 2 * PAGE..35 * PAGE, 39 * PAGE..length] {
            let mut pinned = fixture.mapping.pin_new(range.clone()).unwrap();
            assert!(pinned.iter().all(|byte| *byte == 0), "{range:?}");
            pinned.fill(7);
        }
        assert_eq!(fixture.cache.metrics().failed_pages, 0);
        fixture.pager.heal(Operation::Supply);
        fixture.object.close().unwrap();
        let disk = fixture.disk.durable();
        for range in [0..PAGE, 2 * PAGE..35 * PAGE, 39 * PAGE..length] {
            assert!(is_all(&disk, range, 7));
        }
        check_sample(PAGE..2 * PAGE, &disk[PAGE as usize..2 * PAGE as usize], "between");
        check_sample(35 * PAGE..39 * PAGE, &fixture.mapping.pin(35 * PAGE..39 * PAGE).unwrap(), "between");
        assert_eq!(disk.len() as u64, length);
    });
}

#[test]
fn pages_that_are_there_and_borders_begin_as_they_were() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, 20 * PAGE, writable());
        fixture.mapping.write_at(5 * PAGE, &[9; PAGE as usize]).unwrap();
        fixture.mapping.populate(3 * PAGE..4 * PAGE).unwrap();
        let pinned = fixture.mapping.pin_new(PAGE + 10..8 * PAGE + 10).unwrap();
        let part = |range: std::ops::Range<u64>| {
            &pinned[(range.start - PAGE - 10) as usize..(range.end - PAGE - 10) as usize]
        };
        for known in [PAGE + 10..2 * PAGE, 3 * PAGE..4 * PAGE, 8 * PAGE..8 * PAGE + 10] {
            check_sample(known.clone(), part(known), "as it was");
        }
        assert!(part(5 * PAGE..6 * PAGE).iter().all(|byte| *byte == 9));
        for new in [2 * PAGE..3 * PAGE, 4 * PAGE..5 * PAGE, 6 * PAGE..8 * PAGE] {
            assert!(part(new).iter().all(|byte| *byte == 0));
        }
        drop(pinned);
        // What the caller has not written is zero for all.
        fixture.object.close().unwrap();
        assert!(is_all(&fixture.disk.durable(), 6 * PAGE..8 * PAGE, 0));
        check_sample(8 * PAGE..9 * PAGE, &fixture.mapping.pin(8 * PAGE..9 * PAGE).unwrap(), "the border");
        assert_eq!(fixture.cache.metrics().pinned_bytes, 0);
    });
}

#[test]
fn an_error_changes_nothing() {
    in_each_delivery(|delivery| {
        let options = writable().pin_timeout(Duration::from_millis(50));
        let fixture = WritableFixture::new(delivery, MIB, 20 * PAGE, options);
        // Somebody pins a page in the middle.
        let held = fixture.mapping.pin(5 * PAGE..5 * PAGE + 1).unwrap();
        let error = fixture.mapping.pin_new(0..20 * PAGE).unwrap_err();
        assert!(matches!(error, AccessError::Pinned { by: PinHolder::ThisThread, .. }), "{error}");
        drop(held);
        // A page at the border fails.
        fixture.mapping.advise(0..20 * PAGE, Advice::DontNeed).unwrap();
        fixture.inject(Operation::Supply, 10 * PAGE..11 * PAGE, Inject::Error, None);
        let error = fixture.mapping.pin_new(0..10 * PAGE + 5).unwrap_err();
        assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Io);
        // Too much for pins that write.
        let wide = WritableFixture::in_cache(&fixture.cache, delivery, MIB, writable());
        let error = wide.mapping.pin_new(0..MIB / 2).unwrap_err();
        assert!(matches!(error, AccessError::PinsExceedBudget { .. }), "{error}");
        fixture.pager.heal(Operation::Supply);
        fixture.mapping.retry(0..20 * PAGE).unwrap();
        check_sample(0..20 * PAGE, &fixture.mapping.pin(0..20 * PAGE).unwrap(), "after errors");
        let metrics = fixture.cache.metrics();
        assert_eq!((metrics.dirty_bytes, metrics.pinned_bytes), (0, 0));
        fixture.object.close().unwrap();
        assert!(fixture.disk.durable()[..] == sample_bytes(20 * PAGE)[..]);
    });
}

/// Touches that began before sleep on pages that are claimed, and see them as they are then.
#[test]
fn readers_see_the_page_before_or_after_and_the_file_has_what_was_written() {
    in_each_delivery(|delivery| {
        const PAGES: u64 = 64;
        let fixture = WritableFixture::new(delivery, 32 * PAGE, PAGES * PAGE, writable());
        fixture.mapping.write_at(0, &[1; (PAGES * PAGE) as usize]).unwrap();
        let rounds: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(1)).collect();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (fixture, rounds) = (&fixture, &rounds);
                scope.spawn(move || {
                    let mut random = Random::new(thread);
                    for _ in 0..1000 {
                        // Of each page one thread writes.
                        let page = random.below(PAGES / 2) * 2 + thread;
                        let value = rounds[page as usize].fetch_add(1, Ordering::Relaxed) + 1;
                        let mut pinned = fixture.mapping.pin_new(page * PAGE..(page + 1) * PAGE).unwrap();
                        let before = pinned[0];
                        let known = u64::from(before) == 0 || u64::from(before) == (value - 1) % 251;
                        assert!(known, "{before} before {value}");
                        assert!(pinned.iter().all(|byte| *byte == before));
                        pinned.fill((value % 251) as u8);
                    }
                });
            }
            scope.spawn(|| {
                let mut random = Random::new(9);
                for _ in 0..2000 {
                    let at = random.below(PAGES) * PAGE;
                    let mut buffer = [0; PAGE as usize];
                    fixture.mapping.read_at(at, &mut buffer).unwrap();
                    assert!(buffer.iter().all(|byte| *byte == buffer[0]));
                }
            });
        });
        fixture.object.close().unwrap();
        let disk = fixture.disk.durable();
        for (page, value) in (0..).zip(&rounds) {
            let value = (value.load(Ordering::Relaxed) % 251) as u8;
            assert!(is_all(&disk, page * PAGE..(page + 1) * PAGE, value), "page {page}");
        }
        let metrics = fixture.cache.metrics();
        assert!(metrics.peak_frame_bytes <= 32 * PAGE && metrics.pinned_bytes == 0, "{metrics:?}");
    });
}

#[test]
fn what_cannot_be_written_is_refused() {
    let cache = memobj_sim::fixture::cache(MIB);
    let object = cache.object("read only", memobj::pagers::Zero::new(MIB), ObjectOptions::default()).unwrap();
    let mapping = object.map(0..MIB, memobj::MapOptions::default()).unwrap();
    assert!(matches!(mapping.pin_new(0..PAGE), Err(AccessError::ReadOnly)));
    let fixture = WritableFixture::new(Delivery::Auto, MIB, MIB, writable());
    assert!(matches!(fixture.mapping.pin_new(0..MIB + 1), Err(AccessError::OutOfRange { .. })));
    if let Ok(words) = fixture.mapping.shared_words() {
        assert!(matches!(fixture.mapping.pin_new(0..PAGE), Err(AccessError::InUse)));
        drop(words);
    }
    assert!(fixture.mapping.pin_new(5..5).unwrap().is_empty());
}

/// Everything again with shared frames.
#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}
