//! Many pages at once, by the thread that wants them: no fault, no hand-over, a deep queue.

use std::sync::Arc;

use memobj_core::address::{PageIndex, PageRange};
use memobj_linux::area::{FillClaim, Placement};
use memobj_linux::region::SMALL;
use memobj_linux::ring::{Completion, Direction, Target, Transfer};

use crate::allocator::Patience;
use crate::buffers::BatchRing;
use crate::pagers::File;
use crate::pages::{Fill, FillReason};

/// Large frames in flight for one batch.
const LARGE_DEPTH: usize = 8;
/// Reads that the kernel is told of at once.
const TOLD_AT_ONCE: usize = 8;

/// Obtains the absent pages among `wanted`; `placed` hears of each run right after it is in place.
///
/// Returns when every page that this call claimed is supplied, failed or with a worker. Pages that others
/// are filling are left to them.
pub(crate) fn fill_missing(fill: &Arc<Fill>, wanted: &[PageRange], placed: &mut dyn FnMut(PageRange)) {
    if fill.health.refuses() {
        return claims(fill, wanted).for_each(|claim| drop(fill.refuse(claim, FillReason::Demand)));
    }
    if let Some(file) = fill.object.file()
        && let Ok(mut ring) = fill.buffers.borrow_ring()
    {
        fill_from_file(fill, file, wanted, &mut ring, placed);
        fill.buffers.return_ring(ring);
        return;
    }
    for claim in claims(fill, wanted) {
        let pages = claim.pages();
        match fill.fill_inline(claim, FillReason::Demand, Patience::Endless) {
            Ok(()) => placed(pages),
            Err(claim) => {
                fill.workers.wait_for_room();
                fill.call_pager(claim, FillReason::Demand);
            }
        }
    }
}

/// Claims the absent runs among `wanted`, lazily, each of at most one read.
pub(crate) fn claims<'a>(fill: &'a Fill, wanted: &'a [PageRange]) -> impl Iterator<Item = FillClaim> + 'a {
    let most = fill.run_pages();
    wanted.iter().flat_map(move |range| {
        let mut next = range.start;
        std::iter::from_fn(move || {
            while next < range.end {
                let run = PageRange { start: next, end: (next + most).min(range.end) };
                if fill.area.word(PageIndex(next)).is_absent()
                    && let Some(claim) = fill.area.claim_run(run, Placement::AtOnce)
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
    fill: &Arc<Fill>,
    file: &File,
    wanted: &[PageRange],
    batch: &mut BatchRing,
    placed: &mut dyn FnMut(PageRange),
) {
    for claim in claims(fill, wanted) {
        let target = loop {
            match batch_target(fill, &claim, batch) {
                Some(target) => break target,
                None if batch.ring.in_flight() > 0 => take_completions(fill, file, batch, placed),
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
        // The disk begins while the rest is being claimed.
        let in_flight = batch.ring.in_flight();
        if in_flight == 1 || in_flight.is_multiple_of(TOLD_AT_ONCE) {
            let _ = batch.ring.submit();
        }
    }
    while batch.ring.in_flight() > 0 {
        take_completions(fill, file, batch, placed);
    }
}

fn batch_target(fill: &Fill, claim: &FillClaim, batch: &BatchRing) -> Option<Target> {
    match fill.area.pool() {
        // What is in flight counts: a batch must not wait for frames that only itself can set free.
        Some(pool) if batch.ring.in_flight() == 0 => fill.take_frame(pool).map(Target::Frame),
        Some(pool) if batch.ring.in_flight() < LARGE_DEPTH => {
            fill.allocator.try_take_frame(pool).map(Target::Frame)
        }
        Some(_) => None,
        None if fill.is_large() => batch.large.take().map(Target::Chunk),
        None if claim.pages().len() == 1 => batch.pages.take().map(Target::Chunk),
        None => batch.runs.take().map(Target::Chunk),
    }
}

fn take_completions(fill: &Arc<Fill>, file: &File, batch: &mut BatchRing, placed: &mut dyn FnMut(PageRange)) {
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
            fill.call_pager(claim, FillReason::Demand);
            continue;
        }
        match fill.place_target(claim, target, FillReason::Demand, Patience::Endless) {
            Ok(()) => placed(pages),
            Err(claim) => fill.call_pager(claim, FillReason::Demand),
        }
    }
}
