//! Mappings without addresses: the same bytes by pins and copies, also where the kernel gives no userfaultfd.

use std::sync::Arc;
use std::time::Duration;

use memobj::doctor::Status;
use memobj::pagers::{Bytes, Faulty, File, Inject, Injection, Operation, Pager, Zero};
use memobj::{AccessError, Advice, Cache, Delivery, ErrorKind, FailurePolicy, Mapping, ObjectOptions};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, Sample, cache, check_sample, sample_bytes, sample_pager, wait_until, within};
use memobj_sim::process::alone;
use memobj_sim::writable_fixture::{WritableFixture, mapped, writable};

const LENGTH: u64 = 2 * MIB + 777;
const BUDGET: u64 = MIB / 4;

fn pin_only(pager: impl Pager + 'static, options: ObjectOptions) -> (Cache, Mapping) {
    let cache = cache(BUDGET);
    let object = cache.object("sample", pager, options).unwrap();
    let mapping = object.map(0..object.len(), mapped(Delivery::PinOnly)).unwrap();
    (cache, mapping)
}

/// Reads all over `mapping` by every way there is.
fn read_all_over(mapping: &Mapping, expected: &[u8], what: &str) {
    let seed = 0x5eed_0007;
    println!("{what}: seed {seed}");
    let mut random = Random::new(seed);
    for step in 0..400 {
        let length = 1 + random.below(30_000);
        let at = random.below(mapping.len() - length);
        let right = &expected[at as usize..(at + length) as usize];
        match step % 4 {
            0 => assert!(*mapping.pin(at..at + length).unwrap() == *right, "{what}: pin at {at}"),
            1 => mapping.prefetch(&[at..at + length, 0..LENGTH / 2]).unwrap(),
            2 => mapping.populate(at..at + length).unwrap(),
            _ => {
                let mut buffer = vec![0xee; length as usize];
                mapping.read_at(at, &mut buffer).unwrap();
                assert!(buffer == right, "{what}: read at {at}");
            }
        }
    }
    let mut buffer = vec![0xee; mapping.len() as usize];
    mapping.read_at(0, &mut buffer).unwrap();
    assert!(buffer == expected, "{what}: all of it");
}

#[test]
fn every_pager_gives_its_bytes_through_pins_and_copies_under_a_small_budget() {
    within(60, "pins and copies", || {
        let sample = Sample::new(LENGTH);
        let pagers: [(&str, Box<dyn Pager>); 4] = [
            ("file", Box::new(File::open(sample.path()).unwrap())),
            ("bytes", Box::new(Bytes::new(sample_bytes(LENGTH)))),
            ("zero", Box::new(Zero::new(LENGTH))),
            ("custom", Box::new(Faulty::new(sample_pager(LENGTH), Vec::new(), 1))),
        ];
        for (what, pager) in pagers {
            let zeros = vec![0; LENGTH as usize];
            let expected = if what == "zero" { &zeros } else { sample_bytes(LENGTH) };
            let (cache, mapping) = pin_only(pager, ObjectOptions::default());
            read_all_over(&mapping, expected, what);
            let metrics = cache.metrics();
            assert!(metrics.peak_frame_bytes <= BUDGET && metrics.evicted_pages > 0, "{what}: {metrics:?}");
            drop(mapping);
            wait_until("all memory is back", || cache.metrics().frame_bytes == 0);
        }
    });
}

#[test]
fn there_is_no_address_to_touch() {
    for options in [ObjectOptions::default(), writable()] {
        let fixture = WritableFixture::new(Delivery::PinOnly, MIB, MIB, options);
        let mapping = &fixture.mapping;
        assert!(mapping.as_ptr().is_null() && mapping.as_mut_ptr().is_null() && !mapping.can_be_touched());
        assert!(matches!(mapping.touch_at(0, &mut [0; 10]), Err(AccessError::PinOnly)));
        assert!(mapping.words().is_none() && mapping.shared_words().is_err());
        assert_eq!(mapping.pin(0..10).unwrap()[..], sample_bytes(10)[..]);
    }
}

