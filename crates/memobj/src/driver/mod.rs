//! The thread of a cache: reads fault events, drives reads of files, keeps streams ahead of their readers.
//!
//! ```text
//!   userfaultfd events ---.
//!   requests (handlers, --+--> claim --> unit: a read in flight --> placed at once
//!     callers)            |                                    `--> held until wanted (read-ahead marks)
//!   completions ----------'--> pagers that must be called: to a worker
//! ```
//!
//! One thread does all of it and never blocks on a pager, a lock that is held across I/O, or a frame that only
//! itself could set free.

mod lane_schedule;
mod lanes;
mod read_ahead;
mod resolve;
mod unit;
mod watchful;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use memobj_core::address::{PageIndex, PageRange};
use memobj_linux::area::FillClaim;
use memobj_linux::region::{ChunkPool, LARGE, SMALL};
use memobj_linux::ring::{Completion, ReadFile, Repeat, Ring, RingUser};
use memobj_linux::uffd::EventBuffer;

use crate::buffers::RUN_PAGES;
use crate::pages::FillReason;
use crate::parts::{CacheShared, ObjectParts, Request};
use crate::pins::Ask;
use crate::write::FaultFor;
use read_ahead::ReadAhead;
use resolve::Resolver;
use unit::{Purpose, Unit};

pub(crate) use lanes::Lanes;
#[cfg(test)]
pub(crate) use lanes::THREAD as LANE;
pub(crate) use resolve::fill_or_call;

const DEPTH: u32 = 128;
pub(crate) const THREAD: &str = "memobj";
const RUN_CHUNKS: usize = 24;
/// Large pages that are read, or held, outside the pool at once.
const LARGE_CHUNKS: usize = 6;
const KEY_FAULTS: u32 = 1;
const KEY_EVENTFD: u32 = 2;
/// How soon work that found no buffer is tried again, if nothing completes before.
const TRY_AGAIN: Duration = Duration::from_millis(2);

pub(super) struct Driver {
    shared: Arc<CacheShared>,
    ring: Ring<u64>,
    units: HashMap<u64, Unit>,
    next_unit: u64,
    read_aheads: Vec<ReadAhead>,
    tick: u64,
    /// Claims that found no buffer or frame.
    backlog: VecDeque<(Arc<ObjectParts>, FillClaim, Purpose)>,
    /// Prefetches that are not started yet.
    prefetches: VecDeque<(Weak<ObjectParts>, PageRange)>,
    /// Stores that cannot go on now: too much is Dirty, or their pages are pinned or being committed.
    deferred: Vec<(Arc<ObjectParts>, PageIndex)>,
    pages: Arc<ChunkPool>,
    runs: Arc<ChunkPool>,
    /// For large pages that are not frames of the pool.
    large: Arc<ChunkPool>,
    events: EventBuffer,
}

/// Starts the driver of a cache.
pub(crate) fn start(shared: &Arc<CacheShared>, lanes: &Arc<Lanes>) -> io::Result<JoinHandle<()>> {
    let health = &shared.health;
    let (shared, lanes) = (Arc::clone(shared), Arc::clone(lanes));
    health.start_server(THREAD, THREAD, move || Driver::new(Arc::clone(&shared), &lanes), Driver::run)
}

impl Driver {
    fn new(shared: Arc<CacheShared>, lanes: &Lanes) -> io::Result<Self> {
        let mut ring = Ring::new(DEPTH, shared.buffers.mechanism, RingUser::CallingThread)?;
        ring.watch(
            ReadFile::new(shared.requests.eventfd.as_fd().try_clone_to_owned()?),
            KEY_EVENTFD,
            Repeat::Always,
        )?;
        if !lanes.choose(ring.is_uring())
            && let Ok(uffd) = &shared.machine.queued
        {
            ring.watch(ReadFile::new(uffd.as_fd().try_clone_to_owned()?), KEY_FAULTS, Repeat::Always)?;
        }
        Ok(Self {
            shared,
            ring,
            units: HashMap::new(),
            next_unit: 0,
            read_aheads: Vec::new(),
            tick: 0,
            backlog: VecDeque::new(),
            prefetches: VecDeque::new(),
            deferred: Vec::new(),
            pages: ChunkPool::new(DEPTH as usize, SMALL)?,
            runs: ChunkPool::new(RUN_CHUNKS, RUN_PAGES as usize * SMALL)?,
            large: ChunkPool::new(LARGE_CHUNKS, LARGE)?,
            events: EventBuffer::default(),
        })
    }

