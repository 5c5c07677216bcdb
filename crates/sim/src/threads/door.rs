//! What an access of a program does, and how its fault is resolved: as the engine does it, in few lines.

use std::time::Duration;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::page_word::State;
use memobj_core::pages::{FillClaim, Looked, Origin, Placement, Shows};

use super::host::{PAGE_BYTES, SimulatedHost, put_words};
use super::mutation::Mutation;
use super::trace::Call;
use super::world::{PendingFault, Sleep, World};

/// How long a sleeper sleeps that may wait for itself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why an access does not go on.
enum Trapped {
    /// The view has no frame for the page.
    Missing,
    /// The page is protected.
    Protected,
    /// It is poisoned.
    Poisoned,
}

fn access(world: &World, page: PageIndex, view: u8, is_write: bool) -> Result<(), Trapped> {
    let memory = world.memory.borrow()[page.0 as usize];
    let shown = memory.views[view as usize];
    let is_shown = shown.is_shown || world.shows == Shows::Unasked;
    if shown.is_poisoned {
        Err(Trapped::Poisoned)
    } else if memory.frame.is_none() || !is_shown {
        Err(Trapped::Missing)
    } else if is_write && !shown.is_open {
        Err(Trapped::Protected)
    } else {
        Ok(())
    }
}

/// Makes an access legal, by as many faults as it takes. `false`: it traps.
fn reach(world: &World, page: PageIndex, view: u8, is_write: bool) -> bool {
    let call = if is_write { Call::Store } else { Call::Load };
    let mut faults = 0;
    loop {
        world.turn(call, Some(page.0 as usize));
        let is_missing = match access(world, page, view, is_write) {
            Ok(()) => return true,
            Err(Trapped::Poisoned) => return false,
            Err(Trapped::Missing) => true,
            Err(Trapped::Protected) => false,
        };
        if world.is_queued && view == 0 {
            sleep_on_fault(world, page, is_write, is_missing);
        } else if !resolve(world, page, view, is_write, is_missing) {
            return false;
        }
        faults += 1;
        if faults % 3 == 0 {
            world.pause();
        }
    }
}

/// Loads a word as a program does. `None`: it traps.
pub(super) fn load(world: &World, page: PageIndex, view: u8, word: usize) -> Option<u64> {
    if !reach(world, page, view, false) {
        return None;
    }
    let memory = world.memory.borrow()[page.0 as usize];
    let value = memory.frame.map(|frame| frame[word])?;
    world.trace.borrow_mut().value(world.current.get(), page.0 as usize, value);
    if value != memory.latest[word] {
        world.find(format!("a load of page {page} finds {value:x}, not {:x}", memory.latest[word]));
    }
    check_alone(world, page);
    Some(value)
}

/// Stores a word as a program does. `false`: it traps.
pub(super) fn store(world: &World, page: PageIndex, view: u8, word: usize, value: u64) -> bool {
    if !reach(world, page, view, true) {
        return false;
    }
    check_alone(world, page);
    let now = world.words[page.0 as usize].load();
    if now.pins() > 0 && !now.is_pinned_mut() {
        world.find(format!("a store to page {page}, which is pinned"));
    }
    world.trace.borrow_mut().value(world.current.get(), page.0 as usize, value);
    let mut memory = world.memory.borrow_mut();
    let memory = &mut memory[page.0 as usize];
    if let Some(frame) = &mut memory.frame {
        frame[word] = value;
        memory.latest[word] = value;
    }
    true
}

/// Finds fault with an access beside somebody who is alone with the page.
fn check_alone(world: &World, page: PageIndex) {
    let alone = world.memory.borrow()[page.0 as usize].alone;
    if alone.is_some_and(|thread| thread != world.current.get()) {
        world.find(format!("an access to page {page}, which another has alone"));
    }
}

/// Sleeps as in the kernel, which has told the reader of faults. Nothing comes between the look and the sleep.
fn sleep_on_fault(world: &World, page: PageIndex, is_write: bool, is_missing: bool) {
    let page = page.0 as u8;
    world.trace.borrow_mut().about(world.current.get(), Call::SleepOnFault, Some(page.into()));
    world.faults.borrow_mut().push(PendingFault { page, is_write, is_missing });
    world.wake_where(|sleep| sleep == Sleep::ForFaults);
    world.sleep(Sleep::OnFault { page });
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Trap,
    Resident,
    Open,
}

/// Resolves a fault in the thread that raised it. `false`: it traps.
fn resolve(world: &World, page: PageIndex, view: u8, is_write: bool, is_missing: bool) -> bool {
    world.turn(Call::Fault, Some(page.0 as usize));
    if world.pages().is_outside(page) {
        return false;
    }
    if is_missing && look(world, page) {
        return true;
    }
    if is_write {
        return resolve_store(world, page, view);
    }
    resolve_page(world, page, view, false) != Reached::Trap
}

fn resolve_store(world: &World, page: PageIndex, view: u8) -> bool {
    let pages = world.pages();
    loop {
        let word = pages.word(page);
        if word.is_resident() || word.state() == State::Changing {
            if pages.open_to_store(page, view).is_ok() {
                return true;
            }
            pages.wait_to_store(page, None);
            continue;
        }
        match resolve_page(world, page, view, true) {
            Reached::Trap => return false,
            Reached::Open => return true,
            Reached::Resident => {}
        }
    }
}

