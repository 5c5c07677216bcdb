//! Pages of an owner that ended at any moment.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::budget::Budget;
use memobj_core::page_word::State;
use memobj_core::pin_budget::PinBudget;

use super::{Area, AreaOptions, Frames, Inherited, Kept, Mark, Storage, Tables, Writes};
use crate::region::SMALL;
use crate::signal::{self, Verdict};
use crate::uffd::{Announce, Userfaultfd};

const STATES: [State; 8] = [
    State::Absent,
    State::Filling,
    State::Clean,
    State::Failed,
    State::Evicting,
    State::Dirty,
    State::WritingBack,
    State::Changing,
];
/// Pages that are between those of two cases, and untouched.
const APART: u64 = 100;

struct Case {
    state: State,
    has_frame: bool,
    mark: Option<Mark>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for state in STATES {
        for has_frame in [true, false] {
            for mark in [None, Some(Mark::Unsynced), Some(Mark::Syncing), Some(Mark::Lost)] {
                cases.push(Case { state, has_frame, mark });
            }
        }
    }
    cases
}

fn expected(case: &Case) -> State {
    let is_unsynced = matches!(case.mark, Some(Mark::Unsynced | Mark::Syncing));
    match (case.state, case.has_frame) {
        (State::Clean, true) if is_unsynced => State::Dirty,
        (State::Clean, true) => State::Clean,
        (State::Dirty | State::WritingBack | State::Changing, true) => State::Dirty,
        (State::Dirty | State::WritingBack | State::Changing, false) => State::Failed,
        (State::Failed, _) if case.mark == Some(Mark::Lost) => State::Failed,
        _ => State::Absent,
    }
}

struct Owner {
    pages: u64,
    budget: Arc<Budget>,
    unwritten: Arc<AtomicU64>,
    uffd: Arc<Userfaultfd>,
}

impl Owner {
    fn options(&self, storage: Storage) -> AreaOptions {
        AreaOptions {
            name: "kept".into(),
            length: self.pages * SMALL as u64,
            capacity: self.pages * SMALL as u64,
            writes: Writes::Yes,
            unwritten: Arc::clone(&self.unwritten),
            tables: Arc::new(Tables::new(0)),
            storage,
            frames: Frames::SharedSmall,
            home: None,
            views: vec![Arc::clone(&self.uffd)],
            budget: Arc::clone(&self.budget),
            pin_budget: Arc::new(PinBudget::new(1 << 20)),
        }
    }
}

fn page_of(case: usize) -> PageIndex {
    PageIndex(case as u64 * APART)
}

/// Leaves words, frames and marks of all cases behind, as a process does that is killed.
fn leave(cases: &[Case], owner: &Owner) -> (Kept, std::os::fd::OwnedFd) {
    let tables = Kept::new(owner.pages).unwrap();
    let area = super::new(owner.options(Storage::Kept(tables.clone()))).unwrap();
    let (frames, file) = area.kept_files().unwrap();
    let words = tables.words().unwrap();
    for (index, case) in cases.iter().enumerate() {
        let page = page_of(index);
        // Stamp, heat, a pin for writing or three others, a sleeper, and the bit of a write.
        let pins = if index % 2 == 0 { 0xffff } else { 3 };
        let word = 7 << 32 | pins << 16 | 0x55 << 8 | 0b1011 << 3 | case.state as u64;
        words[page.0 as usize].as_atomic().store(word, Ordering::Relaxed);
        if case.has_frame {
            let bytes = [index as u8 + 1; SMALL];
            rustix::io::pwrite(&frames, &bytes, page.0 * SMALL as u64).unwrap();
        }
        if let Some(mark) = case.mark {
            let marks = tables.marks(mark).unwrap();
            marks[(page.0 / 64) as usize].fetch_or(1 << (page.0 % 64), Ordering::Relaxed);
        }
    }
    // Its drop would look at the words, which are nonsense for it.
    std::mem::forget(area);
    (Kept::open(file, owner.pages).unwrap(), frames)
}

fn inherit(owner: &Owner, tables: &Kept, frames: impl AsFd) -> (Arc<Area>, Inherited) {
    let frames = Arc::new(frames.as_fd().try_clone_to_owned().unwrap());
    super::inherit(owner.options(Storage::Inherited { tables: tables.clone(), frames })).unwrap()
}

fn has(runs: &[PageRange], page: PageIndex) -> bool {
    runs.iter().any(|run| run.contains(page))
}

