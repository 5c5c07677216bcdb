//! Pages of an owner that has ended, at any moment: what its words say, and what follows.
//!
//! ```text
//!   word of the dead owner           frame is there          there is none
//!   Absent, Filling, Evicting        dropped: Absent         Absent
//!   Clean                            Clean; Dirty, if the    Absent
//!                                    pager may not have it
//!   Dirty, WritingBack, Changing     Dirty                   lost: Failed
//!   Failed, its changes are lost     dropped: Failed         Failed
//!   Failed otherwise                 dropped: Absent         Absent, to be asked for again
//! ```
//!
//! This rests on the order in which owners do things. A frame is whole before the word says Clean or Dirty; it is dropped
//! while the word says Evicting, or Changing for changes that are discarded; a page is protected again before the word says
//! anything else than Dirty or Changing. So a frame in Filling may be a part of one, and one in Changing may have
//! been stored to. A discard that was cut off may be told as a loss; it was asked for, and is asked for again.

use alloc::vec::Vec;

use super::{Held, Host, Pages, Writes};
use crate::address::{PageIndex, PageRange};
use crate::page_word::State;

/// What an owner has noted of its pages beside their words.
pub trait Legacy {
    /// Whether the pager has taken the page, and has not made it durable, for all that is known.
    fn is_unsynced(&self, page: PageIndex) -> bool;

    /// Whether changes of the page are lost.
    fn is_lost(&self, page: PageIndex) -> bool;
}

/// What [`Pages::inherit`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inherited {
    /// Pages that may trap in views of others, and are not Failed any more: their poison is to be lifted. Ascending.
    pub may_trap: Vec<PageRange>,
    /// Pages that are Failed, as their changes are lost. Ascending.
    pub lost: Vec<PageRange>,
    /// Pages that have frames.
    pub resident: u64,
    /// Those of them that are Dirty.
    pub dirty: u64,
}

fn push(runs: &mut Vec<PageRange>, page: PageIndex) {
    match runs.last_mut() {
        Some(run) if run.end == page.0 => run.end += 1,
        _ => runs.push(PageRange::one(page)),
    }
}

impl<H: Host> Pages<H> {
    /// Takes over the pages of an owner that has ended: `self` is new, and has its words and its frames. Only blocks that
    /// overlap one of `used`, which ascend, have words that are not zero. Dirty pages are counted even beyond the budget;
    /// Clean ones for which there is no room are dropped. Allocates; calls the host for each page.
    pub fn inherit(&mut self, used: &[PageRange], legacy: &dyn Legacy) -> Inherited {
        assert!(self.writes == Writes::Yes, "only pages that can be written are inherited");
        let mut found = Inherited::default();
        let mut next = 0;
        for part in used {
            let (first, last) = (self.block_of(part.start), self.block_of(part.end.max(part.start + 1) - 1));
            for block in first.max(next)..=last {
                self.inherit_block(block, legacy, &mut found);
                next = block + 1;
            }
        }
        found
    }

    fn inherit_block(&self, block: u64, legacy: &dyn Legacy, found: &mut Inherited) {
        let pages = self.block_range(block);
        let present = self.host.present_runs(pages);
        for page in pages.iter() {
            let is_there = present.iter().any(|run| run.contains(page));
            let before = self.words[page.0 as usize].load();
            if before.0 == 0 && !is_there {
                continue;
            }
            let state = self.inherited_state(page, is_there, legacy);
            let has_frame = matches!(state, State::Clean | State::Dirty);
            if is_there && !has_frame {
                let _ = self.host.drop_frames(Held::new(), PageRange::one(page));
            }
            if matches!(before.state(), State::Filling | State::Failed | State::Evicting)
                && state == State::Absent
            {
                push(&mut found.may_trap, page);
            }
            self.words[page.0 as usize].inherit(state);
            self.count_inherited(page, state, found);
        }
    }

    fn inherited_state(&self, page: PageIndex, is_there: bool, legacy: &dyn Legacy) -> State {
        match self.words[page.0 as usize].load().state() {
            State::Absent | State::Filling | State::Evicting => State::Absent,
            State::Failed if legacy.is_lost(page) => State::Failed,
            State::Failed => State::Absent,
            State::Clean if !is_there => State::Absent,
            State::Clean if legacy.is_unsynced(page) => State::Dirty,
            State::Clean if self.budget.try_reserve(self.page_size.bytes()) => State::Clean,
            State::Clean => State::Absent,
            State::Dirty | State::WritingBack | State::Changing if is_there => State::Dirty,
            State::Dirty | State::WritingBack | State::Changing => State::Failed,
        }
    }

    /// Counts a page that is in `state` from now on.
    fn count_inherited(&self, page: PageIndex, state: State, found: &mut Inherited) {
        let block = self.block_of(page.0);
        if state == State::Absent {
            return;
        }
        while !self.occupied.enter(block, &self.tables) {
            self.host.pause();
        }
        if state == State::Failed {
            push(&mut found.lost, page);
            return self.host.poison(PageRange::one(page));
        }
        self.resident.add(block, 1);
        found.resident += 1;
        if state == State::Dirty {
            self.budget.count_inherited(self.page_size.bytes());
            self.count_unclean(PageRange::one(page));
            found.dirty += 1;
        }
        self.host.show(Held::new(), page, self.host.own());
    }
}
