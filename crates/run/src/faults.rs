//! The threads that resolve the faults of programs.
//!
//! ```text
//!   one thread waits for events; when it has one, the next takes its place before the first calls a pager
//!   no thread left to wait: another is started. So a page that does not come holds up nobody else
//! ```

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use memobj_linux::locks::{Rank, RankedMutex, RankedRwLock};
use memobj_linux::uffd::{EventBuffer, FaultEvent, FaultKind};
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::files::{Files, FramesId};
use crate::gather::Gather;
use crate::history::{FaultRecord, Resolution};
use crate::options::{Counting, Messages, Options};
use crate::space::Space;
use crate::thrash::Thrash;

const PAGE: u64 = 4096;
/// How many windows fit into the budget at least, unless they are of one page.
const LEAST_WINDOWS: u64 = 16;
const MOST_THREADS: usize = 512;
const ESRCH: i32 = 3;
/// When an event is read again that could not be.
const READ_AGAIN: Duration = Duration::from_millis(1);
/// Of the epoll entry that says that it is over.
const END: u64 = u64::MAX;

/// A fault that nobody has looked at yet.
type Job = (Arc<Space>, FaultEvent, Duration);

/// See the module.
#[derive(Debug)]
pub(crate) struct Faults {
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Desk {
    files: Arc<Files>,
    gather: Arc<Gather>,
    options: Options,
    window_bytes: u64,
    thrash: Thrash,
    poll: OwnedFd,
    bell: OwnedFd,
    spaces: RankedRwLock<HashMap<u64, Arc<Space>>>,
    /// Held by the thread that waits for events.
    turn: RankedMutex<Turn>,
    waiting: AtomicUsize,
    threads: RankedMutex<Vec<JoinHandle<()>>>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Turn {
    backlog: VecDeque<Job>,
    events: EventBuffer,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("backlog", &self.backlog.len()).finish_non_exhaustive()
    }
}

impl Faults {
    pub(crate) fn start(files: Arc<Files>, gather: Arc<Gather>, options: Options) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&poll, &bell, epoll::EventData::new_u64(END), epoll::EventFlags::IN)?;
        let desk = Arc::new(Desk {
            files,
            gather,
            window_bytes: window_bytes(&options),
            thrash: Thrash::new(options.budget_bytes),
            options,
            poll,
            bell,
            spaces: RankedRwLock::new(Rank::FaultSpaces, HashMap::new()),
            turn: RankedMutex::new(Rank::FaultTurn, Turn::default()),
            waiting: AtomicUsize::new(0),
            threads: RankedMutex::new(Rank::Threads, Vec::new()),
            is_over: AtomicBool::new(false),
        });
        desk.add_thread()?;
        desk.add_thread()?;
        Ok(Self { desk })
    }

    /// Resolves the faults of `space` from now on.
    pub(crate) fn serve(&self, space: &Arc<Space>) -> io::Result<()> {
        self.desk.spaces.write().insert(space.number, Arc::clone(space));
        let data = epoll::EventData::new_u64(space.number);
        Ok(epoll::add(&self.desk.poll, &space.faults, data, epoll::EventFlags::IN)?)
    }

    /// The spaces whose faults are resolved.
    pub(crate) fn spaces(&self) -> Vec<Arc<Space>> {
        self.desk.spaces.read().values().cloned().collect()
    }

    /// The space is gone.
    pub(crate) fn forget(&self, space: &Space) {
        let _ = epoll::delete(&self.desk.poll, &space.faults);
        self.desk.spaces.write().remove(&space.number);
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.desk.is_over.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.desk.bell, &1_u64.to_ne_bytes());
        let threads = std::mem::take(&mut *self.desk.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// How many bytes are read around a fault. Programs get nowhere when the window of one page, of code for example, takes
/// the place of another that the same instruction needs: many windows fit into the budget.
fn window_bytes(options: &Options) -> u64 {
    let most = (options.budget_bytes / LEAST_WINDOWS).max(PAGE);
    options.window_bytes.min(1 << most.ilog2())
}

impl Desk {
    fn add_thread(self: &Arc<Self>) -> io::Result<()> {
        let mut threads = self.threads.lock();
        if threads.len() >= MOST_THREADS || self.is_over.load(Ordering::Acquire) {
            return Ok(());
        }
        let desk = Arc::clone(self);
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let thread = std::thread::Builder::new().name("memobj-faults".into()).spawn(move || desk.work());
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                self.waiting.fetch_sub(1, Ordering::AcqRel);
                return Err(error);
            }
        }
        Ok(())
    }

    fn work(self: Arc<Self>) {
        loop {
            let Some(job) = self.next_job() else { return };
            if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                // Without one more, somebody waits longer: no reason to end.
                let _ = self.add_thread();
            }
            self.resolve(&job);
            self.waiting.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Waits for a fault. `None`: it is over.
    fn next_job(&self) -> Option<Job> {
        let mut turn = self.turn.lock();
        while turn.backlog.is_empty() {
            if self.is_over.load(Ordering::Acquire) {
                return None;
            }
            let mut ready = Vec::with_capacity(16);
            if epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut ready), None).is_err() {
                continue;
            }
            for event in ready {
                let space = self.spaces.read();
                let Some(space) = space.get(&event.data.u64()).cloned() else { continue };
                self.read(&mut turn, &space);
            }
        }
        turn.backlog.pop_front()
    }

    fn read(&self, turn: &mut Turn, space: &Arc<Space>) {
        let now = self.gather.now();
        let Turn { backlog, events } = turn;
        match space.faults.read(events) {
            Ok((faults, children)) => {
                space.has_children(children);
                backlog.extend(faults.into_iter().map(|fault| (Arc::clone(space), fault, now)));
            }
            // Its address space is gone.
            Err(error) if error.raw_os_error() == Some(ESRCH) => {
                let _ = epoll::delete(&self.poll, &space.faults);
            }
            // No descriptor for a forked child, or no memory: the event stays, and is read as soon as there is some.
            Err(_) => std::thread::sleep(READ_AGAIN),
        }
    }

    fn resolve(&self, (space, event, read_at): &Job) {
        let address = event.address as u64;
        let found = space.maps.at(address).ok().flatten();
        if event.kind == FaultKind::WriteProtect {
            // Its mapping is being handed over, which wakes it at the end.
            return;
        }
        let place = found.and_then(|found| Some((found, self.files.of_frames(FramesId::of(&found))?)));
        let Some((found, object)) = place else {
            // Unmapped meanwhile: whoever sleeps on it faults again, and finds that out.
            return space.faults.wake(address, PAGE);
        };
        let offset = found.offset + (address - found.start);
        let window = self.window_bytes;
        let first = (offset & !(window - 1)).max(found.offset);
        let end = ((offset & !(window - 1)) + window).min(found.offset + (found.end - found.start));
        let was_resident = object.lent.is_resident(offset);
        let answer = match was_resident {
            true => Ok(()),
            false => self.supply(&object.lent, object.file, offset, first..end),
        };
        let record = |resolution| FaultRecord {
            at: *read_at,
            took: self.gather.now().saturating_sub(*read_at),
            process: space.program(),
            file: object.file,
            page: offset / PAGE,
            resolution,
        };
        match answer {
            Ok(()) => {
                match self.options.counting {
                    Counting::Totals => space.faults.wake(found.start + (first - found.offset), end - first),
                    Counting::Touches => space.faults.show(address, PAGE),
                }
                let resolution = if was_resident { Resolution::Resident } else { Resolution::Supplied };
                self.gather.fault(record(resolution));
            }
            Err(error) => {
                if space.faults.poison(address, PAGE).is_err() {
                    // The page is there after all, or the address space is not.
                    space.faults.wake(address, PAGE);
                }
                self.gather.failed(record(Resolution::Failed), &error.to_string());
                self.tell(space, &error);
            }
        }
    }

    /// Obtains the page at `offset`, and says so if that happens too often.
    fn supply(
        &self,
        lent: &memobj::LentFrames,
        file: usize,
        offset: u64,
        around: std::ops::Range<u64>,
    ) -> Result<(), memobj::PageError> {
        let pages = around.clone().step_by(PAGE as usize);
        let missing = pages.filter(|offset| !lent.is_resident(*offset)).count() as u64;
        let answer = lent.resolve(offset, around.clone());
        let told = self.thrash.supplied(file, around, missing);
        if let Some(told) = told.filter(|_| self.options.messages == Messages::StandardError) {
            eprintln!("memobj: {told}");
        }
        answer
    }

    fn tell(&self, space: &Space, error: &memobj::PageError) {
        if self.options.messages == Messages::None {
            return;
        }
        let name = std::fs::read_to_string(format!("/proc/{}/comm", space.process)).unwrap_or_default();
        let (process, name) = (space.process, name.trim_end());
        crate::say::say(&format_args!("{error}; process {process} ({name}) is sent SIGBUS"));
    }
}
