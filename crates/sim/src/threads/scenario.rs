//! Which steps meet each other, and on what.

use memobj_core::pages::Shows;

use super::program::Step;

/// A kind of step, and how often it is drawn.
pub type Weighted = (Step, u64);

/// A setting in which programs are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// The most virtual threads, at least 2.
    pub threads: usize,
    /// Pages of the object.
    pub pages: usize,
    /// Views of it.
    pub views: usize,
    /// How its pages come into view.
    pub shows: Shows,
    /// Whether threads that fault in the first view sleep there until they are woken, and others resolve the fault.
    pub is_queued: bool,
    /// Whether it can be written.
    pub is_written: bool,
    /// Frames that there may be.
    pub budget: u64,
    /// The most steps of a thread.
    pub most_steps: u64,
    /// What they do.
    pub steps: &'static [Weighted],
}

const LOAD: Step = Step::Load { page: 0, view: 0 };
const STORE: Step = Step::Store { page: 0, view: 0, word: 0 };
const PIN: Step = Step::Pin { page: 0, count: 1 };
const PIN_ONE: Step = Step::PinOne { page: 0 };
const PIN_NEW: Step = Step::PinNew { page: 0, is_kept: true };
const PIN_MUT: Step = Step::PinMut { page: 0 };
const WRITE_AT: Step = Step::WriteAt { page: 0 };
const READ_AT: Step = Step::ReadAt { page: 0 };
const SUPPLY: Step = Step::Supply { page: 0 };
const AHEAD: Step = Step::Ahead { page: 0, count: 1 };
const EVICT: Step = Step::Evict { chosen: false };
const WRITE_BACK: Step = Step::WriteBack { most: 1, fails: false };
const ABANDON: Step = Step::Abandon { page: 0 };
const DISCARD: Step = Step::Discard { page: 0 };
const DROP_OUTSIDE: Step = Step::DropOutside { page: 0 };
const OPEN_RUN: Step = Step::OpenRun { page: 0, count: 1 };
const GIVE_UP: Step = Step::GiveUp { page: 0 };
const FAIL: Step = Step::Fail { page: 0 };
const RETRY: Step = Step::Retry { page: 0 };
const MAKE_DIRTY: Step = Step::MakeDirty { page: 0 };

const PLAIN: Scenario = Scenario {
    name: "",
    threads: 3,
    pages: 3,
    views: 1,
    shows: Shows::Unasked,
    is_queued: false,
    is_written: true,
    budget: 4,
    most_steps: 3,
    steps: &[],
};

