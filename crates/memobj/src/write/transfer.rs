//! Runs of Dirty pages on their way into a file: buffers, flights, and what a flight's end means.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{PageIndex, PageRange};
use memobj_linux::area::{WriteClaim, WriteRun};
use memobj_linux::region::{Chunk, ChunkPool, SMALL};
use memobj_linux::ring::{Completion, Direction, Ring, Target, Transfer};

use super::{WriteStep, Writes};
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::pagers::{BlockingPager, File};

/// Writes in flight at once.
pub(super) const DEPTH: u32 = 64;
/// Sizes of buffers in pages, and how many there are of each: 5.25 MiB together.
const SIZES: [(u64, usize); 3] = [(1, 64), (8, 32), (LONGEST, 16)];
const LONGEST: u64 = 64;

/// A write in flight.
#[derive(Debug)]
pub(super) struct Flight {
    writes: Arc<Writes>,
    offer: Offer,
    file: File,
}

/// Pages whose copy is offered to the pager.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) claim: WriteClaim,
    /// Syncs that had failed when the copy was made.
    failed_syncs: u64,
}

impl Offer {
    /// `None` if a page of `run` was lost: the others stay Dirty.
    fn copy(writes: &Writes, run: WriteRun, buffer: &mut [u8]) -> Option<Self> {
        let failed_syncs = writes.write_failures.lock().failed_syncs;
        Some(Self { claim: run.copy(buffer)?, failed_syncs })
    }
}

/// How far [`Writer::start`] came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    pub(super) pages: u64,
    pub(super) next: u64,
}

/// A queue of writes with its buffers.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) ring: Ring<Flight>,
    /// By the pages of a buffer, shortest first.
    pools: Vec<(u64, Arc<ChunkPool>)>,
    done: Vec<Completion<Flight>>,
    bytes_in_flight: u64,
    /// Refused without a flight.
    refused: Vec<WriteError>,
}

impl Writer {
    pub(super) fn new(ring: Ring<Flight>) -> io::Result<Self> {
        let pool = |(pages, count)| Ok((pages, ChunkPool::new(count, pages as usize * SMALL)?));
        Ok(Self {
            ring,
            pools: SIZES.into_iter().map(pool).collect::<io::Result<_>>()?,
            done: Vec::new(),
            bytes_in_flight: 0,
            refused: Vec::new(),
        })
    }

    /// Bytes of the pages in flight.
    pub(super) fn bytes_in_flight(&self) -> u64 {
        self.bytes_in_flight
    }

    /// Whether nothing more can be started before something ended.
    pub(super) fn is_full(&self) -> bool {
        self.ring.in_flight() >= DEPTH as usize
    }

    fn buffer(&self, pages: u64) -> Option<Chunk> {
        self.pools.iter().filter(|(size, _)| pages <= *size).find_map(|(_, pool)| pool.take())
    }

    /// Starts to write the Dirty pages of `pages`, all of one block, as far as there is room. Says how many, and
    /// up to which page it came; the page itself exclusive.
    pub(super) fn start(&mut self, writes: &Arc<Writes>, file: &File, pages: PageRange) -> Started {
        let room = (DEPTH as usize - self.ring.in_flight()) as u64;
        // Scattered pages take a flight each; neighbours share one, up to the longest.
        let most = room.max(LONGEST);
        let runs = writes.lock_dirty(pages, most, LONGEST);
        let locked: u64 = runs.iter().map(|run| run.pages().len()).sum();
        let mut started = Started { pages: 0, next: pages.end };
        if let Some(last) = runs.last().filter(|_| locked == most) {
            started.next = last.pages().end;
        }
        for run in runs {
            let buffer = if self.is_full() { None } else { self.buffer(run.pages().len()) };
            let Some(buffer) = buffer else {
                // It stays Dirty, and so do those behind it.
                started.next = run.pages().start;
                break;
            };
            started.pages += run.pages().len();
            self.launch(writes, file, run, buffer);
        }
        started
    }

    fn launch(&mut self, writes: &Arc<Writes>, file: &File, run: WriteRun, mut buffer: Chunk) {
        let Some(offer) = Offer::copy(writes, run, &mut buffer) else { return };
        let bytes = offer.claim.bytes();
        let part = &buffer[..bytes.len() as usize];
        if file.has_as_hole(&(bytes.start..bytes.end), part) {
            return writes.accept(offer);
        }
        if !bytes.end.is_multiple_of(SMALL as u64) {
            // Past the end of the file only whole pages could be written around the page cache.
            match file.write_back(bytes.start..bytes.end, part) {
                Ok(()) => writes.accept(offer),
                Err(error) => self.refused.push(writes.did_not_take(offer.claim, &error)),
            }
            return;
        }
        self.bytes_in_flight += bytes.len();
        self.ring.start(Transfer {
            direction: Direction::Write,
            file: file.write_descriptor().clone(),
            offset: bytes.start,
            target: Target::Chunk(buffer),
            len: bytes.len() as usize,
            token: Flight { writes: Arc::clone(writes), offer, file: file.clone() },
        });
    }

