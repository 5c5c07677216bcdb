//! Objects that grow and shrink while they are mapped.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use memobj::pagers::{Inject, Operation};
use memobj::{AccessError, Delivery, ErrorKind, ObjectOptions, WriteStep};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, Sample, StopAtEnd, cache, sample_bytes, wait_until, within};
use memobj_sim::process::{child, part, show};
use memobj_sim::time::passing;
use memobj_sim::writable_fixture::{DELIVERIES, WritableFixture, is_all, mapped, writable};

const SIGBUS: i32 = 7;

const PATIENCE: Duration = Duration::from_millis(300);

fn impatient() -> ObjectOptions {
    writable().supply_timeout(PATIENCE).pin_timeout(PATIENCE)
}

fn in_each_delivery(body: impl Fn(Delivery) + Send + Copy + 'static) {
    for delivery in DELIVERIES {
        within(60, &format!("{delivery:?}"), move || body(delivery));
    }
}

fn read(fixture: &WritableFixture, offset: u64, length: u64) -> Vec<u8> {
    let mut buffer = vec![0xee; length as usize];
    fixture.mapping.read_at(offset, &mut buffer).unwrap();
    buffer
}

#[test]
fn what_was_cut_off_comes_back_as_zeros() {
    in_each_delivery(|delivery| {
        for (short, tail) in [(8192, 0), (10_000, 10_000 - 8192), (1, 1), (0, 0)] {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            fixture.mapping.write_at(0, &[7; 300_000]).unwrap();
            fixture.object.set_len(short).unwrap();
            assert_eq!((fixture.object.len(), fixture.disk.live().len() as u64), (short, short));
            assert!(matches!(fixture.mapping.write_at(short, &[1]), Err(AccessError::OutOfRange { .. })));
            assert!(matches!(fixture.mapping.pin(short..short + 1), Err(AccessError::OutOfRange { .. })));
            assert!(fixture.mapping.sync(0..MIB).is_err());
            fixture.object.sync().unwrap();
            fixture.object.set_len(MIB).unwrap();
            let bytes = read(&fixture, 0, MIB);
            assert!(is_all(&bytes, 0..short, 7) && is_all(&bytes, short..MIB, 0), "{delivery:?} {tail}");
            fixture.object.close().unwrap();
            let durable = fixture.disk.durable();
            assert!(durable == bytes, "{delivery:?} {short}");
        }
    });
}

/// The last page of an object can be stored to behind its end, by plain stores: that is not part of it.
#[test]
fn stray_stores_behind_the_end_do_not_become_part_of_the_object() {
    for delivery in [Delivery::InThread, Delivery::ReaderThread] {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.write_at(0, &[7; 8192]).unwrap();
        fixture.object.set_len(5000).unwrap();
        let words = fixture.mapping.shared_words().unwrap();
        assert_eq!(words.load(5000 / 8), 0, "{delivery:?}: what was cut off is still there");
        words.store(8000 / 8, u64::MAX);
        assert_eq!(words.load(8000 / 8), u64::MAX);
        drop(words);
        fixture.object.sync().unwrap();
        fixture.object.set_len(MIB).unwrap();
        let bytes = read(&fixture, 0, MIB);
        assert!(is_all(&bytes, 0..5000, 7) && is_all(&bytes, 5000..MIB, 0), "{delivery:?}");
        fixture.object.close().unwrap();
        assert!(fixture.disk.durable() == bytes, "{delivery:?}");
    }
}

#[test]
fn a_refused_new_length_changes_nothing() {
    in_each_delivery(|delivery| {
        for action in [Inject::Error, Inject::Fail(ErrorKind::NoSpace), Inject::Panic] {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            fixture.mapping.write_at(0, &[7; 100_000]).unwrap();
            fixture.inject(Operation::SetLength, 0..1, action, Some(2));
            for length in [10_000, 2 * MIB + 5] {
                let error = fixture.object.set_len(length).unwrap_err();
                assert_eq!(error.step(), WriteStep::SetLength, "{error}");
                assert_eq!(fixture.object.len(), MIB);
            }
            let bytes = read(&fixture, 0, MIB);
            assert!(is_all(&bytes, 0..100_000, 7), "{delivery:?} {action:?}");
            assert!(bytes[100_000..] == sample_bytes(MIB)[100_000..]);
            fixture.object.close().unwrap();
            assert!(fixture.disk.durable() == bytes, "{delivery:?} {action:?}");
        }
    });
}

