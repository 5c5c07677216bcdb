//! A limit on the size of files (RLIMIT_FSIZE): what does not fit is an error, never the end of the process by SIGXFSZ.

use std::os::unix::process::ExitStatusExt;

use memobj::pagers::File;
use memobj::{
    Cache, CacheOptions, Delivery, ErrorKind, Event, FrameVisibility, MapOptions, Mapping, ObjectOptions,
    Reads, Sharing, WriteError, Writing,
};
use memobj_sim::fixture::{MIB, Sample, within};
use memobj_sim::process::{child, part, show};
use memobj_sim::writable_fixture::mapped;
use rustix::process::{Resource, Rlimit, setrlimit};

const LIMIT: u64 = 256 << 10;

fn limit_files() {
    setrlimit(Resource::Fsize, Rlimit { current: Some(LIMIT), maximum: None }).unwrap();
}

/// Runs `body` in a child that may not make files larger, for each way to read and write files.
fn in_children(name: &str, body: impl Fn(&Cache, &str) + Send + 'static) {
    if let Some(part) = part(name) {
        let (reads, path) = part.split_once(',').unwrap();
        let reads = if reads == "threads" { Reads::Threads } else { Reads::Auto };
        let cache = Cache::new(CacheOptions::new().budget_bytes(MIB).reads(reads)).unwrap();
        return body(&cache, path);
    }
    for reads in ["auto", "threads"] {
        let sample = Sample::new(MIB);
        let (name, part) = (name.to_owned(), format!("{reads},{}", sample.path().display()));
        let output = within(100, reads, move || child(&name, &part));
        show(&output);
        assert_eq!(output.status.signal(), None, "{reads}: killed");
        assert!(output.status.success(), "{reads}: {}", output.status);
    }
}

fn open(cache: &Cache, path: &str, writing: Writing) -> (memobj::MemoryObject, Mapping) {
    let object = cache.open_file(path, ObjectOptions::new().writing(writing)).unwrap();
    let mapping = object.map(0..object.len(), mapped(Delivery::PinOnly)).unwrap();
    (object, mapping)
}

fn no_room(result: Result<(), WriteError>, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}");
}

#[test]
fn write_back_in_the_callers_thread_and_in_the_background() {
    in_children("write_back_in_the_callers_thread_and_in_the_background", |cache, path| {
        let (object, mapping) = open(cache, path, Writing::InPlace);
        limit_files();
        mapping.write_at(MIB - 4096, &[7; 4096]).unwrap();
        no_room(mapping.sync(0..MIB), "a page behind the limit");
        no_room(object.set_len(2 * MIB), "a longer file");
        // The last page is written in another way.
        object.set_len(MIB - 100).unwrap();
        no_room(object.sync(), "the last page");
        // What fits is written. The sync may tell of what failed before.
        mapping.write_at(0, &[5; 4096]).unwrap();
        let _ = mapping.sync(0..4096);
        assert_eq!(std::fs::read(path).unwrap()[..4096], [5; 4096]);
        // From a quarter of the budget on the cleaner writes.
        let refused = (LIMIT..MIB - 4096).step_by(4096).any(|at| mapping.write_at(at, &[9; 4096]).is_err());
        let events = cache.events();
        let told = std::iter::from_fn(|| events.next_within(std::time::Duration::from_secs(20)))
            .any(|event| matches!(event, Event::WriteFailed(error) if error.kind() == ErrorKind::NoSpace));
        assert!(told, "no event; stores refused: {refused}");
        // What does not fit is still there.
        assert_eq!(mapping.pin(MIB - 4096..MIB - 100).unwrap()[..], [7; 3996]);
    });
}

#[test]
fn commits() {
    in_children("commits", |cache, path| {
        let (object, mapping) = open(cache, path, Writing::Atomic);
        limit_files();
        mapping.write_at(0, &[5; 4096]).unwrap();
        let small = object.commit();
        for at in (0..LIMIT + 65_536).step_by(4096) {
            if mapping.write_at(at, &[7; 4096]).is_err() {
                break;
            }
        }
        no_room(object.commit(), "a commit whose log does not fit");
        assert!(small.is_ok() || small.is_err_and(|error| error.kind() == ErrorKind::NoSpace));
    });
}

#[test]
fn frames_in_files_and_private_pages() {
    in_children("frames_in_files_and_private_pages", |cache, path| {
        limit_files();
        let options = ObjectOptions::new().visibility(FrameVisibility::Shared);
        let object = cache.object("sample", File::open(path).unwrap(), options).unwrap();
        let mapped = object.map(0..MIB, MapOptions::default());
        assert!(mapped.is_err() || memobj_linux::uffd::probe().is_err(), "a file of frames behind the limit");
        // Pages that are stored to go to a temporary file, of which there may be no more than the limit.
        let object = cache.object("sample", File::open(path).unwrap(), ObjectOptions::default()).unwrap();
        let private = MapOptions::new().sharing(Sharing::Private).delivery(Delivery::PinOnly);
        let mapping = object.map(0..MIB, private).unwrap();
        for round in 0..4 {
            for at in (0..MIB).step_by(4096) {
                if mapping.write_at(at, &[round; 4096]).is_err() {
                    break;
                }
            }
        }
    });
}