/// What is run by default.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "loads and evictions",
        is_written: false,
        budget: 2,
        steps: &[(LOAD, 4), (EVICT, 2), (AHEAD, 1), (GIVE_UP, 1), (PIN, 2), (Step::GiveBackTables, 2)],
        ..PLAIN
    },
    Scenario {
        name: "half frames",
        views: 2,
        shows: Shows::WhenHeld,
        is_written: false,
        pages: 2,
        steps: &[(LOAD, 4), (EVICT, 2), (AHEAD, 1), (PIN, 1), (Step::ShowClean, 1)],
        ..PLAIN
    },
    Scenario {
        name: "stores and writes",
        pages: 2,
        steps: &[(LOAD, 2), (STORE, 4), (WRITE_BACK, 3), (EVICT, 2), (PIN, 2), (OPEN_RUN, 1)],
        ..PLAIN
    },
    Scenario {
        name: "pins and copies",
        pages: 2,
        threads: 4,
        steps: &[(PIN, 3), (PIN_MUT, 3), (WRITE_AT, 3), (READ_AT, 3), (LOAD, 1), (WRITE_BACK, 2), (EVICT, 2)],
        ..PLAIN
    },
    Scenario {
        name: "pins of one page, and of new bytes",
        pages: 2,
        threads: 4,
        views: 2,
        shows: Shows::WhenTold,
        steps: &[
            (PIN_ONE, 4),
            (PIN_NEW, 4),
            (PIN_MUT, 1),
            (PIN, 1),
            (STORE, 2),
            (LOAD, 2),
            (READ_AT, 2),
            (WRITE_BACK, 3),
            (EVICT, 4),
            (DISCARD, 1),
            (DROP_OUTSIDE, 1),
            (Step::GiveBackTables, 1),
        ],
        ..PLAIN
    },
    Scenario {
        name: "words that are given back",
        pages: 2,
        threads: 4,
        steps: &[
            (Step::GiveBackTables, 4),
            (EVICT, 3),
            (LOAD, 3),
            (STORE, 2),
            (WRITE_BACK, 3),
            (READ_AT, 3),
            (PIN, 1),
            (DISCARD, 1),
            (DROP_OUTSIDE, 1),
            (FAIL, 1),
            (RETRY, 1),
            (GIVE_UP, 1),
        ],
        ..PLAIN
    },
    Scenario {
        name: "two views",
        views: 2,
        shows: Shows::WhenTold,
        pages: 2,
        threads: 4,
        steps: &[(LOAD, 3), (STORE, 4), (WRITE_BACK, 2), (EVICT, 2), (PIN, 1), (WRITE_AT, 1), (DISCARD, 1)],
        ..PLAIN
    },
    Scenario {
        name: "a reader of faults",
        is_queued: true,
        pages: 2,
        threads: 4,
        steps: &[
            (LOAD, 3),
            (STORE, 3),
            (WRITE_BACK, 2),
            (EVICT, 2),
            (PIN, 1),
            (FAIL, 1),
            (RETRY, 1),
            (GIVE_UP, 1),
        ],
        ..PLAIN
    },
    Scenario {
        name: "failures",
        pages: 2,
        threads: 4,
        steps: &[(LOAD, 3), (STORE, 2), (FAIL, 3), (RETRY, 3), (EVICT, 2), (GIVE_UP, 1), (WRITE_AT, 1)],
        ..PLAIN
    },
    Scenario {
        name: "dropped outside",
        pages: 2,
        threads: 4,
        steps: &[
            (DROP_OUTSIDE, 3),
            (LOAD, 2),
            (STORE, 4),
            (WRITE_BACK, 3),
            (WRITE_AT, 2),
            (PIN, 2),
            (PIN_MUT, 1),
            (EVICT, 1),
            (OPEN_RUN, 1),
            (RETRY, 2),
            (Step::Commit, 1),
        ],
        ..PLAIN
    },
    Scenario {
        name: "everything",
        pages: 3,
        threads: 5,
        views: 2,
        shows: Shows::WhenTold,
        budget: 3,
        most_steps: 4,
        steps: &[
            (LOAD, 3),
            (STORE, 5),
            (PIN, 2),
            (PIN_ONE, 2),
            (PIN_MUT, 2),
            (PIN_NEW, 1),
            (WRITE_AT, 2),
            (READ_AT, 2),
            (SUPPLY, 1),
            (AHEAD, 1),
            (EVICT, 3),
            (WRITE_BACK, 4),
            (Step::Commit, 1),
            (ABANDON, 1),
            (DISCARD, 1),
            (DROP_OUTSIDE, 1),
            (OPEN_RUN, 1),
            (GIVE_UP, 1),
            (FAIL, 1),
            (RETRY, 1),
            (MAKE_DIRTY, 1),
            (Step::ChangeLength, 1),
            (Step::CutPage, 1),
        ],
        ..PLAIN
    },
    Scenario {
        name: "protection",
        steps: &[
            (STORE, 4),
            (LOAD, 2),
            (Step::Protect, 4),
            (PIN_MUT, 1),
            (PIN, 1),
            (WRITE_AT, 1),
            (WRITE_BACK, 2),
            (EVICT, 1),
        ],
        ..PLAIN
    },
];