/// While a shorter length is being tried, others sync, read and store; then it is refused.
#[test]
fn a_new_length_that_is_refused_late_loses_nothing_of_what_others_do_meanwhile() {
    in_each_delivery(|delivery| {
        for resident in [true, false] {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            if resident {
                fixture.mapping.write_at(0, &[7; 100_000]).unwrap();
            }
            let before = read(&fixture, 0, MIB);
            if !resident {
                fixture.mapping.advise(0..MIB, memobj::Advice::DontNeed).unwrap();
            }
            let gate = fixture.disk.refuse_length();
            std::thread::scope(|scope| {
                let change = scope.spawn(|| fixture.object.set_len(10_000));
                wait_until("the length changes", || {
                    matches!(fixture.mapping.pin(20_000..20_001), Err(AccessError::OutOfRange { .. }))
                });
                let others = scope.spawn(|| {
                    let _ = fixture.mapping.sync(0..10_000);
                    let mut buffer = [0; 1000];
                    fixture.mapping.read_at(9000, &mut buffer).unwrap();
                });
                wait_until("the call is made", || fixture.disk.arrived() == 1);
                // waits: the others are to have come to their waits. Too soon, and less is tested.
                std::thread::sleep(Duration::from_millis(20));
                gate.open();
                others.join().unwrap();
                assert_eq!(change.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
            });
            fixture.mapping.sync(0..MIB).unwrap();
            fixture.mapping.advise(0..MIB, memobj::Advice::DontNeed).unwrap();
            assert!(read(&fixture, 0, MIB) == before, "{delivery:?}, resident {resident}");
            fixture.object.close().unwrap();
            assert!(fixture.disk.durable() == before, "{delivery:?}, resident {resident}");
        }
    });
}

/// The page of the new end has failed before. It is asked for again while the shorter length is tried, which is refused.
#[test]
fn a_failed_last_page_does_not_come_back_with_the_bytes_of_a_refused_length() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        let before = read(&fixture, 0, MIB);
        fixture.mapping.advise(0..MIB, memobj::Advice::DontNeed).unwrap();
        fixture.inject(Operation::Supply, 8192..12_288, Inject::Error, Some(1));
        assert!(fixture.mapping.read_at(8192, &mut [0; 8]).is_err(), "{delivery:?}");
        let gate = fixture.disk.refuse_length();
        std::thread::scope(|scope| {
            let change = scope.spawn(|| fixture.object.set_len(10_000));
            wait_until("the call is made", || fixture.disk.arrived() == 1);
            fixture.mapping.retry(8192..10_000).unwrap();
            let other = scope.spawn(|| drop(fixture.mapping.read_at(9000, &mut [0; 1000])));
            // waits: the other is to have come to its wait. Too soon, and less is tested.
            std::thread::sleep(Duration::from_millis(20));
            gate.open();
            other.join().unwrap();
            assert_eq!(change.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        });
        assert!(read(&fixture, 0, MIB) == before, "{delivery:?}");
    });
}

/// What failed is asked for again once the length is another: the old answer was about other bytes.
#[test]
fn a_page_that_failed_behind_an_end_is_asked_for_again_when_the_end_moves() {
    in_each_delivery(|delivery| {
        for is_refused in [true, false] {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            fixture.inject(Operation::Supply, 40_960..45_056, Inject::Fail(ErrorKind::Truncated), Some(1));
            let mut byte = [0];
            assert!(fixture.mapping.read_at(40_960, &mut byte).is_err());
            if is_refused {
                fixture.inject(Operation::SetLength, 0..1, Inject::Error, Some(1));
                fixture.object.set_len(10_000).unwrap_err();
                assert_eq!(read(&fixture, 40_960, 1), [sample_bytes(MIB)[40_960]], "{delivery:?}");
            } else {
                fixture.object.set_len(10_000).unwrap();
                fixture.object.set_len(MIB).unwrap();
                assert_eq!(read(&fixture, 40_960, 1), [0], "{delivery:?}");
            }
        }
    });
}

