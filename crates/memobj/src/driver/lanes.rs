//! Lanes: one thread for each processor that resolves the faults raised there.
//!
//! ```text
//!   processor 0                       processor 1
//!   your thread   lane 0              your thread   lane 1
//!   load -------> event: both lanes are woken; the one that runs first, mostly the one of this processor, has it
//!      sleeps       memory, zeros, 4 KiB: in place at once
//!                   a file, 4 KiB, no stream: read through a ring of its own; in place
//!   go on <-------- all else: to the driver or the workers
//! ```
//!
//! The waking of a halted processor costs tens of microseconds, ten times the work on a fault; and a thread that
//! sleeps between faults stays on the processor where it was first put. With one reader, every fault of the other
//! processors pays for two such wakings.
//! The price is that an event wakes all lanes that are [scheduled](super::lane_schedule), so this is for machines with few processors; on
//! others the driver reads the events.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memobj_core::address::PageIndex;
use memobj_linux::area::FillClaim;
use memobj_linux::processor;
use memobj_linux::region::{ChunkPool, SMALL};
use memobj_linux::ring::{Completion, Direction, ReadFile, Repeat, Ring, RingUser, Target, Transfer};
use memobj_linux::uffd::EventBuffer;

use super::TRY_AGAIN;
use super::lane_schedule::{Found, LaneSchedule};
use super::resolve::{Resolver, fill_or_call};
use super::unit::is_current;
use super::watchful::{LONGEST, Watchful, Way};
use crate::allocator::Patience;
use crate::locks::{Rank, RankedMutex};
use crate::pagers::File;
use crate::pages::FillReason;
use crate::parts::{CacheShared, ObjectParts};
use crate::pins::Ask;
use crate::threads;
use crate::write::{FaultFor, expect};

/// With more processors than this the driver reads the events.
const MOST_LANES: usize = 4;
/// Reads of one lane in flight at once; more go through the driver.
const DEPTH: u32 = 32;
pub(crate) const THREAD: &str = "memobj-lane";
/// How often events are read before other work has its turn.
const ROUNDS: u32 = 32;
const KEY_FAULTS: u32 = 1;
const KEY_EVENTFD: u32 = 2;

/// The lanes of a cache, once something is mapped that needs them.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// Where lanes will run; none, and the driver reads the events.
    processors: OnceLock<Vec<usize>>,
    lane_threads: RankedMutex<Option<LaneThreads>>,
}

#[derive(Debug)]
struct LaneThreads {
    schedule: Arc<LaneSchedule>,
    threads: Vec<JoinHandle<()>>,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self { processors: OnceLock::new(), lane_threads: RankedMutex::new(Rank::Threads, None) }
    }

    /// Decides whether lanes read the events, before anything is mapped.
    pub(super) fn choose(&self, has_uring: bool) -> bool {
        let allowed = processor::allowed();
        let wanted = has_uring && (2..=MOST_LANES).contains(&allowed.len());
        let processors = self.processors.get_or_init(|| if wanted { allowed } else { Vec::new() });
        !processors.is_empty()
    }

    /// Starts the lanes if they are wanted and not there yet. On error there are none.
    pub(crate) fn start(&self, shared: &Arc<CacheShared>) -> io::Result<()> {
        let mut lane_threads = self.lane_threads.lock();
        let Some(processors) =
            self.processors.get().filter(|some| !some.is_empty() && lane_threads.is_none())
        else {
            return Ok(());
        };
        let schedule = Arc::new(LaneSchedule::new(processors)?);
        let mut new = LaneThreads { schedule, threads: Vec::new() };
        for lane in 0..processors.len() {
            match start(shared, &new.schedule, lane) {
                Ok(thread) => new.threads.push(thread),
                Err(error) => {
                    new.stop();
                    return Err(error);
                }
            }
        }
        *lane_threads = Some(new);
        Ok(())
    }

    /// Whether lanes read the events.
    #[cfg(test)]
    pub(crate) fn exist(&self) -> bool {
        self.processors.get().is_some_and(|processors| !processors.is_empty())
    }

    /// Ends the lanes; the cache is closing.
    pub(crate) fn stop(&self) {
        let lane_threads = self.lane_threads.lock().take();
        if let Some(lane_threads) = lane_threads {
            lane_threads.stop();
        }
    }
}

