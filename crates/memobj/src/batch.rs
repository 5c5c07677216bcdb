//! Many pages at once, by the thread that wants them: no fault, no hand-over, a deep queue.

use memobj_core::address::{PageIndex, PageRange};
use memobj_sys::area::{FillClaim, Placement};
use memobj_sys::region::SMALL;
use memobj_sys::ring::{Completion, Direction, Target, Transfer};

use crate::buffers::{BatchRing, RUN_PAGES};
use crate::pagers::{File, Source};
use crate::room::Patience;
use crate::store::{Asked, FrameStore};

/// Large frames in flight for one batch.
const LARGE_DEPTH: usize = 8;
impl FrameStore {
    /// Obtains the absent pages among `wanted`; `placed` hears of each run right after it is in place.
    ///
    /// Returns when every page that this call claimed is supplied, failed or with a worker. Pages that others
    /// are filling are left to them.
    pub(crate) fn fill_missing(&self, wanted: &[PageRange], placed: &mut dyn FnMut(PageRange)) {
        if self.cache.health.refuses() {
            return self.claims(wanted).for_each(|claim| drop(self.refuse(claim, Asked::Demand)));
        }
        if let Source::File(file) = self.object.source()
            && let Ok(mut ring) = self.cache.buffers.borrow_ring()
        {
            self.fill_from_file(file, wanted, &mut ring, placed);
            self.cache.buffers.return_ring(ring);
            return;
        }
        for claim in self.claims(wanted) {
            let pages = claim.pages();
            match self.fill_inline(claim, Asked::Demand, Patience::Endless) {
                Ok(()) => placed(pages),
                Err(claim) => {
                    self.cache.workers.wait_for_room();
                    self.call_pager(claim, Asked::Demand);
                }
            }
        }
    }

    /// Claims the absent runs among `wanted`, lazily, each of at most one read.
    fn claims<'a>(&'a self, wanted: &'a [PageRange]) -> impl Iterator<Item = FillClaim> + 'a {
        let most = if self.is_large() { 1 } else { RUN_PAGES };
        wanted.iter().flat_map(move |range| {
            let mut next = range.start;
            std::iter::from_fn(move || {
                while next < range.end {
                    let run = PageRange { start: next, end: (next + most).min(range.end) };
                    if self.area.word(PageIndex(next)).is_absent()
                        && let Some(claim) = self.area.claim_run(run, Placement::AtOnce)
                    {
                        next = claim.pages().end;
                        return Some(claim);
                    }
                    next += 1;
                }
                None
            })
        })
    }

    fn fill_from_file(
        &self,
        file: &File,
        wanted: &[PageRange],
        batch: &mut BatchRing,
        placed: &mut dyn FnMut(PageRange),
    ) {
        for claim in self.claims(wanted) {
            let target = loop {
                match self.batch_target(&claim, batch) {
                    Some(target) => break target,
                    None if batch.ring.in_flight() > 0 => self.take_completions(file, batch, placed),
                    None => std::thread::yield_now(),
                }
            };
            let range = claim.bytes();
            let len = (range.len() as usize).next_multiple_of(SMALL);
            let file = file.descriptor().clone();
            batch.ring.start(Transfer {
                direction: Direction::Read,
                file,
                offset: range.start,
                target,
                len,
                token: claim,
            });
        }
        while batch.ring.in_flight() > 0 {
            self.take_completions(file, batch, placed);
        }
    }

    fn batch_target(&self, claim: &FillClaim, batch: &BatchRing) -> Option<Target> {
        match self.area.pool() {
            // What is in flight counts: a batch must not wait for frames that only itself can set free.
            Some(pool) if batch.ring.in_flight() == 0 => {
                self.cache.room.take_frame(pool, &self.closed).map(Target::Frame)
            }
            Some(pool) if batch.ring.in_flight() < LARGE_DEPTH => {
                self.cache.room.try_take_frame(pool).map(Target::Frame)
            }
            Some(_) => None,
            None if self.is_large() => batch.large.take().map(Target::Chunk),
            None if claim.pages().len() == 1 => batch.pages.take().map(Target::Chunk),
            None => batch.runs.take().map(Target::Chunk),
        }
    }

    fn take_completions(&self, file: &File, batch: &mut BatchRing, placed: &mut dyn FnMut(PageRange)) {
        if batch.ring.wait(None, &mut batch.done).is_err() {
            std::thread::yield_now();
        }
        let current = file.is_current();
        for completion in batch.done.drain(..) {
            let Completion::Ended { target, token: claim, result } = completion else { continue };
            let pages = claim.pages();
            let arrived = result.is_ok_and(|count| count as u64 >= claim.bytes().len());
            if !(arrived && current) {
                drop(target);
                self.call_pager(claim, Asked::Demand);
                continue;
            }
            match self.place_target(claim, target, Asked::Demand, Patience::Endless) {
                Ok(()) => placed(pages),
                Err(claim) => self.call_pager(claim, Asked::Demand),
            }
        }
    }
}
