//! The locks of the library and of `memobj run`: what each guards, and the order in which they may be taken.
//!
//! A thread takes locks by ascending [`Rank`]. Under a leaf it takes none. Debug builds panic where a thread does
//! otherwise. A signal handler takes no lock: what a store needs there is the page word, the gate and counters. It must not
//! even try one with a rank: a debug build would change the list of the interrupted thread. No lock is held while a pager
//! supplies. `Mapped`, `Resizing` and `Turn` are held while a pager writes, syncs or changes its length, so the pager must
//! not ask for any of these of its own object.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};
use std::time::Duration;

/// What a lock guards, in the order in which locks may be taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    // Of `memobj run`, which calls the engine.
    /// The address spaces of programs whose faults are resolved.
    FaultSpaces,
    /// Userfaultfds of forked children. Held while it is found out whose one is.
    BornChildren,
    /// The objects of files that have not changed.
    CurrentFiles,
    /// Requests of the kernel for files that are objects, and who works on them.
    ObjectRequests,

    // Of the engine.
    /// The mapping that a stream works on.
    StreamMapping,
    /// The table of a space. Not held while pages are supplied, its memory is touched or frames are given back.
    SpaceTable,
    /// The parts that an object has now: who maps the object, or changes its length.
    Mapped,
    /// The parts that an object keeps because it can be written.
    Kept,
    /// The length of an object: who writes back reads it, who changes the length writes it.
    Resizing,
    /// One sync of the pager, commit or change of length at a time.
    Turn,
    /// Of an object that is committed to: the copying in place.
    Checkpoint,
    /// Of an object that is committed to: who appends to the log.
    LogTurn,
    /// Of an object that is committed to: the log itself.
    Log,
    /// The queue of the threads that call pagers.
    Workers,

    // Of this crate, which calls neither.
    /// Who hands descriptors to programs.
    HandTurn,
    /// The event loop of the process for the faults of others. Held while it is started.
    FaultLoopOfProcess,

    // Leaves, from here on: nothing is taken under them. First the engine's.
    /// Why pages of an object failed.
    Errors,
    /// Which changes of an object are lost.
    Lost,
    /// What is known of failed writes of an object.
    WriteFailures,
    /// The pages of open transactions of an object.
    Claims,
    /// The pages in the log that no commit has yet.
    Spilled,
    /// The claim of a job, and the error that it will fail with.
    Job,
    /// Rings that are kept for the next batch.
    Rings,
    /// Threads to be joined: those that serve a cache.
    Threads,
    /// What is dropped aside.
    Disposal,
    /// Events that nobody has received yet.
    Events,
    /// How it ended with a guest, and what it keeps out until then.
    GuestEnd,
    /// By what pins of single pages keep an object mapped.
    PinShares,
    /// The pages that a private mapping has for itself.
    Private,
    /// What a stream has handed out, asked for, and where it is.
    Stream,
    /// The planned failures of a pager that fails on purpose.
    Faulty,

    // Leaves of `memobj run`.
    /// The objects of files that have not been closed.
    FilesByFrames,
    /// The objects whose files may change.
    GuardedFiles,
    /// What an address space of a program maps.
    SpaceObjects,
    /// Descriptors that threads of a program have for a moment.
    HandedDescriptors,
    /// How often descriptors were mapped by their path.
    MappedByPath,
    /// What the tracer is to do.
    Posted,
    /// Pages that the tracer is to supply.
    LostPages,
    /// Pages that a server was asked for.
    BorrowedPages,
    /// The thread that looks at names. Held while it looks.
    Names,
    /// The history of a run.
    History,
    /// Which requests for files that are objects are under way.
    WaitingRequests,
    /// Files and folders of objects that the kernel knows.
    ObjectNodes,
    /// What is in folders of objects.
    ObjectListings,
    /// Whether an object is open. Not held while it is opened.
    OpenObject,
    /// What programs have open of objects.
    ObjectHandles,
    /// Objects that were closed a while ago.
    RecentObjects,
    /// Failures that were told of.
    ToldFailures,
    /// What is read again and again.
    Thrash,

    // Leaves of this crate.
    /// The clients of an event loop, and its threads. Not held while a client is called.
    FaultLoop,
    /// The numbers of a slot table that are free.
    FreeSlots,
    /// The installation of the handler of SIGBUS.
    Handler,
    /// Where the pool makes frames.
    Nursery,
    /// The queue of the threads that transfer where there is no io_uring. Held by the one that waits for more.
    Transfers,
    /// Whether a thread may look at a descriptor again.
    WatchGate,
    /// The reservations of the process.
    Reservations,
    /// What images have of a reservation.
    ReservedRanges,
    /// Whether the window of a space is open. Held while its memory changes, or is copied, which may take faults.
    Window,
    /// Where calls are made in an address space of a program.
    CallSite,
    /// The filters of programs that may be handed descriptors.
    HandListeners,
    /// Which descriptors they are offered.
    HandOffers,
}

const FIRST_LEAF: Rank = Rank::Errors;

thread_local! {
    /// The ranks of the locks that this thread holds.
    static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
}

fn with_held<T>(work: impl FnOnce(&mut Vec<Rank>) -> T) -> Option<T> {
    // A thread that ends has no list any more, and may take locks in destructors.
    cfg!(debug_assertions).then(|| HELD.try_with(|held| work(&mut held.borrow_mut())).ok()).flatten()
}

/// Panics in debug builds if this thread must not take a lock of `rank` now.
#[track_caller]
fn check(rank: Rank) {
    let above = |held: &mut Vec<Rank>| held.iter().copied().find(|held| *held >= rank.min(FIRST_LEAF));
    if let Some(held) = with_held(above).flatten() {
        panic!("a lock of {rank:?} is taken under one of {held:?}");
    }
}