#[test]
fn a_failed_page_is_an_error_spares_the_others_and_can_be_tried_again() {
    within(60, "failures", || {
        let pager = Arc::new(Faulty::new(sample_pager(LENGTH), Vec::new(), 1));
        let (cache, mapping) = pin_only(Arc::clone(&pager), ObjectOptions::default());
        for (action, kind) in [
            (Inject::Error, ErrorKind::Io),
            (Inject::Short, ErrorKind::Truncated),
            (Inject::Long, ErrorKind::Integrity),
        ] {
            let injection = Injection::new(8192..8193, action);
            pager.inject(Operation::Supply, injection);
            mapping.advise(0..LENGTH, Advice::DontNeed).unwrap();
            let mut buffer = vec![0xee; 4096];
            let error = mapping.read_at(8192, &mut buffer).unwrap_err();
            assert_eq!(error.page_error().unwrap().kind(), kind);
            assert!(mapping.pin(8000..8300).is_err() && mapping.populate(0..16_384).is_err());
            assert!(buffer.iter().all(|byte| *byte == 0xee), "bytes of a failed page were handed out");
            mapping.read_at(0, &mut buffer).unwrap();
            check_sample(0..4096, &buffer, "the page before");
            pager.heal(Operation::Supply);
            assert_eq!(mapping.retry(0..LENGTH).unwrap(), 1);
            mapping.read_at(8192, &mut buffer).unwrap();
            check_sample(8192..12_288, &buffer, "the page after it was tried again");
        }
        assert_eq!(cache.metrics().pinned_bytes, 0);
    });
}

#[test]
fn a_pager_that_fails_for_a_while_is_waited_for() {
    within(60, "retries", || {
        let injection = Injection::new(0..LENGTH, Inject::Error).times(3);
        let options = ObjectOptions::new().policy(FailurePolicy::RetryFor(Duration::from_secs(3600)));
        let (cache, mapping) = pin_only(Faulty::new(sample_pager(LENGTH), vec![injection], 1), options);
        check_sample(0..9000, &mapping.pin(0..9000).unwrap(), "after retries");
        assert!(cache.metrics().retries > 0);
    });
}

#[test]
fn auto_comes_to_pins_where_userfaultfd_is_denied() {
    alone("auto_comes_to_pins_where_userfaultfd_is_denied", || {
        if let Err(error) = memobj_linux::testing::deny_userfaultfd() {
            return println!("skipped: no seccomp filter: {error}");
        }
        let report = memobj::doctor::report();
        let facility = |name| report.iter().find(|facility| facility.name == name).unwrap();
        let faults = facility("userfaultfd");
        assert_eq!(faults.status, Status::Missing);
        let instead = faults.used_instead.unwrap();
        assert!(instead.contains("pinned and copied") && faults.fix.is_some(), "{faults:?}");
        assert_eq!(facility("faults in system calls").status, Status::Missing);

        let sample = Sample::new(LENGTH);
        let cache = cache(BUDGET);
        let object = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
        let mapping = object.map(0..LENGTH, mapped(Delivery::Auto)).unwrap();
        assert!(!mapping.can_be_touched());
        read_all_over(&mapping, sample_bytes(LENGTH), "denied");
        for delivery in [Delivery::InThread, Delivery::ReaderThread] {
            let other = cache.object("other", Zero::new(MIB), ObjectOptions::default()).unwrap();
            let refused = other.map(0..MIB, mapped(delivery));
            assert!(matches!(refused, Err(memobj::MapError::NoUserfaultfd { .. })), "{refused:?}");
        }
        drop((mapping, object));
        let object = cache.open_file(sample.path(), writable()).unwrap();
        let mapping = object.map(0..LENGTH, mapped(Delivery::Auto)).unwrap();
        mapping.write_at(5000, &[7; 500_000]).unwrap();
        mapping.pin_mut(0..100).unwrap().fill(9);
        object.close().unwrap();
        let bytes = std::fs::read(sample.path()).unwrap();
        assert!(bytes[..100] == [9; 100] && bytes[5000..505_000].iter().all(|byte| *byte == 7));
        assert!(bytes[505_000..] == sample_bytes(LENGTH)[505_000..]);
    });
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