#[test]
fn pins_behind_the_new_end_block_it_until_the_time_out() {
    in_each_delivery(|delivery| {
        let (fixture, clock) = WritableFixture::timeless(delivery, MIB, MIB, impatient());
        let pinned = fixture.mapping.pin(20_000..20_001).unwrap();
        let error = passing(&clock, || fixture.object.set_len(10_000)).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Timeout, WriteStep::SetLength), "{error}");
        assert_eq!((fixture.object.len(), pinned[0]), (MIB, sample_bytes(MIB)[20_000]));
        drop(pinned);
        let mut pinned = fixture.mapping.pin_mut(20_000..20_001).unwrap();
        let error = passing(&clock, || fixture.object.set_len(10_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        pinned[0] = 9;
        drop(pinned);
        assert_eq!(read(&fixture, 20_000, 1), [9]);
        fixture.object.set_len(10_000).unwrap();
        assert_eq!(fixture.object.len(), 10_000);
    });
}

#[test]
fn the_length_of_an_object_that_is_not_mapped_is_durable_after_a_sync() {
    let cache = cache(MIB);
    let disk = memobj_sim::Disk::new(sample_bytes(MIB));
    let object = cache.object("sample", disk.clone(), writable()).unwrap();
    object.set_len(5000).unwrap();
    object.sync().unwrap();
    assert_eq!((disk.durable().len(), object.len()), (5000, 5000));
}

#[test]
fn an_object_cannot_outgrow_its_addresses() {
    let options = writable().max_len(2 * MIB);
    let fixture = WritableFixture::new(Delivery::InThread, MIB, MIB, options);
    assert_eq!(fixture.object.set_len(2 * MIB + 1).unwrap_err().kind(), ErrorKind::NoSpace);
    fixture.object.set_len(2 * MIB).unwrap();
    assert_eq!(fixture.object.len(), 2 * MIB);
}

fn touch_behind_the_end(name: &str, delivery: Delivery, store: impl Fn(&WritableFixture, u64)) {
    let Some(_) = part(name) else {
        let output = child(name, "child");
        let text = String::from_utf8_lossy(&output.stdout);
        let trapped = text.contains("about to touch") && !text.contains("touched");
        if !trapped || output.status.signal() != Some(SIGBUS) {
            show(&output);
            panic!("{delivery:?}: {}", output.status);
        }
        return;
    };
    let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
    fixture.mapping.write_at(0, &[7; 65_536]).unwrap();
    fixture.object.set_len(8192).unwrap();
    let words = fixture.mapping.shared_words().unwrap();
    assert_eq!(words.load(0), 0x0707_0707_0707_0707);
    println!("about to touch");
    store(&fixture, 8192 / 8);
    println!("touched");
}

#[test]
fn a_load_behind_the_end_traps_in_thread() {
    let load =
        |fixture: &WritableFixture, word| println!("{}", fixture.mapping.shared_words().unwrap().load(word));
    touch_behind_the_end("a_load_behind_the_end_traps_in_thread", Delivery::InThread, load);
}

#[test]
fn a_load_behind_the_end_traps_reader_thread() {
    let load =
        |fixture: &WritableFixture, word| println!("{}", fixture.mapping.shared_words().unwrap().load(word));
    touch_behind_the_end("a_load_behind_the_end_traps_reader_thread", Delivery::ReaderThread, load);
}

#[test]
fn a_store_behind_the_end_traps_in_thread() {
    let store = |fixture: &WritableFixture, word| fixture.mapping.shared_words().unwrap().store(word, 1);
    touch_behind_the_end("a_store_behind_the_end_traps_in_thread", Delivery::InThread, store);
}

#[test]
fn a_store_behind_the_end_traps_reader_thread() {
    let store = |fixture: &WritableFixture, word| fixture.mapping.shared_words().unwrap().store(word, 1);
    touch_behind_the_end("a_store_behind_the_end_traps_reader_thread", Delivery::ReaderThread, store);
}

