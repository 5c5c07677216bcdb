//! Peers that are no guests, or bad ones: the owner answers with an error in bounded time, and goes on.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use memobj::{
    AdmitError, AdmitOptions, Cache, CacheOptions, Delivery, FrameVisibility, Guest, GuestEnd, GuestProt,
    Mapping, MemoryObject, ObjectOptions, Reads, RemoteMapping, Writing,
};
use memobj_linux::area::GuestAccess;
use memobj_linux::line::{Answer, Line, Offer, Part};
use memobj_linux::remote::RemoteView;
use memobj_sim::fixture::{MIB, Sample, check_sample, wait_until, wait_until_clean, within};
use memobj_sim::process::Usage;
use memobj_sim::writable_fixture::mapped;

const SHORTLY: Duration = Duration::from_millis(300);
const PATIENCE: Duration = memobj_sim::fixture::GUARD;

struct Owner {
    mapping: Mapping,
    object: MemoryObject,
    _cache: Cache,
    _sample: Sample,
}

fn owner(reads: Reads) -> Owner {
    let sample = Sample::new(MIB);
    let cache = Cache::new(CacheOptions::new().budget_bytes(MIB / 4).reads(reads)).unwrap();
    let options = ObjectOptions::new().writing(Writing::InPlace).visibility(FrameVisibility::Shared);
    let object = cache.open_file(sample.path(), options).unwrap();
    let mapping = object.map(0..MIB, mapped(Delivery::ReaderThread)).unwrap();
    Owner { mapping, object, _cache: cache, _sample: sample }
}

impl Owner {
    /// Admits whoever `peer` plays, in this process.
    fn admit<R: Send + 'static>(
        &self,
        timeout: Duration,
        peer: impl FnOnce(UnixStream) -> R + Send + 'static,
    ) -> (Result<Guest, AdmitError>, R) {
        self.admit_for(GuestProt::ReadWrite, timeout, peer)
    }

    fn admit_for<R: Send + 'static>(
        &self,
        prot: GuestProt,
        timeout: Duration,
        peer: impl FnOnce(UnixStream) -> R + Send + 'static,
    ) -> (Result<Guest, AdmitError>, R) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || peer(theirs));
        let admitted = self.object.admit(ours, AdmitOptions::new().prot(prot).timeout(timeout));
        (admitted, peer.join().unwrap())
    }

    /// Whether faults are still resolved, and pins for writing possible: no guest is left.
    fn is_well(&self) {
        self.mapping.advise(0..MIB, memobj::Advice::DontNeed).unwrap();
        let mut bytes = vec![0; MIB as usize];
        self.mapping.touch_at(0, &mut bytes).unwrap();
        check_sample(0..MIB, &bytes, "beside a bad guest");
        wait_until("pins for writing are possible", || self.mapping.pin_mut(0..1).is_ok());
    }
}

/// Receives the offer, and answers with what `change` makes of the right answer.
fn answer(stream: UnixStream, change: impl FnOnce(&mut Answer)) -> (Line, RemoteView) {
    let deadline = Instant::now() + PATIENCE;
    let line = Line::new(stream);
    let Offer { frames, view_bytes, process, .. } = line.receive_offer(deadline).unwrap();
    let view = RemoteView::new(&frames, view_bytes, GuestAccess::Store, None).unwrap();
    let faults = view.faults().try_clone_to_owned().unwrap();
    let mut answer = Answer { faults, process, start: view.start() as u64, part: None };
    change(&mut answer);
    line.answer(&answer, deadline).unwrap();
    (line, view)
}

