//! One machine: its memory, what of it was given up, and how pages are put in place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memobj_linux::uffd::{MOST_EVENTS, NotPlaced, PrivateEvent, PrivateMemory};

use super::object::ServedObject;
use super::places::Bits;
use super::record::Recorder;
use super::regions::{Region, Regions};
use super::state::MachineState;

pub(super) const SMALL: u64 = 4096;
/// How often pages are tried at once while events come in between.
const TRIES: u32 = 32;
/// A page of 2 MiB that is neither there nor can be put in place so often: there are no huge pages left.
const MOST_PRESENT: u32 = 8;

/// Whether a machine has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gone;

/// What became of an attempt to put pages in place.
#[derive(Debug)]
pub(super) enum Placed {
    /// They are there.
    Yes,
    /// Not yet: events come in between.
    Later,
    /// The machine is gone.
    Gone,
    /// They cannot be, for this reason.
    Failed(io::Error),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) number: u64,
    /// Its process, as the kernel counts and as a descriptor.
    pub(super) pid: i32,
    pub(super) process: OwnedFd,
    /// It hangs up when it ends.
    pub(super) socket: UnixStream,
    pub(super) memory: PrivateMemory,
    pub(super) regions: Regions,
    pub(super) object: Arc<ServedObject>,
    pub(super) recorder: Option<Arc<Recorder>>,
    state: MachineState,
    /// Held while events are read and noted, and from a look at what was given up until pages are in place.
    turn: Mutex<()>,
    /// Small pages that are in place, as far as it is known.
    placed: Bits,
    /// How often the last large page in a row was said to be there, and which.
    present: Mutex<(u64, u32)>,
    /// Faults that were read.
    pub(super) faults: AtomicU64,
    pub(super) is_over: AtomicBool,
}

/// The right to read events and to put pages in place.
pub(super) struct Turn<'a> {
    machine: &'a Machine,
    _turn: MutexGuard<'a, ()>,
}

