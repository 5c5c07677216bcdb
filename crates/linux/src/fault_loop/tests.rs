//! The loop with clients whose faults come from a socket, so that a test says when and which.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::uffd::{FaultEvent, FaultKind};

/// Only turns a hang into a failure.
const GUARD: Duration = Duration::from_secs(120);

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + GUARD;
    while !condition() {
        assert!(Instant::now() < until, "{what}: not so after {GUARD:?}");
        std::thread::yield_now();
    }
}

/// What becomes of a fault of page `n` is what this says; of all others `Done`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    /// Waits until the gate is open.
    Wait,
    Later(u32),
    Refuse,
    Break,
    Panic,
    /// The call itself blocks until the gate is open.
    Block,
}

#[derive(Default)]
struct Gate {
    is_open: AtomicBool,
    listeners: Listeners,
}

impl Gate {
    fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        self.listeners.tell();
    }
}

struct Opens(Arc<Gate>);

impl AsRef<Listeners> for Opens {
    fn as_ref(&self) -> &Listeners {
        &self.0.listeners
    }
}

impl Awaited for Listener<Opens> {
    fn is_over(&self) -> bool {
        self.0.is_open.load(Ordering::Acquire)
    }
}

struct Fake {
    faults: UnixStream,
    line: UnixStream,
    plans: HashMap<usize, Plan>,
    gate: Arc<Gate>,
    may_block: MayBlock,
    /// Pages in the order in which their faults were done.
    done: Mutex<Vec<usize>>,
    given_up: Mutex<Vec<usize>>,
    end: Mutex<Option<ClientEnd>>,
    has_heard_of_failure: AtomicBool,
    calls_at_once: AtomicUsize,
    /// Its events cannot be read before the gate is open.
    reads_late: AtomicBool,
    reads: AtomicUsize,
}

/// The other side of a client.
struct Peer {
    client: Arc<Fake>,
    faults: UnixStream,
    line: Option<UnixStream>,
}

impl Peer {
    fn fault(&self, page: usize) {
        (&self.faults).write_all(&(page as u64).to_le_bytes()).unwrap();
    }

    fn done(&self) -> usize {
        self.client.done.lock().unwrap().len()
    }

    fn ended(&self) -> Option<ClientEnd> {
        *self.client.end.lock().unwrap()
    }
}

fn peer(plans: &[(usize, Plan)], gate: &Arc<Gate>) -> Peer {
    peer_that(MayBlock::No, plans, gate)
}

fn peer_that(may_block: MayBlock, plans: &[(usize, Plan)], gate: &Arc<Gate>) -> Peer {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (our_line, their_line) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    our_line.set_nonblocking(true).unwrap();
    let client = Arc::new(Fake {
        faults: ours,
        line: our_line,
        plans: plans.iter().copied().collect(),
        gate: Arc::clone(gate),
        may_block,
        done: Mutex::default(),
        given_up: Mutex::default(),
        end: Mutex::default(),
        has_heard_of_failure: AtomicBool::new(false),
        calls_at_once: AtomicUsize::new(0),
        reads_late: AtomicBool::new(false),
        reads: AtomicUsize::new(0),
    });
    Peer { client, faults: theirs, line: Some(their_line) }
}

