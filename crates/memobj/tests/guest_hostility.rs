//! Peers that are no guests, or bad ones: the owner answers with an error in bounded time, and goes on.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memobj::{
    AdmitError, AdmitOptions, Cache, CacheOptions, Delivery, Guest, GuestEnd, GuestProt, Mapping,
    MemoryObject, ObjectOptions, Reads, RemoteMapping, Store, Writing,
};
use memobj_sim::fixture::{MIB, Sample, check_sample, wait_until, within};
use memobj_sim::process::Usage;
use memobj_sim::rig::mapped;
use memobj_sys::area::Writes;
use memobj_sys::line::{Answer, Line, Offer};
use memobj_sys::remote::RemoteView;

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
    let cache = Cache::new(CacheOptions { budget_bytes: MIB / 4, reads, ..Default::default() }).unwrap();
    let options = ObjectOptions { writing: Writing::InPlace, store: Store::Shared, ..Default::default() };
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
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || peer(theirs));
        let admitted = self.object.admit(ours, AdmitOptions { prot: GuestProt::ReadWrite, timeout });
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
    let view = RemoteView::new(&frames, view_bytes, Writes::Yes).unwrap();
    let faults = view.faults().try_clone_to_owned().unwrap();
    let mut answer = Answer { faults, process, start: view.start() as u64 };
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
        let changes: [Change; 6] = [
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
        // The driver lets go a moment later.
        std::thread::yield_now();
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
        // More than there may be.
        let guests: Vec<_> = (0..64).map(|_| round()).collect();
        let (refused, attached) = owner.admit(PATIENCE, |stream| RemoteMapping::attach(stream, PATIENCE));
        assert!(matches!(refused, Err(AdmitError::TooManyGuests)), "{refused:?}");
        drop((guests, attached));
        wait_until("everything is given back", || settled(before));
    });
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
