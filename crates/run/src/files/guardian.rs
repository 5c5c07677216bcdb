//! The thread that hears of files that are about to change, or have changed, and that looks for idle objects by the clock.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memobj_linux::lease::{self, BreakNews, BreakReader, News};
use memobj_linux::locks::{Rank, RankedMutex};
use memobj_linux::uffd::ForeignFaults;
use rustix::fs::inotify;

use super::idle::LOOK_EVERY;
use super::{Files, Hold, LocalFile, MappedObject};

/// What of the time that the kernel waits for a lease may be used, in quarters.
const QUARTERS: u32 = 3;

/// Where the files ask the tracer for something, from any thread.
pub(crate) trait Post: std::fmt::Debug + Send + Sync {
    /// All programs are to be given the kernel's pages of `object`, before `until`.
    fn hand_over(&self, object: Arc<MappedObject>, until: Instant);
    /// Objects that nobody maps are to be closed.
    fn look_for_idle(&self);
    /// A page is to be supplied as a copy of its own.
    fn supply_lost(&self, page: LostPage);
}

/// A page on which a thread sleeps, and which who lends the frames does not supply any more.
#[derive(Debug)]
pub(crate) struct LostPage {
    /// Of the address space that it is missing in.
    pub(crate) faults: Arc<ForeignFaults>,
    /// Of the page, there.
    pub(crate) address: u64,
    /// Its bytes, from the file, which nobody can change before the object is handed over.
    pub(crate) bytes: Vec<u8>,
}

/// Until when a lease that is waited for from now on must be given back.
pub(crate) fn time_to_hand_over() -> Instant {
    let whole = memobj_linux::lease::break_time();
    // Zero: the kernel waits without end.
    let whole = if whole.is_zero() { Duration::from_secs(45) } else { whole };
    Instant::now() + whole * QUARTERS / 4
}

/// See the module. The thread starts with the first file.
#[derive(Debug)]
pub(super) struct Guardian {
    files: Weak<Files>,
    post: Box<dyn Post>,
    thread: OnceLock<Option<Listener>>,
    inotify: OnceLock<Option<Arc<OwnedFd>>>,
    kept: RankedMutex<HashMap<Key, Weak<MappedObject>>>,
    is_over: Arc<AtomicBool>,
}

/// The thread, and where it is told of leases.
#[derive(Debug)]
struct Listener {
    reader: BreakReader,
    thread: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Key {
    Lease(RawFd),
    Watch(i32),
}

impl Key {
    fn of(hold: Hold) -> Self {
        match hold {
            Hold::Lease(descriptor) => Self::Lease(descriptor),
            Hold::Watch(number) => Self::Watch(number),
        }
    }
}

impl Guardian {
    pub(super) fn new(files: Weak<Files>, post: Box<dyn Post>) -> Self {
        Self {
            files,
            post,
            thread: OnceLock::new(),
            inotify: OnceLock::new(),
            kept: RankedMutex::new(Rank::GuardedFiles, HashMap::new()),
            is_over: Arc::default(),
        }
    }

    /// Where leases tell of themselves. `None`: no thread can be started.
    pub(super) fn reader(&self) -> Option<BreakReader> {
        let started = self.thread.get_or_init(|| {
            let (tell, told) = mpsc::sync_channel(1);
            let (files, is_over) = (self.files.clone(), Arc::clone(&self.is_over));
            let thread = std::thread::Builder::new().name("memobj-leases".into()).spawn(move || {
                let news = BreakNews::listen();
                let _ = tell.send(news.reader());
                listen(&news, &files, &is_over);
            });
            Some(Listener { reader: told.recv().ok()?, thread: thread.ok()? })
        });
        started.as_ref().map(|listener| listener.reader)
    }

    /// Watches a file for changes that have happened. `None`: it cannot be watched.
    pub(super) fn watch(&self, file: &File) -> Option<Hold> {
        let reader = self.reader()?;
        let made = self.inotify.get_or_init(|| {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let descriptor = inotify::init(flags).ok()?;
            lease::tell_when_readable(&descriptor, reader).ok()?;
            Some(Arc::new(descriptor))
        });
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let number = inotify::add_watch(made.as_ref()?.as_fd(), path, inotify::WatchFlags::MODIFY).ok()?;
        Some(Hold::Watch(number))
    }

    /// `object` is to be handed over when `hold` breaks.
    pub(super) fn keep(&self, hold: Hold, object: &Arc<MappedObject>) {
        self.kept.lock().insert(Key::of(hold), Arc::downgrade(object));
    }

    /// Nobody needs to hear of it any more.
    pub(super) fn forget(&self, hold: Hold) {
        self.kept.lock().remove(&Key::of(hold));
        if let (Hold::Watch(number), Some(Some(descriptor))) = (hold, self.inotify.get()) {
            // One whose file is gone has gone by itself.
            let _ = inotify::remove_watch(descriptor.as_fd(), number);
        }
    }

    /// Has the tracer hand over the mappings of `object`.
    pub(super) fn hand_over(&self, object: &Arc<MappedObject>) {
        self.post.hand_over(Arc::clone(object), time_to_hand_over());
    }

    /// Has the tracer supply a page.
    pub(super) fn supply_lost(&self, page: LostPage) {
        self.post.supply_lost(page);
    }

    fn object_of(&self, key: Key) -> Option<Arc<MappedObject>> {
        self.kept.lock().get(&key).and_then(Weak::upgrade)
    }

    /// Objects whose leases are waited for.
    fn waited_for(&self) -> Vec<Arc<MappedObject>> {
        let kept: Vec<_> = self.kept.lock().values().filter_map(Weak::upgrade).collect();
        let is_waited_for = |object: &Arc<MappedObject>| {
            let is_waited_for =
                |file: &LocalFile| matches!(file.hold, Hold::Lease(_)) && !lease::is_held(&*file.source);
            object.local().is_some_and(is_waited_for)
        };
        kept.into_iter().filter(is_waited_for).collect()
    }

    /// Objects whose files were changed.
    fn changed(&self) -> Vec<Arc<MappedObject>> {
        let Some(Some(descriptor)) = self.inotify.get() else { return Vec::new() };
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(descriptor.as_fd(), &mut buffer);
        let mut changed = Vec::new();
        while let Ok(event) = reader.next() {
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                // Any may have changed.
                let kept = self.kept.lock();
                changed
                    .extend(kept.iter().filter(|(key, _)| matches!(key, Key::Watch(_))).map(|(key, _)| *key));
            } else if event.events().contains(inotify::ReadFlags::MODIFY) {
                changed.push(Key::Watch(event.wd()));
            }
        }
        changed.into_iter().filter_map(|key| self.object_of(key)).collect()
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let Some(Some(Listener { reader, thread })) = self.thread.take() else { return };
        reader.wake();
        // The thread itself may be the last that had the files.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

fn listen(news: &BreakNews, files: &Weak<Files>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        let came = news.next(LOOK_EVERY);
        let Some(files) = files.upgrade() else { return };
        let guardian = &files.guardian;
        let broken = match came {
            None => {
                if files.count() > 0 {
                    guardian.post.look_for_idle();
                }
                Vec::new()
            }
            Some(News::Woken) => Vec::new(),
            Some(News::Some) => guardian.waited_for().into_iter().chain(guardian.changed()).collect(),
            Some(News::Breaks(descriptor)) => {
                let lease = guardian.object_of(Key::Lease(descriptor));
                lease.into_iter().chain(guardian.changed()).collect()
            }
        };
        broken.iter().for_each(|object| files.has_broken(object));
    }
}
