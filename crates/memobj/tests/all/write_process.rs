//! What is left of changes when handles and processes end.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use memobj::{Delivery, Event, Mapping, MemoryObject, WriteStep};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes, within};
use memobj_sim::process::{child, part, show};
use memobj_sim::writable_fixture::{DELIVERIES, WritableFixture, is_all, mapped, writable};

const SIGKILL: i32 = 9;

fn opened(path: &str, delivery: Delivery) -> (memobj::Cache, MemoryObject, Mapping) {
    let cache = cache(4 * MIB);
    let object = cache.open_file(path, writable()).unwrap();
    let mapping = object.map(0..MIB, mapped(delivery)).unwrap();
    (cache, object, mapping)
}

/// Part `INDEX,PATH`: the delivery, and the file.
fn arguments(part: &str) -> (Delivery, &str) {
    let (index, path) = part.split_once(',').unwrap();
    (DELIVERIES[index.parse::<usize>().unwrap()], path)
}

/// Runs `body` in a child on a file, for each delivery, and then `check` with how the child ended and what is left.
fn in_children(
    name: &str,
    body: impl Fn(Delivery, &str),
    check: impl Fn(Delivery, std::process::ExitStatus, &[u8]),
) {
    if let Some(part) = part(name) {
        let (delivery, path) = arguments(&part);
        return body(delivery, path);
    }
    for (index, delivery) in DELIVERIES.into_iter().enumerate() {
        let sample = Sample::new(MIB);
        let output = child(name, &format!("{index},{}", sample.path().display()));
        show(&output);
        check(delivery, output.status, &std::fs::read(sample.path()).unwrap());
    }
}

#[test]
fn drop_without_close_writes_back_and_says_so() {
    for delivery in DELIVERIES {
        within(60, "drop", move || {
            let WritableFixture { mapping, object, cache, disk, pager } =
                WritableFixture::new(delivery, MIB, MIB, writable());
            mapping.write_at(100, &[7; 10_000]).unwrap();
            drop((mapping, object, pager));
            assert!(is_all(&disk.live(), 100..10_100, 7), "{delivery:?}");
            let event = cache.events().try_next();
            let told = matches!(&event, Some(Event::DroppedDirty { object, bytes: 12_288, error: None })
                if object == "sample");
            assert!(told, "{delivery:?}: {event:?}");
            assert_eq!((cache.metrics().frame_bytes, cache.metrics().dirty_bytes), (0, 0));
        });
    }
}

#[test]
fn an_object_that_was_closed_is_dropped_in_silence() {
    for delivery in DELIVERIES {
        let WritableFixture { mapping, object, cache, disk, pager } =
            WritableFixture::new(delivery, MIB, MIB, writable());
        mapping.write_at(100, &[7; 10_000]).unwrap();
        object.close().unwrap();
        assert!(is_all(&disk.durable(), 100..10_100, 7));
        let writes = disk.writes().len();
        drop((mapping, object, pager));
        assert!(cache.events().try_next().is_none());
        assert_eq!(disk.writes().len(), writes);
    }
}

#[test]
fn exit_loses_nothing() {
    let body = |delivery, path: &str| {
        let kept = opened(path, delivery);
        kept.2.write_at(100, &[7; 10_000]).unwrap();
        if kept.2.can_be_touched() {
            kept.2.shared_words().unwrap().store(512 * 1024 / 8, u64::MAX);
        }
        std::mem::forget(kept);
        std::process::exit(3);
    };
    in_children("exit_loses_nothing", body, |delivery, status, bytes| {
        assert_eq!(status.code(), Some(3));
        assert!(is_all(bytes, 100..10_100, 7), "{delivery:?}");
        let touched = is_all(bytes, 512 * 1024..512 * 1024 + 8, 0xff);
        assert!(touched || delivery == Delivery::PinOnly, "{delivery:?}");
    });
}

