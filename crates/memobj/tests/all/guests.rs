//! Objects that other processes map: what each sees of the other's stores, and what an end on either side leaves.

use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memobj::{
    AccessError, AdmitOptions, Advice, Delivery, FrameVisibility, Guest, GuestEnd, GuestProt, MapOptions,
    MemoryObject, ObjectOptions, RemoteError, RemoteMapping, Sharing, Writing,
};
use memobj_sim::fixture::{MIB, Sample, cache, check_sample, folder, sample_bytes, wait_until, within};
use memobj_sim::process::{Started, part, start};
use memobj_sim::random::Random;
use memobj_sim::writable_fixture::mapped;

const SIGBUS: i32 = 7;
const SIGKILL: i32 = 9;
const PATIENCE: Duration = memobj_sim::fixture::GUARD;

fn shared() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::InPlace).visibility(FrameVisibility::Shared)
}

fn attach(path: &str) -> RemoteMapping {
    RemoteMapping::attach(UnixStream::connect(path).unwrap(), PATIENCE).unwrap()
}

/// Starts part `role,SOCKET` of test `name`, and admits it.
fn admit_child(name: &str, role: &str, object: &MemoryObject, prot: GuestProt) -> (Started, Guest) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line");
    let listener = UnixListener::bind(&path).unwrap();
    let child = start(name, &format!("{role},{}", path.display()));
    let (stream, _) = listener.accept().unwrap();
    let guest = object.admit(stream, AdmitOptions::new().prot(prot).timeout(PATIENCE)).unwrap();
    (child, guest)
}

/// A guest in this process.
fn admit_here(object: &MemoryObject, prot: GuestProt) -> (Guest, RemoteMapping) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let attaching = std::thread::spawn(move || RemoteMapping::attach(theirs, PATIENCE).unwrap());
    let guest = object.admit(ours, AdmitOptions::new().prot(prot).timeout(PATIENCE)).unwrap();
    (guest, attaching.join().unwrap())
}

const ROUNDS: u64 = 20_000;

/// Waits for each number of this side's turn, and puts the next.
fn take_turns(words: &memobj::SharedWords<'_>, side: u64) {
    for round in 0..ROUNDS {
        let mine = round * 2 + side;
        while words.load(0) != mine {
            std::thread::yield_now();
        }
        words.store(0, mine + 1);
    }
}