impl Client for Fake {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.faults.as_fd(), self.line.as_fd()]
    }

    fn read(&self, index: usize, faults: &mut Vec<FaultEvent>) -> Result<Reading, ClientEnd> {
        if index == 1 {
            return Err(ClientEnd::Gone);
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.reads_late.load(Ordering::Acquire) && !self.gate.is_open.load(Ordering::Acquire) {
            return Ok(Reading::Later);
        }
        let mut bytes = [0; BATCH * 8];
        match (&self.faults).read(&mut bytes) {
            Ok(count) => faults.extend(bytes[..count].as_chunks::<8>().0.iter().map(|word| FaultEvent {
                address: u64::from_le_bytes(*word) as usize,
                kind: FaultKind::Missing,
                is_write: false,
                thread: 0,
            })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(ClientEnd::Broken),
        }
        Ok(Reading::Done)
    }

    fn resolve(&self, fault: &Fault) -> Step {
        assert_eq!(self.calls_at_once.fetch_add(1, Ordering::SeqCst), 0, "one call at a time");
        let page = fault.event.address;
        let step = match self.plans.get(&page) {
            Some(Plan::Wait) => {
                let listener = Listener::new(Opens(Arc::clone(&self.gate)));
                if listener.is_over() { Step::Done } else { Step::Pending(Box::new(listener)) }
            }
            Some(Plan::Later(looks)) if fault.looks < *looks => Step::Later,
            Some(Plan::Refuse) => Step::Refused,
            Some(Plan::Break) => Step::Broken,
            Some(Plan::Panic) => {
                self.calls_at_once.store(0, Ordering::SeqCst);
                panic!("a test says so");
            }
            Some(Plan::Block) => {
                wait_until("the gate", || self.gate.is_open.load(Ordering::Acquire));
                Step::Done
            }
            Some(Plan::Later(_)) | None => Step::Done,
        };
        if matches!(step, Step::Done) {
            self.done.lock().unwrap().push(page);
        }
        self.calls_at_once.fetch_sub(1, Ordering::SeqCst);
        step
    }

    fn give_up(&self, fault: &Fault) {
        self.given_up.lock().unwrap().push(fault.event.address);
    }

    fn ended(&self, end: ClientEnd) {
        *self.end.lock().unwrap() = Some(end);
    }

    fn loop_failed(&self) {
        self.has_heard_of_failure.store(true, Ordering::SeqCst);
    }

    fn may_block(&self) -> MayBlock {
        self.may_block
    }
}

fn start() -> Arc<FaultLoop> {
    Arc::new(FaultLoop::start().unwrap())
}

#[test]
fn a_parked_fault_goes_on_when_what_it_waits_for_has_changed() {
    let (all, gate) = (start(), Arc::default());
    let waiting = peer(&[(7, Plan::Wait)], &gate);
    let _kept = all.add(waiting.client.clone()).unwrap();
    waiting.fault(7);
    waiting.fault(8);
    wait_until("the other fault is done", || waiting.done() == 1);
    assert_eq!(*waiting.client.done.lock().unwrap(), [8]);
    assert_eq!(all.metrics().parked, 1);
    gate.open();
    wait_until("it is done", || waiting.done() == 2);
    let metrics = all.metrics();
    assert_eq!((metrics.parked, metrics.events, metrics.threads), (0, 2, 1));
}

#[test]
fn what_nobody_tells_of_is_tried_again() {
    let (all, gate) = (start(), Arc::default());
    let client = peer(&[(7, Plan::Later(3))], &gate);
    let _kept = all.add(client.client.clone()).unwrap();
    client.fault(7);
    wait_until("it is done", || client.done() == 1);
}

/// It is tried again and again, and not without a pause.
#[test]
fn events_that_cannot_be_read_now_are_read_later() {
    let (all, gate) = (start(), Arc::default());
    let (late, other) = (peer(&[], &gate), peer(&[], &gate));
    late.client.reads_late.store(true, Ordering::Release);
    let _kept = [all.add(late.client.clone()).unwrap(), all.add(other.client.clone()).unwrap()];
    let begun = Instant::now();
    late.fault(7);
    for round in 1..=500 {
        other.fault(round);
        wait_until("the other is served", || other.done() == round);
    }
    wait_until("it was tried", || late.client.reads.load(Ordering::Relaxed) > 3);
    let (reads, most) =
        (late.client.reads.load(Ordering::Relaxed), begun.elapsed().as_millis() as usize + 10);
    assert!(reads <= most, "{reads} reads within {most} ms");
    gate.open();
    wait_until("it is done", || late.done() == 1);
}

/// More faults wait than may be parked: its events are not read, and those of others are.
#[test]
fn a_client_with_too_many_parked_faults_is_not_read_until_they_are_fewer() {
    let (all, gate) = (start(), Arc::default());
    let hanging = peer(&[(7, Plan::Wait)], &gate);
    let other = peer(&[], &gate);
    let _kept = [all.add(hanging.client.clone()).unwrap(), all.add(other.client.clone()).unwrap()];
    for _ in 0..300 {
        hanging.fault(7);
    }
    // Nothing waits for the last one.
    hanging.fault(8);
    wait_until("it is held back", || all.metrics().held_back > 0);
    for page in 0..1000 {
        other.fault(page);
    }
    wait_until("the other is served", || other.done() == 1000);
    let parked = all.metrics().parked;
    assert!((MOST_PARKED - BATCH + 1..=MOST_PARKED).contains(&parked), "{parked} parked");
    assert_eq!((hanging.done(), all.metrics().threads), (0, 1));
    gate.open();
    wait_until("all are done", || hanging.done() == 301);
    assert_eq!(all.metrics().parked, 0);
}

#[test]
fn a_client_that_floods_leaves_turns_to_the_others() {
    let (all, gate) = (start(), Arc::default());
    let flooding = peer(&[], &gate);
    let others: Vec<_> = (0..20).map(|_| peer(&[], &gate)).collect();
    let mut kept = vec![all.add(flooding.client.clone()).unwrap()];
    kept.extend(others.iter().map(|other| all.add(other.client.clone()).unwrap()));
    let stop = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let (faults, stop) = (flooding.faults.try_clone().unwrap(), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Relaxed) {
                (&faults).write_all(&[0; 4096]).unwrap();
            }
        }
    });
    wait_until("the flood has begun", || flooding.done() > 300);
    for round in 1..=20 {
        others.iter().for_each(|other| other.fault(round));
        wait_until("all others are served", || others.iter().all(|other| other.done() == round));
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    assert_eq!(all.metrics().threads, 1);
}