/// Two threads, each with a few steps.
pub type Pair = [&'static [Step]; 2];

/// Pairs of threads whose every schedule with few interruptions is run, and in which setting.
pub const SMALL: &[(Scenario, &[Pair])] = &[
    (
        Scenario { name: "all: one page", pages: 1, ..PLAIN },
        &[
            [&[LOAD], &[EVICT]],
            [&[LOAD], &[LOAD, EVICT]],
            [&[LOAD, EVICT, Step::GiveBackTables], &[LOAD]],
            [&[LOAD, EVICT, Step::GiveBackTables], &[STORE]],
            [&[LOAD, EVICT, Step::GiveBackTables], &[READ_AT]],
            [&[LOAD, Step::GiveBackTables], &[LOAD]],
            [&[LOAD, Step::GiveBackTables], &[STORE]],
            [&[LOAD, Step::GiveBackTables], &[READ_AT, EVICT]],
            [&[LOAD, Step::GiveBackTables], &[PIN_ONE]],
            [&[LOAD, Step::GiveBackTables, LOAD], &[EVICT, Step::GiveBackTables]],
            [&[STORE], &[STORE]],
            [&[STORE], &[WRITE_BACK]],
            [&[STORE, WRITE_BACK], &[STORE]],
            [&[STORE], &[PIN]],
            [&[STORE, PIN], &[STORE]],
            [&[STORE, Step::Protect], &[STORE]],
            [&[STORE, Step::Protect], &[WRITE_BACK]],
            [&[STORE, Step::Protect], &[PIN_MUT]],
            [&[WRITE_AT], &[READ_AT]],
            [&[WRITE_AT, WRITE_BACK], &[WRITE_AT]],
            [&[PIN_MUT], &[LOAD]],
            [&[PIN_NEW], &[LOAD]],
            [&[PIN_NEW], &[READ_AT, STORE]],
            [&[PIN_NEW, WRITE_BACK, EVICT], &[PIN_ONE]],
            [&[Step::PinNew { page: 0, is_kept: false }], &[STORE]],
            [&[Step::PinNew { page: 0, is_kept: false }], &[PIN_ONE]],
            [&[LOAD, PIN_ONE], &[EVICT, Step::GiveBackTables]],
            [&[STORE, WRITE_BACK, PIN_ONE], &[STORE]],
            [&[PIN_MUT], &[STORE]],
            [&[STORE, DISCARD], &[STORE]],
            [&[FAIL, RETRY], &[LOAD]],
            [&[FAIL, RETRY], &[STORE]],
            [&[GIVE_UP], &[LOAD]],
            [&[STORE, Step::ChangeLength], &[LOAD]],
            [&[Step::CutPage], &[LOAD]],
            [&[Step::CutPage], &[STORE]],
            [&[Step::CutPage], &[WRITE_AT]],
            [&[Step::CutPage], &[PIN_MUT]],
            [&[Step::CutPage], &[PIN_NEW]],
            [&[STORE, Step::CutPage], &[STORE, WRITE_BACK]],
        ],
    ),
    (
        Scenario { name: "all: dropped outside", pages: 1, ..PLAIN },
        &[
            [&[LOAD, DROP_OUTSIDE], &[LOAD]],
            [&[STORE, DROP_OUTSIDE], &[LOAD]],
            [&[STORE, DROP_OUTSIDE], &[WRITE_BACK]],
            [&[STORE, WRITE_BACK], &[DROP_OUTSIDE, LOAD]],
            [&[STORE, DROP_OUTSIDE], &[WRITE_AT, RETRY]],
            [&[STORE, DROP_OUTSIDE], &[PIN]],
            [&[STORE, WRITE_BACK], &[STORE, DROP_OUTSIDE, LOAD, RETRY, LOAD]],
            // Each of these found something, see docs/simulator.md.
            [&[LOAD, OPEN_RUN], &[STORE, DROP_OUTSIDE]],
            [&[STORE, DROP_OUTSIDE, WRITE_AT], &[LOAD]],
            [&[PIN, PIN_MUT], &[STORE]],
            [&[PIN], &[DROP_OUTSIDE, Step::ChangeLength]],
        ],
    ),
    (
        Scenario { name: "all: two views", pages: 1, views: 2, shows: Shows::WhenTold, ..PLAIN },
        &[
            [&[STORE], &[Step::Store { page: 0, view: 1, word: 1 }]],
            [&[STORE, WRITE_BACK], &[Step::Store { page: 0, view: 1, word: 1 }]],
            [&[LOAD, EVICT], &[Step::Load { page: 0, view: 1 }]],
        ],
    ),
    (
        Scenario { name: "all: two pages", pages: 2, is_written: false, budget: 2, ..PLAIN },
        &[
            [&[Step::Ahead { page: 0, count: 2 }, EVICT], &[Step::Load { page: 1, view: 0 }]],
            [&[PIN, EVICT], &[Step::Pin { page: 0, count: 2 }]],
            [&[Step::Ahead { page: 0, count: 2 }, Step::GiveBackTables], &[Step::Load { page: 1, view: 0 }]],
            [&[LOAD, Step::GiveBackTables], &[Step::Load { page: 1, view: 0 }, Step::GiveBackTables]],
        ],
    ),
];
