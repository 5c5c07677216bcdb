//! Changes that cannot be written back: a typed error, nothing forgotten, and everything written when the fault is
//! gone.

use std::time::Duration;

use memobj::pagers::{Inject, Operation, Pager};
use memobj::{AccessError, Advice, Delivery, ErrorKind, Event, FailurePolicy, ObjectOptions, WriteStep};
use memobj_sim::Gate;
use memobj_sim::fixture::{MIB, cache, sample_bytes, wait_until, wait_until_clean, within};
use memobj_sim::rig::{DELIVERIES, Rig, is_all, writable};
use memobj_sim::time::{passing, passing_while, timeless};

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
fn evict(rig: &Rig) {
    rig.mapping.advise(0..rig.mapping.len(), Advice::DontNeed).unwrap();
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
            let rig = Rig::new(delivery, MIB, MIB, writable());
            rig.mapping.write_at(0, &[7; 40_000]).unwrap();
            rig.inject(Operation::WriteBack, 8192..8193, action, None);
            for _ in 0..2 {
                let error = rig.mapping.sync(0..MIB).unwrap_err();
                assert_eq!((error.kind(), error.step()), (kind, WriteStep::WriteBack), "{error}");
                assert!(error.range().contains(&8192) && !error.is_lost() && error.object() == "sample");
                assert!(rig.cache.metrics().dirty_bytes >= PAGE);
            }
            // Neither eviction nor a read may lose or change what is Dirty.
            evict(&rig);
            let mut buffer = vec![0; 40_000];
            rig.mapping.read_at(0, &mut buffer).unwrap();
            assert!(buffer.iter().all(|byte| *byte == 7), "{delivery:?} {action:?}");
            rig.pager.heal(Operation::WriteBack);
            rig.mapping.sync(0..MIB).unwrap();
            assert!(is_all(&rig.disk.durable(), 0..40_000, 7), "{delivery:?} {action:?}");
            wait_until_clean(&rig.cache);
        }
    });
}

#[test]
fn a_failed_sync_is_not_forgotten_by_the_next_that_succeeds() {
    in_each_delivery(|delivery| {
        let rig = Rig::new(delivery, MIB, MIB, writable());
        rig.mapping.write_at(0, &[7; 8192]).unwrap();
        rig.disk.fail_syncs(1);
        let error = rig.mapping.sync(0..MIB).unwrap_err();
        assert_eq!((error.kind(), error.step(), error.is_lost()), (ErrorKind::Io, WriteStep::Sync, false));
        assert!(!is_all(&rig.disk.durable(), 0..8192, 7));
        // The pages are still here: they are written again, and this time last.
        rig.mapping.sync(0..MIB).unwrap();
        assert!(is_all(&rig.disk.durable(), 0..8192, 7), "{delivery:?}: a failed sync was forgotten");
    });
}

#[test]
fn what_was_evicted_before_a_failed_sync_is_reported_as_lost_until_discarded() {
    in_each_delivery(|delivery| {
        let rig = Rig::new(delivery, MIB, MIB, writable());
        rig.mapping.write_at(0, &[7; 16_384]).unwrap();
        // Written in the background, and evicted, but never synced.
        rig.inject(Operation::Sync, 0..1, Inject::Error, Some(1));
        assert!(rig.mapping.sync(0..MIB).is_err());
        let gate = rig.disk.hold_sync();
        rig.disk.fail_syncs(1);
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| rig.mapping.sync(0..MIB));
            wait_until("the pages are written", || rig.cache.metrics().dirty_bytes == 0);
            evict(&rig);
            gate.open();
            let error = sync.join().unwrap().unwrap_err();
            assert_eq!(error.step(), WriteStep::Sync, "{error}");
        });
        for _ in 0..3 {
            let lost = rig.mapping.sync(0..8192).unwrap_err();
            assert!(lost.is_lost(), "{delivery:?}: {lost}");
            assert!(rig.object.close().unwrap_err().is_lost());
        }
        // Elsewhere nothing was lost.
        rig.mapping.sync(512 * 1024..MIB).unwrap();
        // Half of it is taken note of, then the rest.
        rig.mapping.discard(0..8192).unwrap();
        rig.mapping.sync(0..8192).unwrap();
        assert!(rig.mapping.sync(8192..16_384).unwrap_err().is_lost());
        rig.mapping.discard(8192..16_384).unwrap();
        rig.object.close().unwrap();
    });
}