#[test]
fn whatever_an_owner_was_doing_its_pages_are_right_or_told_as_lost() {
    let uffd = match Userfaultfd::open(Announce::Signalled) {
        Ok(uffd) => Arc::new(uffd),
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    signal::install(|_, _| Verdict::Trap).unwrap();
    let cases = cases();
    let budget = Arc::new(Budget::new(1 << 20));
    let owner = Owner { pages: cases.len() as u64 * APART, budget, unwritten: Arc::default(), uffd };
    let (tables, frames) = leave(&cases, &owner);
    let (area, found) = inherit(&owner, &tables, &frames);
    let (mut resident, mut dirty) = (0, 0);
    for (index, case) in cases.iter().enumerate() {
        let (page, want) = (page_of(index), expected(case));
        let what = format!("{:?}, frame {}, {:?}", case.state, case.has_frame, case.mark);
        let word = area.word(page);
        assert_eq!(word.state(), want, "{what}");
        assert!(word.pins() == 0 && !word.is_writing() && !word.has_waiters(), "{what}: {word:?}");
        resident += u64::from(matches!(want, State::Clean | State::Dirty));
        dirty += u64::from(want == State::Dirty);
        let could_trap = matches!(case.state, State::Filling | State::Failed | State::Evicting);
        assert_eq!(has(&found.may_trap, page), could_trap && want == State::Absent, "{what}");
        assert_eq!(has(&found.lost, page), want == State::Failed, "{what}");
        let mut bytes = [0xee; SMALL];
        let start = area.address(Announce::Signalled, page.0 * SMALL as u64).unwrap();
        // SAFETY: the page lies in the view, which is mapped.
        let loaded = unsafe { signal::copy_trapping(&mut bytes, start) };
        match want {
            State::Clean | State::Dirty => {
                assert!(
                    loaded == SMALL && bytes == [index as u8 + 1; SMALL],
                    "{what}: {loaded}, {}",
                    bytes[0]
                );
            }
            _ => assert_eq!(loaded, 0, "{what}: bytes of no page were handed out"),
        }
    }
    let page_bytes = SMALL as u64;
    assert_eq!((found.resident, found.dirty), (resident, dirty));
    assert_eq!((area.resident_pages(), area.unclean_pages()), (resident, dirty));
    assert_eq!(owner.budget.used(), resident * page_bytes);
    assert_eq!(owner.unwritten.load(Ordering::Relaxed), dirty * page_bytes);
    // What is left behind once more is the same, and it goes as any other does.
    let all = PageRange { start: 0, end: owner.pages };
    assert_eq!(area.evict_all(all, 0).pages, resident - dirty);
    for page in found.lost.iter().flat_map(|run| run.iter()) {
        assert!(area.retry(page));
    }
    drop(area);
    assert_eq!((owner.budget.used(), owner.unwritten.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn dirty_pages_are_kept_beyond_a_smaller_budget_and_clean_ones_within() {
    let uffd = match Userfaultfd::open(Announce::Signalled) {
        Ok(uffd) => Arc::new(uffd),
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    let case = |state| Case { state, has_frame: true, mark: None };
    let cases: Vec<Case> =
        (0..8).map(|index| case(if index % 2 == 0 { State::Clean } else { State::Dirty })).collect();
    let budget = Arc::new(Budget::new(3 * SMALL as u64));
    let owner = Owner { pages: 8 * APART, budget, unwritten: Arc::default(), uffd };
    let (tables, frames) = leave(&cases, &owner);
    let (area, found) = inherit(&owner, &tables, &frames);
    assert_eq!(found.dirty, 4);
    assert!(found.resident <= 6, "{} pages, more than can be dropped", found.resident);
    assert_eq!(owner.budget.used(), found.resident * SMALL as u64);
    drop(area);
    assert_eq!(owner.budget.used(), 0);
}

#[test]
fn files_of_other_shapes_are_refused() {
    let Ok(uffd) = Userfaultfd::open(Announce::Signalled) else { return println!("skipped: no userfaultfd") };
    let budget = Arc::new(Budget::new(1 << 20));
    let mut owner = Owner { pages: 10, budget, unwritten: Arc::default(), uffd: Arc::new(uffd) };
    let (tables, frames) = leave(&[], &owner);
    let file = || tables.descriptor().unwrap();
    assert!(Kept::open(file(), 11 * 4096).is_err());
    assert!(Kept::open(std::fs::File::open("/dev/null").unwrap().into(), 10).is_err());
    owner.pages = 9;
    let storage = |frames| Storage::Inherited { tables: tables.clone(), frames: Arc::new(frames) };
    assert!(super::inherit(owner.options(storage(frames.try_clone().unwrap()))).is_err(), "longer frames");
    owner.pages = 10;
    assert!(super::inherit(owner.options(storage(file()))).is_err(), "tables for frames");
    assert!(super::inherit(owner.options(Storage::Own)).is_err());
}
