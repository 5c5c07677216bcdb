use super::*;
use std::sync::mpsc::channel;

const PATIENCE: Duration = Duration::from_secs(300);

fn logged(pages: u64) -> (tempfile::TempDir, PathBuf, Arc<Logged>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![1; (pages * PAGE) as usize]).unwrap();
    let logged = Logged::open(&path, Duration::ZERO, CacheUse::Auto).unwrap();
    (folder, path, Arc::new(logged))
}

fn commit(logged: &Logged, pages: Range<u64>, byte: u8) -> Result<(), SupplyError> {
    let pages: Vec<_> = pages.map(PageIndex).collect();
    logged.begin_commit(&pages, |_, into| into.fill(byte))?.finish()
}

fn read(logged: &Logged, page: u64) -> u8 {
    let mut bytes = [0; PAGE as usize];
    logged.supply(page * PAGE..(page + 1) * PAGE, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

/// While `work` copies to the data file, a commit fails, and the next one wants to repair the log: both end.
fn repair_beside(logged: &Arc<Logged>, work: fn(&Logged) -> Result<(), SupplyError>) {
    let held = logged.data.test_failures.hold.lock().unwrap();
    let begun = logged.data.test_failures.begun.load(Ordering::Acquire);
    let (report, ended) = channel();
    let (other, told) = (Arc::clone(logged), report.clone());
    std::thread::spawn(move || told.send(work(&other)));
    // Before its first copy it could repair the log itself, and nobody would stop it.
    while logged.data.test_failures.begun.load(Ordering::Acquire) == begun {
        std::thread::yield_now();
    }
    logged.records.test_failures.fail_sync.store(true, Ordering::Relaxed);
    assert!(commit(logged, 0..1, 3).is_err());
    let other = Arc::clone(logged);
    std::thread::spawn(move || report.send(commit(&other, 0..1, 4)));
    while logged.stoppers.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    drop(held);
    for _ in 0..2 {
        ended.recv_timeout(PATIENCE).expect("both go on").unwrap();
    }
}

#[test]
fn repair_and_a_checkpoint_that_is_running_do_not_wait_for_each_other() {
    let (_folder, path, logged) = logged(1024);
    commit(&logged, 0..1024, 2).unwrap();
    repair_beside(&logged, Logged::checkpoint);
    assert_eq!((read(&logged, 0), read(&logged, 1)), (4, 2));
    logged.detach();
    let file = std::fs::read(path).unwrap();
    assert_eq!((file[0], file[PAGE as usize]), (4, 2));
}

#[test]
fn nothing_is_appended_or_copied_after_the_end() {
    let (_folder, path, logged) = logged(8);
    commit(&logged, 0..8, 2).unwrap();
    logged.detach();
    // The next opener has the file.
    let next = Logged::open(&path, Duration::ZERO, CacheUse::Auto).unwrap();
    commit(&next, 0..8, 3).unwrap();
    let late = logged.write_back(0..PAGE, &[9; PAGE as usize]).unwrap_err();
    assert_eq!(late.kind, ErrorKind::Detached);
    assert_eq!(commit(&logged, 0..1, 9).unwrap_err().kind, ErrorKind::Detached);
    assert_eq!(logged.set_length(PAGE).unwrap_err().kind, ErrorKind::Detached);
    logged.checkpoint().unwrap();
    logged.detach();
    drop(logged);
    assert!(
        Logged::open(&path, Duration::ZERO, CacheUse::Auto).is_err(),
        "the lock is still the next opener's"
    );
    assert_eq!(read(&next, 0), 3);
    next.detach();
    assert!(std::fs::read(path).unwrap() == vec![3; 8 * PAGE as usize]);
}

#[test]
fn a_commit_that_failed_is_known_not_to_have_happened_after_the_next() {
    let (_folder, path, logged) = logged(8);
    logged.records.test_failures.fail_sync.store(true, Ordering::Relaxed);
    assert!(commit(&logged, 0..8, 2).is_err());
    logged.abandon();
    assert!(logged.has_uncommitted(), "the log is in doubt");
    commit(&logged, 0..0, 0).unwrap();
    assert!(!logged.has_uncommitted());
    // As after a crash: the log stays as it is.
    drop(logged);
    let again = Logged::open(&path, Duration::ZERO, CacheUse::Auto).unwrap();
    assert_eq!(read(&again, 0), 1);
}

#[test]
fn a_commit_that_is_not_finished_leaves_a_log_that_goes_on() {
    let (_folder, _path, logged) = logged(8);
    let begun = logged.begin_commit(&[PageIndex(0)], |_, into| into.fill(2)).unwrap();
    drop(begun);
    assert_eq!(read(&logged, 0), 1);
    commit(&logged, 1..2, 3).unwrap();
    assert_eq!((read(&logged, 0), read(&logged, 1)), (1, 3));
}

/// Starts a checkpoint that waits while `held` is locked, and returns once it runs.
fn start_checkpoint(logged: &Arc<Logged>) -> std::thread::JoinHandle<Result<(), SupplyError>> {
    let other = Arc::clone(logged);
    let running = std::thread::spawn(move || other.checkpoint());
    while logged.try_alone().is_some() {
        std::thread::yield_now();
    }
    running
}

#[test]
fn putting_in_place_waits_for_a_checkpoint_that_runs_and_copies_the_rest() {
    let (_folder, path, logged) = logged(1024);
    commit(&logged, 0..1024, 2).unwrap();
    let held = logged.data.test_failures.hold.lock().unwrap();
    let running = start_checkpoint(&logged);
    // Into the other segment: the running checkpoint does not copy it.
    commit(&logged, 0..512, 3).unwrap();
    let (report, ended) = channel();
    let other = Arc::clone(&logged);
    std::thread::spawn(move || {
        let answer = other.put_in_place();
        report.send((answer, std::fs::read(path).unwrap()))
    });
    // waits: to see that it does not answer yet; what the file has when it answers counts at any moment.
    assert!(
        ended.recv_timeout(Duration::from_millis(50)).is_err(),
        "it answered beside a running checkpoint"
    );
    drop(held);
    let (answer, file) = ended.recv_timeout(PATIENCE).expect("it goes on");
    answer.unwrap();
    assert!(file[..512 * PAGE as usize].iter().all(|byte| *byte == 3), "the file lacks the last commit");
    assert!(file[512 * PAGE as usize..].iter().all(|byte| *byte == 2), "the file lacks the first commit");
    running.join().unwrap().unwrap();
}

#[test]
fn putting_in_place_goes_on_after_a_repair_has_stopped_it() {
    let (_folder, path, logged) = logged(2048);
    commit(&logged, 0..2048, 2).unwrap();
    repair_beside(&logged, Logged::put_in_place);
    logged.put_in_place().unwrap();
    let file = std::fs::read(path).unwrap();
    assert_eq!((file[0], file[PAGE as usize], file[2047 * PAGE as usize]), (4, 2, 2));
}

#[test]
fn a_copy_in_place_that_fails_is_an_error_and_works_the_next_time() {
    let (_folder, path, logged) = logged(64);
    commit(&logged, 0..64, 2).unwrap();
    logged.data.test_failures.fail_sync.store(true, Ordering::Relaxed);
    let error = logged.put_in_place().unwrap_err();
    let why = error.source.map(|source| source.to_string());
    assert_eq!((error.kind, why.as_deref()), (ErrorKind::Io, Some("sync data: the test says so")));
    logged.put_in_place().unwrap();
    assert!(std::fs::read(&path).unwrap() == vec![2; 64 * PAGE as usize]);
    logged.put_in_place().unwrap();
    // The header that gives the log's room back fails: the log is repaired first.
    commit(&logged, 0..64, 3).unwrap();
    logged.records.test_failures.fail_sync.store(true, Ordering::Relaxed);
    assert_eq!(logged.put_in_place().unwrap_err().kind, ErrorKind::Io);
    logged.put_in_place().unwrap();
    assert!(std::fs::read(&path).unwrap() == vec![3; 64 * PAGE as usize]);
    std::fs::remove_file(path).unwrap();
    assert_eq!(logged.put_in_place().unwrap_err().kind, ErrorKind::Stale);
    logged.detach();
    assert_eq!(logged.put_in_place().unwrap_err().kind, ErrorKind::Detached);
}
