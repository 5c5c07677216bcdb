//! Where a log lies, who may have put it there, and who may not.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use memobj::{ErrorKind, MapOptions, MemoryObject, ObjectOptions, OpenError, Writing};
use memobj_sim::fixture::{MIB, cache, folder, sample_bytes, within};
use memobj_sim::process::{child, part, show};

fn atomic() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::Atomic).visibility(memobj_sim::writable_fixture::visibility())
}

fn in_place() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::InPlace)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// A folder with a file of 16 pages.
fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, sample_bytes(65536)).unwrap();
    (folder, path)
}

fn store(object: &MemoryObject, at: u64, byte: u8) {
    object.map(0..object.len(), MapOptions::default()).unwrap().write_at(at, &[byte; 4096]).unwrap();
}

/// A file with a commit of 7s in page 0, in its log and perhaps not in the file: as after the end of a process.
fn crashed(name: &str) -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = file();
    let output = child(name, path.to_str().unwrap());
    show(&output);
    assert!(beside(&path, ".memobj-log").exists());
    (folder, path)
}

/// What the child of [`crashed`] does.
fn crash(path: &str) -> ! {
    let object = cache(MIB).open_file(path, atomic()).unwrap();
    store(&object, 0, 7);
    object.commit().unwrap();
    std::process::exit(0)
}

#[test]
fn a_block_device_cannot_be_committed_to() {
    let (_folder, path) = file();
    let output = Command::new("losetup").args(["--find", "--show"]).arg(&path).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        return println!("skipped: no loop device can be had");
    };
    let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let refused = cache(MIB).open_file(&device, atomic());
    Command::new("losetup").args(["--detach", &device]).status().unwrap();
    assert!(!beside(Path::new(&device), ".memobj-log").exists());
    let refused = refused.unwrap_err();
    assert!(matches!(refused, OpenError::NotWritable { .. }), "{refused}");
    assert!(refused.to_string().contains("only regular files"), "{refused}");
}