impl LaneThreads {
    fn stop(self) {
        self.schedule.stop();
        // A lane can hold the last handle of an object whose pager owns this cache.
        threads::join(self.threads);
    }
}

fn start(shared: &Arc<CacheShared>, schedule: &Arc<LaneSchedule>, lane: usize) -> io::Result<JoinHandle<()>> {
    let health = &shared.health;
    let (shared, schedule) = (Arc::clone(shared), Arc::clone(schedule));
    let new = move || Lane::new(Arc::clone(&shared), Arc::clone(&schedule), lane);
    health.start_server(format!("{THREAD}-{lane}"), THREAD, new, Lane::run)
}

/// A page on its way from a file.
struct Read {
    parts: Arc<ObjectParts>,
    claim: FillClaim,
    access: FaultFor,
}

struct Lane {
    shared: Arc<CacheShared>,
    schedule: Arc<LaneSchedule>,
    index: usize,
    ring: Ring<u64>,
    /// Whether the next event will wake this lane.
    is_watching: bool,
    reads: HashMap<u64, Read>,
    next_read: u64,
    watchful: Watchful,
    pages: Arc<ChunkPool>,
    events: EventBuffer,
}

impl Lane {
    fn new(shared: Arc<CacheShared>, schedule: Arc<LaneSchedule>, index: usize) -> io::Result<Self> {
        let mut ring = Ring::new(DEPTH, shared.buffers.mechanism, RingUser::CallingThread)?;
        let (processor, eventfd) = schedule.place(index);
        ring.watch(ReadFile::new(eventfd.as_fd().try_clone_to_owned()?), KEY_EVENTFD, Repeat::Always)?;
        if let Ok(uffd) = &shared.machine.queued {
            let events = ReadFile::new(uffd.as_fd().try_clone_to_owned()?);
            ring.watch(events, KEY_FAULTS, Repeat::WhenAsked)?;
        }
        // Elsewhere it is slower, not wrong.
        let _ = processor::stay_on(processor);
        let pages = ChunkPool::new(DEPTH as usize, SMALL)?;
        Ok(Self {
            shared,
            schedule,
            index,
            ring,
            is_watching: false,
            reads: HashMap::new(),
            next_read: 0,
            watchful: Watchful::default(),
            pages,
            events: EventBuffer::default(),
        })
    }

    fn run(&mut self) {
        let mut done = Vec::new();
        while !self.schedule.is_over() {
            let is_scheduled = self.schedule.includes(self.index);
            if is_scheduled && !self.is_watching {
                self.is_watching = self.ring.look_again(KEY_FAULTS).is_ok();
            }
            let is_deaf = is_scheduled && !self.is_watching;
            if self.wait(is_deaf.then_some(TRY_AGAIN), &mut done).is_err() {
                // Only a broken ring does this; without reads, faults would hang for ever. Slow is better.
                std::thread::sleep(TRY_AGAIN);
            }
            let mut checked = Vec::new();
            for completion in done.drain(..) {
                match completion {
                    Completion::Ready(KEY_FAULTS) => self.read_faults(),
                    Completion::Ready(_) => self.schedule.place(self.index).1.clear(),
                    Completion::Ended { target, token, result } => {
                        self.read_ended(token, target, result, &mut checked);
                    }
                }
            }
        }
    }