#[test]
fn who_has_ended_or_does_what_clients_do_not_do_is_dropped() {
    let (all, gate) = (start(), Arc::default());
    let ends = |plans: &[(usize, Plan)], act: &dyn Fn(&mut Peer)| {
        let mut client = peer(plans, &gate);
        let kept = all.add(client.client.clone()).unwrap();
        act(&mut client);
        wait_until("it is dropped", || client.ended().is_some());
        wait_until("it is out", || all.metrics().clients == 0);
        drop(kept);
        client.ended().unwrap()
    };
    assert_eq!(ends(&[], &|client| client.line = None), ClientEnd::Gone);
    assert_eq!(ends(&[(7, Plan::Break)], &|client| client.fault(7)), ClientEnd::Broken);
    let many = |client: &mut Peer| (0..1025).for_each(|_| client.fault(7));
    assert_eq!(ends(&[(7, Plan::Refuse)], &many), ClientEnd::Broken);
    assert_eq!(all.metrics().dropped, 3);
    // What is in order in between is no reason.
    let client = peer(&[(7, Plan::Refuse)], &gate);
    let _kept = all.add(client.client.clone()).unwrap();
    (0..1500).for_each(|at| client.fault(if at % 1000 == 999 { 8 } else { 7 }));
    client.fault(9);
    wait_until("all are read", || client.done() == 2);
    assert_eq!(client.ended(), None);
}

#[test]
fn a_panic_of_a_client_fails_that_fault_and_no_other() {
    let (all, gate) = (start(), Arc::default());
    let client = peer(&[(7, Plan::Panic)], &gate);
    let _kept = all.add(client.client.clone()).unwrap();
    client.fault(7);
    client.fault(8);
    wait_until("the other is done", || client.done() == 1);
    assert_eq!(*client.client.given_up.lock().unwrap(), [7]);
    assert!(!all.has_failed());
}

#[test]
fn a_panic_of_the_loop_fails_all_faults() {
    let (all, gate) = (start(), Arc::default());
    let client = peer(&[(7, Plan::Wait)], &gate);
    let _kept = all.add(client.client.clone()).unwrap();
    client.fault(7);
    wait_until("it is parked", || all.metrics().parked == 1);
    all.shared.panics.store(true, Ordering::Relaxed);
    wait_until("the parked one is given up", || *client.client.given_up.lock().unwrap() == [7]);
    client.fault(8);
    wait_until("so is the next", || *client.client.given_up.lock().unwrap() == [7, 8]);
    assert!(client.client.has_heard_of_failure.load(Ordering::SeqCst) && all.has_failed());
    assert_eq!((client.done(), all.metrics().parked), (0, 0));
}

/// Calls that do not return: others are served by other threads, of which there are not many.
#[test]
fn a_call_that_is_held_up_holds_up_nobody_else() {
    let (all, gate) = (start(), Arc::default());
    let held_up: Vec<_> =
        (0..MOST_THREADS - 1).map(|_| peer_that(MayBlock::Yes, &[(7, Plan::Block)], &gate)).collect();
    let other = peer_that(MayBlock::Yes, &[], &gate);
    let mut kept = vec![all.add(other.client.clone()).unwrap()];
    for (at, client) in held_up.iter().enumerate() {
        kept.push(all.add(client.client.clone()).unwrap());
        client.fault(7);
        // Its descriptor tells of more while it is blocked.
        client.fault(8);
        wait_until("it is blocked", || all.metrics().calls_held_up > at as u64);
        other.fault(at);
        wait_until("the other is served", || other.done() == at + 1);
        assert!(all.metrics().threads <= MOST_THREADS);
    }
    gate.open();
    wait_until("they go on", || held_up.iter().all(|client| client.done() == 2));
    wait_until("few threads are left", || all.metrics().threads == 2);
    other.fault(100);
    wait_until("the other is served", || other.done() == MOST_THREADS);
}

