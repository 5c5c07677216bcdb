//! How the steps of virtual threads are done.

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::page_word::{State, Word};
use memobj_core::pages::{
    MutPinSet, Origin, PinError, PinSet, Placement, Shows, StoreRefused, Victims, WriteClaim, WriteRun,
};

use super::door::{self, fill, place};
use super::host::{PAGE_BYTES, SimulatedHost, put_words, words_of};
use super::mutation::Mutation;
use super::pins;
use super::program::Step;
use super::trace::Call;
use super::world::{World, is_torn};

/// How often something is tried that others can forbid again and again.
pub(super) const TRIES: u32 = 6;
const WHOLE: u64 = u64::MAX;

type Claim = WriteClaim<SimulatedHost>;
type Run = WriteRun<SimulatedHost>;

fn page(index: u8) -> PageIndex {
    PageIndex(index.into())
}

fn pages(start: u8, count: u8) -> PageRange {
    PageRange { start: start.into(), end: u64::from(start) + u64::from(count) }
}

pub(super) fn take(world: &World, step: Step) {
    let now = world.now();
    match step {
        Step::Load { page: at, view } => touch(world, page(at), |world| load_both(world, page(at), view)),
        Step::Store { page: at, view, word } => touch(world, page(at), |world| {
            let value = world.new_word(at.into());
            door::store(world, page(at), view, word.into(), value);
        }),
        Step::Pin { page: at, count } => pin(world, pages(at, count)),
        Step::PinOne { page: at } => pins::pin_one(world, page(at)),
        Step::PinMut { page: at } => pin_mut(world, page(at)),
        Step::PinNew { page: at, is_kept } => pins::pin_new(world, page(at), is_kept),
        Step::WriteAt { page: at } => write_at(world, page(at)),
        Step::ReadAt { page: at } => read_at(world, page(at)),
        Step::Supply { page: at } => supply(world, page(at)),
        Step::Ahead { page: at, count } => ahead(world, pages(at, count)),
        Step::Evict { chosen } => evict(world, chosen),
        Step::WriteBack { most, fails } => write_back(world, most.into(), fails),
        Step::GiveBackTables => {
            world.pages().empty_block(0, now, Victims::All);
        }
        Step::Protect => {
            let _ = world.pages().protect(all(world));
        }
        Step::Commit => commit(world),
        Step::Abandon { page: at } => abandon(world, page(at)),
        Step::Discard { page: at } => may_lose(world, || {
            world.pages().discard(page(at), now);
        }),
        Step::DropOutside { page: at } => drop_outside(world, page(at)),
        Step::OpenRun { page: at, count } => open_run(world, pages(at, count)),
        Step::GiveUp { page: at } => {
            let claim = world.pages().claim(page(at), Placement::AtOnce);
            world.turn(Call::ReadPager, Some(at.into()));
            drop(claim);
        }
        Step::Fail { page: at } => {
            if let Ok(claim) = world.pages().claim(page(at), Placement::AtOnce) {
                claim.fail();
            }
        }
        Step::Retry { page: at } => retry(world, page(at)),
        Step::MakeDirty { page: at } => {
            world.pages().make_dirty(page(at));
        }
        Step::ChangeLength => world.while_length_changes(|| change_length(world)),
        Step::CutPage => world.while_length_changes(|| cut_page(world)),
        Step::ShowClean => world.pages().show_clean(all(world)),
    }
}

fn all(world: &World) -> PageRange {
    PageRange { start: 0, end: world.page_count as u64 }
}

/// Has `act` access `page` by plain instructions, beside which no pin for writing begins.
fn touch(world: &World, page: PageIndex, act: impl FnOnce(&World)) {
    let owner = world.pages();
    loop {
        if let Some(_touching) = owner.touching(page) {
            return act(world);
        }
        owner.wait_as_writer(page, None);
    }
}

fn load_both(world: &World, page: PageIndex, view: u8) {
    if door::load(world, page, view, 0).is_some() {
        door::load(world, page, view, 1);
    }
}

