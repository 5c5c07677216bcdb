//! The cleaner: one thread of a cache that writes Dirty pages in the background.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memobj_core::address::PageRange;
use memobj_sys::ring::{Owner, ReadFile, Repeat, Ring};

use super::transfer::{DEPTH, Writer};
use crate::error::ErrorKind;
use crate::pagers::Source;
use crate::store::{CacheShared, FrameStore, WriteState};
use crate::threads::{self, Serves};

/// How soon the cleaner looks again when what it could do has to wait.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Pages that are offered to a pager in one call of a thread.
const CALL_PAGES: u64 = 256;
const KEY_BELL: u32 = 1;
pub(crate) const THREAD: &str = "memobj-cleaner";

/// Starts the cleaner of a cache, unless it runs.
pub(crate) fn start(shared: &Arc<CacheShared>) -> io::Result<()> {
    let mut thread = shared.cleaner.lock();
    if thread.is_some() {
        return Ok(());
    }
    let worker = Arc::clone(shared);
    let (report, started) = std::sync::mpsc::sync_channel(1);
    let body = move || match Worker::new(Arc::clone(&worker)) {
        Ok(mut running) => {
            let _ = report.send(Ok(()));
            let panicked = catch_unwind(AssertUnwindSafe(|| running.run())).is_err();
            // What is on its way is Dirty again.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(running)));
            if panicked {
                worker.health.thread_ended(THREAD);
            }
        }
        Err(error) => {
            let _ = report.send(Err(error));
        }
    };
    let handle = threads::start(THREAD, Serves::All, body)?;
    started.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    *thread = Some(handle);
    Ok(())
}

/// Ends the cleaner, after the cache was closed.
pub(crate) fn stop(shared: &CacheShared) {
    shared.room.unwritten.bell.ring();
    let thread = shared.cleaner.lock().take();
    if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
        let _ = thread.join();
    }
}

struct Worker {
    shared: Arc<CacheShared>,
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
    fn new(shared: Arc<CacheShared>) -> io::Result<Self> {
        let mut ring = Ring::new(DEPTH, shared.buffers.mechanism, Owner::CallingThread)?;
        ring.watch(
            ReadFile::new(shared.room.unwritten.bell.as_fd().try_clone_to_owned()?),
            KEY_BELL,
            Repeat::Always,
        )?;
        Ok(Self { shared, writer: Writer::new(ring)?, member: 0, block: 0 })
    }

    fn run(&mut self) {
        let mut look = Look::Nothing;
        while !self.shared.health.is_closing() {
            let limit = (look == Look::Later).then_some(LOOK_AGAIN);
            self.writer.finish(limit);
            self.shared.room.unwritten.bell.hear();
            look = Look::Nothing;
            while self.shared.room.unwritten.must_be_written(self.writer.bytes_in_flight())
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
        self.shared.health.may_panic(THREAD);
        let mut later = false;
        // Once round, and the rest of the member that it began with.
        for _ in 0..=self.shared.members.end() {
            let store = self.shared.members.with(self.member, |store| store.this.upgrade()).flatten();
            if let Some(store) = store
                && let Some(writes) = &store.writes
            {
                while let Some(block) = store.area.next_unclean_block(self.block) {
                    self.block = block + 1;
                    match self.write_block(&store, writes, block) {
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
            self.member = if self.member + 1 < self.shared.members.end() { self.member + 1 } else { 0 };
        }
        self.shared.room.unwritten.stop_hurry();
        if later { Look::Later } else { Look::Nothing }
    }

    fn write_block(&mut self, store: &Arc<FrameStore>, writes: &WriteState, block: u64) -> Look {
        if writes.trouble().not_before.is_some_and(|at| self.shared.options.clock.now() < at) {
            return Look::Later;
        }
        let Some(_length) = writes.resizing.try_read() else { return Look::Later };
        let all = PageRange { start: 0, end: store.area.pages() };
        let pages = store.part(block, all);
        match store.object.source() {
            Source::File(file) => {
                let started = self.writer.start(store, file, pages);
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
            _ => offer_aside(store, writes, pages),
        }
    }
}

/// Has a thread offer Dirty pages of `pages` to the pager; one thread for each object.
fn offer_aside(store: &Arc<FrameStore>, writes: &WriteState, pages: PageRange) -> Look {
    if writes.in_call.swap(true, Ordering::AcqRel) {
        return Look::Later;
    }
    let copies = match store.copy_dirty(pages, CALL_PAGES) {
        Ok(copies) if !copies.is_empty() => copies,
        _ => {
            writes.in_call.store(false, Ordering::Release);
            return Look::Nothing;
        }
    };
    let other = Arc::clone(store);
    let body = move || {
        let offered = catch_unwind(AssertUnwindSafe(|| other.offer(copies)));
        if let Some(writes) = &other.writes {
            writes.in_call.store(false, Ordering::Release);
        }
        other.cache.room.unwritten.bell.ring();
        drop(offered);
    };
    if let Err(error) = threads::start("memobj-write", Serves::One, body) {
        writes.in_call.store(false, Ordering::Release);
        let range = pages.start << 12..pages.end << 12;
        let source = crate::error::SupplyError::because(ErrorKind::NoSpace, error);
        store.write_failed(writes, store.write_error(super::WriteStep::WriteBack, range, &source));
        return Look::Later;
    }
    Look::Started
}
