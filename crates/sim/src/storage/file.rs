//! A file of the model, and what of it is durable.

use std::collections::BTreeSet;
use std::rc::Rc;

use memobj_core::address::ByteRange;
use memobj_log::{Reserved, Storage};

use super::image::{Image, PAGE_BYTES};
use super::machine::{Machine, Operation, SimError};
use crate::Random;

const SECTOR: usize = 512;
const PAGE: u64 = PAGE_BYTES as u64;

/// A change that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Sector { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

/// Both images of a file, the changes between them, and its room.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    live: Image,
    durable: Image,
    unsynced: Vec<Change>,
    /// Blocks that the file has.
    blocks: BTreeSet<u64>,
    /// Those of them that outlive a crash for certain.
    durable_blocks: BTreeSet<u64>,
}

/// A handle of a file; clones are the same file.
#[derive(Clone, Debug)]
pub struct File {
    pub(super) machine: Rc<Machine>,
    pub(super) number: usize,
}

impl Disk {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.live.write(offset, bytes);
        let mut at = 0;
        while at < bytes.len() {
            let begin = offset + at as u64;
            let part = (SECTOR - (begin % SECTOR as u64) as usize).min(bytes.len() - at);
            let bytes = bytes[at..at + part].to_vec();
            self.unsynced.push(Change::Sector { offset: begin, bytes });
            at += part;
        }
    }

    /// Zeros what has blocks, page by page, at most `pages` of them.
    fn zero(&mut self, range: ByteRange, pages: u64) {
        let indices = range.start / PAGE..range.end.div_ceil(PAGE);
        let written: BTreeSet<u64> = self.live.written_pages().chain(self.blocks.iter().copied()).collect();
        for page in written.range(indices).take(pages as usize) {
            let inside = range.below((page + 1) * PAGE).end - page * PAGE;
            self.write(page * PAGE, &vec![0; inside as usize]);
        }
    }

    fn set_length(&mut self, length: u64) -> u64 {
        self.live.set_length(length);
        self.unsynced.push(Change::Length(length));
        let kept = length.div_ceil(PAGE);
        let freed = self.blocks.split_off(&kept).len();
        self.durable_blocks.split_off(&kept);
        freed as u64
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            self.durable.apply(&change);
        }
        self.durable_blocks.clone_from(&self.blocks);
    }

    /// Some of the sectors are durable, the others are forgotten, and reads may show it.
    fn sync_in_part(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.unsynced) {
            let is_lost = matches!(change, Change::Sector { .. }) && random.below(2) == 0;
            if !is_lost {
                self.durable.apply(&change);
            }
        }
        if random.below(2) == 0 && self.durable.length() == self.live.length() {
            self.live = self.durable.clone();
        }
    }

    /// What a crash leaves.
    pub(super) fn crashed(&self, random: &mut Random) -> Disk {
        let mut image = self.durable.clone();
        let lengths = self.unsynced.iter().filter(|change| matches!(change, Change::Length(_))).count();
        let mut lengths_left = random.below(lengths as u64 + 1);
        // Of a thousand sectors, how many: none, all, or something between.
        let share = [0, 1000, random.below(1000)][random.below(3) as usize];
        for changes in self.unsynced.chunk_by(|a, b| a.is_sector() && b.is_sector()) {
            if !changes[0].is_sector() {
                if lengths_left > 0 {
                    image.apply(&changes[0]);
                    lengths_left -= 1;
                }
                continue;
            }
            let mut kept: Vec<_> = changes.iter().filter(|_| random.below(1000) < share).collect();
            for at in (1..kept.len()).rev() {
                kept.swap(at, random.below(at as u64 + 1) as usize);
            }
            kept.into_iter().for_each(|change| image.apply(change));
        }
        let is_kept =
            |block: &&u64| self.durable_blocks.contains(block) || share > 0 && block.is_multiple_of(2);
        let kept = self.blocks.iter().filter(is_kept).copied();
        // Bytes that are there have blocks, also where a cut of the file was lost.
        let blocks: BTreeSet<u64> = kept.chain(image.written_pages()).collect();
        Disk {
            live: image.clone(),
            durable: image,
            unsynced: Vec::new(),
            durable_blocks: blocks.clone(),
            blocks,
        }
    }
}