#[test]
fn a_client_that_was_taken_out_is_not_called_any_more() {
    let (all, gate): (_, Arc<Gate>) = (start(), Arc::default());
    for _ in 0..200 {
        let client = peer(&[(7, Plan::Wait)], &gate);
        let kept = all.add(client.client.clone()).unwrap();
        client.fault(7);
        client.fault(8);
        drop(kept);
        // Neither a turn nor a parked fault has it.
        assert_eq!(Arc::strong_count(&client.client), 1);
    }
    assert_eq!((all.metrics().clients, all.metrics().parked), (0, 0));
}

#[test]
fn who_takes_a_client_out_waits_for_its_turn() {
    let (all, gate): (_, Arc<Gate>) = (start(), Arc::default());
    let client = peer(&[(7, Plan::Block)], &gate);
    let kept = all.add(client.client.clone()).unwrap();
    client.fault(7);
    wait_until("it is called", || client.client.calls_at_once.load(Ordering::SeqCst) == 1);
    std::thread::scope(|scope| {
        let taking_out = scope.spawn(|| {
            drop(kept);
            (client.done(), Arc::strong_count(&client.client))
        });
        // Gives one that does not wait the time to be wrong.
        (0..1000).for_each(|_| std::thread::yield_now());
        gate.open();
        assert_eq!(taking_out.join().unwrap(), (1, 1));
    });
}

#[test]
fn the_loop_of_the_process_ends_with_its_last_handle_and_begins_anew() {
    let gate = Arc::default();
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let one = FaultLoop::of_process().unwrap();
        assert!(Arc::ptr_eq(&one, &FaultLoop::of_process().unwrap()));
        let client = peer(&[], &gate);
        let kept = one.add(client.client.clone()).unwrap();
        drop(one);
        client.fault(1);
        wait_until("it is served", || client.done() == 1);
        assert_eq!(FaultLoop::metrics_of_process().clients, 1);
        drop(kept);
        assert_eq!(FaultLoop::metrics_of_process().threads, 0);
        seen.insert(client.client.done.lock().unwrap().len());
    }
    assert_eq!(seen, HashSet::from([1]));
}

#[test]
fn who_ends_later_does_not_wait_for_a_turn() {
    let (all, gate): (_, Arc<Gate>) = (start(), Arc::default());
    let client = peer_that(MayBlock::Yes, &[(7, Plan::Block)], &gate);
    let kept = all.add(client.client.clone()).unwrap();
    client.fault(7);
    wait_until("it is called", || client.client.calls_at_once.load(Ordering::SeqCst) == 1);
    let (sender, ended) = std::sync::mpsc::channel();
    let ending = std::thread::spawn(move || {
        kept.end_later();
        sender.send(()).unwrap();
    });
    let is_ended = ended.recv_timeout(Duration::from_secs(60)).is_ok();
    gate.open();
    ending.join().unwrap();
    assert!(is_ended, "end_later waited for the turn");
}

/// However many there are: each is tried once in each look.
#[test]
fn faults_that_are_tried_later_are_tried_with_pauses() {
    const FAULTS: usize = 5;
    let (all, gate) = (start(), Arc::default());
    let client = peer(&[(7, Plan::Later(u32::MAX))], &gate);
    let _kept = all.add(client.client.clone()).unwrap();
    (0..FAULTS).for_each(|_| client.fault(7));
    wait_until("they are parked", || all.metrics().parked == FAULTS);
    let (since, before) = (Instant::now(), all.shared.calls.load(Ordering::Relaxed));
    let calls = || (all.shared.calls.load(Ordering::Relaxed) - before) as u128;
    wait_until("they are tried many times", || calls() >= 50 * FAULTS as u128);
    // A look every 2 ms, and every 50 ms one more.
    let most = (since.elapsed().as_millis() / 2 * 27 / 25 + 3) * FAULTS as u128;
    assert!(calls() <= most, "{} calls, where {most} are due", calls());
}
