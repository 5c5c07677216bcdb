//! Changes that cannot be written back: a typed error, nothing forgotten, and everything written when the fault is
//! gone.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memobj::pagers::{Blocking, BlockingPager, Inject, Operation};
use memobj::{
    AccessError, Advice, Delivery, ErrorKind, Event, FailurePolicy, ObjectOptions, SupplyError, WriteStep,
};
use memobj_sim::Gate;
use memobj_sim::fixture::{MIB, cache, sample_bytes, wait_until, wait_until_clean, within};
use memobj_sim::time::{passing, passing_while, timeless};
use memobj_sim::writable_fixture::{DELIVERIES, WritableFixture, is_all, writable};

const PAGE: u64 = 4096;

fn impatient() -> ObjectOptions {
    let limit = Duration::from_millis(300);
    writable().supply_timeout(limit).pin_timeout(limit)
}

fn in_each_delivery(body: impl Fn(Delivery) + Send + Copy + 'static) {
    for delivery in DELIVERIES {
        within(60, &format!("{delivery:?}"), move || body(delivery));
    }
}

/// Runs `work` and opens `gate` a moment after it has begun.
fn beside<R>(gate: &Gate, work: impl FnOnce() -> R) -> R {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // waits: the work is to have come to its wait, which is no event. Too soon, and less is tested.
            std::thread::sleep(Duration::from_millis(50));
            gate.open();
        });
        work()
    })
}

/// Drops what is Clean of the first MiB.
fn evict(fixture: &WritableFixture) {
    fixture.mapping.advise(0..fixture.mapping.len(), Advice::DontNeed).unwrap();
}

#[test]
fn a_refused_write_is_an_error_and_is_written_when_the_fault_is_gone() {
    in_each_delivery(|delivery| {
        let kinds = [
            (Inject::Error, ErrorKind::Io),
            (Inject::Fail(ErrorKind::NoSpace), ErrorKind::NoSpace),
            (Inject::Short, ErrorKind::NoSpace),
            (Inject::Long, ErrorKind::Io),
            (Inject::Panic, ErrorKind::Integrity),
        ];
        for (action, kind) in kinds {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            fixture.mapping.write_at(0, &[7; 40_000]).unwrap();
            fixture.inject(Operation::WriteBack, 8192..8193, action, None);
            for _ in 0..2 {
                let error = fixture.mapping.sync(0..MIB).unwrap_err();
                assert_eq!((error.kind(), error.step()), (kind, WriteStep::WriteBack), "{error}");
                assert!(error.range().contains(&8192) && !error.is_lost() && error.object() == "sample");
                assert!(fixture.cache.metrics().dirty_bytes >= PAGE);
            }
            // Neither eviction nor a read may lose or change what is Dirty.
            evict(&fixture);
            let mut buffer = vec![0; 40_000];
            fixture.mapping.read_at(0, &mut buffer).unwrap();
            assert!(buffer.iter().all(|byte| *byte == 7), "{delivery:?} {action:?}");
            fixture.pager.heal(Operation::WriteBack);
            fixture.mapping.sync(0..MIB).unwrap();
            assert!(is_all(&fixture.disk.durable(), 0..40_000, 7), "{delivery:?} {action:?}");
            wait_until_clean(&fixture.cache);
        }
    });
}

#[test]
fn a_failed_sync_is_not_forgotten_by_the_next_that_succeeds() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.write_at(0, &[7; 8192]).unwrap();
        fixture.disk.fail_syncs(1);
        let error = fixture.mapping.sync(0..MIB).unwrap_err();
        assert_eq!((error.kind(), error.step(), error.is_lost()), (ErrorKind::Io, WriteStep::Sync, false));
        assert!(!is_all(&fixture.disk.durable(), 0..8192, 7));
        // The pages are still here: they are written again, and this time last.
        fixture.mapping.sync(0..MIB).unwrap();
        assert!(is_all(&fixture.disk.durable(), 0..8192, 7), "{delivery:?}: a failed sync was forgotten");
    });
}