impl Change {
    fn is_sector(&self) -> bool {
        matches!(self, Change::Sector { .. })
    }
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Sector { offset, bytes } => self.write(*offset, bytes),
            Change::Length(length) => self.set_length(*length),
        }
    }
}

impl File {
    fn change<T>(&self, change: impl FnOnce(&mut Disk) -> T) -> T {
        change(&mut self.machine.disks.borrow_mut()[self.number])
    }

    /// Gives the file the blocks `[first, end)`; how many are new. An error gives it none.
    fn obtain(&self, first: u64, end: u64) -> Result<u64, SimError> {
        let free = self.machine.free_blocks.get();
        let new = self.change(|disk| {
            let missing: Vec<u64> = (first..end).filter(|block| !disk.blocks.contains(block)).collect();
            if missing.len() as u64 > free {
                return Err(SimError::NoSpace);
            }
            let count = missing.len() as u64;
            disk.blocks.extend(missing);
            Ok(count)
        })?;
        self.machine.free_blocks.set(free - new);
        Ok(new)
    }
}

impl Storage for File {
    type Error = SimError;

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), SimError> {
        self.change(|disk| {
            if offset + into.len() as u64 > disk.live.length() {
                return Err(SimError::BeyondEnd);
            }
            disk.live.read(offset, into);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SimError> {
        let fault = self.machine.enter(self.number, Operation::Write)?;
        let end = offset + bytes.len() as u64;
        if end > self.change(|disk| disk.live.length()) {
            return Err(SimError::BeyondEnd);
        }
        self.obtain(offset / PAGE, end.div_ceil(PAGE))?;
        let part = match fault {
            None => bytes.len(),
            Some(_) => self.machine.random.borrow_mut().below(bytes.len() as u64 + 1) as usize,
        };
        self.change(|disk| disk.write(offset, &bytes[..part]));
        fault.map_or(Ok(()), Err)
    }

    fn sync(&self) -> Result<(), SimError> {
        let fault = self.machine.enter(self.number, Operation::Sync)?;
        let Some(error) = fault else {
            self.change(Disk::sync);
            return Ok(());
        };
        self.change(|disk| disk.sync_in_part(&mut self.machine.random.borrow_mut()));
        Err(error)
    }

    fn length(&self) -> Result<u64, SimError> {
        Ok(self.change(|disk| disk.live.length()))
    }

    fn set_length(&self, length: u64) -> Result<(), SimError> {
        if let Some(error) = self.machine.enter(self.number, Operation::SetLength)? {
            return Err(error);
        }
        let freed = self.change(|disk| disk.set_length(length));
        self.machine.free_blocks.set(self.machine.free_blocks.get() + freed);
        Ok(())
    }

    fn reserve(&self, range: ByteRange) -> Result<Reserved, SimError> {
        if let Some(error) = self.machine.enter(self.number, Operation::Reserve)? {
            return Err(error);
        }
        let new = self.obtain(range.start / PAGE, range.end.div_ceil(PAGE))?;
        Ok(if new == 0 { Reserved::Already } else { Reserved::New })
    }

    fn zero(&self, range: ByteRange) -> Result<(), SimError> {
        let fault = self.machine.enter(self.number, Operation::Zero)?;
        if range.end > self.change(|disk| disk.live.length()) {
            return Err(SimError::BeyondEnd);
        }
        let part = fault.map_or(u64::MAX, |_| self.machine.random.borrow_mut().below(4));
        self.change(|disk| disk.zero(range, part));
        fault.map_or(Ok(()), Err)
    }
}