/// Makes a call into code of users, which may have objects of its own behind it and take all locks of these.
pub fn outside<T>(call: impl FnOnce() -> T) -> T {
    struct Restore(Vec<Rank>);
    impl Drop for Restore {
        fn drop(&mut self) {
            with_held(|held| *held = std::mem::take(&mut self.0));
        }
    }
    let _restore = Restore(with_held(std::mem::take).unwrap_or_default());
    call()
}

/// An entry in the list of this thread, until dropped.
#[derive(Debug)]
struct HeldRank(Rank);

impl HeldRank {
    fn new(rank: Rank) -> Self {
        with_held(|held| held.push(rank));
        Self(rank)
    }
}

impl Drop for HeldRank {
    fn drop(&mut self) {
        with_held(|held| held.iter().rposition(|rank| *rank == self.0).map(|at| held.remove(at)));
    }
}

/// A lock that is held, until dropped.
#[derive(Debug)]
pub struct Locked<G> {
    guard: G,
    _held: HeldRank,
}

/// A [`RankedMutex`] that is locked.
pub type Guard<'a, T> = Locked<MutexGuard<'a, T>>;
/// A [`RankedRwLock`] that is locked for reading.
pub type ReadGuard<'a, T> = Locked<RwLockReadGuard<'a, T>>;
/// A [`RankedRwLock`] that is locked for writing.
pub type WriteGuard<'a, T> = Locked<RwLockWriteGuard<'a, T>>;

impl<G: Deref> Deref for Locked<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Locked<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

impl<T> Guard<'_, T> {
    /// Lets go, waits until `changed` tells, and locks again.
    pub fn wait(self, changed: &Condvar) -> Self {
        let guard = changed.wait(self.guard).unwrap_or_else(PoisonError::into_inner);
        Self { guard, ..self }
    }

    /// The same, for at most `limit`.
    pub fn wait_within(self, changed: &Condvar, limit: Duration) -> Self {
        let guard = changed.wait_timeout(self.guard, limit).unwrap_or_else(PoisonError::into_inner).0;
        Self { guard, ..self }
    }

    /// The same, as long as `condition` says.
    pub fn wait_while(
        self,
        changed: &Condvar,
        limit: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> Self {
        let waited = changed.wait_timeout_while(self.guard, limit, condition);
        Self { guard: waited.unwrap_or_else(PoisonError::into_inner).0, ..self }
    }
}

/// A mutex with a rank. A panic of who held it does not matter: what is guarded is whole at every step.
#[derive(Debug)]
pub struct RankedMutex<T> {
    rank: Rank,
    mutex: Mutex<T>,
}

impl<T> RankedMutex<T> {
    /// A mutex of this rank.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank, mutex: Mutex::new(value) }
    }

    /// Locks, and waits for whoever has it.
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, T> {
        check(self.rank);
        let guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { guard, _held: HeldRank::new(self.rank) }
    }

    /// Locks if nobody else has it. Does not wait, so any order is right.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let guard = granted(self.mutex.try_lock())?;
        Some(Locked { guard, _held: HeldRank::new(self.rank) })
    }

    /// What it guards, which nobody else can have.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock for one writer or many readers with a rank.
#[derive(Debug)]
pub struct RankedRwLock<T> {
    rank: Rank,
    lock: RwLock<T>,
}

impl<T> RankedRwLock<T> {
    /// A lock of this rank.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank, lock: RwLock::new(value) }
    }

    /// Locks for reading, and waits for a writer.
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        check(self.rank);
        let guard = self.lock.read().unwrap_or_else(PoisonError::into_inner);
        Locked { guard, _held: HeldRank::new(self.rank) }
    }

    /// Locks for writing, and waits for all others.
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T> {
        check(self.rank);
        let guard = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        Locked { guard, _held: HeldRank::new(self.rank) }
    }

    /// Locks for reading if no writer has it. Does not wait, so any order is right.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let guard = granted(self.lock.try_read())?;
        Some(Locked { guard, _held: HeldRank::new(self.rank) })
    }
}

fn granted<G>(tried: Result<G, TryLockError<G>>) -> Option<G> {
    match tried {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks() -> [RankedMutex<()>; 4] {
        [Rank::Mapped, Rank::Turn, Rank::Errors, Rank::WriteFailures].map(|rank| RankedMutex::new(rank, ()))
    }

    #[test]
    fn locks_are_taken_in_order_and_given_back_in_any() {
        let [mapped, turn, errors, _] = locks();
        let (first, second) = (mapped.lock(), turn.lock());
        drop(first);
        drop(errors.lock());
        drop(second);
        drop(mapped.lock());
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "a lock of Mapped is taken under one of Turn")]
    fn the_wrong_order_is_seen() {
        let [mapped, turn, ..] = locks();
        let _second = turn.lock();
        let _first = mapped.lock();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "a lock of WriteFailures is taken under one of Errors")]
    fn nothing_is_taken_under_a_leaf() {
        let [.., errors, write_failures] = locks();
        let _leaf = errors.lock();
        let _other = write_failures.lock();
    }

    #[test]
    fn code_of_users_begins_with_no_lock_and_a_panic_gives_back() {
        let [mapped, turn, errors, _] = locks();
        let _second = turn.lock();
        let panicked = std::panic::catch_unwind(|| {
            let _leaf = errors.lock();
            outside(|| drop(mapped.lock()));
            panic!("a test says so");
        });
        assert!(panicked.is_err());
        drop(errors.lock());
        assert!(mapped.try_lock().is_some());
    }
}
