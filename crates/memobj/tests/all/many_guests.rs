//! Many guests at once: few threads serve them, and none that hangs, floods or breaks its word blocks another.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj::pagers::{Faulty, File, Inject, Injection};
use memobj::{
    AdmitOptions, Cache, CacheOptions, EngineClock, FrameVisibility, Guest, GuestEnd, GuestProt,
    MemoryObject, ObjectOptions, RemoteMapping, Writing,
};
use memobj_linux::area::GuestAccess;
use memobj_linux::line::{Answer, Line, Offer};
use memobj_linux::remote::RemoteView;
use memobj_linux::testing;
use memobj_sim::fixture::{MIB, Sample, cache, check_sample, wait_until, within};
use memobj_sim::process::{Started, Usage, alone, part, start};

const PATIENCE: Duration = memobj_sim::fixture::GUARD;
const PAGE: u64 = 4096;
const GUESTS: usize = 200;
const OBJECTS: usize = 4;
/// All threads of the owner, the test's own among them.
const MOST_THREADS: u64 = 16;

fn shared() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::InPlace).visibility(FrameVisibility::Shared)
}

/// Guests in processes of their own, which wait for a byte before they begin.
struct Crowd {
    guests: Vec<(Started, Guest, UnixStream)>,
    objects: Vec<(Sample, MemoryObject)>,
    listener: UnixListener,
    folder: tempfile::TempDir,
    test: &'static str,
    cache: Cache,
}

impl Crowd {
    fn new(test: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("line")).unwrap();
        let cache = cache(MIB);
        let object = |_| {
            let sample = Sample::new(MIB);
            let object = cache.open_file(sample.path(), shared()).unwrap();
            (sample, object)
        };
        let objects = (0..OBJECTS).map(object).collect();
        Self { guests: Vec::new(), objects, listener, folder, test, cache }
    }

    /// Starts part `role,SOCKET` of the test, and admits it to the next object.
    fn admit(&mut self, role: &str) {
        let path = self.folder.path().join("line");
        let child = start(self.test, &format!("{role},{}", path.display()));
        let (stream, _) = self.listener.accept().unwrap();
        let options = AdmitOptions::new().prot(GuestProt::ReadWrite).timeout(PATIENCE);
        let guest = self.objects[self.guests.len() % OBJECTS].1.admit(stream, options).unwrap();
        let (begin, _) = self.listener.accept().unwrap();
        self.guests.push((child, guest, begin));
    }

    fn begin(&mut self) {
        self.guests.iter_mut().for_each(|(_, _, begin)| begin.write_all(&[1]).unwrap());
    }
}

/// The other side of [`Crowd::admit`].
fn attached(path: &str) -> (RemoteMapping, UnixStream) {
    let remote = RemoteMapping::attach(UnixStream::connect(path).unwrap(), PATIENCE).unwrap();
    let mut begin = UnixStream::connect(path).unwrap();
    begin.read_exact(&mut [0]).unwrap();
    (remote, begin)
}

/// Faults on and on, from several threads: its pages are dropped from its view as often as they come.
fn flood(remote: RemoteMapping) -> ! {
    let remote = Arc::new(remote);
    for thread in 1..8u64 {
        let remote = Arc::clone(&remote);
        std::thread::spawn(move || fault_again(&remote, thread * 16, |_| {}));
    }
    fault_again(&remote, 0, |_| {})
}

/// As many threads that take the processors, and do not fault.
fn compute() -> ! {
    (1..8).for_each(|_| drop(std::thread::spawn(|| compute_here())));
    compute_here()
}

fn compute_here() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn fault_again(remote: &RemoteMapping, first: u64, mut told: impl FnMut(Duration)) -> ! {
    for page in (first..first + 16).cycle() {
        let begun = Instant::now();
        remote.read_at(page * PAGE, &mut [0]).unwrap();
        told(begun.elapsed());
        testing::drop_page(remote.as_ptr() as u64 + page * PAGE).unwrap();
    }
    unreachable!()
}

