//! The host of the simulated protocol. Every call is a step that others can come before, and checks that whoever calls
//! holds the pages as the call wants it.

use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::page_word::{PageWord, State, Word};
use memobj_core::pages::{Frames, Held, Park, Shows, View, Wake};

use super::door;
use super::mutation::Mutation;
use super::trace::{Call, brief};
use super::world::{Bytes, Sleep, World};

const PAGE_SHIFT: u32 = 12;
pub(super) const PAGE_BYTES: usize = 1 << PAGE_SHIFT;

/// Frames of a few words, views of a few bits, and sleepers that the scheduler wakes.
#[derive(Clone, Debug)]
pub(super) struct SimulatedHost(pub Rc<World>);

/// The page of a byte.
fn page_of(offset: u64) -> usize {
    (offset >> PAGE_SHIFT) as usize
}

/// The words at the start of a page's bytes.
pub(super) fn words_of(bytes: &[u8]) -> Bytes {
    std::array::from_fn(|index| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
        u64::from_le_bytes(word)
    })
}

/// Writes words to the start of a page's bytes.
pub(super) fn put_words(into: &mut [u8], words: Bytes) {
    for (index, word) in words.iter().enumerate() {
        into[index * 8..index * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
}

impl SimulatedHost {
    fn turn(&self, call: Call, pages: PageRange) {
        self.0.turn(call, Some(pages.start as usize));
    }

    /// Finds fault with a call unless `page` is in a state that `is_allowed`, and the caller's.
    fn check_held(&self, call: Call, page: PageIndex, is_allowed: impl Fn(Word) -> bool) {
        let world = &self.0;
        let word = world.words[page.0 as usize].load();
        let memory = world.memory.borrow()[page.0 as usize];
        let is_mine = !word.is_owned() || memory.owner == world.current.get();
        if !is_mine || !is_allowed(word) {
            world.find(format!("{call:?} of page {page}, which is {}", brief(word)));
        }
    }

    /// Drops the frame of a page, if that is allowed.
    fn drop_one(&self, page: PageIndex) {
        let world = &self.0;
        let word = world.words[page.0 as usize].load();
        let mut memory = world.memory.borrow_mut();
        let memory = &mut memory[page.0 as usize];
        let may_lose = world.may_lose[world.current.get() as usize].get();
        match memory.frame {
            Some(_) if word.pins() > 0 => {
                world.find(format!("page {page} is pinned, and its frame is dropped"))
            }
            Some(frame) if frame != memory.pager && !may_lose => {
                world.find(format!("stores to page {page} are dropped"))
            }
            None if word.state() == State::Changing && memory.was_clean && !may_lose => {
                world.find(format!("page {page} is lost, and was Clean when its frame went"))
            }
            _ => {}
        }
        // Who may lose drops what the pager does not have; who drops what is gone has lost it aloud.
        if word.state() == State::Changing {
            memory.latest = memory.pager;
            memory.is_outside = false;
        }
        memory.drop_frame();
    }

    fn each_view(&self, pages: PageRange, act: impl Fn(&mut super::world::Shown)) {
        let mut memory = self.0.memory.borrow_mut();
        for page in pages.iter() {
            memory[page.0 as usize].views[..self.0.view_count].iter_mut().for_each(&act);
        }
    }

    fn wake_faults(&self, pages: PageRange) {
        if self.0.is(Mutation::FaultsNotWoken) {
            return;
        }
        self.0.wake_where(|sleep| match sleep {
            Sleep::OnFault { page } => pages.contains(PageIndex(page.into())),
            _ => false,
        });
    }

    /// Puts `bytes` in place, all at once or, of large frames, in two halves.
    fn put(&self, page: PageIndex, bytes: Bytes) {
        let world = &self.0;
        let is_in_halves = world.shows == Shows::WhenHeld;
        {
            let mut memory = world.memory.borrow_mut();
            let memory = &mut memory[page.0 as usize];
            if memory.frame.is_some() || memory.views.iter().any(|view| view.is_poisoned) {
                world.find(format!("bytes are put in place of page {page}, where there is something"));
            }
            memory.frame = Some(if is_in_halves { [bytes[0], 0] } else { bytes });
            memory.is_half = is_in_halves;
            memory.is_outside = false;
            memory.was_clean = false;
            memory.views[0].is_shown = !is_in_halves;
            memory.views[0].is_open = world.is(Mutation::PlacedOpen);
        }
        if is_in_halves {
            world.turn(Call::CopySecondHalf, Some(page.0 as usize));
            let mut memory = world.memory.borrow_mut();
            let memory = &mut memory[page.0 as usize];
            memory.frame = Some(bytes);
            memory.is_half = false;
            memory.views[..world.view_count].iter_mut().for_each(|view| view.is_shown = true);
        }
    }
}

fn is_out(word: Word) -> bool {
    matches!(word.state(), State::Evicting | State::Changing)
}

impl Frames for SimulatedHost {
    type Words = Rc<[PageWord]>;
    type Counts = Box<[AtomicU32]>;
    type Frame = ();
    type Error = ();

    fn copy_in(&self, _: Held<Self>, pages: PageRange, bytes: &[u8], wake: Wake) -> Result<(), (u64, ())> {
        for (page, bytes) in pages.iter().zip(bytes.chunks(PAGE_BYTES)) {
            self.turn(Call::CopyIn, PageRange::one(page));
            self.check_held(Call::CopyIn, page, |word| word.state() == State::Filling);
            let words = words_of(bytes);
            let world = &self.0;
            if world.supplies[world.current.get() as usize].get() == Some(words) {
                world.memory.borrow_mut()[page.0 as usize].latest = words;
            }
            self.put(page, words);
            world.supplied.set(world.supplied.get().wrapping_add(1));
        }
        if wake == Wake::AtOnce {
            self.wake_faults(pages);
        }
        Ok(())
    }

    fn move_in(&self, _: Held<Self>, _: PageIndex, (): ()) -> Result<(), ()> {
        Err(())
    }

    fn load(&self, _: Held<Self>, offset: u64, buffer: &mut [u8]) -> usize {
        let page = PageIndex(page_of(offset) as u64);
        self.turn(Call::LoadPinned, PageRange::one(page));
        // A lent page may be with who looks at it.
        let word = self.0.words[page.0 as usize].load();
        if !(word.pins() > 0 || matches!(word.state(), State::Changing | State::Failed)) {
            self.0.find(format!("a load of page {page}, which is {}", brief(word)));
        }
        let mut words = [0; 2];
        for (index, word) in words.iter_mut().enumerate() {
            match door::load(&self.0, page, 0, index) {
                Some(value) => *word = value,
                None => return index * 8,
            }
        }
        put_words(buffer, words);
        buffer.len()
    }

    fn store(&self, _: Held<Self>, offset: u64, bytes: &[u8]) -> usize {
        let page = PageIndex(page_of(offset) as u64);
        self.turn(Call::StorePinned, PageRange::one(page));
        let first = (offset as usize % PAGE_BYTES) / 8;
        for (index, word) in bytes.chunks(8).enumerate() {
            let mut value = [0; 8];
            value.copy_from_slice(word);
            let is_pinned = self.0.words[page.0 as usize].load().is_pinned_mut();
            if !is_pinned {
                self.0.find(format!("a store to page {page}, which is not pinned for writing"));
            }
            if !door::store(&self.0, page, 0, first + index, u64::from_le_bytes(value)) {
                return index * 8;
            }
        }
        bytes.len()
    }

    fn drop_frames(&self, _: Held<Self>, pages: PageRange) -> bool {
        self.turn(Call::DropFrames, pages);
        for page in pages.iter() {
            self.check_held(Call::DropFrames, page, is_out);
            self.drop_one(page);
        }
        true
    }

    fn drop_remains(&self, _: Held<Self>, page: PageIndex) -> bool {
        self.turn(Call::DropFrames, PageRange::one(page));
        self.check_held(Call::DropFrames, page, is_out);
        // Pinned or not: what the frame held is gone already.
        self.0.memory.borrow_mut()[page.0 as usize].drop_frame();
        true
    }

    fn released_bytes(&self, pages: u64) -> u64 {
        pages << PAGE_SHIFT
    }

    fn is_present(&self, offset: u64) -> bool {
        let page = PageIndex(page_of(offset) as u64);
        self.turn(Call::IsPresent, PageRange::one(page));
        self.check_held(Call::IsPresent, page, is_out);
        self.has_frame(page)
    }

    fn are_present(&self, pages: PageRange) -> bool {
        self.turn(Call::IsPresent, pages);
        for page in pages.iter() {
            self.check_held(Call::IsPresent, page, is_out);
        }
        pages.iter().all(|page| self.has_frame(page))
    }

    fn present_runs(&self, pages: PageRange) -> Vec<PageRange> {
        self.turn(Call::PresentRuns, pages);
        pages.iter().filter(|page| self.has_frame(*page)).map(PageRange::one).collect()
    }

    fn drop_block(&self, _: Held<Self>, pages: PageRange) -> bool {
        self.turn(Call::DropBlock, pages);
        for page in pages.iter() {
            self.check_held(Call::DropBlock, page, |word| word.is_free() || is_out(word));
            self.drop_one(page);
        }
        true
    }

    fn forget_words(&self, _: Held<Self>, words: &Rc<[PageWord]>, pages: PageRange) {
        self.turn(Call::ForgetWords, pages);
        for page in pages.iter() {
            self.check_held(Call::ForgetWords, page, Word::is_free);
            words[page.0 as usize].forget();
        }
    }

    fn end(&mut self, _: u64) {}
}

impl SimulatedHost {
    fn has_frame(&self, page: PageIndex) -> bool {
        match self.0.mutation {
            Some(Mutation::FrameAlwaysThere) => true,
            Some(Mutation::FrameNeverThere) => false,
            _ => self.0.memory.borrow()[page.0 as usize].frame.is_some(),
        }
    }
}

impl View for SimulatedHost {
    type Viewer = u8;
    type Refused = ();

    fn own(&self) -> u8 {
        0
    }

    fn shows(&self) -> Shows {
        match (self.0.shows, self.0.is(Mutation::ShownHalf)) {
            (Shows::WhenHeld, true) => Shows::WhenTold,
            (shows, _) => shows,
        }
    }

    fn show(&self, _: Held<Self>, page: PageIndex, viewer: u8) {
        self.turn(Call::Show, PageRange::one(page));
        {
            let memory = &mut self.0.memory.borrow_mut()[page.0 as usize];
            let view = &mut memory.views[viewer as usize];
            if memory.frame.is_some() && !view.is_shown && !view.is_poisoned {
                view.is_shown = true;
                view.is_open = self.0.is(Mutation::ShownOpen);
            }
        }
        self.wake_faults(PageRange::one(page));
    }

    fn each_without(&self, page: PageIndex, act: &mut dyn FnMut(u8)) {
        let memory = self.0.memory.borrow()[page.0 as usize];
        for view in (0..self.0.view_count).filter(|view| !memory.views[*view].is_shown) {
            act(view as u8);
        }
    }

    fn open(&self, _: Held<Self>, pages: PageRange, viewer: u8) {
        self.turn(Call::Open, pages);
        let world = &self.0;
        for page in pages.iter() {
            self.check_held(Call::Open, page, |word| word.state() == State::Changing);
            let mut memory = world.memory.borrow_mut();
            let memory = &mut memory[page.0 as usize];
            let has_frame = memory.frame.is_some();
            if has_frame && world.shows == Shows::WhenTold && !memory.views[viewer as usize].is_poisoned {
                memory.views[viewer as usize].is_shown = true;
            }
            for view in &mut memory.views[..world.view_count] {
                view.is_open = has_frame && view.is_shown;
            }
        }
        self.wake_faults(pages);
    }

    fn protect(&self, pages: PageRange) -> Result<(), ()> {
        self.turn(Call::Protect, pages);
        if !self.0.is(Mutation::NotProtected) {
            self.each_view(pages, |view| view.is_open = false);
        }
        Ok(())
    }

    fn poison(&self, pages: PageRange) {
        self.turn(Call::Poison, pages);
        for page in pages.iter() {
            self.check_held(Call::Poison, page, |word| word.is_owned() || word.state() == State::Failed);
            if self.0.memory.borrow()[page.0 as usize].frame.is_some() {
                self.0.find(format!("page {page} has a frame and is to trap"));
            }
        }
        if !self.0.is(Mutation::NotPoisoned) {
            self.each_view(pages, |view| view.is_poisoned = true);
        }
    }

    fn lift_poison(&self, _: Held<Self>, pages: PageRange) {
        self.turn(Call::LiftPoison, pages);
        let end = self.0.pages().pages();
        for page in pages.iter() {
            if page.0 < end {
                self.check_held(Call::LiftPoison, page, |word| word.is_held());
            }
            if self.0.memory.borrow()[page.0 as usize].frame.is_some() {
                self.0.find(format!("traps of page {page} are lifted, and its frame is dropped with them"));
            }
        }
        if !self.0.is(Mutation::PoisonStays) {
            self.each_view(pages, |view| view.is_poisoned = false);
        }
    }

    fn wake(&self, pages: PageRange) {
        self.turn(Call::Wake, pages);
        self.wake_faults(pages);
    }

    fn wake_others(&self, pages: PageRange) {
        self.turn(Call::WakeOthers, pages);
    }

    fn length_changed(&self, _: u64) {}
}

impl Park for SimulatedHost {
    fn wait(&self, word: &PageWord, seen: Word, timeout: Option<Duration>) {
        let world = &self.0;
        let page = world.words.iter().position(|other| std::ptr::eq(other, word)).unwrap_or(0);
        world.turn(Call::Wait, Some(page));
        if word.load().low_half() == seen.low_half() {
            world.sleep(Sleep::OnWord { page: page as u8, times_out: timeout.is_some() });
        }
    }

    fn wake_all(&self, word: &PageWord) {
        let world = &self.0;
        let page = world.words.iter().position(|other| std::ptr::eq(other, word)).unwrap_or(0) as u8;
        world.turn(Call::WakeAll, Some(page.into()));
        if !world.is(Mutation::NobodyWoken) {
            world.wake_where(|sleep| matches!(sleep, Sleep::OnWord { page: on, .. } if on == page));
        }
    }

    fn pause(&self) {
        self.0.pause();
    }

    fn step(&self) {
        self.0.turn(Call::Word, None);
    }
}