#[test]
fn what_was_evicted_before_a_failed_sync_is_reported_as_lost_until_discarded() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.write_at(0, &[7; 16_384]).unwrap();
        // Written in the background, and evicted, but never synced.
        fixture.inject(Operation::Sync, 0..1, Inject::Error, Some(1));
        assert!(fixture.mapping.sync(0..MIB).is_err());
        let gate = fixture.disk.hold_sync();
        fixture.disk.fail_syncs(1);
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| fixture.mapping.sync(0..MIB));
            wait_until("the pages are written", || fixture.cache.metrics().dirty_bytes == 0);
            evict(&fixture);
            gate.open();
            let error = sync.join().unwrap().unwrap_err();
            assert_eq!(error.step(), WriteStep::Sync, "{error}");
        });
        for _ in 0..3 {
            let lost = fixture.mapping.sync(0..8192).unwrap_err();
            assert!(lost.is_lost(), "{delivery:?}: {lost}");
            assert!(fixture.object.close().unwrap_err().is_lost());
        }
        // Elsewhere nothing was lost.
        fixture.mapping.sync(512 * 1024..MIB).unwrap();
        // Half of it is taken note of, then the rest.
        fixture.mapping.discard(0..8192).unwrap();
        fixture.mapping.sync(0..8192).unwrap();
        assert!(fixture.mapping.sync(8192..16_384).unwrap_err().is_lost());
        fixture.mapping.discard(8192..16_384).unwrap();
        fixture.object.close().unwrap();
    });
}

/// Two syncs of the same pages at once: the one whose turn comes later finds nothing to write, and must not say
/// that all is well.
/// Its syncs fail as long as it is told to, and it keeps what it took meanwhile.
#[derive(Debug, Default)]
struct Spooling {
    bytes: Mutex<Vec<u8>>,
    fails: AtomicBool,
}

impl BlockingPager for Spooling {
    fn length(&self) -> u64 {
        MIB
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        buffer.copy_from_slice(&self.bytes.lock().unwrap()[range.start as usize..range.end as usize]);
        Ok(buffer.len())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        self.bytes.lock().unwrap()[range.start as usize..range.end as usize].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), SupplyError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(SupplyError::new(ErrorKind::Io).keeps_written()),
            false => Ok(()),
        }
    }
}

#[test]
fn what_a_pager_keeps_after_a_failed_sync_is_not_lost() {
    let pager = Arc::new(Spooling { bytes: Mutex::new(vec![1; MIB as usize]), fails: AtomicBool::new(true) });
    let cache = cache(MIB);
    let object = cache.object("spooling", Blocking(Arc::clone(&pager)), writable()).unwrap();
    let mapping = object.map_all(memobj::MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    mapping.write_at(0, &[7; 65536]).unwrap();
    for _ in 0..2 {
        assert_eq!(mapping.sync(..).unwrap_err().kind(), ErrorKind::Io);
        mapping.advise(0..MIB, Advice::DontNeed).unwrap();
        assert_eq!(mapping.pin(0..65536).unwrap()[..], [7; 65536]);
    }
    pager.fails.store(false, Ordering::SeqCst);
    mapping.sync(..).unwrap();
    object.close().unwrap();
    assert_eq!(cache.metrics().dirty_bytes, 0);
}

#[test]
fn a_sync_beside_one_that_fails_does_not_succeed_without_its_bytes() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.write_at(0, &[7; 4096]).unwrap();
        fixture.disk.fail_syncs(1);
        let gate = fixture.disk.hold_sync();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| fixture.mapping.sync(0..PAGE));
            wait_until("the page is written", || fixture.cache.metrics().dirty_bytes == 0);
            let second = beside(&gate, || fixture.mapping.sync(0..PAGE));
            let durable = is_all(&fixture.disk.durable(), 0..PAGE, 7);
            assert!(second.is_err() || durable, "{delivery:?}: synced, but not durable");
            assert!(first.join().unwrap().is_err());
        });
        fixture.mapping.sync(0..PAGE).unwrap();
        assert!(is_all(&fixture.disk.durable(), 0..PAGE, 7));
    });
}