#[test]
fn a_log_is_its_owners_alone_and_no_link_is_followed() {
    let (folder, path) = file();
    let (log, fresh) = (beside(&path, ".memobj-log"), beside(&path, ".memobj-log.new"));
    let victim = folder.path().join("victim");
    std::fs::write(&victim, b"precious").unwrap();
    // One from a process that was killed, or from somebody who knows the name.
    symlink(&victim, &fresh).unwrap();
    let object = cache(MIB).open_file(&path, atomic()).unwrap();
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    drop(object);
    assert!(!log.exists() && fresh.symlink_metadata().is_err());
    for target in [victim.clone(), folder.path().join("nowhere")] {
        symlink(&target, &log).unwrap();
        let refused = cache(MIB).open_file(&path, atomic()).unwrap_err();
        assert!(matches!(refused, OpenError::Log { .. }), "{refused}");
        std::fs::remove_file(&log).unwrap();
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert!(!folder.path().join("nowhere").exists());
}

#[test]
fn a_log_that_root_makes_belongs_to_whom_the_file_belongs() {
    let (_folder, path) = file();
    if std::os::unix::fs::chown(&path, Some(65534), Some(65534)).is_err() {
        return println!("skipped: files cannot be given away");
    }
    let object = cache(MIB).open_file(&path, atomic()).unwrap();
    store(&object, 0, 7);
    object.commit().unwrap();
    let log = beside(&path, ".memobj-log").symlink_metadata().unwrap();
    assert_eq!((log.uid(), log.gid(), log.permissions().mode() & 0o777), (65534, 65534, 0o600));
}

#[test]
fn a_log_of_somebody_else_is_refused() {
    let name = "a_log_of_somebody_else_is_refused";
    if let Some(path) = part(name) {
        crash(&path);
    }
    let (_folder, path) = crashed(name);
    if std::os::unix::fs::chown(beside(&path, ".memobj-log"), Some(12345), None).is_err() {
        return println!("skipped: files cannot be given away");
    }
    let refused = cache(MIB).open_file(&path, atomic()).unwrap_err();
    assert!(refused.to_string().contains("another user"), "{refused}");
    assert!(std::fs::read(&path).unwrap() == sample_bytes(65536));
}

#[test]
fn whatever_else_lies_there_is_refused_and_left_alone() {
    let (_folder, path) = file();
    let log = beside(&path, ".memobj-log");
    for content in [&b""[..], b"a letter to the editor", &[0xff; 20_000]] {
        std::fs::write(&log, content).unwrap();
        for options in [atomic(), in_place(), ObjectOptions::default()] {
            let refused = cache(MIB).open_file(&path, options).unwrap_err();
            assert!(matches!(&refused, OpenError::Log { path, .. } if *path == log), "{refused}");
        }
        assert_eq!(std::fs::read(&log).unwrap(), content);
    }
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    assert!(matches!(cache(MIB).open_file(&path, atomic()), Err(OpenError::Log { .. })));
    std::fs::remove_dir(&log).unwrap();
    assert!(std::fs::read(&path).unwrap() == sample_bytes(65536));
    cache(MIB).open_file(&path, atomic()).unwrap();
}

#[test]
fn a_file_that_was_replaced_does_not_get_the_commits_of_the_old_one() {
    let name = "a_file_that_was_replaced_does_not_get_the_commits_of_the_old_one";
    if let Some(path) = part(name) {
        crash(&path);
    }
    let (folder, path) = crashed(name);
    let other = folder.path().join("other");
    std::fs::write(&other, vec![9; 65536]).unwrap();
    std::fs::rename(&other, &path).unwrap();
    for options in [atomic(), in_place(), ObjectOptions::default()] {
        let refused = cache(MIB).open_file(&path, options).unwrap_err();
        assert!(refused.to_string().contains("remove its log"), "{refused}");
    }
    assert!(std::fs::read(&path).unwrap() == vec![9; 65536]);
}

#[test]
fn every_opening_puts_in_place_what_was_committed() {
    let name = "every_opening_puts_in_place_what_was_committed";
    if let Some(path) = part(name) {
        crash(&path);
    }
    for options in [atomic(), in_place(), ObjectOptions::default()] {
        let (folder, path) = crashed(name);
        // Another name, by which the log would not be found; and a symbolic link, by which it is.
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let object = cache(MIB).open_file(&link, options.clone()).unwrap();
        let mapping = object.map(0..65536, MapOptions::default()).unwrap();
        assert!(mapping.pin(0..4096).unwrap().iter().all(|byte| *byte == 7), "{options:?}");
        drop((mapping, object));
        assert!(!beside(&path, ".memobj-log").exists());
        assert!(std::fs::read(&path).unwrap()[..4096] == [7; 4096]);
    }
}

#[test]
fn a_reader_who_cannot_recover_is_told_so() {
    let name = "a_reader_who_cannot_recover_is_told_so";
    if let Some(path) = part(name) {
        crash(&path);
    }
    let (_folder, path) = crashed(name);
    // Root may write to what nobody may write to, but not to what cannot be changed.
    std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let immutable = |sign: &str| {
        let status = Command::new("chattr").arg(sign).arg(&path).status();
        status.is_ok_and(|status| status.success())
    };
    if std::fs::OpenOptions::new().write(true).open(&path).is_ok() && !immutable("+i") {
        return println!("skipped: every file can be written here");
    }
    let refused = cache(MIB).open_file(&path, ObjectOptions::default()).unwrap_err();
    immutable("-i");
    assert!(matches!(refused, OpenError::Log { .. }), "{refused}");
    assert!(refused.to_string().contains("may lack what was committed"), "{refused}");
}

#[test]
fn an_opener_in_place_waits_for_one_who_commits() {
    let (_folder, path) = file();
    let object = cache(MIB).open_file(&path, atomic()).unwrap();
    store(&object, 0, 7);
    object.commit().unwrap();
    let patient = in_place().lock_timeout(memobj_sim::fixture::GUARD);
    let other = path.clone();
    let opener = std::thread::spawn(move || cache(MIB).open_file(other, patient).map(|object| object.len()));
    // waits: so that the other one most likely finds the lock taken.
    std::thread::sleep(Duration::from_millis(30));
    drop(object);
    assert_eq!(opener.join().unwrap().unwrap(), 65536);
}

#[test]
fn a_child_of_fork_leaves_the_log_and_the_lock_alone() {
    let (_folder, path) = file();
    let cache = cache(MIB);
    let object = cache.open_file(&path, atomic()).unwrap();
    object.set_len(4096).unwrap();
    let mut inherited = Some(object.clone());
    drop(object);
    let ended = memobj_linux::testing::fork(20, || {
        drop(inherited.take());
        0
    });
    assert!(matches!(ended, Ok(memobj_linux::testing::Ended::Exited(0))), "{ended:?}");
    assert!(beside(&path, ".memobj-log").exists());
    assert!(matches!(cache.open_file(&path, atomic()), Err(OpenError::Locked { .. })));
    inherited.unwrap().commit().unwrap();
}

/// A file system of 8 MiB, unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(folder.path());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_a_commit_changes_nothing_and_succeeds_later() {
    let Some(disk) = Small::new() else { return println!("skipped: nothing can be mounted here") };
    let folder = disk.0.path().to_owned();
    within(60, "commits on a full disk", move || {
        let path = folder.join("file");
        std::fs::File::create(&path).unwrap().set_len(16 * MIB).unwrap();
        let object = cache(32 * MIB).open_file(&path, atomic()).unwrap();
        let mapping = object.map(0..16 * MIB, MapOptions::default()).unwrap();
        mapping.write_at(0, &[1; 4096]).unwrap();
        object.commit().unwrap();
        let ballast = folder.join("ballast");
        let _ = std::fs::write(&ballast, vec![1; 8 << 20]);
        mapping.write_at(4096, &vec![2; 2 * MIB as usize]).unwrap();
        for _ in 0..3 {
            assert_eq!(object.commit().unwrap_err().kind(), ErrorKind::NoSpace);
        }
        // More than the disk holds stays in memory, and is read.
        assert!(mapping.pin(4096..8192).unwrap().iter().all(|byte| *byte == 2));
        std::fs::remove_file(&ballast).unwrap();
        object.commit().unwrap();
        object.close().unwrap();
        drop((mapping, object));
        let file = std::fs::read(&path).unwrap();
        assert!(
            file[..4096] == [1; 4096] && file[4096..4096 + 2 * MIB as usize].iter().all(|byte| *byte == 2)
        );
        assert!(file[4096 + 2 * MIB as usize..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn without_room_for_a_log_the_opening_fails_and_leaves_nothing() {
    let Some(disk) = Small::new() else { return println!("skipped: nothing can be mounted here") };
    let path = disk.0.path().join("file");
    std::fs::write(&path, sample_bytes(65536)).unwrap();
    let ballast = disk.0.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 8 << 20]);
    let refused = cache(MIB).open_file(&path, atomic()).unwrap_err();
    let full = |source: &std::io::Error| source.kind() == std::io::ErrorKind::StorageFull;
    assert!(matches!(&refused, OpenError::Log { source, .. } if full(source)), "{refused}");
    assert_eq!(disk.0.path().read_dir().unwrap().count(), 2);
    std::fs::remove_file(&ballast).unwrap();
    let object = cache(MIB).open_file(&path, atomic()).unwrap();
    store(&object, 0, 7);
    object.commit().unwrap();
}