/// After a try that was refused: brings the page, or waits for who holds it. `false`: it has failed.
pub(super) fn bring(world: &World, page: PageIndex, word: Word) -> bool {
    match word.state() {
        State::Failed => return false,
        State::Absent => {
            let Ok(claim) = world.pages().claim(page, Placement::AtOnce) else { return true };
            return fill(world, claim, Origin::Asked(world.now()));
        }
        _ => world.pages().wait_as_writer(page, None),
    };
    true
}

/// The same after a pin that was refused.
pub(super) fn bring_to_pin(world: &World, page: PageIndex, error: PinError) -> bool {
    match error {
        PinError::NotClean(word) => bring(world, page, word),
        PinError::TooManyPins | PinError::OverBudget => false,
        PinError::FrameGone => {
            door::look(world, page);
            true
        }
    }
}

fn pin(world: &World, pages: PageRange) {
    let Some(mut set) = PinSet::new(world.pages(), pages) else { return };
    for page in pages.iter() {
        let mut tries = 0;
        while let Err(error) = set.try_pin(page) {
            tries += 1;
            if tries > TRIES || !bring_to_pin(world, page, error) {
                return;
            }
        }
    }
    pages.iter().for_each(|page| read_twice(world, page));
}

/// Looks that the bytes of `page`, which is pinned, do not change.
pub(super) fn read_twice(world: &World, page: PageIndex) {
    let read = || [0, 1].map(|word| door::load(world, page, 0, word));
    let (first, second) = (read(), read());
    let is_other = first.iter().zip(&second).any(|(a, b)| a.is_some() && b.is_some() && a != b);
    if is_other {
        world.find(format!("pinned bytes of page {page} were {first:x?} and are {second:x?}"));
    }
}

fn pin_mut(world: &World, page: PageIndex) {
    let Some(mut set) = MutPinSet::new(world.pages(), PageRange::one(page)) else { return };
    let mut tries = 0;
    while let Err(error) = set.try_pin_next() {
        tries += 1;
        if tries > TRIES || !bring_to_pin(world, page, error) {
            return;
        }
    }
    while !world.is(Mutation::TouchesForgotten) && set.first_touched().is_some() {
        world.pause();
    }
    store_alone(world, page);
}

/// Stores to `page`, which is pinned for writing, and looks that nobody else does.
pub(super) fn store_alone(world: &World, page: PageIndex) {
    let alone = |thread| world.memory.borrow_mut()[page.0 as usize].alone = thread;
    alone(Some(world.current.get()));
    let bytes = world.new_bytes(page.0 as usize);
    for (word, value) in bytes.iter().enumerate() {
        let stored = door::store(world, page, 0, word, *value);
        // Nobody else can have stored: the load checks that it finds what was stored.
        if !stored || door::load(world, page, 0, word).is_none() {
            break;
        }
    }
    alone(None);
}

fn write_at(world: &World, page: PageIndex) {
    let mut bytes = [0; 16];
    put_words(&mut bytes, world.new_bytes(page.0 as usize));
    for _ in 0..TRIES {
        match world.pages().store_bytes(page.0 * PAGE_BYTES as u64, &bytes) {
            Ok(()) | Err(StoreRefused::Trapped(_)) => return,
            Err(StoreRefused::NotNow(word)) => {
                if !bring(world, page, word) {
                    return;
                }
            }
        }
    }
}

fn read_at(world: &World, page: PageIndex) {
    let owner = world.pages();
    for _ in 0..TRIES {
        let Some(before) = owner.glance(page) else {
            let word = owner.word(page);
            if !word.is_readable() && !bring(world, page, word) {
                return;
            }
            continue;
        };
        let mut bytes = [None; 2];
        for (word, value) in bytes.iter_mut().enumerate() {
            world.turn(Call::Load, Some(page.0 as usize));
            *value = world.memory.borrow()[page.0 as usize].frame.map(|frame| frame[word]);
        }
        let is_right = owner.is_still(page, before) || world.is(Mutation::NeverLooksAgain);
        match bytes {
            // A frame that was dropped from outside is none that anybody reads zeros of.
            [Some(first), Some(second)] if is_right => {
                if first == 0 || is_torn([first, second]) {
                    world.find(format!("a read of page {page} found {first:x} and {second:x} together"));
                }
                return;
            }
            [Some(_), Some(_)] => {}
            _ => {
                door::look(world, page);
            }
        }
    }
}

