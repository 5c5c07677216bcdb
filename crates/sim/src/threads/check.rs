//! What has to be so after every step, and at the end.

use memobj_core::page_word::{State, Word};

use super::trace::brief;
use super::world::{PageMemory, World};

const PAGE_BYTES: u64 = 4096;

/// Follows what the step of `thread` has done to the words, and checks all pages.
pub(super) fn after_step(world: &World, thread: u8) {
    let mut memory = world.memory.borrow_mut();
    for (page, memory) in memory.iter_mut().enumerate().take(world.page_count) {
        let now = world.words[page].load();
        if now != memory.seen {
            follow(memory, now, thread);
            world.trace.borrow_mut().became(thread, page, now);
        }
        if let Some(wrong) = wrong_with(world, memory, now) {
            world.note(format!("page {page}, {}: {wrong}", brief(now)));
        }
    }
    if is_below_zero(world) {
        world.note("fewer than no pages are counted");
    }
}

/// Whether more is counted off than was ever counted.
fn is_below_zero(world: &World) -> bool {
    let pages = world.pages();
    pages.resident_pages().max(pages.unclean_pages()) > u64::from(u32::MAX / 2)
}

/// Keeps note of who holds the page.
fn follow(memory: &mut PageMemory, now: Word, thread: u8) {
    let before = std::mem::replace(&mut memory.seen, now);
    if before.state() == State::Clean && now.state() == State::Dirty {
        // The pager has lost what it had.
        memory.was_clean = false;
    }
    if !now.is_owned() {
        return;
    }
    if before.state() != now.state() {
        memory.owner = thread;
        memory.lender = thread;
    } else if before.is_lent() && !now.is_lent() {
        memory.owner = thread;
    } else if !before.is_lent() && now.is_lent() {
        memory.owner = memory.lender;
    }
}

fn wrong_with(world: &World, memory: &PageMemory, word: Word) -> Option<&'static str> {
    let views = &memory.views[..world.view_count];
    let state = word.state();
    let is_open = views.iter().any(|view| view.is_open);
    if is_open && !matches!(state, State::Dirty | State::Changing) {
        return Some("it is open to stores");
    }
    if is_open && word.pins() > 0 && !word.is_pinned_mut() {
        return Some("it is pinned and open to stores");
    }
    let is_poisoned = views.iter().any(|view| view.is_poisoned);
    let may_trap = matches!(state, State::Failed | State::Filling | State::Evicting | State::Changing);
    if is_poisoned && !may_trap {
        return Some("it traps");
    }
    let traps = views.iter().all(|view| view.is_poisoned);
    match (state, memory.frame) {
        (State::Clean | State::Dirty | State::WritingBack, None) if !memory.is_outside => {
            Some("it has no frame")
        }
        (State::Absent | State::Failed, Some(_)) => Some("it has a frame"),
        // Whoever changes the length lifts traps behind the end, and then asks again for what has failed there.
        (State::Failed, None) if !traps && !memory.is_outside && !world.is_resizing.get() => {
            Some("it does not trap")
        }
        (State::Clean, Some(frame)) if frame != memory.pager => Some("it is not what the pager has"),
        (State::Clean | State::Dirty | State::WritingBack, Some(frame)) if frame != memory.latest => {
            Some("stores to it are missing")
        }
        (State::Absent, None) if memory.latest != memory.pager => Some("stores to it are lost"),
        _ if word.pins() > 0 && !word.is_pinned_mut() && memory.alone.is_some() => {
            Some("it is pinned beside a pin for writing")
        }
        _ => None,
    }
}

/// Checks what is left when all threads have ended.
pub(super) fn at_end(world: &World) {
    let pages = world.pages();
    let words: Vec<Word> = world.words.iter().map(|word| word.load()).collect();
    for (page, word) in words.iter().enumerate() {
        if word.is_busy() {
            return world.note(format!("page {page} is left {}", brief(*word)));
        }
    }
    let count = |is_it: &dyn Fn(&Word) -> bool| words.iter().filter(|word| is_it(word)).count() as u64;
    let resident = count(&|word| word.is_resident());
    let dirty = count(&|word| word.state() == State::Dirty);
    let counts = [
        ("resident pages", pages.resident_pages(), resident),
        ("bytes of the budget", pages.budget().used(), resident * PAGE_BYTES),
        ("bytes of pins", pages.pin_budget().used(), 0),
        ("unclean pages", pages.unclean_pages(), dirty),
    ];
    for (what, counted, is) in counts {
        if counted != is {
            world.note(format!("{counted} {what} are counted, and there are {is}"));
        }
    }
}