/// Lengths change at random while others read, store and sync within what is always there.
#[test]
fn lengths_change_while_others_use_the_rest() {
    let seed = 0x5eed_0003;
    println!("seed {seed}");
    for delivery in DELIVERIES {
        let sample = Sample::new(MIB);
        let cache = cache(MIB / 2);
        let object = cache.open_file(sample.path(), writable()).unwrap();
        let mapping = object.map(0..MIB, mapped(delivery)).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stopped = StopAtEnd(&stop);
            scope.spawn(|| {
                let mut random = Random::new(seed);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let at = random.below(400_000);
                    mapping.write_at(at, &sample_bytes(MIB)[at as usize..at as usize + 9000]).unwrap();
                    let at = random.below(400_000);
                    let pinned = mapping.pin(at..at + 9000).unwrap();
                    assert!(*pinned == sample_bytes(MIB)[at as usize..at as usize + 9000]);
                    drop(pinned);
                    // What is cut off at this moment is out of range, and nothing else is wrong with it.
                    let beyond = mapping.write_at(random.below(MIB - 9000), &[0x55; 9000]);
                    assert!(matches!(beyond, Ok(()) | Err(AccessError::OutOfRange { .. })), "{beyond:?}");
                    let at = random.below(400_000);
                    mapping.write_at(0, &sample_bytes(MIB)[..500_000]).unwrap();
                    mapping.sync(0..at).unwrap();
                }
            });
            let mut random = Random::new(seed + 1);
            for _ in 0..200 {
                object.set_len(500_000 + random.below(MIB - 500_000)).unwrap();
            }
            object.set_len(500_000).unwrap();
        });
        object.set_len(MIB).unwrap();
        object.close().unwrap();
        let file = std::fs::read(sample.path()).unwrap();
        assert!(file[..500_000] == sample_bytes(MIB)[..500_000], "{delivery:?}");
        assert!(is_all(&file, 500_000..MIB, 0), "{delivery:?}: not zeros behind the end");
    }
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}

#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}

/// Whether thread `id` of this process sleeps.
fn is_asleep(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

/// Runs `change` on a thread that has to wait for a pin, and `meanwhile` before the pin ends.
fn beside_a_wait(
    fixture: WritableFixture,
    pinned: std::ops::Range<u64>,
    change: impl FnOnce(&WritableFixture) -> Result<(), memobj::WriteError> + Send + 'static,
    meanwhile: impl FnOnce(&WritableFixture) + Send + 'static,
) {
    let fixture = std::sync::Arc::new(fixture);
    let pin = fixture.mapping.pin_mut(pinned).unwrap();
    let (report, started) = std::sync::mpsc::channel();
    let changing = std::thread::spawn({
        let fixture = std::sync::Arc::clone(&fixture);
        move || {
            report.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            change(&fixture)
        }
    });
    let id = started.recv().unwrap();
    wait_until("the thread waits for the pin", || is_asleep(id));
    within(20, "others", move || meanwhile(&fixture));
    assert!(!changing.is_finished(), "it waited for nothing");
    drop(pin);
    within(20, "the change", move || changing.join().unwrap().unwrap());
}

/// Patient enough that only the end of the pin ends the wait.
fn patient() -> ObjectOptions {
    writable().supply_timeout(Duration::from_secs(100))
}

fn use_it(fixture: &WritableFixture) {
    let mapping = fixture.object.map(0..8192, mapped(Delivery::PinOnly)).unwrap();
    mapping.write_at(0, &[3; 4096]).unwrap();
    mapping.sync(0..4096).unwrap();
    assert_eq!(mapping.pin(0..4096).unwrap()[..], [3; 4096]);
}

#[test]
fn a_new_length_that_waits_for_a_pin_holds_up_nobody() {
    for length in [8192, 10_000] {
        in_each_delivery(move |delivery| {
            let fixture = WritableFixture::new(delivery, MIB, MIB, patient());
            let pinned = if length == 8192 { MIB - 4096..MIB } else { 8192..12_288 };
            beside_a_wait(fixture, pinned, move |fixture| fixture.object.set_len(length), use_it);
        });
    }
}

#[test]
fn a_sync_that_waits_for_a_pin_holds_up_no_new_length() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, patient());
        let (kept, changed) = (fixture.object.clone(), MIB - 8192);
        beside_a_wait(
            fixture,
            0..4096,
            |fixture| fixture.object.sync(),
            move |fixture| fixture.object.set_len(changed).unwrap(),
        );
        assert_eq!(kept.len(), changed);
    });
}