/// What is wrong with an answer, and how it comes to be.
type Change = (&'static str, fn(&mut Answer));

fn is_peers_fault(admitted: &Result<Guest, AdmitError>) -> bool {
    matches!(admitted, Err(AdmitError::Peer { .. }))
}

#[test]
fn who_does_not_answer_is_not_waited_for() {
    within(60, "a silent peer", || {
        let owner = owner(Reads::Auto);
        let (admitted, _) = owner.admit(SHORTLY, |mut stream| {
            // A part of a message is not an answer. Holds on until the owner hangs up.
            stream.write_all(b"memobj").unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert!(matches!(admitted, Err(AdmitError::TimedOut)), "{admitted:?}");
        let (admitted, _) = owner.admit(PATIENCE, drop);
        assert!(matches!(admitted, Err(AdmitError::HungUp)), "{admitted:?}");
        owner.is_well();
    });
}

#[test]
fn what_is_no_answer_is_refused() {
    within(60, "wrong answers", || {
        let owner = owner(Reads::Auto);
        let (admitted, _) = owner.admit(PATIENCE, |mut stream| {
            stream.write_all(&[0xa5; 48]).unwrap();
            let mut rest = Vec::new();
            // The owner hangs up.
            stream.read_to_end(&mut rest).unwrap();
        });
        assert!(is_peers_fault(&admitted), "{admitted:?}");
        let file = || std::fs::File::open("/dev/zero").unwrap().as_fd().try_clone_to_owned().unwrap();
        let changes: [Change; 10] = [
            ("a part behind the end", |answer| answer.part = Some(Part { offset: 1 << 40, length: 4096 })),
            ("a part behind all", |answer| {
                answer.part = Some(Part { offset: u64::MAX - 4095, length: 8192 })
            }),
            ("a part inside of a page", |answer| answer.part = Some(Part { offset: 1, length: 4096 })),
            ("a length inside of a page", |answer| answer.part = Some(Part { offset: 0, length: 4097 })),
            ("no userfaultfd", |answer| answer.faults = UnixStream::pair().unwrap().0.into()),
            ("no process", |answer| answer.process = UnixStream::pair().unwrap().0.into()),
            ("an address that nobody has", |answer| answer.start = 1 << 50),
            ("an address near the end of all", |answer| answer.start = u64::MAX - 4095),
            ("an address inside of a page", |answer| answer.start += 1),
            ("an address where nothing is mapped", |answer| answer.start = 1 << 21),
        ];
        for (what, change) in changes {
            let (admitted, _) = owner.admit(PATIENCE, move |stream| answer(stream, change));
            assert!(is_peers_fault(&admitted), "{what}: {admitted:?}");
        }
        let (admitted, _) =
            owner.admit(PATIENCE, move |stream| answer(stream, |answer| answer.faults = file()));
        assert!(is_peers_fault(&admitted), "{admitted:?}");
        owner.is_well();
    });
}

#[test]
fn a_guest_that_misbehaves_is_dismissed_and_others_do_not_notice() {
    for reads in [Reads::Auto, Reads::Threads] {
        within(60, "bad guests", move || {
            let owner = owner(reads);
            // It talks.
            let (admitted, kept) = owner.admit(PATIENCE, |stream| {
                let mut talking = stream.try_clone().unwrap();
                let kept = answer(stream, |_| {});
                kept.0.receive_finish(Instant::now() + PATIENCE).unwrap();
                talking.write_all(&[7; 1000]).unwrap();
                kept
            });
            assert_eq!(admitted.unwrap().wait(PATIENCE), Some(GuestEnd::Left));
            drop(kept);
            // It would let reads of its descriptor block.
            let (admitted, (line, view)) = owner.admit(PATIENCE, |stream| answer(stream, |_| {}));
            let guest = admitted.unwrap();
            rustix::fs::fcntl_setfl(view.faults(), rustix::fs::OFlags::empty()).unwrap();
            let faulting = std::thread::spawn(move || view.load(0, &mut [0; 8]));
            assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Broken));
            drop((line, faulting));
            owner.is_well();
        });
    }
}

#[test]
fn bytes_that_nobody_supplied_are_not_taken_for_pages() {
    within(60, "a guest that fills holes", || {
        use std::os::unix::fs::FileExt;
        let owner = owner(Reads::Auto);
        owner.mapping.touch_at(0, &mut [0; 8192]).unwrap();
        owner.mapping.advise(0..MIB, memobj::Advice::DontNeed).unwrap();
        // As a load of a view does that is not registered any more.
        let (_, frames) = owner.admit(SHORTLY, |stream| {
            let offer = Line::new(stream).receive_offer(Instant::now() + PATIENCE).unwrap();
            std::fs::File::from(offer.frames)
        });
        for page in (0..MIB / 4096).step_by(3) {
            frames.write_all_at(&[0; 4096], page * 4096).unwrap();
        }
        owner.is_well();
    });
}

/// What `Line` gives a peer that is admitted with `prot`: the file of frames.
fn frames_offered(owner: &Owner, prot: GuestProt) -> File {
    let (_, frames) = owner.admit_for(prot, SHORTLY, |stream| {
        let offer = Line::new(stream).receive_offer(Instant::now() + PATIENCE).unwrap();
        File::from(offer.frames)
    });
    frames
}

#[test]
fn a_guest_that_only_loads_can_neither_change_nor_cut_off_the_frames() {
    use rustix::fs::{FallocateFlags, fallocate};
    use std::os::unix::fs::FileExt;
    within(60, "the descriptor of a reader", || {
        let owner = owner(Reads::Auto);
        let pinned = owner.mapping.pin(0..8192).unwrap();
        let frames = frames_offered(&owner, GuestProt::ReadOnly);
        let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert!(frames.write_all_at(&[0xff; 4096], 0).is_err());
        assert!(frames.set_len(0).is_err() && frames.set_len(1 << 40).is_err());
        assert!(fallocate(&frames, holes, 0, 4096).is_err());
        // By another user there is no way to a description that can write.
        let another =
            if rustix::process::getuid().is_root() { 65_534 } else { rustix::process::getuid().as_raw() };
        let reopened = Command::new("sh")
            .args(["-c", ": <>/proc/self/fd/0 && echo opened"])
            .stdin(frames.try_clone().unwrap())
            .uid(another)
            .output()
            .unwrap();
        assert!(reopened.stdout.is_empty(), "opened for writing by user {another}");
        check_sample(0..8192, &pinned, "beside a reader that tries to write");
        drop(pinned);
        owner.is_well();
    });
}

#[test]
fn no_guest_can_change_the_length_of_the_frames() {
    within(60, "the descriptor of a writer", || {
        let owner = owner(Reads::Auto);
        let frames = frames_offered(&owner, GuestProt::ReadWrite);
        assert!(frames.set_len(0).is_err() && frames.set_len(1 << 40).is_err());
        let unsealed = rustix::fs::fcntl_add_seals(&frames, rustix::fs::SealFlags::WRITE);
        assert!(unsealed.is_err(), "it could be sealed against its owner");
        owner.is_well();
    });
}

#[test]
fn a_reader_has_no_view_that_can_be_stored_to() {
    within(60, "the view of a reader", || {
        let owner = owner(Reads::Auto);
        let (admitted, (line, view)) = owner.admit_for(GuestProt::ReadOnly, PATIENCE, |stream| {
            let deadline = Instant::now() + PATIENCE;
            let line = Line::new(stream);
            let Offer { frames, view_bytes, process, .. } = line.receive_offer(deadline).unwrap();
            // As if it were to store: the kernel gives it no such view of a file that it may only read.
            assert!(RemoteView::new(&frames, view_bytes, GuestAccess::Store, None).is_err());
            let view = RemoteView::new(&frames, view_bytes, GuestAccess::Load, None).unwrap();
            let faults = view.faults().try_clone_to_owned().unwrap();
            line.answer(&Answer { faults, process, start: view.start() as u64, part: None }, deadline)
                .unwrap();
            line.receive_finish(deadline).unwrap();
            (line, view)
        });
        let guest = admitted.unwrap();
        let mut bytes = [0; 8];
        view.load(4096, &mut bytes).unwrap();
        check_sample(4096..4104, &bytes, "in a reader");
        assert_eq!(guest.end(), None);
        drop((line, view));
        assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
        owner.is_well();
    });
}

/// A guest that stores to the first byte of `pages`, and then ends the registration of page 0.
fn half_registered(owner: &Owner, pages: &[u64]) -> (Guest, Line, RemoteView) {
    let pages = pages.to_vec();
    let (admitted, (line, view)) = owner.admit(PATIENCE, |stream| {
        let (line, view) = answer(stream, |_| {});
        line.receive_finish(Instant::now() + PATIENCE).unwrap();
        (line, view)
    });
    for page in pages {
        view.store(page * 4096, &[1]).unwrap();
    }
    memobj_linux::testing::unregister(view.faults(), view.start(), 4096).unwrap();
    (admitted.unwrap(), line, view)
}

#[test]
fn a_guest_whose_pages_cannot_be_protected_is_dismissed_before_they_are_copied() {
    within(60, "a page that stays open", || {
        let owner = owner(Reads::Auto);
        let (guest, line, view) = half_registered(&owner, &[0, 9]);
        owner.mapping.sync(0..MIB).unwrap();
        assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Broken));
        wait_until_clean(&owner._cache);
        let bytes = std::fs::read(owner._sample.path()).unwrap();
        assert_eq!((bytes[0], bytes[9 * 4096]), (1, 1));
        drop((line, view));
        wait_until("pins for writing are possible", || owner.mapping.pin_mut(0..1).is_ok());
    });
}