impl Machine {
    pub(super) fn new(
        number: u64,
        parts: (i32, OwnedFd, UnixStream, PrivateMemory),
        regions: Regions,
        state: MachineState,
        object: Arc<ServedObject>,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        let (pid, process, socket, memory) = parts;
        Self {
            number,
            pid,
            process,
            socket,
            memory,
            placed: Bits::new(regions.pages()),
            regions,
            object,
            recorder,
            state,
            turn: Mutex::new(()),
            present: Mutex::new((0, 0)),
            faults: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    pub(super) fn turn(&self) -> Turn<'_> {
        Turn { machine: self, _turn: self.turn.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Whether it has ended, as far as it is known.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Notes what a process before this one has read and may not have noted, and lets all who sleep ask again: what they asked
    /// it is lost.
    pub(super) fn take_over(&self) -> io::Result<()> {
        let turn = self.turn();
        turn.note(&self.state.log()?.events());
        self.wake_all();
        Ok(())
    }

    fn wake_all(&self) {
        for region in self.regions.all() {
            self.memory.wake(region.start, region.length);
        }
    }

    pub(super) fn state(&self) -> BorrowedFd<'_> {
        self.state.words().as_fd()
    }

    /// Whether small page `index` was given up: it is zero, unless it is in place.
    pub(super) fn is_given_up(&self, index: usize) -> bool {
        self.state.is_given_up(index)
    }

    /// Whether small page `index` needs nothing any more.
    pub(super) fn is_settled(&self, index: usize) -> bool {
        self.placed.has(index) || self.state.is_given_up(index)
    }

    /// How many small pages were put in place.
    pub(super) fn placed_pages(&self) -> usize {
        self.placed.count()
    }

    /// Has the machine end at once, so that it does not go on with what it has not.
    pub(super) fn kill(&self) -> io::Result<()> {
        use rustix::process::{Signal, pidfd_send_signal};
        Ok(pidfd_send_signal(&self.process, Signal::KILL)?)
    }
}

impl Turn<'_> {
    /// Reads all events that wait, notes what was given up, and returns the addresses of missing pages.
    pub(super) fn read(&self) -> Result<Vec<(u64, bool)>, Gone> {
        let log = self.machine.state.log().map_err(|_| Gone)?;
        let mut missing = Vec::new();
        loop {
            let events = self.machine.memory.read(&log).map_err(|_| Gone)?;
            self.note(&events);
            missing.extend(events.iter().filter_map(|event| match event {
                PrivateEvent::Missing { address, is_write } => Some((*address, *is_write)),
                _ => None,
            }));
            if events.len() < MOST_EVENTS {
                return Ok(missing);
            }
        }
    }

    fn note(&self, events: &[PrivateEvent]) {
        for event in events {
            if let PrivateEvent::Removed { start, end } = *event {
                for (region, start, end) in self.machine.regions.within(start, end) {
                    let first = region.index_of(start);
                    let count = ((end - start) / SMALL) as usize;
                    self.machine.state.give_up(first, first + count);
                }
            }
        }
    }

    /// Puts the page of `region` at `address` in place: zeros if it was given up, else the bytes that `bytes` tells, which
    /// has all of it.
    pub(super) fn place_page(&self, region: &Region, address: u64, bytes: &[u8]) -> Placed {
        for _ in 0..TRIES {
            let index = region.index_of(address);
            let placed = match self.machine.state.is_given_up(index) {
                true => self.zero(region, address),
                false => self.machine.memory.copy(address, bytes),
            };
            match placed {
                Ok(()) => {
                    self.note_placed(region, address);
                    return Placed::Yes;
                }
                Err((_, NotPlaced::Present)) => return self.is_present(region, address),
                Err((_, NotPlaced::EventsFirst)) => match self.read() {
                    // They ask again, now that it is known what was given up.
                    Ok(missing) => missing.iter().for_each(|(address, _)| self.wake(*address)),
                    Err(Gone) => return Placed::Gone,
                },
                Err((_, NotPlaced::Unregistered)) => {
                    self.machine.memory.wake(address, region.page);
                    return Placed::Yes;
                }
                Err((_, NotPlaced::Gone)) => return Placed::Gone,
                Err((_, NotPlaced::System(error))) => return Placed::Failed(error),
            }
            std::thread::yield_now();
        }
        Placed::Later
    }

    /// Puts those of `count` small pages from `address` on in place that need it and were not given up, from `bytes`. Returns how
    /// many bytes are dealt with: fewer if events come in between.
    pub(super) fn place_run(&self, region: &Region, address: u64, bytes: &[u8]) -> Result<u64, Placed> {
        let step = region.page;
        let (mut done, length) = (0, bytes.len() as u64);
        while done < length {
            let at = address + done;
            if self.machine.is_settled(region.index_of(at)) {
                done += step;
                continue;
            }
            let rest = (at..address + length).step_by(step as usize);
            let run =
                rest.take_while(|at| !self.machine.is_settled(region.index_of(*at))).count() as u64 * step;
            let part = bytes.get(done as usize..(done + run) as usize).unwrap_or_default();
            let answer = self.machine.memory.copy(at, part);
            let copied = answer.as_ref().map_or_else(|(copied, _)| *copied as u64, |()| run);
            (at..at + copied).step_by(step as usize).for_each(|at| self.note_placed(region, at));
            done += copied;
            match answer {
                Ok(()) => {}
                Err((_, NotPlaced::Present | NotPlaced::Unregistered)) => {
                    self.note_placed(region, address + done);
                    done += step;
                }
                Err((_, NotPlaced::EventsFirst)) => {
                    let missing = self.read().map_err(|Gone| Placed::Gone)?;
                    missing.iter().for_each(|(address, _)| self.wake(*address));
                    return Ok(done);
                }
                Err((_, NotPlaced::Gone)) => return Err(Placed::Gone),
                Err((_, NotPlaced::System(error))) => return Err(Placed::Failed(error)),
            }
        }
        Ok(done)
    }

    fn zero(&self, region: &Region, address: u64) -> Result<(), (usize, NotPlaced)> {
        match region.page {
            SMALL => self.machine.memory.zero(address, SMALL),
            // There is no page of zeros of that size.
            large => self.machine.memory.copy(address, &vec![0; large as usize]),
        }
    }

    fn note_placed(&self, region: &Region, address: u64) {
        let first = region.index_of(address);
        (first..first + (region.page / SMALL) as usize).for_each(|index| {
            self.machine.placed.put(index);
        });
    }

    /// The kernel says that there is a page. Where there are no huge pages left, it says so too, and the machine asks again.
    fn is_present(&self, region: &Region, address: u64) -> Placed {
        self.machine.memory.wake(address, region.page);
        self.note_placed(region, address);
        if region.page == SMALL {
            return Placed::Yes;
        }
        let mut last = self.machine.present.lock().unwrap_or_else(PoisonError::into_inner);
        *last = if last.0 == address { (address, last.1 + 1) } else { (address, 1) };
        match last.1 > MOST_PRESENT {
            true => Placed::Failed(io::Error::other("no huge page is left for it")),
            false => Placed::Yes,
        }
    }

    /// Lets who sleeps on this address ask again.
    fn wake(&self, address: u64) {
        if let Some(region) = self.machine.regions.at(address) {
            self.machine.memory.wake(address & !(region.page - 1), region.page);
        }
    }
}
