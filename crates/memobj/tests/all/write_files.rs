//! Files that are full, gone, read only, or somebody else's.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use memobj::{Delivery, ErrorKind, Event, ObjectOptions, OpenError, WriteStep};
use memobj_sim::fixture::{GUARD, MIB, Sample, cache, folder, sample_bytes, wait_until, within};
use memobj_sim::process::{child, part, show};
use memobj_sim::writable_fixture::{DELIVERIES, is_all, mapped, writable};

const PAGE: u64 = 4096;

fn in_each_delivery(body: impl Fn(Delivery) + Send + Copy + 'static) {
    for delivery in DELIVERIES {
        within(60, &format!("{delivery:?}"), move || body(delivery));
    }
}

/// A small tmpfs, mounted while this lives.
struct Mount {
    folder: tempfile::TempDir,
}

impl Mount {
    fn new(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes},mode=1777");
        let mut command = Command::new("mount");
        let output = command.args(["-t", "tmpfs", "-o", &size, "memobj-test"]).arg(folder.path()).output();
        match output {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                println!("skipped: no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: no mount(8): {error}");
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn remount(&self, how: &str) -> bool {
        let options = format!("remount,{how}");
        Command::new("mount").args(["-o", &options]).arg(self.folder.path()).status().unwrap().success()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

fn sparse(path: &Path, length: u64) {
    std::fs::File::create(path).unwrap().set_len(length).unwrap();
}

#[test]
fn a_full_disk_loses_nothing_and_everything_is_written_when_there_is_room() {
    in_each_delivery(|delivery| {
        let Some(mount) = Mount::new(2 * MIB) else { return };
        std::fs::write(mount.path("ballast"), vec![1; MIB as usize + MIB as usize / 2]).unwrap();
        sparse(&mount.path("data"), 4 * MIB);
        let cache = cache(8 * MIB);
        let object = cache.open_file(mount.path("data"), writable()).unwrap();
        let mapping = object.map(0..4 * MIB, mapped(delivery)).unwrap();
        mapping.write_at(0, &[7; MIB as usize]).unwrap();
        let error = mapping.sync(0..4 * MIB).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::NoSpace, WriteStep::WriteBack), "{error}");
        assert!(cache.metrics().dirty_bytes > 0);
        mapping.advise(0..4 * MIB, memobj::Advice::DontNeed).unwrap();
        let mut buffer = vec![0; MIB as usize];
        mapping.read_at(0, &mut buffer).unwrap();
        assert!(is_all(&buffer, 0..MIB, 7), "{delivery:?}");
        let events = cache.events();
        let failed = std::iter::from_fn(|| events.try_next())
            .any(|event| matches!(event, Event::WriteFailed(error) if error.kind() == ErrorKind::NoSpace));
        assert!(failed, "{delivery:?}: no event");
        std::fs::remove_file(mount.path("ballast")).unwrap();
        // An earlier failure may be told once more.
        let _ = mapping.sync(0..4 * MIB);
        mapping.sync(0..4 * MIB).unwrap();
        assert!(is_all(&std::fs::read(mount.path("data")).unwrap(), 0..MIB, 7), "{delivery:?}");
        drop((mapping, object));
        assert_eq!((cache.metrics().frame_bytes, cache.metrics().dirty_bytes), (0, 0));
    });
}

#[test]
fn an_object_that_is_dropped_on_a_full_disk_says_so_and_gives_back_its_memory() {
    in_each_delivery(|delivery| {
        let Some(mount) = Mount::new(MIB) else { return };
        sparse(&mount.path("data"), 4 * MIB);
        let cache = cache(8 * MIB);
        let object = cache.open_file(mount.path("data"), writable()).unwrap();
        let mapping = object.map(0..4 * MIB, mapped(delivery)).unwrap();
        mapping.write_at(0, &vec![7; 2 * MIB as usize]).unwrap();
        drop((mapping, object));
        let events = cache.events();
        let told = std::iter::from_fn(|| events.next_within(GUARD)).find_map(|event| match event {
            Event::DroppedDirty { error, bytes, .. } => Some((error, bytes)),
            _ => None,
        });
        let (error, bytes) = told.unwrap();
        assert_eq!(error.unwrap().kind(), ErrorKind::NoSpace, "{delivery:?}");
        assert!(bytes > 0 && bytes <= 2 * MIB);
        wait_until("all memory is back", || {
            (cache.metrics().frame_bytes, cache.metrics().dirty_bytes) == (0, 0)
        });
    });
}

#[test]
fn a_file_that_may_only_be_read_is_refused() {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let Ok(folder) = tempfile::tempdir_in(folder()) else { return println!("skipped: no folder") };
    let path = folder.path().join("read-only");
    std::fs::write(&path, sample_bytes(MIB)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    match cache(MIB).open_file(&path, writable()) {
        Ok(_) if is_root => println!("skipped: root may write every file"),
        Err(OpenError::File { source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_system_that_is_read_only_refuses_at_the_opening() {
    let Some(mount) = Mount::new(MIB) else { return };
    sparse(&mount.path("data"), 65_536);
    let cache = cache(MIB);
    if !mount.remount("ro") {
        return println!("skipped: the mount cannot be made read only");
    }
    match cache.open_file(mount.path("data"), writable()) {
        Err(OpenError::File { source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem)
        }
        other => panic!("{other:?}"),
    }
    assert!(cache.open_file(mount.path("data"), ObjectOptions::default()).is_ok());
}

#[test]
fn a_file_that_was_removed_is_stale_and_still_written() {
    in_each_delivery(|delivery| {
        let sample = Sample::new(MIB);
        let cache = cache(MIB);
        let object = cache.open_file(sample.path(), writable()).unwrap();
        let mapping = object.map(0..MIB, mapped(delivery)).unwrap();
        mapping.write_at(0, &[7; 8192]).unwrap();
        let file = sample.file().try_clone().unwrap();
        std::fs::remove_file(sample.path()).unwrap();
        for _ in 0..2 {
            let error = mapping.sync(0..MIB).unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::Stale, WriteStep::Sync), "{error}");
        }
        assert_eq!(object.close().unwrap_err().kind(), ErrorKind::Stale);
        let mut bytes = vec![0; 8192];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert!(is_all(&bytes, 0..8192, 7), "{delivery:?}");
    });
}

#[test]
fn a_second_writer_in_this_process_is_refused_or_waits() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let first = cache.open_file(sample.path(), writable()).unwrap();
    assert!(matches!(cache.open_file(sample.path(), writable()), Err(OpenError::Locked { .. })));
    // Readers are not held off.
    assert!(cache.open_file(sample.path(), ObjectOptions::default()).is_ok());
    let patient = writable().lock_timeout(GUARD);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| cache.open_file(sample.path(), patient));
        // waits: the other thread is to find the lock taken.
        std::thread::sleep(Duration::from_millis(50));
        assert!(!second.is_finished());
        drop(first);
        assert!(second.join().unwrap().is_ok());
    });
    assert!(cache.open_file(sample.path(), writable()).is_ok());
}