#[test]
fn two_processes_count_by_turns() {
    const NAME: &str = "two_processes_count_by_turns";
    if let Some(part) = part(NAME) {
        let remote = attach(part.split_once(',').unwrap().1);
        return take_turns(&remote.shared_words().unwrap(), 1);
    }
    for delivery in [Delivery::ReaderThread, Delivery::InThread] {
        within(120, "a count by turns", move || {
            let sample = Sample::new(MIB);
            let cache = cache(MIB / 8);
            let object = cache.open_file(sample.path(), shared()).unwrap();
            let mapping = object.map(0..MIB, mapped(delivery)).unwrap();
            mapping.write_at(0, &[0; 8]).unwrap();
            let (mut child, guest) = admit_child(NAME, "guest", &object, GuestProt::ReadWrite);
            std::thread::scope(|scope| {
                scope.spawn(|| take_turns(&mapping.shared_words().unwrap(), 0));
                // Between turns the page is protected and written, and goes.
                for _ in 0..100 {
                    object.sync().unwrap();
                    mapping.advise(0..MIB, Advice::DontNeed).unwrap();
                    // waits: spreads the syncs over the count.
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            assert!(child.wait(20).success());
            assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
            object.close().unwrap();
            let bytes = std::fs::read(sample.path()).unwrap();
            assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()), 2 * ROUNDS);
        });
    }
}

const LENGTH: u64 = 8 * MIB;
const STORES: u64 = 30_000;
const WRITERS: u64 = 4;
const WORDS_EACH: u64 = LENGTH / 8 / WRITERS;

fn sample_word(at: u64) -> u64 {
    u64::from_le_bytes(sample_bytes((at + 1) * 8)[at as usize * 8..].try_into().unwrap())
}

/// The words that `writer` counts up, in order: those of its own residue, in pages that all writers share.
fn indices(seed: u64, writer: u64) -> impl Iterator<Item = u64> {
    let mut random = Random::new(seed + writer);
    (0..STORES).map(move |_| random.below(WORDS_EACH))
}

/// Checks each word, and counts it up.
fn count_up(words: &memobj::SharedWords<'_>, seed: u64, writer: u64) {
    let mut counts = vec![0u64; WORDS_EACH as usize];
    for index in indices(seed, writer) {
        let at = index * WRITERS + writer;
        let before = sample_word(at).wrapping_add(counts[index as usize]);
        assert_eq!(words.load(at), before, "word {at} of writer {writer}");
        words.store(at, before.wrapping_add(1));
        counts[index as usize] += 1;
    }
}

/// Whether the file has the sum of all that the writers of `indices` did.
fn check_counts(path: &Path, seed: u64) {
    let mut expected: Vec<u64> = (0..LENGTH / 8).map(sample_word).collect();
    for writer in 0..WRITERS {
        for index in indices(seed, writer) {
            let word = &mut expected[(index * WRITERS + writer) as usize];
            *word = word.wrapping_add(1);
        }
    }
    let bytes = std::fs::read(path).unwrap();
    for (at, word) in bytes.chunks_exact(8).enumerate() {
        assert_eq!(u64::from_le_bytes(word.try_into().unwrap()), expected[at], "word {at}");
    }
}

#[test]
fn no_store_of_any_process_is_lost_under_eviction_and_write_back() {
    const NAME: &str = "no_store_of_any_process_is_lost_under_eviction_and_write_back";
    if let Some(part) = part(NAME) {
        let (role, path) = part.split_once(',').unwrap();
        let (seed, writer) = role.split_once('-').unwrap();
        let remote = attach(path);
        let (seed, writer) = (seed.parse().unwrap(), writer.parse().unwrap());
        return count_up(&remote.shared_words().unwrap(), seed, writer);
    }
    within(200, "random stores", || {
        let seed = u64::from(std::process::id()) ^ 0x5eed_0000;
        println!("seed {seed}");
        let sample = Sample::new(LENGTH);
        let cache = cache(LENGTH / 8);
        let object = cache.open_file(sample.path(), shared()).unwrap();
        let mappings = [Delivery::ReaderThread, Delivery::InThread]
            .map(|delivery| object.map(0..LENGTH, mapped(delivery)).unwrap());
        let guests = [2, 3]
            .map(|writer| admit_child(NAME, &format!("{seed}-{writer}"), &object, GuestProt::ReadWrite));
        std::thread::scope(|scope| {
            for (writer, mapping) in mappings.iter().enumerate() {
                scope.spawn(move || count_up(&mapping.shared_words().unwrap(), seed, writer as u64));
            }
        });
        for (mut child, guest) in guests {
            assert!(child.wait(100).success());
            assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
        }
        let metrics = cache.metrics();
        assert!(metrics.evicted_pages > 1000 && metrics.written_pages > 1000, "{metrics:?}");
        assert!(metrics.peak_frame_bytes <= LENGTH / 8, "{metrics:?}");
        object.close().unwrap();
        check_counts(sample.path(), seed);
    });
}

/// Stores `n` to the word that `n` leads to, and then says so in word 0.
fn tell_steps(words: &memobj::SharedWords<'_>) -> ! {
    for step in 1u64.. {
        words.store(place_of(step), step);
        words.store(0, step);
    }
    unreachable!()
}

fn place_of(step: u64) -> u64 {
    // Every step another page, and each word once in a while.
    (step * 515 + step / 1000) % (LENGTH / 8 - 1) + 1
}

#[test]
fn a_guest_that_is_killed_has_lost_nothing() {
    const NAME: &str = "a_guest_that_is_killed_has_lost_nothing";
    if let Some(part) = part(NAME) {
        let remote = attach(part.split_once(',').unwrap().1);
        tell_steps(&remote.shared_words().unwrap());
    }
    for round in 0..4 {
        within(60, "a killed guest", move || {
            let sample = Sample::new(LENGTH);
            let cache = cache(LENGTH / 8);
            let object = cache.open_file(sample.path(), shared()).unwrap();
            let mapping = object.map(0..LENGTH, mapped(Delivery::ReaderThread)).unwrap();
            mapping.write_at(0, &[0; 8]).unwrap();
            let (mut child, guest) = admit_child(NAME, "guest", &object, GuestProt::ReadWrite);
            let words = mapping.shared_words().unwrap();
            wait_until("the guest is at work", || words.load(0) > 500 + round * 1000);
            assert_eq!(child.kill().signal(), Some(SIGKILL));
            assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
            let last = words.load(0);
            drop(words);
            // Nothing holds on to it.
            drop(mapping.pin_mut(0..100).unwrap());
            object.close().unwrap();
            let bytes = std::fs::read(sample.path()).unwrap();
            let word = |at: u64| u64::from_le_bytes(bytes[at as usize * 8..][..8].try_into().unwrap());
            let mut latest = std::collections::HashMap::new();
            latest.extend((1..=last).map(|step| (place_of(step), step)));
            for (place, step) in latest {
                // One more step may have been taken than told.
                assert!(word(place) == step || (place == place_of(last + 1) && word(place) == last + 1));
            }
        });
    }
}

/// Admits the process that connects, and goes on for ever; has a child if `kind` says so, which holds the line open as
/// long as its name is there: the guest has to notice all the same.
fn own(kind: &str, path: &str, file: &str) -> ! {
    let cache = cache(LENGTH / 8);
    let object = cache.open_file(file, shared()).unwrap();
    let mapping = object.map(0..LENGTH, mapped(Delivery::ReaderThread)).unwrap();
    let listener = UnixListener::bind(path).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let _guest = object.admit(stream, AdmitOptions::default()).unwrap();
    if kind == "parent" {
        let line = std::path::PathBuf::from(path);
        let hold = move || {
            while line.exists() {
                // waits: polls for the end of the round.
                std::thread::sleep(Duration::from_millis(1));
            }
            0
        };
        std::thread::spawn(move || memobj_linux::testing::fork(30, hold));
    }
    loop {
        mapping.advise(0..LENGTH, Advice::DontNeed).unwrap();
        // waits: lets the guest work.
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn connect(path: &str) -> RemoteMapping {
    wait_until("the owner listens", || UnixStream::connect(path).is_ok_and(attached));
    ATTACHED.lock().unwrap().take().unwrap()
}

static ATTACHED: std::sync::Mutex<Option<RemoteMapping>> = std::sync::Mutex::new(None);

fn attached(stream: UnixStream) -> bool {
    *ATTACHED.lock().unwrap() = RemoteMapping::attach(stream, PATIENCE).ok();
    ATTACHED.lock().unwrap().is_some()
}

/// Reads at random, by copies or plain loads, and checks every byte, until the owner is gone.
fn read_for_ever(path: &str, plain: &str) {
    let remote = connect(path);
    let ready = format!("{path}.ready");
    let mut random = Random::new(9);
    let words = remote.shared_words().unwrap();
    for round in 0u64.. {
        let at = random.below(LENGTH / 8);
        if plain == "plain" {
            assert_eq!(words.load(at), sample_word(at));
        } else {
            let mut buffer = [0; 8];
            match remote.read_at(at * 8, &mut buffer) {
                Ok(()) => check_sample(at * 8..at * 8 + 8, &buffer, "of an owner that dies"),
                Err(error) => {
                    assert_eq!(error, RemoteError::OwnerGone);
                    assert!(!remote.is_attached());
                    assert_eq!(remote.write_at(0, &[1]), Err(RemoteError::OwnerGone));
                    return;
                }
            }
        }
        if round == 1000 {
            std::fs::write(&ready, "").unwrap();
        }
    }
}

#[test]
fn an_owner_that_is_killed_leaves_traps_and_never_zeros() {
    const NAME: &str = "an_owner_that_is_killed_leaves_traps_and_never_zeros";
    if let Some(part) = part(NAME) {
        let parts: Vec<&str> = part.split(',').collect();
        return match parts[0] {
            kind @ ("owner" | "parent") => own(kind, parts[1], parts[2]),
            how => read_for_ever(parts[1], how),
        };
    }
    for round in 0..6 {
        let how = ["plain", "copy"][round % 2];
        let sample = Sample::new(LENGTH);
        let folder = tempfile::tempdir_in(folder()).unwrap();
        let line = folder.path().join("line");
        let kind = ["owner", "parent"][round / 2 % 2];
        let mut owner = start(NAME, &format!("{kind},{},{}", line.display(), sample.path().display()));
        let mut guest = start(NAME, &format!("{how},{}", line.display()));
        let ready = folder.path().join("line.ready");
        wait_until("the guest reads", || ready.exists());
        // waits: another moment in each round.
        std::thread::sleep(Duration::from_micros(1700 * round as u64));
        owner.kill();
        let status = guest.wait(20);
        // The child that holds the line open ends with it.
        drop(folder);
        match how {
            "plain" => assert_eq!(status.signal(), Some(SIGBUS), "{status}"),
            _ => assert!(status.success(), "{status}"),
        }
    }
}

#[test]
fn a_guest_that_sleeps_on_a_fault_is_woken_by_the_end_of_the_owner() {
    const NAME: &str = "a_guest_that_sleeps_on_a_fault_is_woken_by_the_end_of_the_owner";
    use memobj::pagers::{Inject, Operation};
    if let Some(part) = part(NAME) {
        let path = part.split_once(',').unwrap().1;
        let fixture =
            memobj_sim::writable_fixture::WritableFixture::new(Delivery::ReaderThread, MIB, MIB, shared());
        fixture.inject(Operation::Supply, 0..4096, Inject::Hang, None);
        let listener = UnixListener::bind(path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let _guest = fixture.object.admit(stream, AdmitOptions::default()).unwrap();
        loop {
            std::thread::park();
        }
    }
    within(60, "an owner that hangs", || {
        let folder = tempfile::tempdir().unwrap();
        let line = folder.path().join("line");
        let mut owner = start(NAME, &format!("owner,{}", line.display()));
        let remote = connect(line.to_str().unwrap());
        let mut bytes = [0; 8];
        remote.read_at(8192, &mut bytes).unwrap();
        check_sample(8192..8200, &bytes, "beside a page that hangs");
        std::thread::scope(|scope| {
            let sleeping = scope.spawn(|| remote.read_at(0, &mut [0; 8]));
            // waits: lets the thread fall asleep.
            std::thread::sleep(Duration::from_millis(100));
            assert!(!sleeping.is_finished());
            owner.kill();
            assert_eq!(sleeping.join().unwrap(), Err(RemoteError::OwnerGone));
        });
    });
}

#[test]
fn a_guest_that_only_loads_sees_stores_and_makes_none() {
    const NAME: &str = "a_guest_that_only_loads_sees_stores_and_makes_none";
    if let Some(part) = part(NAME) {
        let remote = attach(part.split_once(',').unwrap().1);
        let mut buffer = [0; 8];
        while u64::from_le_bytes(buffer) != 7 {
            remote.read_at(64, &mut buffer).unwrap();
        }
        assert_eq!(remote.write_at(64, &[1]), Err(RemoteError::ReadOnly));
        assert!(matches!(remote.shared_words(), Err(RemoteError::ReadOnly)) && remote.as_mut_ptr().is_null());
        return;
    }
    within(60, "a guest that loads", || {
        let sample = Sample::new(MIB);
        let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
        let mapping = object.map(0..MIB, mapped(Delivery::InThread)).unwrap();
        let (mut child, guest) = admit_child(NAME, "guest", &object, GuestProt::ReadOnly);
        // Guests that do not store exclude nothing.
        mapping.pin_mut(64..72).unwrap().copy_from_slice(&5u64.to_le_bytes());
        mapping.shared_words().unwrap().store(8, 7);
        assert!(child.wait(20).success());
        assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
        object.close().unwrap();
        let bytes = std::fs::read(sample.path()).unwrap();
        assert!(bytes[..64] == sample_bytes(MIB)[..64] && bytes[72..] == sample_bytes(MIB)[72..]);
    });
}

#[test]
fn private_stores_are_not_seen_by_guests() {
    within(60, "private stores", || {
        let sample = Sample::new(MIB);
        let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
        let (_guest, remote) = admit_here(&object, GuestProt::ReadWrite);
        for delivery in [Delivery::ReaderThread, Delivery::InThread] {
            let private =
                object.map(0..MIB, MapOptions::new().delivery(delivery).sharing(Sharing::Private)).unwrap();
            private.write_at(0, &[0; 8192]).unwrap();
            private.shared_words().unwrap().store(1024, 0);
            let mut bytes = [0; 12_288];
            remote.read_at(0, &mut bytes).unwrap();
            check_sample(0..12_288, &bytes, "beside a private mapping");
        }
    });
}

#[test]
fn pins_and_guests_that_store_keep_each_other_out() {
    within(60, "pins", || {
        let sample = Sample::new(MIB);
        let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
        let mapping = object.map(0..MIB, mapped(Delivery::ReaderThread)).unwrap();
        let (guest, remote) = admit_here(&object, GuestProt::ReadWrite);
        assert!(matches!(mapping.pin_mut(0..1), Err(AccessError::InUse)));
        remote.write_at(0, &[1; 8]).unwrap();
        let pinned = mapping.pin(0..8).unwrap();
        std::thread::scope(|scope| {
            let storing = scope.spawn(|| remote.write_at(0, &[2; 8]).unwrap());
            // waits: gives a store that is not held off the time to be seen.
            std::thread::sleep(Duration::from_millis(50));
            assert!(pinned[..] == [1; 8] && !storing.is_finished());
            drop(pinned);
            storing.join().unwrap();
        });
        assert_eq!(mapping.pin(0..8).unwrap()[..], [2; 8]);
        drop(guest);
        drop(mapping.pin_mut(0..1).unwrap());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let _pinned = mapping.pin_mut(0..1).unwrap();
        let refused = object.admit(ours, AdmitOptions::default());
        assert!(matches!(refused, Err(memobj::AdmitError::InUse)), "{refused:?}");
    });
}

#[test]
fn a_guest_that_is_dismissed_traps_and_what_it_stored_stays() {
    within(60, "a dismissal", || {
        let sample = Sample::new(MIB);
        let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
        let (guest, remote) = admit_here(&object, GuestProt::ReadWrite);
        remote.write_at(5000, &[9; 8000]).unwrap();
        assert_eq!(guest.end(), None);
        drop(guest);
        wait_until("the guest has heard", || !remote.is_attached());
        // Also of pages that were there.
        let mut byte = [0];
        wait_until("it traps", || remote.read_at(5000, &mut byte) == Err(RemoteError::OwnerGone));
        assert_eq!(remote.write_at(5000, &[1]), Err(RemoteError::OwnerGone));
        object.close().unwrap();
        let bytes = std::fs::read(sample.path()).unwrap();
        assert!(bytes[5000..13_000] == [9; 8000] && bytes[13_000..] == sample_bytes(MIB)[13_000..]);
    });
}

/// A store that has succeeded is part of the object, also one right before the guest is dismissed.
#[test]
fn a_guest_that_is_dismissed_while_it_stores_loses_none() {
    within(120, "dismissals", || {
        let sample = Sample::new(MIB);
        let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
        for _ in 0..60 {
            let (guest, remote) = admit_here(&object, GuestProt::ReadWrite);
            let last = AtomicU64::new(0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for step in 1u64.. {
                        if remote.write_at(0, &step.to_le_bytes()).is_err() {
                            return;
                        }
                        last.store(step, Ordering::Relaxed);
                    }
                });
                scope.spawn(|| {
                    while remote.is_attached() {
                        object.sync().unwrap();
                    }
                });
                wait_until("it stores", || last.load(Ordering::Relaxed) > 100);
                drop(guest);
            });
            let last = last.into_inner();
            object.sync().unwrap();
            let bytes = std::fs::read(sample.path()).unwrap();
            let stored = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            // The last store can have been made and not been told of.
            assert!(stored == last || stored == last + 1, "{stored} of {last} stores are there");
        }
    });
}

#[test]
fn a_page_that_failed_traps_in_guests_until_it_is_retried() {
    use memobj::pagers::{Inject, Operation};
    within(60, "a trap", || {
        let fixture =
            memobj_sim::writable_fixture::WritableFixture::new(Delivery::ReaderThread, MIB, MIB, shared());
        let (_guest, remote) = admit_here(&fixture.object, GuestProt::ReadWrite);
        let mut byte = [0];
        // It has been here, protected, and has left its protection behind.
        remote.read_at(4096, &mut byte).unwrap();
        fixture.mapping.advise(0..MIB, Advice::DontNeed).unwrap();
        fixture.inject(Operation::Supply, 4096..8192, Inject::Fail(memobj::ErrorKind::Io), Some(1));
        assert_eq!(remote.read_at(4000, &mut [0; 200]), Err(RemoteError::Failed { offset: 4096 }));
        assert_eq!(remote.write_at(4096, &[1]), Err(RemoteError::Failed { offset: 4096 }));
        assert_eq!(fixture.mapping.retry(0..MIB).unwrap(), 1);
        wait_until("the trap is lifted", || remote.read_at(4096, &mut byte).is_ok());
        assert_eq!(byte[0], sample_bytes(MIB)[4096]);
    });
}

#[test]
fn a_new_length_is_heard_by_guests() {
    within(60, "a new length", || {
        let sample = Sample::new(MIB);
        let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
        let (_guest, remote) = admit_here(&object, GuestProt::ReadWrite);
        assert_eq!(remote.len(), MIB);
        remote.write_at(MIB / 2, &[7; 8192]).unwrap();
        object.set_len(MIB / 2).unwrap();
        wait_until("the new length is heard", || remote.len() == MIB / 2);
        let mut bytes = [1; 8192];
        assert!(matches!(remote.read_at(MIB / 2, &mut bytes), Err(RemoteError::OutOfRange { .. })));
        object.set_len(2 * MIB).unwrap();
        wait_until("the new length is heard", || remote.len() == 2 * MIB);
        wait_until("it is there", || remote.read_at(MIB / 2, &mut bytes).is_ok());
        assert_eq!(bytes, [0; 8192]);
        remote.write_at(2 * MIB - 1, &[3]).unwrap();
        object.close().unwrap();
        assert_eq!(std::fs::read(sample.path()).unwrap()[2 * MIB as usize - 1], 3);
    });
}

#[test]
fn guests_of_objects_that_are_committed_to_are_in_the_commit() {
    within(60, "a commit", || {
        let sample = Sample::new(MIB);
        let atomic = shared().writing(Writing::Atomic);
        let cache = cache(MIB);
        let object = cache.open_file(sample.path(), atomic.clone()).unwrap();
        let (guest, remote) = admit_here(&object, GuestProt::ReadWrite);
        remote.write_at(0, &[1; 10_000]).unwrap();
        object.commit().unwrap();
        remote.write_at(0, &[2; 10_000]).unwrap();
        drop((guest, remote, object));
        // What was not committed is as if it had never been.
        let object = cache.open_file(sample.path(), atomic).unwrap();
        let mapping = object.map(0..MIB, MapOptions::default()).unwrap();
        assert_eq!(mapping.pin(0..10_000).unwrap()[..], [1; 10_000]);
    });
}

#[test]
fn objects_without_shared_frames_take_no_guests() {
    for options in [
        ObjectOptions::default(),
        ObjectOptions::new().visibility(FrameVisibility::Shared),
        shared().visibility(FrameVisibility::Local),
    ] {
        let sample = Sample::new(MIB);
        let object = cache(MIB).open_file(sample.path(), options).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let refused = object.admit(ours, AdmitOptions::default());
        assert!(matches!(refused, Err(memobj::AdmitError::NotShared)), "{refused:?}");
    }
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}

/// What a guest with a private mapping stores is its own, whatever becomes of the page.
#[test]
fn stores_of_a_private_guest_are_its_own() {
    within(60, "a private guest", || {
        let sample = Sample::new(MIB);
        let cache = cache(MIB / 4);
        let object = cache.open_file(sample.path(), shared()).unwrap();
        let mapping = object.map(0..MIB, mapped(Delivery::ReaderThread)).unwrap();
        let (guest, remote) = admit_here(&object, GuestProt::Private);
        let byte = |offset: u64| {
            let mut byte = [0];
            remote.read_at(offset, &mut byte).unwrap();
            byte[0]
        };
        let before: Vec<u8> = (0..MIB).step_by(4096).map(byte).collect();
        // To a page that it has seen, and to one that nobody has.
        remote.write_at(5, b"own").unwrap();
        remote.write_at(MIB - 4096, b"own").unwrap();
        mapping.write_at(8192, b"of all").unwrap();
        assert_eq!(byte(8192), b'o', "a store of the owner to a page that the guest has no copy of");
        mapping.write_at(5, b"the owner's").unwrap();
        object.sync().unwrap();
        for _ in 0..3 {
            mapping.advise(.., Advice::DontNeed).unwrap();
            // Through the budget once: every page of the object goes.
            mapping.populate(..).unwrap();
            let mut own = [0; 3];
            remote.read_at(5, &mut own).unwrap();
            assert_eq!(&own, b"own");
            remote.read_at(MIB - 4096, &mut own).unwrap();
            assert_eq!(&own, b"own");
        }
        let mut seen = [0; 11];
        mapping.read_at(5, &mut seen).unwrap();
        assert_eq!(&seen, b"the owner's");
        check_sample(
            MIB - 4096..MIB,
            &std::fs::read(sample.path()).unwrap()[(MIB - 4096) as usize..],
            "the file",
        );
        let after: Vec<u8> = (0..MIB).step_by(4096).map(byte).collect();
        let same = |page: usize| page == 2 || page == 255 || before[page] == after[page];
        assert!((0..256).all(same));
        assert_eq!(cache.metrics().dirty_bytes, 0);
        drop(remote);
        assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
    });
}