#[test]
fn what_a_dismissed_guest_still_has_registered_is_protected() {
    within(60, "a page in another block", || {
        let sample = Sample::new(6 * MIB);
        let cache = Cache::new(CacheOptions::new().budget_bytes(MIB)).unwrap();
        let options = ObjectOptions::new().writing(Writing::InPlace).visibility(FrameVisibility::Shared);
        let object = cache.open_file(sample.path(), options).unwrap();
        let mapping = object.map(0..6 * MIB, mapped(Delivery::ReaderThread)).unwrap();
        let owner = Owner { mapping, object, _cache: cache, _sample: sample };
        // 2 MiB are protected at once.
        let (guest, _line, view) = half_registered(&owner, &[0, 1100]);
        drop(guest);
        let pinned = owner.mapping.pin(1100 * 4096..1100 * 4096 + 1).unwrap();
        assert_eq!(pinned[0], 1);
        let view = std::sync::Arc::new(view);
        let storing = std::sync::Arc::clone(&view);
        // Sleeps on its fault until the view is dropped, which it keeps: for ever. It ends with the process.
        std::thread::spawn(move || storing.store(1100 * 4096, &[2]));
        let mut byte = [0];
        // waits: gives a store that is not held off the time to be seen.
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(2)); // waits: as above
            owner.mapping.read_at(1100 * 4096, &mut byte).unwrap();
            assert_eq!(byte, [1], "a dismissed guest has stored unseen");
        }
        drop(pinned);
        // Nobody is left to end its fault.
        view.trap_all();
    });
}