#[test]
fn a_second_writer_in_another_process_is_refused() {
    let name = "a_second_writer_in_another_process_is_refused";
    if let Some(path) = part(name) {
        let start = Instant::now();
        let options = writable().lock_timeout(Duration::from_millis(100));
        let refused = matches!(cache(MIB).open_file(path, options), Err(OpenError::Locked { .. }));
        assert!(refused && start.elapsed() >= Duration::from_millis(100));
        return println!("was refused");
    }
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), writable()).unwrap();
    let mapping = object.map(0..MIB, mapped(Delivery::InThread)).unwrap();
    mapping.write_at(0, b"mine").unwrap();
    // Also while only a mapping is left of it.
    drop(object);
    let output = child(name, sample.path().to_str().unwrap());
    show(&output);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("was refused"));
}

fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn sparse_files_stay_sparse() {
    in_each_delivery(|delivery| {
        let file = tempfile::NamedTempFile::new_in(folder()).unwrap();
        file.as_file().set_len(16 * MIB).unwrap();
        file.as_file().sync_all().unwrap();
        let empty = allocated(file.path());
        if empty >= MIB {
            return println!("skipped: no sparse files here");
        }
        let cache = cache(2 * MIB);
        let object = cache.open_file(file.path(), writable()).unwrap();
        let mapping = object.map(0..16 * MIB, mapped(delivery)).unwrap();
        // Zeros into holes.
        mapping.write_at(0, &vec![0; 4 * MIB as usize]).unwrap();
        mapping.write_at(5 * MIB + 17, &[0; 100]).unwrap();
        mapping.sync(0..16 * MIB).unwrap();
        assert!(allocated(file.path()) <= empty + 64 * 1024, "{delivery:?}: {}", allocated(file.path()));
        // One byte in each 64 KiB, in order, by whatever goes.
        for at in (0..16 * MIB).step_by(65_536) {
            match mapping.shared_words() {
                Ok(words) => words.store(at / 8, 0x0101),
                Err(_) => mapping.write_at(at, &[1, 1]).unwrap(),
            }
        }
        object.close().unwrap();
        let used = allocated(file.path()) - empty;
        assert!(used <= 16 * MIB / 16 + MIB, "{delivery:?}: {used} bytes for 256 pages");
        let bytes = std::fs::read(file.path()).unwrap();
        for at in (0..16 * MIB).step_by(65_536) {
            assert!(is_all(&bytes, at..at + 2, 1) && is_all(&bytes, at + 2..at + 65_536, 0));
        }
        // Pages in order, one byte of each: the run that is opened ahead of them holds zeros and stays a hole.
        let before = allocated(file.path());
        for at in (0..64u64).map(|page| 8 * MIB + MIB / 2 + page * PAGE) {
            match mapping.shared_words() {
                Ok(words) => words.store(at / 8, 2),
                Err(_) => mapping.write_at(at, &[2]).unwrap(),
            }
        }
        object.close().unwrap();
        let used = allocated(file.path()) - before;
        assert!(used <= 64 * PAGE + 64 * 1024, "{delivery:?}: {used} bytes for 64 pages");
    });
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
