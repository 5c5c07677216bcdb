//! Files that are made when they are opened.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use memobj::{Cache, CacheUse, Create, MapOptions, MemoryObject, ObjectOptions, OpenError, Writing};
use memobj_sim::fixture::{MIB, cache};

fn written(writing: Writing) -> ObjectOptions {
    ObjectOptions::new().writing(writing)
}

fn names(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn use_it(object: &MemoryObject, text: &[u8]) {
    object.map_all(MapOptions::default()).unwrap().write_at(MIB - 100, text).unwrap();
    object.close().unwrap();
}

#[test]
fn a_new_file_has_its_length_and_is_written_like_any_other() {
    let cache = cache(MIB);
    for writing in [Writing::InPlace, Writing::Atomic] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let object = cache.create_file(&path, MIB, written(writing)).unwrap();
        assert_eq!((object.name(), object.len()), ("table", MIB));
        use_it(&object, b"text");
        drop(object);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, MIB);
        assert_eq!(bytes[MIB as usize - 100..][..4], *b"text");
        assert!(bytes[..MIB as usize - 100].iter().all(|byte| *byte == 0));
        // As the process makes files, not as temporary files are.
        let other = folder.path().join("other");
        std::fs::write(&other, b"").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&other));
    }
}

#[test]
fn a_file_that_is_there_is_never_changed_by_opening_it() {
    let cache = cache(MIB);
    for writing in [Writing::InPlace, Writing::Atomic] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        std::fs::write(&path, b"precious").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        let refused = cache.create_file(&path, 3, written(writing)).unwrap_err();
        let OpenError::File { source, .. } = &refused else { panic!("{refused}") };
        assert_eq!(source.kind(), ErrorKind::AlreadyExists);

        let opened =
            cache.open_file(&path, written(writing).create(Create::IfMissing { length: 3 })).unwrap();
        assert_eq!(opened.len(), 8);
        drop(opened);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        assert!(cache.create_file(folder.path().join("dangling"), 3, written(writing)).is_err());
        assert!(!folder.path().join("nowhere").exists());
    }
}

#[test]
fn several_who_open_a_missing_file_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one");
    let caches: Vec<Cache> = (0..4).map(|_| cache(MIB)).collect();
    let options = || {
        let patience = memobj_sim::fixture::GUARD;
        written(Writing::InPlace).lock_timeout(patience).create(Create::IfMissing { length: MIB })
    };
    std::thread::scope(|scope| {
        for (index, cache) in caches.iter().enumerate() {
            let path = &path;
            scope.spawn(move || {
                let object = cache.open_file(path, options()).unwrap();
                assert_eq!(object.len(), MIB);
                let mapping = object.map_all(MapOptions::default()).unwrap();
                mapping.write_at(index as u64, &[1]).unwrap();
                object.close().unwrap();
            });
        }
    });
    assert_eq!(std::fs::read(&path).unwrap()[..5], [1, 1, 1, 1, 0]);
    assert_eq!(names(folder.path()), ["one"]);
}

#[test]
fn what_cannot_be_opened_is_not_left() {
    let cache = cache(MIB);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let reading = cache.create_file(&path, MIB, ObjectOptions::default()).unwrap_err();
    assert!(matches!(reading, OpenError::NotWritable { .. }), "{reading}");
    let missing =
        cache.create_file(folder.path().join("no/table"), MIB, written(Writing::InPlace)).unwrap_err();
    assert!(
        matches!(&missing, OpenError::File { source, .. } if source.kind() == ErrorKind::NotFound),
        "{missing}"
    );
    assert!(cache.create_file(&path, u64::MAX, written(Writing::InPlace)).is_err());
    // The log of a file that is gone: its commits are no new file's.
    let log = folder.path().join("table.memobj-log");
    std::fs::write(&log, vec![1; 8192]).unwrap();
    let refused = cache.create_file(&path, MIB, written(Writing::Atomic)).unwrap_err();
    assert!(matches!(refused, OpenError::Log { .. }), "{refused}");
    assert_eq!(names(folder.path()), ["table.memobj-log"]);
    assert_eq!(std::fs::read(&log).unwrap(), vec![1; 8192]);
}

#[test]
fn a_file_is_read_and_written_alike_around_the_page_cache_and_through_it() {
    let cache = cache(MIB);
    for writing in [Writing::InPlace, Writing::Atomic] {
        for cache_use in [CacheUse::Auto, CacheUse::Direct, CacheUse::Buffered] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let options = written(writing).cache_use(cache_use);
            use_it(&cache.create_file(&path, MIB + 5, options.clone()).unwrap(), b"text");
            let reading = options.writing(Writing::ReadOnly);
            let object = cache.open_file(&path, reading).unwrap();
            let mapping = object.map(.., MapOptions::default()).unwrap();
            assert_eq!(mapping.pin(MIB - 100..MIB - 96).unwrap()[..], *b"text", "{writing:?} {cache_use:?}");
        }
    }
}

/// How many descriptors of this process go around the page cache to the file at `path`.
fn direct_descriptors(path: &Path) -> usize {
    const O_DIRECT: u32 = 0o40000;
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let of_path = descriptors.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|name| name == path));
    let is_direct = |info: String| {
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap() & O_DIRECT != 0
    };
    let info = |number| std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(number)).unwrap();
    of_path.filter(|entry| is_direct(info(entry.file_name()))).count()
}

#[test]
fn the_page_cache_is_used_as_was_chosen() {
    let cache = cache(MIB);
    let folder = tempfile::tempdir_in(memobj_sim::fixture::folder()).unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![0; MIB as usize]).unwrap();
    let path = path.canonicalize().unwrap();
    for writing in [Writing::ReadOnly, Writing::InPlace, Writing::Atomic] {
        let used = |cache_use| {
            let _object = cache.open_file(&path, written(writing).cache_use(cache_use)).unwrap();
            direct_descriptors(&path)
        };
        if used(CacheUse::Direct) == 0 {
            return println!("skipped: the file system has no reads around the page cache");
        }
        assert_eq!(used(CacheUse::Buffered), 0, "{writing:?}");
    }
}
