//! Streams: how far a reader is, and how far ahead of it the reads are.
//!
//! A reader leaves no trace on pages that are in place. So every few units one is held back although it is
//! ready: the fault on it says where the reader is, costs microseconds, and lets the window move on long before
//! the reader comes to its end.

use std::sync::{Arc, Weak};

use memobj_core::address::{PageIndex, PageRange};
use memobj_linux::area::Placement;

use super::Driver;
use super::unit::Purpose;
use crate::parts::ObjectParts;

const MOST_READ_AHEADS: usize = 16;
/// Units of a new stream's window.
const FIRST_WINDOW: u64 = 2;
/// The largest window, in units: 16 MiB of large pages, 5 MiB of small ones. Where a writer follows, writes of as
/// much are in flight beside the reads.
const LARGEST_WINDOW: [u64; 2] = [8, 20];
/// The deepest pager that a window is made for.
const MOST_DEPTH: u64 = 256;

#[derive(Debug)]
pub(super) struct ReadAhead {
    parts: Weak<ObjectParts>,
    /// The furthest page that somebody wanted.
    front: u64,
    /// The first page that was not asked for yet.
    next: u64,
    window: u64,
    started: u64,
    used: u64,
}

impl ReadAhead {
    pub(super) fn belongs_to(&self, key: usize) -> bool {
        self.parts.as_ptr() as usize == key
    }
}

fn largest_window(parts: &ObjectParts) -> u64 {
    let usual = LARGEST_WINDOW[usize::from(!parts.fill.is_large())];
    let description = &parts.object.description;
    match parts.object.file() {
        Some(_) => usual,
        None if description.is_blocking() => usual,
        // As many as the pager works on at once, and as many again that the reader has not come to.
        None => usual.max((description.depth_limit() as u64).min(MOST_DEPTH).saturating_mul(2)),
    }
}

impl Driver {
    /// A reader wants `page`: moves its stream on, or starts one if `sequential`.
    pub(super) fn advance(&mut self, parts: &Arc<ObjectParts>, page: PageIndex, sequential: bool) {
        self.tick += 1;
        let unit = parts.fill.run_pages();
        let key = Arc::as_ptr(parts) as usize;
        let follows = |reader: &&mut ReadAhead| {
            reader.belongs_to(key) && page.0 + unit >= reader.front && page.0 <= reader.next + unit
        };
        if let Some(reader) = self.read_aheads.iter_mut().find(follows) {
            if page.0 > reader.front {
                reader.front = page.0;
                reader.window = (reader.window * 2).min(largest_window(parts));
            }
            reader.next = reader.next.max(page.0 + 1);
            reader.used = self.tick;
        } else if sequential {
            self.open_read_ahead(parts, page);
        } else {
            return;
        }
        self.read_ahead(parts);
    }

    fn open_read_ahead(&mut self, parts: &Arc<ObjectParts>, page: PageIndex) {
        if self.read_aheads.len() >= MOST_READ_AHEADS
            && let Some(oldest) =
                (0..self.read_aheads.len()).min_by_key(|index| self.read_aheads[*index].used)
        {
            self.read_aheads.swap_remove(oldest);
            // Units that the forgotten stream held would never be wanted.
            self.release_held();
        }
        self.read_aheads.push(ReadAhead {
            parts: Arc::downgrade(parts),
            front: page.0,
            next: page.0 + 1,
            window: FIRST_WINDOW,
            started: 0,
            used: self.tick,
        });
    }

    /// Fills the window of the stream that was used last.
    fn read_ahead(&mut self, parts: &Arc<ObjectParts>) {
        if self.shared.health.refuses() {
            return;
        }
        let Some(index) = self.read_aheads.iter().position(|reader| reader.used == self.tick) else { return };
        let unit = parts.fill.run_pages();
        let most = self.window_limit(parts);
        loop {
            let reader = &mut self.read_aheads[index];
            let window = reader.window.min(most);
            let end = (reader.front + 1 + window * unit).min(parts.area.pages());
            if reader.next >= end {
                return;
            }
            let run_end = ((reader.next / unit + 1) * unit).min(parts.area.pages());
            let run = PageRange { start: reader.next, end: run_end };
            if !parts.area.word(PageIndex(run.start)).is_absent() {
                reader.next += 1;
                continue;
            }
            let hold = reader.started.is_multiple_of((window / 2).max(1));
            let placement = if hold { Placement::WhenWanted } else { Placement::AtOnce };
            let Some(claim) = parts.area.claim_run(run, placement) else { continue };
            let claimed_end = claim.pages().end;
            if self.try_start(parts, claim, Purpose::Ahead { hold }).is_err() {
                return;
            }
            let reader = &mut self.read_aheads[index];
            reader.next = claimed_end;
            reader.started += 1;
        }
    }

    /// All streams together read ahead at most a quarter of the budget in sum. One of a file takes half of that at most: a file
    /// is near.
    fn window_limit(&self, parts: &ObjectParts) -> u64 {
        let unit_bytes = parts.fill.run_pages() << parts.area.page_size().shift();
        let least = if parts.object.file().is_some() { 2 } else { 1 };
        let readers = (self.read_aheads.len() as u64).max(least);
        let share = self.shared.allocator.budget.limit() / 4 / readers / unit_bytes;
        share.clamp(1, largest_window(parts))
    }
}
