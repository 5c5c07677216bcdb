//! Pins of one page, and of new bytes.

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::pages::{NewPinSet, OnePin};
use memobj_core::pin_budget::Shard;

use super::host::{PAGE_BYTES, SimulatedHost, put_words};
use super::steps::{TRIES, bring, bring_to_pin, may_lose, read_twice, store_alone};
use super::world::World;

/// Pins `page` as it is, or brings it and tries again.
pub(super) fn pin_one(world: &World, page: PageIndex) {
    let owner = world.pages();
    for _ in 0..TRIES {
        let shard = Shard::of(world.current.get().into());
        if let Some(_pin) = OnePin::try_borrow(&*owner, page, shard) {
            return read_twice(world, page);
        }
        let word = owner.word(page);
        if !word.is_readable() && !bring(world, page, word) {
            return;
        }
    }
}

/// Pins `page` for writing; if it is absent, with new bytes. Then stores to it, or gives the pin up.
pub(super) fn pin_new(world: &World, page: PageIndex, is_kept: bool) {
    let pages = PageRange::one(page);
    let Some(mut set) = NewPinSet::new(world.pages(), pages) else { return };
    let mut tries = 0;
    while let Err((page, error)) = set.try_pin_all(pages) {
        tries += 1;
        if tries > TRIES || !bring_to_pin(world, page, error) {
            return;
        }
    }
    if !place(world, &mut set, page) || !is_kept {
        return may_lose(world, || drop(set));
    }
    while set.first_touched().is_some() {
        world.pause();
    }
    match set.into_pins() {
        Some(_pins) => store_alone(world, page),
        None => world.find(format!("page {page} is not pinned")),
    }
}

/// Puts new bytes in place for what is claimed. `false`: there is no room.
fn place(world: &World, set: &mut NewPinSet<SimulatedHost>, page: PageIndex) -> bool {
    let owner = world.pages();
    while let Some(claim) = set.take_claim(1) {
        if !owner.budget().try_reserve(claim.frame_bytes()) {
            set.give_up(claim);
            return false;
        }
        let words = world.new_bytes(page.0 as usize);
        let mut bytes = vec![0; PAGE_BYTES];
        put_words(&mut bytes, words);
        let mine = &world.supplies[world.current.get() as usize];
        mine.set(Some(words));
        let placed = set.place(claim, &bytes, world.now());
        mine.set(None);
        if let Err((unused, _)) = placed {
            owner.budget().release(unused);
            return false;
        }
    }
    true
}
