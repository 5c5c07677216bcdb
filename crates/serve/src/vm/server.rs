//! The socket at which machine monitors connect, and all machines.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use memobj::Cache;
use memobj::pagers::Pager;
use memobj_linux::credentials::peer_of;
use memobj_linux::eventfd::EventFd;
use memobj_linux::fault_loop::{FaultLoop, Registration};
use memobj_linux::times::Times;
use memobj_linux::uffd::PrivateMemory;
use rustix::event::{PollFd, PollFlags, poll};

use super::event::Event;
use super::faults::MachineFaults;
use super::handshake::{self, Handshake};
use super::machine::{Machine, SMALL};
use super::object::ServedObject;
use super::options::{Options, StartError, Statistics};
use super::prefetch::{Plan, Prefetched, prefetch};
use super::record::{Recorder, Touches};
use super::regions::Regions;
use super::state::MachineState;
use crate::keep::{KeptItem, Kind};
use crate::log::Log;

/// How long a monitor may take to say where its memory is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many may be saying it at once.
const MOST_HANDSHAKES: usize = 64;

/// Machines by their numbers, with what keeps each in the event loop.
type Machines = HashMap<u64, (Arc<Machine>, Option<Registration>)>;

/// What threads of a server share.
pub(super) struct Shared {
    object: Arc<ServedObject>,
    options: Options,
    log: Log,
    plan: Plan,
    recorder: Option<Arc<Recorder>>,
    fault_loop: Arc<FaultLoop>,
    machines: Mutex<Machines>,
    next: AtomicU64,
    handshakes: AtomicUsize,
    prefetchers: Mutex<usize>,
    prefetcher_ended: Condvar,
    served: AtomicU64,
    refused: AtomicU64,
    faults: AtomicU64,
    times: Times,
    stops: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("object", &self.object.name).finish_non_exhaustive()
    }
}

/// Serves machines until it is dropped. Those that live on then sleep at their next missing page, unless they are kept for
/// another server.
#[derive(Debug)]
pub struct MachineServer {
    shared: Arc<Shared>,
    wake: Arc<EventFd>,
    accepts: Option<JoinHandle<()>>,
}

impl MachineServer {
    /// Serves monitors that connect to `listener` the bytes of `pager`, in frames of `cache`, whose budget has `budget_bytes`.
    ///
    /// # Errors
    ///
    /// What keeps the object from being mapped.
    pub fn start(
        listener: UnixListener,
        cache: &Cache,
        (name, pager): (&str, Arc<dyn Pager>),
        budget_bytes: u64,
        mut options: Options,
    ) -> Result<Self, StartError> {
        let object = Arc::new(ServedObject::open(cache, name, pager, options.policy)?);
        let system = |what| move |error| StartError::System(what, error);
        let touches = options.touches.take().map(Arc::new);
        let plan = Plan { touches, all: options.completes, budget_bytes };
        let recorder = options.records.then(|| Arc::new(Recorder::new(object.length)));
        let fault_loop = FaultLoop::of_process().map_err(system("start the event loop for faults"))?;
        let shared = Arc::new(Shared {
            object,
            options,
            log: Log::here(),
            plan,
            recorder,
            fault_loop,
            machines: Mutex::default(),
            next: AtomicU64::new(1),
            handshakes: AtomicUsize::new(0),
            prefetchers: Mutex::new(0),
            prefetcher_ended: Condvar::new(),
            served: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            times: Times::default(),
            stops: AtomicBool::new(false),
        });
        shared.take_over();
        let wake = Arc::new(EventFd::new().map_err(system("make an event"))?);
        listener.set_nonblocking(true).map_err(system("listen"))?;
        let (accepted, woken) = (Arc::clone(&shared), Arc::clone(&wake));
        let accepts = thread::Builder::new()
            .name("memobj-accept".into())
            .spawn(move || accept(&accepted, &listener, &woken))
            .map_err(system("start a thread"))?;
        Ok(Self { shared, wake, accepts: Some(accepts) })
    }

    /// What it has done.
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }

    /// What tells what it has done, from any thread. It keeps the object mapped.
    pub fn handle(&self) -> MachineServerHandle {
        MachineServerHandle(Arc::clone(&self.shared))
    }

    /// First touches of all machines so far, if they are recorded.
    pub fn touches(&self) -> Option<Touches> {
        self.shared.recorder.as_ref().map(|recorder| recorder.touches())
    }
}

/// Tells what a server has done. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MachineServerHandle(Arc<Shared>);