    /// Waits until something happens, asleep or awake.
    fn wait(&mut self, timeout: Option<Duration>, done: &mut Vec<Completion<u64>>) -> io::Result<()> {
        if self.reads.is_empty() {
            return self.ring.wait(timeout, done);
        }
        let (way, begin) = (self.watchful.way(), Instant::now());
        while way == Way::Awake && done.is_empty() && begin.elapsed() < LONGEST {
            self.ring.look(done)?;
            std::thread::yield_now();
        }
        if done.is_empty() {
            self.ring.wait(timeout, done)?;
        }
        if done.iter().any(|completion| matches!(completion, Completion::Ended { .. })) {
            self.watchful.note(way, begin.elapsed());
        }
        Ok(())
    }

    /// Resolves the faults that wait. Whoever sleeps on this processor goes on before this thread does, and has often
    /// faulted again by then: then there is no need to sleep in between.
    fn read_faults(&mut self) {
        self.is_watching = false;
        for round in 0..ROUNDS {
            let found = if round == 0 { Found::Asleep } else { Found::Awake };
            let count = match &self.shared.machine.queued {
                Ok(uffd) => uffd.read_events(&mut self.events).unwrap_or(0),
                Err(_) => 0,
            };
            let events = std::mem::take(&mut self.events);
            for event in events.faults(count) {
                self.schedule.note(event.thread, found);
                self.fault(event);
            }
            self.events = events;
            // Reads are told to the kernel by the next wait.
            if count == 0 || !self.reads.is_empty() {
                return;
            }
        }
    }

    /// Reads the claim's one page from `file`; gives the claim back if there is no buffer.
    fn start_read(
        &mut self,
        parts: &Arc<ObjectParts>,
        file: &File,
        claim: FillClaim,
        access: FaultFor,
    ) -> Result<(), FillClaim> {
        let Some(chunk) = self.pages.take() else { return Err(claim) };
        let token = self.next_read;
        self.next_read += 1;
        self.ring.start(Transfer {
            direction: Direction::Read,
            file: file.descriptor().clone(),
            offset: claim.bytes().start,
            target: Target::Chunk(chunk),
            len: SMALL,
            token,
        });
        self.reads.insert(token, Read { parts: Arc::clone(parts), claim, access });
        Ok(())
    }

    fn read_ended(
        &mut self,
        token: u64,
        target: Target,
        result: io::Result<usize>,
        checked: &mut Vec<(usize, bool)>,
    ) {
        let Some(Read { parts, claim, access }) = self.reads.remove(&token) else { return };
        let arrived = result.is_ok_and(|count| count as u64 >= claim.bytes().len());
        if parts.is_closed() {
            return;
        }
        if !(arrived && is_current(&parts, checked)) {
            return parts.fill.call_pager(claim, FillReason::Demand);
        }
        let expected = expect(parts.writes.as_ref(), access);
        let placed = parts.fill.place_target(claim, target, expected.reason(), Patience::Short);
        drop(expected);
        if let Err(claim) = placed {
            parts.fill.call_pager(claim, FillReason::Demand);
        }
    }
}

impl Resolver for Lane {
    fn supply(&mut self, parts: &Arc<ObjectParts>, claim: FillClaim, access: FaultFor) {
        self.shared.health.may_panic(THREAD);
        if parts.object.has_bytes_at_once() {
            return fill_or_call(parts, claim, access);
        }
        let sequential = parts.pins.pattern.is_sequential(claim.pages());
        let back = match parts.object.file() {
            _ if sequential => Err(claim),
            None => return parts.fill.call_pager(claim, FillReason::Demand),
            Some(file) if !parts.fill.is_large() => self.start_read(parts, file, claim, access),
            Some(_) => Err(claim),
        };
        if let Err(claim) = back {
            parts.waits.driver.ask(Ask::Supply { claim, sequential });
        }
    }

    fn wanted(&mut self, parts: &Arc<ObjectParts>, page: PageIndex) {
        parts.waits.driver.ask(Ask::Demand(page));
    }

    fn defer(&mut self, parts: Arc<ObjectParts>, page: PageIndex) {
        parts.waits.driver.ask(Ask::Store(page));
    }
}