fn supply(world: &World, page: PageIndex) {
    let Ok(claim) = world.pages().claim(page, Placement::AtOnce) else { return };
    if world.pages().word(page).pins() > 0 {
        // Who pins a page that has lost its frame is to get back what he had.
        fill(world, claim, Origin::Asked(world.now()));
        return;
    }
    let words = world.new_bytes(page.0 as usize);
    let mut bytes = vec![0; PAGE_BYTES];
    put_words(&mut bytes, words);
    let mine = &world.supplies[world.current.get() as usize];
    mine.set(Some(words));
    place(world, claim, &bytes, Origin::Stored(world.now()));
    mine.set(None);
}

fn ahead(world: &World, pages: PageRange) {
    if let Some(claim) = world.pages().claim_run(pages, Placement::AtOnce) {
        fill(world, claim, Origin::InAdvance(world.now()));
    }
}

fn evict(world: &World, chosen: bool) {
    let victims = if chosen { Victims::Chosen } else { Victims::All };
    if world.is(Mutation::DropsUnasked) {
        let mut memory = world.memory.borrow_mut();
        memory.iter_mut().filter(|page| page.frame == Some(page.pager)).for_each(|page| page.drop_frame());
        return;
    }
    world.pages().evict_block(0, world.now(), victims);
}

/// Copies a run, as it is to be written. `None`: a frame of it is gone.
fn copy(world: &World, run: Run) -> Option<(Claim, Vec<u8>)> {
    let range = run.pages();
    let mut buffer = vec![0; range.len() as usize * PAGE_BYTES];
    if !world.is(Mutation::CopiedTooLate) {
        return run.copy(&mut buffer).map(|claim| (claim, buffer));
    }
    let claim = run.copied();
    for (page, into) in range.iter().zip(buffer.chunks_mut(PAGE_BYTES)) {
        let mut words = [0; 2];
        for (index, word) in words.iter_mut().enumerate() {
            world.turn(Call::Load, Some(page.0 as usize));
            *word = world.memory.borrow()[page.0 as usize].frame?[index];
        }
        put_words(into, words);
    }
    Some((claim, buffer))
}

/// The pager has the bytes of one page.
fn land(world: &World, page: PageIndex, bytes: &[u8]) {
    world.turn(Call::WritePager, Some(page.0 as usize));
    let words = words_of(bytes);
    let now = world.words[page.0 as usize].load();
    let mut memory = world.memory.borrow_mut();
    let memory = &mut memory[page.0 as usize];
    if !now.is_writing() {
        world.find(format!("a write of page {page} ends, which was not in flight"));
    }
    if is_torn(words) {
        world.find(format!("half of a store to page {page} is written: {words:x?}"));
    }
    if now.state() == State::WritingBack && words != memory.latest {
        world.find(format!("page {page} is written as {words:x?}, not {:x?}", memory.latest));
    }
    memory.pager = words;
    if memory.frame.is_none() && now.state() != State::WritingBack {
        // What was stored since is lost with its frame, and will be said to be.
        memory.latest = words;
    }
}

/// Writes a copy; the pager takes it, or not.
fn write(world: &World, claim: Claim, buffer: &[u8], fails: bool) {
    let range = claim.pages();
    if fails {
        world.turn(Call::WritePager, Some(range.start as usize));
        return drop(claim);
    }
    if world.is(Mutation::WrittenTooEarly) {
        claim.written();
        for page in range.iter() {
            world.turn(Call::WritePager, Some(page.0 as usize));
        }
        return;
    }
    for (page, bytes) in range.iter().zip(buffer.chunks(PAGE_BYTES)) {
        land(world, page, bytes);
    }
    claim.written();
}

fn write_back(world: &World, most: u64, fails: bool) {
    let (runs, gone) = world.pages().lock_dirty(all(world), most, WHOLE);
    gone.into_iter().for_each(|gone| gone.fail());
    for run in runs {
        if let Some((claim, buffer)) = copy(world, run) {
            write(world, claim, &buffer, fails);
        }
    }
}