/// A write that the pager accepted while a sync was failing may have been among what the sync failed to make durable.
#[test]
fn a_write_under_way_during_a_failed_sync_is_written_again() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.write_at(0, &[1; 4096]).unwrap();
        fixture.mapping.write_at(512 * 1024, &[2; 4096]).unwrap();
        let gate = fixture.disk.hold_sync();
        fixture.disk.fail_syncs(1);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| fixture.mapping.sync(0..PAGE));
            wait_until("the first page is written", || fixture.cache.metrics().dirty_bytes == PAGE);
            let second = beside(&gate, || fixture.mapping.sync(512 * 1024..MIB));
            let durable = is_all(&fixture.disk.durable(), 512 * 1024..512 * 1024 + PAGE, 2);
            assert!(second.is_err() || durable, "{delivery:?}");
            assert!(first.join().unwrap().is_err());
        });
        fixture.mapping.sync(0..MIB).unwrap();
        let durable = fixture.disk.durable();
        assert!(is_all(&durable, 0..PAGE, 1) && is_all(&durable, 512 * 1024..512 * 1024 + PAGE, 2));
    });
}

#[test]
fn a_failure_in_the_background_is_told_at_once_and_by_one_sync() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, 2 * MIB, writable());
        fixture.inject(Operation::WriteBack, 0..2 * MIB, Inject::Fail(ErrorKind::NoSpace), Some(1));
        // Above the soft target, below the hard one.
        fixture.mapping.write_at(0, &[7; 384 * 1024]).unwrap();
        let error = fixture.event("a failed write", |event| match event {
            Event::WriteFailed(error) => Some(error.clone()),
            _ => None,
        });
        assert_eq!((error.kind(), error.step()), (ErrorKind::NoSpace, WriteStep::WriteBack));
        let is_healed = || fixture.cache.metrics().dirty_bytes <= MIB / 4;
        wait_until("the write was tried again", is_healed);
        // A discard elsewhere takes no note of it.
        fixture.mapping.discard(MIB..MIB + PAGE).unwrap();
        let told = fixture.mapping.sync(MIB..2 * MIB).unwrap_err();
        assert_eq!(told.kind(), ErrorKind::NoSpace, "{delivery:?}");
        fixture.mapping.sync(0..2 * MIB).unwrap();
        assert!(is_all(&fixture.disk.durable(), 0..384 * 1024, 7));
    });
}

#[test]
fn discard_is_the_only_way_to_drop_changes() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, 4 * MIB, writable());
        fixture.inject(Operation::WriteBack, 0..4 * MIB, Inject::Error, None);
        fixture.mapping.write_at(0, &[7; 65_536]).unwrap();
        assert!(fixture.mapping.sync(0..MIB).is_err());
        evict(&fixture);
        for start in (MIB..4 * MIB).step_by(65_536) {
            fixture.mapping.populate(start..start + 65_536).unwrap();
        }
        assert_eq!(fixture.cache.metrics().dirty_bytes, 65_536, "{delivery:?}");
        assert_eq!(fixture.mapping.discard(0..32_768).unwrap(), 8);
        assert_eq!(fixture.cache.metrics().dirty_bytes, 32_768);
        let mut buffer = vec![0; 65_536];
        fixture.mapping.read_at(0, &mut buffer).unwrap();
        assert!(buffer[..32_768] == sample_bytes(32_768)[..] && is_all(&buffer, 32_768..65_536, 7));
        fixture.pager.heal(Operation::WriteBack);
        fixture.object.close().unwrap();
        let durable = fixture.disk.durable();
        assert!(durable[..32_768] == sample_bytes(32_768)[..] && is_all(&durable, 32_768..65_536, 7));
    });
}

#[test]
fn a_store_at_the_hard_target_fails_at_once_or_waits_until_it_heals() {
    in_each_delivery(|delivery| {
        for policy in [
            FailurePolicy::FailAtOnce,
            FailurePolicy::RetryFor(Duration::from_secs(5)),
            FailurePolicy::WaitForEver,
        ] {
            let fixture = WritableFixture::new(delivery, MIB, 4 * MIB, writable().policy(policy));
            fixture.inject(Operation::WriteBack, 0..4 * MIB, Inject::Fail(ErrorKind::NoSpace), None);
            let store = |at: u64| fixture.mapping.write_at(at, &[7; 4096]);
            if policy == FailurePolicy::FailAtOnce {
                let refused = (0..MIB).step_by(4096).find_map(|at| store(at).err());
                match refused {
                    Some(AccessError::Write(error)) => assert_eq!(error.kind(), ErrorKind::NoSpace),
                    other => panic!("{delivery:?}: {other:?}"),
                }
                continue;
            }
            std::thread::scope(|scope| {
                let stores = scope.spawn(|| (0..MIB).step_by(4096).for_each(|at| store(at).unwrap()));
                wait_until("the hard target is reached", || fixture.cache.metrics().dirty_bytes >= MIB / 2);
                // waits: nothing is to happen for a while.
                std::thread::sleep(Duration::from_millis(100));
                assert!(!stores.is_finished(), "{policy:?}");
                fixture.pager.heal(Operation::WriteBack);
                stores.join().unwrap();
            });
            while fixture.object.close().is_err() {}
            assert!(is_all(&fixture.disk.durable(), 0..MIB, 7), "{delivery:?} {policy:?}");
        }
    });
}

