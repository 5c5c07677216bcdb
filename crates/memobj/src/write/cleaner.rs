//! The cleaner: one thread of a cache that writes Dirty pages in the background.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use memobj_core::address::PageRange;
use memobj_linux::ring::{Mechanism, ReadFile, Repeat, Ring, RingUser};
use memobj_linux::slots::SlotTable;

use super::commit::Quiet;
use super::transfer::{DEPTH, Writer};
use super::{WriteStep, Writes};
use crate::allocator::FrameAllocator;
use crate::health::Health;
use crate::locks::{Rank, RankedMutex};
use crate::threads;

/// How soon the cleaner looks again when what it could do has to wait.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const KEY_EVENTFD: u32 = 1;
pub(crate) const THREAD: &str = "memobj-cleaner";

/// The cleaner of a cache: its thread, once something can be written, and the objects that it looks at. Handles add and
/// remove these; everybody else talks to it through [`Unwritten`](crate::allocator::Unwritten).
#[derive(Debug)]
pub(crate) struct Cleaner {
    pub(crate) members: SlotTable<Arc<Writes>>,
    thread: RankedMutex<Option<JoinHandle<()>>>,
    allocator: Arc<FrameAllocator>,
    health: Arc<Health>,
    mechanism: Mechanism,
}

impl Cleaner {
    pub(crate) fn new(allocator: &Arc<FrameAllocator>, health: &Arc<Health>, mechanism: Mechanism) -> Self {
        let thread = RankedMutex::new(Rank::Threads, None);
        let (allocator, health) = (Arc::clone(allocator), Arc::clone(health));
        Self { members: SlotTable::new(), thread, allocator, health, mechanism }
    }

    /// Starts the thread, unless it runs.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_some() {
            return Ok(());
        }
        let (cleaner, health) = (Arc::clone(self), Arc::clone(&self.health));
        let run = move |mut worker: Worker| {
            let panicked = catch_unwind(AssertUnwindSafe(|| worker.run())).is_err();
            // What is on its way is Dirty again.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(worker)));
            if panicked {
                health.thread_ended(THREAD);
            }
        };
        *thread = Some(threads::start_with(THREAD, move || Worker::new(cleaner), run)?);
        Ok(())
    }

    /// Ends the thread, after the cache was closed.
    pub(crate) fn stop(&self) {
        self.allocator.unwritten.eventfd.notify();
        let thread = self.thread.lock().take();
        threads::join(thread);
    }
}

struct Worker {
    cleaner: Arc<Cleaner>,
    writer: Writer,
    /// Member and block that are looked at next: the order of the file, so that neighbours go together.
    member: usize,
    block: u64,
}

/// What a look for something to write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    Started,
    /// There is something, but no room for it before a write has ended.
    Full,
    /// There is something, but not now.
    Later,
    Nothing,
}

impl Worker {
    fn new(cleaner: Arc<Cleaner>) -> io::Result<Self> {
        let mut ring = Ring::new(DEPTH, cleaner.mechanism, RingUser::CallingThread)?;
        let eventfd = cleaner.allocator.unwritten.eventfd.as_fd().try_clone_to_owned()?;
        ring.watch(ReadFile::new(eventfd), KEY_EVENTFD, Repeat::Always)?;
        Ok(Self { cleaner, writer: Writer::new(ring)?, member: 0, block: 0 })
    }

    fn run(&mut self) {
        let mut look = Look::Nothing;
        while !self.cleaner.health.is_closing() {
            let limit = (look == Look::Later).then_some(LOOK_AGAIN);
            self.writer.finish(limit);
            self.cleaner.allocator.unwritten.eventfd.clear();
            look = Look::Nothing;
            while self.cleaner.allocator.unwritten.must_be_written(self.bytes_in_flight())
                && !self.writer.is_full()
            {
                look = self.write_some();
                if look != Look::Started {
                    break;
                }
            }
        }
        while self.writer.ring.in_flight() > 0 {
            self.writer.finish(None);
        }
    }

    /// Starts writes of the next block that has something to write.
    fn write_some(&mut self) -> Look {
        self.cleaner.health.may_panic(THREAD);
        let mut later = false;
        // Once round, and the rest of the member that it began with.
        for _ in 0..=self.cleaner.members.end() {
            if let Some(writes) = self.cleaner.members.with(self.member, Arc::clone) {
                while let Some(block) = writes.area.next_unclean_block(self.block) {
                    self.block = block + 1;
                    match self.write_block(&writes, block) {
                        look @ (Look::Started | Look::Full) => return look,
                        Look::Later => {
                            later = true;
                            break;
                        }
                        Look::Nothing => later = true,
                    }
                }
            }
            self.block = 0;
            self.member = if self.member + 1 < self.cleaner.members.end() { self.member + 1 } else { 0 };
        }
        self.cleaner.allocator.unwritten.stop_hurry();
        if later { Look::Later } else { Look::Nothing }
    }

    fn write_block(&mut self, writes: &Arc<Writes>, block: u64) -> Look {
        if writes.write_failures.lock().not_before.is_some_and(|at| writes.object.clock.now() < at) {
            return Look::Later;
        }
        if writes.is_held_back() {
            return Look::Later;
        }
        let Some(_length) = writes.resizing.try_read() else { return Look::Later };
        let all = PageRange { start: 0, end: writes.area.pages() };
        let pages = writes.area.part_of_block(block, all);
        let Some(file) = writes.object.file() else { return self.request_block(writes, block, pages) };
        let started = self.writer.start(writes, file, pages);
        let rest = started.next < pages.end;
        if rest {
            self.block = block;
        }
        match (started.pages, rest) {
            (0, true) => Look::Full,
            (0, false) => Look::Nothing,
            _ => Look::Started,
        }
    }

    /// Offers Dirty pages of `pages`, which are of `block`, to a pager that must be asked. Until it answers, others have
    /// their turn: its answers wake this thread.
    fn request_block(&mut self, writes: &Arc<Writes>, block: u64, pages: PageRange) -> Look {
        let quiet = match &writes.object.log {
            None => None,
            Some(_) => match Quiet::of(writes) {
                Some(quiet) => Some(Arc::new(quiet)),
                None => return Look::Later,
            },
        };
        match writes.offer_some(pages, None, quiet.as_ref()) {
            Ok((next, 0)) if next < pages.end => {
                self.block = block;
                Look::Later
            }
            Ok((_, 0)) => Look::Nothing,
            Ok((next, _)) => {
                if next < pages.end {
                    self.block = block;
                }
                Look::Started
            }
            Err(error) => {
                let range = pages.start << 12..pages.end << 12;
                writes.write_failed(writes.object.write_error(WriteStep::WriteBack, range, &error));
                Look::Later
            }
        }
    }

    /// Bytes that are on their way to files and pagers.
    fn bytes_in_flight(&self) -> u64 {
        let members = 0..self.cleaner.members.end();
        let asked =
            members.filter_map(|member| self.cleaner.members.with(member, |writes| writes.window.bytes()));
        self.writer.bytes_in_flight() + asked.sum::<u64>()
    }
}
