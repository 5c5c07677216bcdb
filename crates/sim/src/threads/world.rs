//! What all virtual threads of one run share: memory, sleepers, and what was found.

use std::cell::{Cell, Ref, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use memobj_core::page_word::{PageWord, Word};
use memobj_core::pages::{Pages, Shows};

use super::host::SimulatedHost;
use super::mutation::Mutation;
use super::program::MOST_THREADS;
use super::scenario::Scenario;
use super::trace::{Call, Trace};

/// The most pages.
pub(super) const MOST_PAGES: usize = 4;
/// The most views.
pub(super) const MOST_VIEWS: usize = 2;
/// Virtual threads and the reader of faults.
pub(super) const MOST_RUNNING: usize = MOST_THREADS + 1;

/// A page: what its words of 8 bytes are. The rest of its bytes nobody looks at.
pub(super) type Bytes = [u64; 2];

/// Bytes that are stored together by who has the page alone.
const TOGETHER: u64 = 1;
/// A word that is stored by itself.
const BY_ITSELF: u64 = 2;

/// The value of store `number` to a word of `page`.
const fn value(page: usize, number: u64, kind: u64) -> u64 {
    (number << 8) | (kind << 4) | (page as u64 + 1)
}

/// Whether both words are of stores to whole pages, and of two different ones.
pub(super) fn is_torn(bytes: Bytes) -> bool {
    let is_together = |word: u64| (word >> 4) & 0xf == TOGETHER;
    bytes.iter().all(|word| is_together(*word)) && bytes[0] != bytes[1]
}

/// A page in one view.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Shown {
    /// The view has an entry for the frame. Where pages come into view by themselves, the frame decides.
    pub is_shown: bool,
    /// Stores go on without a fault.
    pub is_open: bool,
    /// Accesses trap.
    pub is_poisoned: bool,
}

/// All that there is of one page.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct PageMemory {
    pub frame: Option<Bytes>,
    /// The frame is being written: half of it is zeros still.
    pub is_half: bool,
    pub views: [Shown; MOST_VIEWS],
    /// What the pager has.
    pub pager: Bytes,
    /// What a load has to find: all stores that are not lost aloud.
    pub latest: Bytes,
    /// The frame was dropped from outside.
    pub is_outside: bool,
    /// The page was Clean then: nothing is lost.
    pub was_clean: bool,
    /// Who has pinned it for writing, and been told that he is alone.
    pub alone: Option<u8>,
    /// Who moved it to Filling, Evicting or Changing.
    pub owner: u8,
    /// Who locked it to write, and may lend it.
    pub lender: u8,
    /// The word at the end of the last step.
    pub seen: Word,
}

impl PageMemory {
    /// Takes the frame away, and out of all views.
    pub(super) fn drop_frame(&mut self) {
        self.frame = None;
        self.is_half = false;
        for view in &mut self.views {
            view.is_shown = false;
            view.is_open = false;
        }
    }
}

/// What a virtual thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sleep {
    Awake,
    /// For a page word to change; with a time-out or not.
    OnWord {
        page: u8,
        times_out: bool,
    },
    /// Until whoever resolves its fault wakes it.
    OnFault {
        page: u8,
    },
    /// For a fault to resolve.
    ForFaults,
    /// For any step of another.
    Paused,
    Done,
}

/// A fault of a thread that sleeps on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingFault {
    pub page: u8,
    pub is_write: bool,
    pub is_missing: bool,
}