/// Two syncs of the same pages at once: the one whose turn comes later finds nothing to write, and must not say
/// that all is well.
#[test]
fn a_sync_beside_one_that_fails_does_not_succeed_without_its_bytes() {
    in_each_delivery(|delivery| {
        let rig = Rig::new(delivery, MIB, MIB, writable());
        rig.mapping.write_at(0, &[7; 4096]).unwrap();
        rig.disk.fail_syncs(1);
        let gate = rig.disk.hold_sync();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| rig.mapping.sync(0..PAGE));
            wait_until("the page is written", || rig.cache.metrics().dirty_bytes == 0);
            let second = beside(&gate, || rig.mapping.sync(0..PAGE));
            let durable = is_all(&rig.disk.durable(), 0..PAGE, 7);
            assert!(second.is_err() || durable, "{delivery:?}: synced, but not durable");
            assert!(first.join().unwrap().is_err());
        });
        rig.mapping.sync(0..PAGE).unwrap();
        assert!(is_all(&rig.disk.durable(), 0..PAGE, 7));
    });
}

/// A write that the pager took while a sync was failing may have been among what the sync failed to make durable.
#[test]
fn a_write_under_way_during_a_failed_sync_is_written_again() {
    in_each_delivery(|delivery| {
        let rig = Rig::new(delivery, MIB, MIB, writable());
        rig.mapping.write_at(0, &[1; 4096]).unwrap();
        rig.mapping.write_at(512 * 1024, &[2; 4096]).unwrap();
        let gate = rig.disk.hold_sync();
        rig.disk.fail_syncs(1);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| rig.mapping.sync(0..PAGE));
            wait_until("the first page is written", || rig.cache.metrics().dirty_bytes == PAGE);
            let second = beside(&gate, || rig.mapping.sync(512 * 1024..MIB));
            let durable = is_all(&rig.disk.durable(), 512 * 1024..512 * 1024 + PAGE, 2);
            assert!(second.is_err() || durable, "{delivery:?}");
            assert!(first.join().unwrap().is_err());
        });
        rig.mapping.sync(0..MIB).unwrap();
        let durable = rig.disk.durable();
        assert!(is_all(&durable, 0..PAGE, 1) && is_all(&durable, 512 * 1024..512 * 1024 + PAGE, 2));
    });
}

#[test]
fn a_failure_in_the_background_is_told_at_once_and_by_one_sync() {
    in_each_delivery(|delivery| {
        let rig = Rig::new(delivery, MIB, 2 * MIB, writable());
        rig.inject(Operation::WriteBack, 0..2 * MIB, Inject::Fail(ErrorKind::NoSpace), Some(1));
        // Above the soft target, below the hard one.
        rig.mapping.write_at(0, &[7; 384 * 1024]).unwrap();
        let error = rig.event("a failed write", |event| match event {
            Event::WriteFailed(error) => Some(error.clone()),
            _ => None,
        });
        assert_eq!((error.kind(), error.step()), (ErrorKind::NoSpace, WriteStep::WriteBack));
        let is_healed = || rig.cache.metrics().dirty_bytes <= MIB / 4;
        wait_until("the write was tried again", is_healed);
        // A discard elsewhere takes no note of it.
        rig.mapping.discard(MIB..MIB + PAGE).unwrap();
        let told = rig.mapping.sync(MIB..2 * MIB).unwrap_err();
        assert_eq!(told.kind(), ErrorKind::NoSpace, "{delivery:?}");
        rig.mapping.sync(0..2 * MIB).unwrap();
        assert!(is_all(&rig.disk.durable(), 0..384 * 1024, 7));
    });
}