/// Checks a quarter of the pages, and leaves some bytes of its own.
fn look_through(remote: &RemoteMapping, number: u64) {
    for page in (number % 4..MIB / PAGE).step_by(4) {
        // The last word of each page is not looked at: guests store there.
        let mut bytes = [0; PAGE as usize - 8];
        remote.read_at(page * PAGE, &mut bytes).unwrap();
        check_sample(page * PAGE..(page + 1) * PAGE - 8, &bytes, "in a guest");
    }
    let own = (number + 1) * PAGE - 8;
    remote.write_at(own, &number.to_le_bytes()).unwrap();
}

#[test]
fn two_hundred_guests_are_served_by_few_threads_while_one_floods() {
    const NAME: &str = "two_hundred_guests_are_served_by_few_threads_while_one_floods";
    if let Some((role, path)) = part(NAME).as_deref().and_then(|part| part.split_once(',')) {
        let (remote, _begin) = attached(path);
        return match role {
            "flood" => flood(remote),
            number => look_through(&remote, number.parse().unwrap()),
        };
    }
    alone(NAME, || {
        let mut crowd = Crowd::new(NAME);
        crowd.admit("flood");
        (1..GUESTS).for_each(|number| crowd.admit(&number.to_string()));
        assert_eq!(crowd.cache.metrics().fault_loop.clients, GUESTS);
        let threads = Usage::now().threads;
        assert!(threads as u64 <= MOST_THREADS, "{threads} threads");
        crowd.begin();
        let begun = Instant::now();
        let mut most = 0;
        wait_until("all others have read what they want", || {
            most = most.max(Usage::now().threads);
            crowd.guests[1..].iter().all(|(_, guest, _)| guest.end().is_some())
        });
        assert!(most as u64 <= MOST_THREADS, "{most} threads");
        let metrics = crowd.cache.metrics();
        println!("{} guests, {most} threads, {:?}: {:?}", GUESTS, begun.elapsed(), metrics.fault_loop);
        for (child, guest, _) in &mut crowd.guests[1..] {
            assert!(child.wait(60).success());
            assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
        }
        // It is there still, and goes on.
        wait_until("the flood goes on", || crowd.cache.metrics().faults > metrics.faults + 1000);
        let (flood, guest, _) = &mut crowd.guests[0];
        assert_eq!(guest.end(), None);
        let killed = Instant::now();
        flood.kill();
        assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Left));
        println!("one that is killed was dropped after {:?}", killed.elapsed());
        assert!(metrics.peak_frame_bytes <= metrics.budget_bytes, "{metrics:?}");
        for (at, (_, object)) in crowd.objects.iter().enumerate() {
            let mapping = object.map(0..MIB, memobj::MapOptions::default()).unwrap();
            for number in (1..GUESTS).filter(|number| number % OBJECTS == at) {
                let mut word = [0; 8];
                mapping.read_at((number as u64 + 1) * PAGE - 8, &mut word).unwrap();
                assert_eq!(u64::from_le_bytes(word), number as u64, "stored by guest {number}");
            }
        }
    });
}

/// A guest in this process, whose every answer is right.
fn admit_here(object: &MemoryObject) -> (Guest, RemoteMapping) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let attaching = std::thread::spawn(move || RemoteMapping::attach(theirs, PATIENCE).unwrap());
    let guest = object.admit(ours, AdmitOptions::new().prot(GuestProt::ReadWrite).timeout(PATIENCE)).unwrap();
    (guest, attaching.join().unwrap())
}