/// Only the process itself could end its pins: their pages are written as they are.
#[test]
fn exit_waits_for_no_pins() {
    const NAME: &str = "exit_waits_for_no_pins";
    if let Some(part) = part(NAME) {
        let (delivery, path) = arguments(&part);
        let files = [path.to_owned(), format!("{path}.2"), format!("{path}.3")];
        let cache = cache(4 * MIB);
        let opened = files.map(|path| {
            let object = cache.open_file(path, writable()).unwrap();
            let mapping = object.map(0..MIB, mapped(delivery)).unwrap();
            mapping.write_at(8192, &[5; 4096]).unwrap();
            let mut pinned = mapping.pin_mut(MIB - 6000..MIB).unwrap();
            pinned.fill(7);
            (object, mapping, pinned)
        });
        std::mem::forget(opened);
        std::process::exit(3);
    }
    for (index, delivery) in DELIVERIES.into_iter().enumerate() {
        let folder = tempfile::tempdir_in(memobj_sim::fixture::folder()).unwrap();
        let path = folder.path().join("file").display().to_string();
        let files = [path.clone(), format!("{path}.2"), format!("{path}.3")];
        files.iter().for_each(|path| std::fs::write(path, sample_bytes(MIB)).unwrap());
        let mut child = memobj_sim::process::start(NAME, &format!("{index},{path}"));
        assert_eq!(child.wait(20).code(), Some(3), "{delivery:?}");
        for path in files {
            let bytes = std::fs::read(path).unwrap();
            assert!(is_all(&bytes, 8192..12_288, 5), "{delivery:?}");
            assert!(is_all(&bytes, MIB - 6000..MIB, 7), "{delivery:?}: what was stored through a pin");
            assert_eq!(bytes[..8192], sample_bytes(MIB)[..8192], "{delivery:?}");
        }
    }
}

#[test]
fn return_from_main_loses_nothing() {
    let body = |delivery, path: &str| {
        let kept = opened(path, delivery);
        kept.2.write_at(100, &[7; 10_000]).unwrap();
        // The harness returns from `main`, while these live.
        std::mem::forget(kept);
    };
    in_children("return_from_main_loses_nothing", body, |delivery, status, bytes| {
        assert!(status.success());
        assert!(is_all(bytes, 100..10_100, 7), "{delivery:?}");
    });
}

#[test]
fn kill_loses_only_what_was_not_written() {
    let body = |delivery, path: &str| {
        let (_cache, _object, mapping) = opened(path, delivery);
        mapping.write_at(0, &[7; 8192]).unwrap();
        mapping.sync(0..MIB).unwrap();
        mapping.write_at(8192, &[9; 4096]).unwrap();
        signal_hook::low_level::raise(SIGKILL).unwrap();
    };
    in_children("kill_loses_only_what_was_not_written", body, |delivery, status, bytes| {
        assert_eq!(status.signal(), Some(SIGKILL));
        assert!(is_all(bytes, 0..8192, 7), "{delivery:?}");
        // Whole pages, old or new.
        let page = &bytes[8192..12_288];
        assert!(is_all(page, 0..4096, 9) || *page == sample_bytes(MIB)[8192..12_288], "{delivery:?}");
        assert!(bytes[12_288..] == sample_bytes(MIB)[12_288..]);
    });
}

#[test]
fn a_forked_child_never_writes() {
    let body = |delivery, path: &str| {
        let (cache, object, mapping) = opened(path, delivery);
        mapping.write_at(0, &[7; 8192]).unwrap();
        let ended = memobj_linux::testing::fork(20, || {
            let refused = |error: memobj::WriteError| error.kind() == memobj::ErrorKind::Detached;
            let all = mapping.sync(0..MIB).is_err_and(refused)
                && object.close().is_err_and(refused)
                && object.set_len(5).is_err_and(|error| error.step() == WriteStep::SetLength)
                && mapping.write_at(0, &[1]).is_err()
                && mapping.discard(0..MIB).is_err();
            // By exit(3), with its handlers.
            std::process::exit(if all { 7 } else { 8 });
        })
        .unwrap();
        assert_eq!(ended, memobj_linux::testing::Ended::Exited(7), "{delivery:?}");
        // Nothing reached the file, and nothing is lost.
        assert!(std::fs::read(path).unwrap() == sample_bytes(MIB), "{delivery:?}: the child has written");
        assert_eq!(cache.metrics().dirty_bytes, 8192);
        object.close().unwrap();
        assert!(is_all(&std::fs::read(path).unwrap(), 0..8192, 7));
        // The lock is still the parent's.
        assert!(cache.open_file(path, writable()).is_err());
        println!("all is well");
    };
    in_children("a_forked_child_never_writes", body, |delivery, status, _| {
        assert!(status.success(), "{delivery:?}: {status}");
    });
}

#[test]
fn a_program_that_is_started_has_neither_the_lock_nor_the_file() {
    let sample = Sample::new(MIB);
    let (_cache, object, mapping) = opened(sample.path().to_str().unwrap(), Delivery::InThread);
    let mut sleeper = Command::new("sleep").arg("30").spawn().unwrap();
    drop((mapping, object));
    let again = cache(MIB).open_file(sample.path(), writable());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