pub(super) struct World {
    pub page_count: usize,
    pub view_count: usize,
    pub shows: Shows,
    pub is_queued: bool,
    pub mutation: Option<Mutation>,
    pub words: Rc<[PageWord]>,
    pub memory: RefCell<[PageMemory; MOST_PAGES]>,
    pub trace: RefCell<Trace>,
    pub current: Cell<u8>,
    sleeps: [Cell<Sleep>; MOST_RUNNING],
    pub faults: RefCell<Vec<PendingFault>>,
    /// Threads that may drop bytes that the pager does not have.
    pub may_lose: [Cell<bool>; MOST_RUNNING],
    /// What a thread puts in place, if it is not what the pager has.
    pub supplies: [Cell<Option<Bytes>>; MOST_RUNNING],
    pub finding: RefCell<Option<String>>,
    /// No thread runs any more: nobody takes turns.
    pub is_over: Cell<bool>,
    pages: RefCell<Option<Arc<Pages<SimulatedHost>>>>,
    numbers: Cell<u64>,
    /// Somebody has a failed page asked for again, or makes one trap.
    is_locked: Cell<bool>,
    pub is_resizing: Cell<bool>,
    /// Pages that were supplied.
    pub supplied: Cell<u8>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl World {
    pub(super) fn new(scenario: &Scenario, mutation: Option<Mutation>) -> Self {
        assert!(scenario.pages <= MOST_PAGES && scenario.views <= MOST_VIEWS);
        let mut memory = [PageMemory::default(); MOST_PAGES];
        for (page, memory) in memory.iter_mut().enumerate() {
            memory.pager = [value(page, 0, TOGETHER); 2];
            memory.latest = memory.pager;
        }
        Self {
            page_count: scenario.pages,
            view_count: scenario.views,
            shows: scenario.shows,
            is_queued: scenario.is_queued,
            mutation,
            words: (0..scenario.pages).map(|_| PageWord::new()).collect(),
            memory: RefCell::new(memory),
            trace: RefCell::new(Trace::new()),
            current: Cell::new(0),
            sleeps: std::array::from_fn(|_| Cell::new(Sleep::Done)),
            faults: RefCell::default(),
            may_lose: std::array::from_fn(|_| Cell::new(false)),
            supplies: std::array::from_fn(|_| Cell::new(None)),
            finding: RefCell::default(),
            is_over: Cell::new(false),
            pages: RefCell::default(),
            numbers: Cell::new(0),
            is_locked: Cell::new(false),
            is_resizing: Cell::new(false),
            supplied: Cell::new(0),
        }
    }

    pub(super) fn set_pages(
        &self,
        pages: Option<Arc<Pages<SimulatedHost>>>,
    ) -> Option<Arc<Pages<SimulatedHost>>> {
        self.pages.replace(pages)
    }

    /// The pages, while the run lasts.
    pub(super) fn pages(&self) -> Arc<Pages<SimulatedHost>> {
        let pages: Ref<'_, _> = self.pages.borrow();
        pages.clone().expect("a run has pages")
    }

    pub(super) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(super) fn sleep_of(&self, thread: u8) -> Sleep {
        self.sleeps[thread as usize].get()
    }

    pub(super) fn set_sleep(&self, thread: u8, sleep: Sleep) {
        self.sleeps[thread as usize].set(sleep);
    }

    /// Lets others go on before the current thread does `call`.
    pub(super) fn turn(&self, call: Call, page: Option<usize>) {
        if self.is_over.get() {
            return;
        }
        if std::thread::panicking() {
            // The protocol has found a fault itself. Its destructors are not run: they would find more.
            self.stop();
        }
        self.trace.borrow_mut().about(self.current.get(), call, page);
        generator::co_yield_with(());
    }

    /// Sleeps until the scheduler says otherwise.
    pub(super) fn sleep(&self, sleep: Sleep) {
        if !self.is_over.get() {
            self.set_sleep(self.current.get(), sleep);
            generator::co_yield_with(());
        }
    }

    /// Lets others go on: there is nothing to do before they have.
    pub(super) fn pause(&self) {
        self.trace.borrow_mut().about(self.current.get(), Call::Pause, None);
        self.sleep(Sleep::Paused);
    }

    /// Something is wrong: the run ends here.
    pub(super) fn find(&self, what: impl Into<String>) -> ! {
        self.note(what);
        self.stop()
    }

    /// Something is wrong, and the caller goes on.
    pub(super) fn note(&self, what: impl Into<String>) {
        self.finding.borrow_mut().get_or_insert(what.into());
    }

    /// Never goes on.
    fn stop(&self) -> ! {
        self.note("the protocol panics");
        loop {
            generator::co_yield_with(());
        }
    }

    /// Wakes whom `is_meant` names.
    pub(super) fn wake_where(&self, is_meant: impl Fn(Sleep) -> bool) {
        for (thread, sleep) in self.sleeps.iter().enumerate() {
            if is_meant(sleep.get()) {
                sleep.set(Sleep::Awake);
                self.trace.borrow_mut().woken(thread as u8);
            }
        }
    }

    /// The lock of the engine's table of errors.
    pub(super) fn lock_errors(&self) {
        while self.is_locked.replace(true) {
            self.pause();
        }
    }

    pub(super) fn unlock_errors(&self) {
        self.is_locked.set(false);
    }

    /// One change of length at a time.
    pub(super) fn while_length_changes(&self, change: impl FnOnce()) {
        while self.is_resizing.replace(true) {
            self.pause();
        }
        change();
        self.is_resizing.set(false);
    }

    fn number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// New bytes for all of `page`.
    pub(super) fn new_bytes(&self, page: usize) -> Bytes {
        [value(page, self.number(), TOGETHER); 2]
    }

    /// A new value for one word of `page`.
    pub(super) fn new_word(&self, page: usize) -> u64 {
        value(page, self.number(), BY_ITSELF)
    }

    /// The tick of the clock that reclaim goes by.
    pub(super) fn now(&self) -> u8 {
        self.supplied.get()
    }
}