#[test]
fn a_pager_that_never_answers_costs_no_threads_and_holds_up_nobody_else() {
    const WANTED: u64 = 300;
    within(60, "others are served", || {
        let (hanging, sample) = (Sample::new(2 * MIB), Sample::new(MIB));
        let all = Injection::new(0..2 * MIB, Inject::Hang);
        let file = File::open_writable(hanging.path(), Duration::ZERO).unwrap();
        let clock = EngineClock::manual();
        let options = CacheOptions::new().budget_bytes(4 * MIB).workers(2).clock(clock);
        let cache = Cache::new(options).unwrap();
        let forever = shared().supply_timeout(None);
        let object = cache.object("hanging", Faulty::new(file, vec![all], 0), forever).unwrap();
        let (guest, remote) = admit_here(&object);
        let (_other_guest, other) = admit_here(&cache.open_file(sample.path(), shared()).unwrap());
        let remote = Arc::new(remote);
        let sleepers: Vec<_> = (0..WANTED)
            .map(|page| {
                let remote = Arc::clone(&remote);
                std::thread::spawn(move || remote.read_at(page * PAGE, &mut [0]).unwrap_err())
            })
            .collect();
        wait_until("no more is read of it", || cache.metrics().fault_loop.held_back > 0);
        let mut bytes = vec![0; MIB as usize];
        other.read_at(0, &mut bytes).unwrap();
        check_sample(0..MIB, &bytes, "beside a pager that hangs");
        other.write_at(5, &[1]).unwrap();
        let metrics = cache.metrics().fault_loop;
        assert!(metrics.threads <= 2 && metrics.parked <= 256, "{metrics:?}");
        // Nobody waits for the pager to leave.
        drop(guest);
        sleepers.into_iter().for_each(|sleeper| assert!(sleeper.join().is_ok()));
        wait_until("nothing is parked", || cache.metrics().fault_loop.parked == 0);
    });
}

#[test]
fn a_guest_that_faults_elsewhere_is_dropped() {
    within(60, "the end of a guest", || {
        let sample = Sample::new(MIB);
        let cache = cache(MIB);
        let object = cache.open_file(sample.path(), shared()).unwrap();
        let (_other_guest, other) = admit_here(&object);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let attaching = std::thread::spawn(move || {
            let (line, deadline) = (Line::new(theirs), Instant::now() + PATIENCE);
            let Offer { frames, view_bytes, process, .. } = line.receive_offer(deadline).unwrap();
            let view = RemoteView::new(&frames, view_bytes, GuestAccess::Store, None).unwrap();
            let faults = view.faults().try_clone_to_owned().unwrap();
            line.answer(&Answer { faults, process, start: view.start() as u64, part: None }, deadline)
                .unwrap();
            line.receive_finish(deadline).unwrap();
            (line, view)
        });
        let options = AdmitOptions::new().prot(GuestProt::ReadWrite).timeout(PATIENCE);
        let guest = object.admit(ours, options).unwrap();
        let (line, view) = attaching.join().unwrap();
        let elsewhere = testing::register_elsewhere(view.faults(), PAGE as usize).unwrap();
        // Sleeps until the last userfaultfd of that memory is closed.
        let faulting = std::thread::spawn(move || testing::load(elsewhere as u64));
        let begun = Instant::now();
        assert_eq!(guest.wait(PATIENCE), Some(GuestEnd::Broken));
        println!("dropped after {:?}", begun.elapsed());
        other.read_at(0, &mut [0; 100]).unwrap();
        drop((guest, line, view));
        faulting.join().unwrap();
        assert_eq!(cache.metrics().fault_loop.dropped, 1);
    });
}

/// How long faults of pages take that are there, alone and beside a guest that floods, or only takes the processors. Only measured where it is asked for.
#[test]
fn faults_beside_a_guest_that_floods_are_measured() {
    const NAME: &str = "faults_beside_a_guest_that_floods_are_measured";
    const FAULTS: usize = 4000;
    if let Some((role, path)) = part(NAME).as_deref().and_then(|part| part.split_once(',')) {
        let (remote, _begin) = attached(path);
        match role {
            "flood" => flood(remote),
            "compute" => compute(),
            _ => {}
        }
        let mut times = Vec::new();
        fault_again(&remote, 0, |took| {
            times.push(took);
            if times.len() == FAULTS {
                times.sort();
                println!("{role}: p50 {:?}, p99 {:?}", times[FAULTS / 2], times[FAULTS * 99 / 100]);
                std::process::exit(0);
            }
        });
    }
    if std::env::var_os("MEMOBJ_MEASURE").is_none() {
        return println!("skipped: MEMOBJ_MEASURE is not set");
    }
    let others = [
        ("alone", None),
        ("beside a flood", Some("flood")),
        ("beside threads that compute", Some("compute")),
    ];
    for (role, other) in others {
        let mut crowd = Crowd::new(NAME);
        crowd.admit(role);
        other.into_iter().for_each(|other| crowd.admit(other));
        crowd.begin();
        assert!(crowd.guests[0].0.wait(60).success());
    }
}