impl MachineServerHandle {
    /// What the server has done so far.
    pub fn statistics(&self) -> Statistics {
        self.0.statistics()
    }
}

impl Drop for MachineServer {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Release);
        self.wake.notify();
        if let Some(accepts) = self.accepts.take() {
            let _ = accepts.join();
        }
        let machines = std::mem::take(&mut *self.shared.machines());
        for (machine, _) in machines.values() {
            machine.is_over.store(true, Ordering::Release);
        }
        drop(machines);
        let prefetchers = self.shared.prefetchers.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.shared.prefetcher_ended.wait_while(prefetchers, |count| *count > 0);
        drop(left);
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener, wake: &EventFd) {
    while !shared.stops.load(Ordering::Acquire) {
        let mut polled = [PollFd::new(listener, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
        if poll(&mut polled, None).is_err() {
            continue;
        }
        match listener.accept() {
            Ok((socket, _)) => shared.greet(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // No descriptor or memory for it: others may give some back.
            Err(error) => {
                shared.refuse(None, format!("accept it: {error}"));
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Shared {
    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            machines: self.machines().len(),
            served: self.served.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            median: self.times.percentile(50),
            percentile_99: self.times.percentile(99),
        }
    }

    pub(super) fn tell(&self, event: &Event) {
        self.log.with(|| event.trace());
    }

    fn refuse(&self, pid: Option<i32>, why: String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.tell(&Event::Refused { pid, why });
    }

    /// A fault was resolved, so long after it was read.
    pub(super) fn resolved(&self, time: Duration) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.times.add(time);
    }

    /// Hears a monitor, on a thread of its own.
    fn greet(self: &Arc<Self>, socket: UnixStream) {
        if self.handshakes.fetch_add(1, Ordering::AcqRel) >= MOST_HANDSHAKES {
            self.handshakes.fetch_sub(1, Ordering::AcqRel);
            return self.refuse(None, format!("{MOST_HANDSHAKES} others are connecting"));
        }
        let shared = Arc::clone(self);
        let heard = thread::Builder::new().name("memobj-greet".into()).spawn(move || {
            shared.hear(socket);
            shared.handshakes.fetch_sub(1, Ordering::AcqRel);
        });
        if let Err(error) = heard {
            self.handshakes.fetch_sub(1, Ordering::AcqRel);
            self.refuse(None, format!("start a thread: {error}"));
        }
    }

    fn hear(self: &Arc<Self>, socket: UnixStream) {
        let peer = match peer_of(&socket) {
            Ok(peer) => peer,
            Err(error) => return self.refuse(None, format!("it has ended: {error}")),
        };
        let pid = peer.pid;
        if !self.options.allowed.allows(peer.user, peer.group, &socket) {
            return self.refuse(Some(pid), format!("user {} may not be served", peer.user));
        }
        let heard = handshake::receive(&socket, self.object.length, HANDSHAKE_TIMEOUT);
        let handshake = match heard {
            Ok(handshake) => handshake,
            Err(why) => return self.refuse(Some(pid), why),
        };
        if let Err(why) = self.admit(pid, peer.process, socket, handshake) {
            self.refuse(Some(pid), why);
        }
    }

    fn admit(
        self: &Arc<Self>,
        pid: i32,
        process: OwnedFd,
        socket: UnixStream,
        handshake: Handshake,
    ) -> Result<(), String> {
        let Handshake { regions, text, faults } = handshake;
        let memory = PrivateMemory::adopt(faults).map_err(|error| error.to_string())?;
        if !memory.has_address_space() {
            return Err("the memory of its userfaultfd is gone".into());
        }
        let state = MachineState::new(regions.pages());
        let state = state.map_err(|error| format!("make room for what it gives up: {error}"))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let event =
            Event::Admitted { pid, regions: regions.all().len(), bytes: regions.pages() as u64 * SMALL };
        let machine = Machine::new(
            number,
            (pid, process, socket, memory),
            regions,
            state,
            Arc::clone(&self.object),
            self.recorder.clone(),
        );
        if let Some(kept) = &self.options.kept {
            let descriptors: [BorrowedFd<'_>; 4] =
                [machine.memory.as_fd(), machine.socket.as_fd(), machine.process.as_fd(), machine.state()];
            // Before its first event is read: from then on something of it is known here only.
            if let Err(error) = kept.keep(Kind::Machine, (number, pid), &text, &descriptors) {
                self.tell(&Event::NotKept { pid, why: error.to_string() });
            }
        }
        self.serve(machine, event)
    }

    /// Resolves the machine's faults from now on.
    fn serve(self: &Arc<Self>, machine: Machine, event: Event) -> Result<(), String> {
        let machine = Arc::new(machine);
        let mut machines = self.machines();
        if machines.len() >= self.options.most_machines {
            return Err(format!("{} machines are served already", machines.len()));
        }
        // Known before it can end.
        machines.insert(machine.number, (Arc::clone(&machine), None));
        drop(machines);
        self.served.fetch_add(1, Ordering::Relaxed);
        self.tell(&event);
        let client = MachineFaults {
            machine: Arc::clone(&machine),
            server: Arc::downgrade(self),
            window: self.options.window_bytes,
            on_failure: self.options.on_failure,
            failed: Mutex::default(),
        };
        match self.fault_loop.add(Arc::new(client)) {
            Ok(registration) => {
                if let Some((_, kept)) = self.machines().get_mut(&machine.number) {
                    *kept = Some(registration);
                }
            }
            Err(error) => {
                self.forget(&machine);
                return Err(format!("watch it: {error}"));
            }
        }
        if self.plan.touches.is_some() || self.plan.all {
            self.start_to_prefetch(&machine);
        }
        Ok(())
    }

    fn start_to_prefetch(self: &Arc<Self>, machine: &Arc<Machine>) {
        let (shared, machine) = (Arc::clone(self), Arc::clone(machine));
        *self.prefetchers.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let prefetches = move || {
            let prefetched = prefetch(&machine, &shared.plan);
            if let Prefetched::All { failed_bytes } = prefetched {
                shared.tell(&Event::Prefetched { pid: machine.pid, failed_bytes });
            }
            shared.prefetcher_has_ended();
        };
        if thread::Builder::new().name("memobj-prefetch".into()).spawn(prefetches).is_err() {
            // Its faults are served all the same.
            self.prefetcher_has_ended();
        }
    }

    fn prefetcher_has_ended(&self) {
        *self.prefetchers.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.prefetcher_ended.notify_all();
    }

    /// The machine has ended, or is dropped.
    pub(super) fn ended(&self, machine: &Machine, is_broken: bool) {
        let pid = machine.pid;
        let is_gone = !is_broken || !machine.memory.has_address_space();
        if !self.forget(machine) {
            return;
        }
        self.tell(&match is_gone {
            true => Event::Left {
                pid,
                faults: machine.faults.load(Ordering::Relaxed),
                placed_bytes: machine.placed_pages() as u64 * SMALL,
            },
            false => Event::Dropped { pid },
        });
    }

    /// Whether it was known.
    fn forget(&self, machine: &Machine) -> bool {
        machine.is_over.store(true, Ordering::Release);
        let known = self.machines().remove(&machine.number);
        let is_known = known.is_some();
        if let Some((_, Some(registration))) = known {
            registration.end_later();
        }
        if let Some(kept) = &self.options.kept {
            kept.forget(Kind::Machine, machine.number);
        }
        is_known
    }

    /// Serves the machines of a server before this one.
    fn take_over(self: &Arc<Self>) {
        let Some(kept) = self.options.kept.clone() else { return };
        for KeptItem { number, pid, text, descriptors, .. } in kept.take(Kind::Machine) {
            self.next.fetch_max(number + 1, Ordering::Relaxed);
            let descriptors = descriptors.try_into().map_err(|_| "it has not all descriptors".to_owned());
            let taken = descriptors.and_then(|all| self.take_over_one(number, pid, &text, all));
            if let Err(why) = taken {
                kept.forget(Kind::Machine, number);
                self.refuse(Some(pid), format!("it cannot be taken over: {why}"));
            }
        }
    }

    fn take_over_one(
        self: &Arc<Self>,
        number: u64,
        pid: i32,
        text: &[u8],
        [faults, socket, process, state]: [OwnedFd; 4],
    ) -> Result<(), String> {
        let regions = Regions::parse(text, self.object.length).map_err(|why| why.to_string())?;
        let memory = PrivateMemory::adopt(faults).map_err(|error| error.to_string())?;
        let state = MachineState::open(state, regions.pages()).map_err(|error| error.to_string())?;
        let machine = Machine::new(
            number,
            (pid, process, socket.into(), memory),
            regions,
            state,
            Arc::clone(&self.object),
            self.recorder.clone(),
        );
        machine.take_over().map_err(|error| error.to_string())?;
        self.serve(machine, Event::TakenOver { pid })
    }
}