    /// Takes what has ended, after waiting for something to if `limit` is not zero. Says what failed.
    pub(super) fn finish(&mut self, limit: Option<Duration>) -> Vec<WriteError> {
        let mut errors = std::mem::take(&mut self.refused);
        let limit = if errors.is_empty() { limit } else { Some(Duration::ZERO) };
        if self.ring.wait(limit, &mut self.done).is_err() {
            std::thread::yield_now();
        }
        let done = std::mem::take(&mut self.done);
        for completion in done {
            if let Completion::Ended { target, token, result } = completion {
                errors.extend(self.landed(target, token, result).err());
            }
        }
        errors
    }

    fn landed(
        &mut self,
        mut target: Target,
        flight: Flight,
        result: io::Result<usize>,
    ) -> Result<(), WriteError> {
        let Flight { writes, offer, file } = flight;
        let bytes = offer.claim.bytes();
        self.bytes_in_flight -= bytes.len();
        let taken = match result {
            Ok(count) if count as u64 >= bytes.len() => Ok(()),
            // Part of it, as on a device that is full after it: once more, and this time the error is told.
            Ok(_) => {
                let buffer = &target.as_mut_slice()[..bytes.len() as usize];
                file.write_back(bytes.start..bytes.end, buffer)
            }
            Err(error) => Err(SupplyError::from(error)),
        };
        match taken {
            Ok(()) => {
                writes.accept(offer);
                Ok(())
            }
            Err(error) => Err(writes.did_not_take(offer.claim, &error)),
        }
    }
}

impl Writes {
    /// The pager has the bytes of `offer`.
    ///
    /// Unless a sync has failed since they were copied: it may have been them that it did not make durable, and
    /// then the pages are Dirty again. The lock makes that one decision with the failing sync's, which takes out
    /// what is unsynced under it.
    pub(super) fn accept(&self, offer: Offer) {
        let Offer { claim, failed_syncs } = offer;
        let pages = claim.pages();
        self.fill.reporter.counters.written_pages.add(pages.len());
        self.fill.reporter.counters.written_bytes.add(claim.bytes().len());
        let write_failures = self.write_failures.lock();
        if write_failures.failed_syncs == failed_syncs {
            // Before the pages are Clean: whoever finds nothing Dirty must find them here.
            self.unsynced.add(pages);
            claim.written();
        } else {
            drop(claim);
        }
        drop(write_failures);
        self.write_went_well();
        self.fill.allocator.unwritten.made_progress();
    }

    /// The pager refuses the bytes of `claim`: its pages are Dirty again.
    pub(super) fn did_not_take(&self, claim: WriteClaim, error: &SupplyError) -> WriteError {
        let bytes = claim.bytes();
        drop(claim);
        self.fill.allocator.unwritten.made_progress();
        let error = self.object.write_error(WriteStep::WriteBack, bytes.start..bytes.end, error);
        self.write_failed(error.clone());
        error
    }

    /// The first Dirty pages of `pages` that are neighbours, copied: at most `most` of them. The others are left as they are.
    pub(super) fn copy_first_dirty(
        &self,
        pages: PageRange,
        most: u64,
    ) -> Result<Option<(Offer, Vec<u8>)>, SupplyError> {
        let mut from = pages.start;
        while from < pages.end {
            let part = PageRange { start: from, end: pages.end };
            let Some(first) = part.iter().find(|page| self.area.word(*page).may_be_written()) else { break };
            let end = (first.0 + most).min(pages.end);
            let last = (first.0..end).find(|page| !self.area.word(PageIndex(*page)).may_be_written());
            let run = PageRange { start: first.0, end: last.unwrap_or(end) };
            from = run.end;
            if let Some(copy) = self.copy_run(run, most)? {
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }

    /// Locks and copies the first run of `pages`.
    fn copy_run(&self, pages: PageRange, most: u64) -> Result<Option<(Offer, Vec<u8>)>, SupplyError> {
        let mut buffer = Vec::new();
        let len = pages.len() as usize * SMALL;
        buffer.try_reserve_exact(len).map_err(|_| SupplyError::new(ErrorKind::NoSpace))?;
        // What is behind the first run stays Dirty.
        let Some(run) = self.lock_dirty(pages, most, most).into_iter().next() else { return Ok(None) };
        buffer.resize(run.pages().len() as usize * SMALL, 0);
        let Some(offer) = Offer::copy(self, run, &mut buffer) else { return Ok(None) };
        buffer.truncate(offer.claim.bytes().len() as usize);
        Ok(Some((offer, buffer)))
    }

    /// Locks the Dirty pages of `pages`, all of one block, as `Area::lock_dirty` does. Those whose frames are gone are
    /// lost, and told so.
    pub(super) fn lock_dirty(&self, pages: PageRange, most: u64, longest: u64) -> Vec<WriteRun> {
        let (runs, gone) = self.area.lock_dirty(pages, most, longest);
        gone.into_iter().for_each(|gone| self.errors.lose(gone));
        runs
    }

    /// The parts of `pages`, at most a block each, in which pages may have changes. Looks on whenever it is asked.
    pub(super) fn unclean_parts(&self, pages: PageRange) -> impl Iterator<Item = PageRange> {
        let mut from = self.area.block_with(PageIndex(pages.start));
        std::iter::from_fn(move || {
            let block = self.area.next_unclean_block(from)?;
            from = block + 1;
            let part = self.area.part_of_block(block, pages);
            (!part.is_empty()).then_some(part)
        })
    }
}
