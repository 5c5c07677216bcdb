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
use crate::store::FrameStore;

const MOST_STREAMS: usize = 16;
/// Units of a new stream's window.
const FIRST_WINDOW: u64 = 2;
/// The largest window, in units: 16 MiB of large pages, 5 MiB of small ones. Where a writer follows, writes of as
/// much are in flight beside the reads.
const LARGEST_WINDOW: [u64; 2] = [8, 20];
/// The deepest pager that a window is made for.
const MOST_DEPTH: u64 = 256;

#[derive(Debug)]
pub(super) struct Stream {
    store: Weak<FrameStore>,
    /// The furthest page that somebody wanted.
    front: u64,
    /// The first page that was not asked for yet.
    next: u64,
    window: u64,
    started: u64,
    used: u64,
}

impl Stream {
    pub(super) fn belongs_to(&self, key: usize) -> bool {
        self.store.as_ptr() as usize == key
    }
}

fn largest_window(store: &FrameStore) -> u64 {
    let usual = LARGEST_WINDOW[usize::from(!store.fill.is_large())];
    let description = &store.object.description;
    match store.object.file() {
        Some(_) => usual,
        None if description.is_blocking() => usual,
        // As many as the pager works on at once, and as many again that the reader has not come to.
        None => usual.max((description.depth_limit() as u64).min(MOST_DEPTH).saturating_mul(2)),
    }
}

impl Driver {
    /// A reader wants `page`: moves its stream on, or starts one if `sequential`.
    pub(super) fn advance(&mut self, store: &Arc<FrameStore>, page: PageIndex, sequential: bool) {
        self.tick += 1;
        let unit = store.fill.run_pages();
        let key = Arc::as_ptr(store) as usize;
        let follows = |stream: &&mut Stream| {
            stream.belongs_to(key) && page.0 + unit >= stream.front && page.0 <= stream.next + unit
        };
        if let Some(stream) = self.streams.iter_mut().find(follows) {
            if page.0 > stream.front {
                stream.front = page.0;
                stream.window = (stream.window * 2).min(largest_window(store));
            }
            stream.next = stream.next.max(page.0 + 1);
            stream.used = self.tick;
        } else if sequential {
            self.open_stream(store, page);
        } else {
            return;
        }
        self.read_ahead(store);
    }

    fn open_stream(&mut self, store: &Arc<FrameStore>, page: PageIndex) {
        if self.streams.len() >= MOST_STREAMS
            && let Some(oldest) = (0..self.streams.len()).min_by_key(|index| self.streams[*index].used)
        {
            self.streams.swap_remove(oldest);
            // Units that the forgotten stream held would never be wanted.
            self.release_held();
        }
        self.streams.push(Stream {
            store: Arc::downgrade(store),
            front: page.0,
            next: page.0 + 1,
            window: FIRST_WINDOW,
            started: 0,
            used: self.tick,
        });
    }

    /// Fills the window of the stream that was used last.
    fn read_ahead(&mut self, store: &Arc<FrameStore>) {
        if self.shared.health.refuses() {
            return;
        }
        let Some(index) = self.streams.iter().position(|stream| stream.used == self.tick) else { return };
        let unit = store.fill.run_pages();
        let most = self.window_limit(store);
        loop {
            let stream = &mut self.streams[index];
            let window = stream.window.min(most);
            let end = (stream.front + 1 + window * unit).min(store.area.pages());
            if stream.next >= end {
                return;
            }
            let run_end = ((stream.next / unit + 1) * unit).min(store.area.pages());
            let run = PageRange { start: stream.next, end: run_end };
            if !store.area.word(PageIndex(run.start)).is_absent() {
                stream.next += 1;
                continue;
            }
            let hold = stream.started.is_multiple_of((window / 2).max(1));
            let placement = if hold { Placement::WhenWanted } else { Placement::AtOnce };
            let Some(claim) = store.area.claim_run(run, placement) else { continue };
            let claimed_end = claim.pages().end;
            if self.try_start(store, claim, Purpose::Ahead { hold }).is_err() {
                return;
            }
            let stream = &mut self.streams[index];
            stream.next = claimed_end;
            stream.started += 1;
        }
    }

    /// All streams together read ahead at most an eighth of the budget each, and a quarter in sum.
    fn window_limit(&self, store: &FrameStore) -> u64 {
        let unit_bytes = store.fill.run_pages() << store.area.page_size().shift();
        let streams = self.streams.len().max(1) as u64;
        let share = self.shared.room.budget.limit() / 4 / streams.max(2) / unit_bytes;
        share.clamp(1, largest_window(store))
    }
}