fn resolve_page(world: &World, page: PageIndex, view: u8, is_write: bool) -> Reached {
    let pages = world.pages();
    loop {
        let word = pages.word(page);
        match word.state() {
            State::Clean | State::Dirty | State::WritingBack | State::Changing => {
                pages.show(page, view);
                return Reached::Resident;
            }
            State::Failed => return Reached::Trap,
            State::Absent => {
                let Ok(claim) = pages.claim(page, Placement::AtOnce) else { continue };
                let now = world.now();
                let is_to_open = is_write && world.view_count == 1;
                let origin = if is_to_open { Origin::ToStore(now) } else { Origin::Asked(now) };
                match fill(world, claim, origin) {
                    true if is_to_open => return Reached::Open,
                    true => {}
                    // No room. The engine waits; here the access is given up.
                    false => return Reached::Trap,
                }
            }
            State::Filling | State::Evicting => {
                pages.wait(page, None);
            }
        }
    }
}

/// Looks whether the frame of a page is there still. Whether the access is to be tried again.
pub(super) fn look(world: &World, page: PageIndex) -> bool {
    let pages = world.pages();
    let word = pages.word(page);
    if !(word.is_resident() || word.state() == State::Changing) {
        return false;
    }
    if world.is(Mutation::LooksWithoutHolding) {
        return look_without_holding(world, page);
    }
    match pages.look(page, page.0 * PAGE_BYTES as u64, world.now()) {
        Looked::Gone(gone) => {
            gone.fail();
            true
        }
        Looked::NotNow(word) if word.state() == State::WritingBack && world.shows == Shows::Unasked => {
            // The page may be pinned by this thread: then only the time-out ends the wait, as in the engine.
            pages.wait_as_writer(page, Some(LOOK_AGAIN));
            true
        }
        _ => false,
    }
}

/// What was wrong once: to ask, and to act upon the answer when it may be another.
fn look_without_holding(world: &World, page: PageIndex) -> bool {
    let is_there = world.memory.borrow()[page.0 as usize].frame.is_some();
    !is_there && world.pages().discard(page, world.now())
}

/// Fills a claim with what the pager has, or lets it go for want of room.
pub(super) fn fill(world: &World, claim: FillClaim<SimulatedHost>, origin: Origin) -> bool {
    let range = claim.pages();
    world.turn(Call::ReadPager, Some(range.start as usize));
    let mut bytes = vec![0; range.len() as usize * PAGE_BYTES];
    for (page, into) in range.iter().zip(bytes.chunks_mut(PAGE_BYTES)) {
        put_words(into, world.memory.borrow()[page.0 as usize].pager);
    }
    place(world, claim, &bytes, origin)
}

/// Puts `bytes` in place, or lets the claim go for want of room.
pub(super) fn place(world: &World, claim: FillClaim<SimulatedHost>, bytes: &[u8], origin: Origin) -> bool {
    let pages = world.pages();
    let all = PageRange { start: 0, end: world.page_count as u64 };
    let mut tries = 0;
    while !world.is(Mutation::NoRoomAsked) && !pages.budget().try_reserve(claim.frame_bytes()) {
        if tries == 2 {
            return false;
        }
        tries += 1;
        pages.evict_all(all, world.now());
    }
    match claim.place_copy(bytes, origin) {
        Ok(()) => true,
        Err((claim, _)) => {
            pages.budget().release(claim.frame_bytes());
            false
        }
    }
}

/// Resolves faults of threads that sleep on them, until nobody faults any more. Never waits for a page: whoever holds
/// it may sleep on a fault himself.
pub(super) fn read_faults(world: &World, is_ended: impl Fn() -> bool) {
    loop {
        let fault = world.faults.borrow_mut().pop();
        let Some(fault) = fault else {
            if is_ended() {
                return;
            }
            world.sleep(Sleep::ForFaults);
            continue;
        };
        if !resolve_for(world, fault) {
            world.faults.borrow_mut().insert(0, fault);
            world.pause();
        }
    }
}

/// Makes a page trap that was seen Failed. Nobody has it asked for again meanwhile.
fn trap_failed(world: &World, page: PageIndex) {
    world.lock_errors();
    match world.pages().word(page).state() {
        State::Failed => world.pages().trap_failed(page),
        _ => world.pages().wake(PageRange::one(page)),
    }
    world.unlock_errors();
}

/// One try. `false`: not now.
fn resolve_for(world: &World, fault: PendingFault) -> bool {
    let pages = world.pages();
    let page = PageIndex(fault.page.into());
    if fault.is_missing {
        look(world, page);
    }
    let word = pages.word(page);
    match word.state() {
        // Who fills it wakes those that found no frame.
        State::Filling => return fault.is_missing,
        State::Evicting | State::Changing => return false,
        State::Failed => trap_failed(world, page),
        State::Absent => {
            let Ok(claim) = pages.claim(page, Placement::AtOnce) else { return false };
            let now = world.now();
            let origin = if fault.is_write { Origin::ToStore(now) } else { Origin::Asked(now) };
            return fill(world, claim, origin);
        }
        State::Clean | State::Dirty | State::WritingBack => {
            if fault.is_write && pages.open_to_store(page, 0).is_err() {
                return false;
            }
            pages.wake(PageRange::one(page));
        }
    }
    true
}