#[test]
fn a_write_that_hangs_holds_up_its_own_sync_no_longer_than_the_time_out() {
    in_each_delivery(|delivery| {
        let (cache, clock) = timeless(4 * MIB);
        let fixture = WritableFixture::in_cache(&cache, delivery, MIB, impatient());
        let other = WritableFixture::in_cache(&cache, delivery, MIB, impatient());
        fixture.inject(Operation::WriteBack, 0..1, Inject::Hang, Some(1));
        fixture.mapping.write_at(0, &[7; 8192]).unwrap();
        let sync = || fixture.mapping.sync(0..MIB).unwrap_err();
        let error = passing(&clock, sync);
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        // The page is still in flight: it is not written a second time beside the first.
        assert_eq!(passing(&clock, sync).kind(), ErrorKind::Timeout);
        for round in 0..20u8 {
            other.mapping.write_at(0, &vec![round; 512 * 1024]).unwrap();
            other.mapping.sync(0..MIB).unwrap();
        }
        assert!(is_all(&other.disk.durable(), 0..512 * 1024, 19));
        // The end of the object waits once more for the write that hangs.
        passing(&clock, || drop((fixture, other)));
    });
}

/// All that may be Dirty belongs to an object that cannot be written: the other is not blocked for ever.
#[test]
fn an_object_at_the_hard_target_leaves_others_their_share() {
    in_each_delivery(|delivery| {
        for action in [Inject::Hang, Inject::Error] {
            let cache = cache(MIB);
            let stuck = WritableFixture::in_cache(
                &cache,
                delivery,
                MIB,
                writable().policy(FailurePolicy::WaitForEver),
            );
            let other = WritableFixture::in_cache(&cache, delivery, MIB, writable());
            stuck.inject(Operation::WriteBack, 0..MIB, action, None);
            stuck.mapping.write_at(0, &vec![7; MIB as usize / 2]).unwrap();
            for value in 1..4 {
                other.mapping.write_at(0, &vec![value; MIB as usize]).unwrap();
                let mut buffer = vec![0; MIB as usize];
                other.mapping.read_at(0, &mut buffer).unwrap();
                assert!(is_all(&buffer, 0..MIB, value), "{delivery:?} {action:?}");
            }
            other.object.close().unwrap();
            assert!(is_all(&other.disk.durable(), 0..MIB, 3), "{delivery:?} {action:?}");
            assert!(cache.metrics().peak_frame_bytes <= MIB);
            stuck.pager.heal(Operation::WriteBack);
            // A call that hangs ends with its object; nothing waits for it here.
            stuck.pager.detach();
        }
    });
}

#[test]
fn a_hanging_sync_ends_by_the_time_out_and_is_not_forgotten() {
    in_each_delivery(|delivery| {
        let (fixture, clock) = WritableFixture::timeless(delivery, MIB, MIB, impatient());
        fixture.inject(Operation::Sync, 0..1, Inject::Hang, Some(1));
        fixture.mapping.write_at(0, &[7; 8192]).unwrap();
        // The write before it must not be what takes too long.
        let hangs = || fixture.pager.hanging() > 0;
        let error = passing_while(&clock, hangs, || fixture.mapping.sync(0..MIB).unwrap_err());
        assert_eq!((error.kind(), error.step()), (ErrorKind::Timeout, WriteStep::Sync));
        fixture.mapping.sync(0..MIB).unwrap();
        assert!(is_all(&fixture.disk.durable(), 0..8192, 7), "{delivery:?}");
    });
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}

#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}