#[test]
fn what_is_pinned_does_not_change_under_whoever_has_the_descriptor() {
    use std::os::unix::fs::FileExt;
    within(60, "pins beside a descriptor that can write", || {
        let owner = owner(Reads::Auto);
        let in_place = owner.mapping.pin(0..8192).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let admit = || owner.object.admit(ours.try_clone().unwrap(), AdmitOptions::default());
        assert!(matches!(admit(), Err(AdmitError::InUse)), "there is a reference to frames");
        drop(in_place);
        let frames = frames_offered(&owner, GuestProt::ReadWrite);
        // Nobody is attached any more, but the descriptor is there.
        let pinned = owner.mapping.pin(0..8192).unwrap();
        let mut changed = owner.mapping.pin_mut(8192..16_384).unwrap();
        changed[0] = 1;
        frames.write_all_at(&[0xee; 16_384], 0).unwrap();
        check_sample(0..8192, &pinned, "a pin");
        assert_eq!(changed[0], 1);
        check_sample(8193..16_384, &changed[1..], "a pin for writing");
        let metrics = owner._cache.metrics();
        assert!(metrics.pinned_bytes >= 2 * 16_384 && metrics.frame_bytes >= 2 * 16_384, "{metrics:?}");
        drop((pinned, changed));
        assert!(owner._cache.metrics().pinned_bytes == 0);
        // What was pinned for writing is what is there; the rest is what the stranger wrote.
        let mut bytes = vec![0; 16_384];
        owner.mapping.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes[8192], 1);
        check_sample(8193..16_384, &bytes[8193..], "what was put back");
        assert!(bytes[..8192].iter().all(|byte| *byte == 0xee));
        // The budget is the bound of copies, too.
        let most: Vec<_> =
            (0..64).map_while(|page| owner.mapping.pin(page * 4096..(page + 1) * 4096).ok()).collect();
        let metrics = owner._cache.metrics();
        assert!(most.len() > 16 && metrics.peak_frame_bytes <= metrics.budget_bytes, "{metrics:?}");
        assert!(most.len() < 32, "{} pages are pinned with their copies", most.len());
    });
}

#[test]
fn guests_leave_nothing_behind() {
    memobj_sim::process::alone("guests_leave_nothing_behind", || {
        let owner = owner(Reads::Auto);
        let round = || {
            let (admitted, remote) =
                owner.admit(PATIENCE, |stream| RemoteMapping::attach(stream, PATIENCE).unwrap());
            remote.write_at(0, &[0; 1]).unwrap();
            let (guest, remote) = (admitted.unwrap(), remote);
            (guest, remote)
        };
        drop(round());
        let settled = |before: Usage| {
            let now = Usage::now();
            // The C library keeps some stacks of threads that have ended; a view takes 1 GiB of addresses.
            now.descriptors == before.descriptors
                && now.threads == before.threads
                && now.virtual_bytes < before.virtual_bytes + 512 * MIB
        };
        owner.mapping.touch_at(0, &mut [0; 1]).unwrap();
        let mut before = Usage::now();
        wait_until("the first round has ended", || {
            let stable = settled(before);
            before = Usage::now();
            stable
        });
        for turn in 0..20 {
            let (guest, remote) = round();
            match turn % 2 {
                0 => {
                    drop(guest);
                    drop(remote);
                }
                _ => {
                    drop(remote);
                    assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
                }
            }
        }
        wait_until("everything is given back", || settled(before));
    });
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