/// All that is Dirty is locked at one moment, copied, and let go before the first write.
fn commit(world: &World) {
    let (runs, gone) = world.pages().lock_dirty(all(world), WHOLE, 1);
    gone.into_iter().for_each(|gone| gone.fail());
    let copies: Vec<_> = runs.into_iter().filter_map(|run| copy(world, run)).collect();
    for (claim, buffer) in copies {
        write(world, claim, &buffer, false);
    }
}

fn abandon(world: &World, page: PageIndex) {
    let (runs, gone) = world.pages().lock_dirty(PageRange::one(page), 1, 1);
    gone.into_iter().for_each(|gone| gone.fail());
    may_lose(world, || {
        for run in runs {
            let _ = run.discard(world.now());
        }
    });
}

pub(super) fn may_lose(world: &World, act: impl FnOnce()) {
    let mine = &world.may_lose[world.current.get() as usize];
    mine.set(true);
    act();
    mine.set(false);
}

/// A madvise(2) by somebody who knows nothing of pages.
fn drop_outside(world: &World, page: PageIndex) {
    world.turn(Call::DropOutside, Some(page.0 as usize));
    let now = world.words[page.0 as usize].load();
    let mut memory = world.memory.borrow_mut();
    let memory = &mut memory[page.0 as usize];
    // Poison would go with it, which the engine puts back at the next fault; that is not modelled.
    if memory.frame.is_some() && !memory.is_half {
        memory.drop_frame();
        memory.is_outside = true;
        memory.was_clean = now.state() == State::Clean;
    }
}

fn open_run(world: &World, pages: PageRange) {
    let opened = world.pages().open_run_to_store(pages, 0);
    let opened = PageRange { start: pages.start, end: pages.start + opened };
    for page in opened.iter() {
        touch(world, page, |world| {
            let value = world.new_word(page.0 as usize);
            door::store(world, page, 0, 0, value);
        });
    }
}

/// Cuts off the second word of the last page, and extends the object again.
fn change_length(world: &World) {
    let owner = world.pages();
    let last = PageIndex(world.page_count as u64 - 1);
    // One that has failed again cannot be held.
    retry(world, last);
    let Ok(mut held) = owner.hold(last) else { return };
    let cut = last.0 * PAGE_BYTES as u64 + 8;
    if held.had_failed() || held.zero(8..16).is_err() {
        return;
    }
    {
        let mut memory = world.memory.borrow_mut();
        let memory = &mut memory[last.0 as usize];
        memory.pager[1] = 0;
        if memory.frame.is_none() {
            memory.latest = memory.pager;
        }
    }
    owner.set_length(cut);
    world.turn(Call::WritePager, Some(last.0 as usize));
    owner.extend((last.0 + 1) * PAGE_BYTES as u64);
    debug_assert!(world.shows != Shows::WhenHeld);
}

/// Cuts off the last page, if nobody has it, and extends the object again. Who came before it was cut off may come late.
fn cut_page(world: &World) {
    let owner = world.pages();
    let last = PageIndex(world.page_count as u64 - 1);
    let end = last.0 * PAGE_BYTES as u64;
    if owner.word(last).is_busy() {
        return;
    }
    owner.set_length(end);
    if take_away(world, last) {
        // What is there later is something else.
        let new = world.new_bytes(last.0 as usize);
        {
            let memory = &mut world.memory.borrow_mut()[last.0 as usize];
            (memory.pager, memory.latest) = (new, new);
        }
        // Claims from before have what the pager had.
        if take_away(world, last) {
            owner.extend(end + PAGE_BYTES as u64);
            // What fails behind the end is asked for again, also what is about to fail.
            while owner.word(last).is_coming_or_going() {
                world.pause();
            }
            return retry(world, last);
        }
    }
    owner.set_length(end + PAGE_BYTES as u64);
}

fn retry(world: &World, page: PageIndex) {
    world.lock_errors();
    world.pages().retry(page);
    world.unlock_errors();
}

/// Takes `page` away, whatever it holds. `false`: in vain.
fn take_away(world: &World, page: PageIndex) -> bool {
    let owner = world.pages();
    for _ in 0..20 {
        let word = owner.word(page);
        let is_gone = word.is_absent() || word.has_failed();
        if is_gone && !word.is_busy() {
            return true;
        }
        if !is_gone {
            may_lose(world, || {
                owner.discard(page, world.now());
            });
        }
        world.pause();
    }
    false
}