#[test]
fn discard_is_the_only_way_to_drop_changes() {
    in_each_delivery(|delivery| {
        let rig = Rig::new(delivery, MIB, 4 * MIB, writable());
        rig.inject(Operation::WriteBack, 0..4 * MIB, Inject::Error, None);
        rig.mapping.write_at(0, &[7; 65_536]).unwrap();
        assert!(rig.mapping.sync(0..MIB).is_err());
        evict(&rig);
        for start in (MIB..4 * MIB).step_by(65_536) {
            rig.mapping.populate(start..start + 65_536).unwrap();
        }
        assert_eq!(rig.cache.metrics().dirty_bytes, 65_536, "{delivery:?}");
        assert_eq!(rig.mapping.discard(0..32_768).unwrap(), 8);
        assert_eq!(rig.cache.metrics().dirty_bytes, 32_768);
        let mut buffer = vec![0; 65_536];
        rig.mapping.read_at(0, &mut buffer).unwrap();
        assert!(buffer[..32_768] == sample_bytes(32_768)[..] && is_all(&buffer, 32_768..65_536, 7));
        rig.pager.heal(Operation::WriteBack);
        rig.object.close().unwrap();
        let durable = rig.disk.durable();
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
            let rig = Rig::new(delivery, MIB, 4 * MIB, writable().policy(policy));
            rig.inject(Operation::WriteBack, 0..4 * MIB, Inject::Fail(ErrorKind::NoSpace), None);
            let store = |at: u64| rig.mapping.write_at(at, &[7; 4096]);
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
                wait_until("the hard target is reached", || rig.cache.metrics().dirty_bytes >= MIB / 2);
                // waits: nothing is to happen for a while.
                std::thread::sleep(Duration::from_millis(100));
                assert!(!stores.is_finished(), "{policy:?}");
                rig.pager.heal(Operation::WriteBack);
                stores.join().unwrap();
            });
            while rig.object.close().is_err() {}
            assert!(is_all(&rig.disk.durable(), 0..MIB, 7), "{delivery:?} {policy:?}");
        }
    });
}

#[test]
fn a_write_that_hangs_holds_up_its_own_sync_no_longer_than_the_time_out() {
    in_each_delivery(|delivery| {
        let (cache, clock) = timeless(4 * MIB);
        let rig = Rig::in_cache(&cache, delivery, MIB, impatient());
        let other = Rig::in_cache(&cache, delivery, MIB, impatient());
        rig.inject(Operation::WriteBack, 0..1, Inject::Hang, Some(1));
        rig.mapping.write_at(0, &[7; 8192]).unwrap();
        let sync = || rig.mapping.sync(0..MIB).unwrap_err();
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
        passing(&clock, || drop((rig, other)));
    });
}

/// All that may be Dirty belongs to an object that cannot be written: the other is not held up for ever.
#[test]
fn an_object_at_the_hard_target_leaves_others_their_share() {
    in_each_delivery(|delivery| {
        for action in [Inject::Hang, Inject::Error] {
            let cache = cache(MIB);
            let stuck = Rig::in_cache(&cache, delivery, MIB, writable().policy(FailurePolicy::WaitForEver));
            let other = Rig::in_cache(&cache, delivery, MIB, writable());
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
        let (rig, clock) = Rig::timeless(delivery, MIB, MIB, impatient());
        rig.inject(Operation::Sync, 0..1, Inject::Hang, Some(1));
        rig.mapping.write_at(0, &[7; 8192]).unwrap();
        // The write before it must not be what takes too long.
        let hangs = || rig.pager.hanging() > 0;
        let error = passing_while(&clock, hangs, || rig.mapping.sync(0..MIB).unwrap_err());
        assert_eq!((error.kind(), error.step()), (ErrorKind::Timeout, WriteStep::Sync));
        rig.mapping.sync(0..MIB).unwrap();
        assert!(is_all(&rig.disk.durable(), 0..8192, 7), "{delivery:?}");
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