    fn run(&mut self) {
        let mut done = Vec::new();
        while !self.shared.health.is_closing() {
            let idle = self.backlog.is_empty() && self.prefetches.is_empty() && self.deferred.is_empty();
            let waited = self.ring.wait((!idle).then_some(TRY_AGAIN), &mut done);
            if waited.is_err() {
                // Only a broken ring does this; without reads, faults would hang for ever. Slow is better.
                std::thread::sleep(TRY_AGAIN);
            }
            let mut checked = Vec::new();
            for completion in done.drain(..) {
                match completion {
                    Completion::Ready(KEY_FAULTS) => self.read_faults(),
                    Completion::Ready(_) => self.shared.requests.eventfd.clear(),
                    Completion::Ended { target, token, result } => {
                        self.read_ended(token, target, result, &mut checked);
                    }
                }
            }
            self.take_requests();
            self.try_deferred();
            self.try_backlog();
        }
    }

    fn read_faults(&mut self) {
        loop {
            let count = match &self.shared.machine.queued {
                Ok(uffd) => uffd.read_events(&mut self.events).unwrap_or(0),
                Err(_) => 0,
            };
            let events = std::mem::take(&mut self.events);
            events.faults(count).for_each(|event| self.fault(event));
            let full = events.capacity();
            self.events = events;
            if count < full {
                return;
            }
        }
    }

    /// Stores that could not go on before.
    fn try_deferred(&mut self) {
        for (parts, page) in std::mem::take(&mut self.deferred) {
            if !parts.is_closed() {
                self.resolve_store(parts, page);
            }
        }
    }

    /// Fills a claim that is waited for, and reads ahead of it.
    fn supply_and_advance(&mut self, parts: &Arc<ObjectParts>, claim: FillClaim, sequential: bool) {
        self.shared.health.may_panic(THREAD);
        let Some(claim) = parts.fill.refuse(claim, FillReason::Demand) else { return };
        let page = PageIndex(claim.pages().start);
        if parts.object.has_bytes_at_once() {
            return fill_or_call(parts, claim, FaultFor::Load);
        }
        self.start(parts, claim, Purpose::Demand);
        self.advance(parts, page, sequential);
    }

    fn take_requests(&mut self) {
        while let Some(request) = self.shared.requests.take() {
            match request {
                Request::Of(parts, ask) => {
                    if let Some(parts) = parts.upgrade() {
                        self.answer(parts, ask);
                    }
                }
                Request::Forget(key) => self.forget(key),
                Request::Arrived(unit, arrived) => self.arrived(unit, arrived),
            }
        }
    }

    fn answer(&mut self, parts: Arc<ObjectParts>, ask: Ask) {
        match ask {
            Ask::Supply { claim, sequential } => self.supply_and_advance(&parts, claim, sequential),
            Ask::Demand(page) => self.place_wanted(&parts, page),
            Ask::Ahead(page) => self.advance(&parts, page, true),
            Ask::Prefetch(pages) => self.prefetches.push_back((Arc::downgrade(&parts), pages)),
            Ask::Store(page) => self.resolve_store(parts, page),
            Ask::Lost(gone) => parts.errors.lose(gone),
        }
    }

    fn forget(&mut self, key: usize) {
        self.read_aheads.retain(|reader| !reader.belongs_to(key));
        self.units.retain(|_, unit| unit.is_in_flight() || Arc::as_ptr(&unit.parts) as usize != key);
        self.backlog.retain(|(parts, _, _)| Arc::as_ptr(parts) as usize != key);
        self.prefetches.retain(|(parts, _)| parts.as_ptr() as usize != key);
        self.deferred.retain(|(parts, _)| Arc::as_ptr(parts) as usize != key);
    }
}

impl Resolver for Driver {
    fn supply(&mut self, parts: &Arc<ObjectParts>, claim: FillClaim, access: FaultFor) {
        if parts.object.has_bytes_at_once() {
            return fill_or_call(parts, claim, access);
        }
        let sequential = parts.pins.pattern.is_sequential(claim.pages());
        self.supply_and_advance(parts, claim, sequential);
    }

    fn wanted(&mut self, parts: &Arc<ObjectParts>, page: PageIndex) {
        self.place_wanted(parts, page);
    }

    fn defer(&mut self, parts: Arc<ObjectParts>, page: PageIndex) {
        self.deferred.push((parts, page));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Claims that are still queued end with their requests: their pages are absent again.
        while self.shared.requests.take().is_some() {}
    }
}
