//! What the files of a machine are on: their pager. Between orders it writes pages back and takes clean ones, which nobody
//! may notice.

use super::SoftFrames;
use super::machine::file_bytes;
use crate::random::Random;
use memobj_core::address::{PageIndex, PageRange};
use memobj_core::fault::{Block, Memory, ObjectTable};
use memobj_core::pages::WriteClaim;
use memobj_core::space::ObjectId;

const PAGE: u64 = 4096;

/// A page on its way to the disk.
#[derive(Debug)]
struct Flight {
    file: ObjectId,
    offset: usize,
    bytes: Vec<u8>,
    claim: WriteClaim<Block<SoftFrames>>,
}

/// The bytes of both files, and what is on the way to them.
#[derive(Debug)]
pub(super) struct Disk {
    files: [Vec<u8>; 2],
    flights: Vec<Flight>,
    random: Random,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self { files: [file_bytes(0), file_bytes(1)], flights: Vec::new(), random: Random::new(1) }
    }

    /// Supplies a page that was needed.
    pub(super) fn supply(&self, objects: &mut ObjectTable<SoftFrames>, file: ObjectId, page: PageIndex) {
        let bytes = &self.files[file.0 as usize];
        let bytes = &bytes[bytes.len().min((page.0 * PAGE) as usize)..];
        let frame = objects.memory().zeroed().expect("memory is plenty");
        objects.memory().write(frame, 0, &bytes[..bytes.len().min(PAGE as usize)]);
        objects.supply(file, page, frame);
    }

    /// Begins to write what a file does not have yet.
    pub(super) fn begin(&mut self, objects: &mut ObjectTable<SoftFrames>, file: ObjectId) {
        let flights = &mut self.flights;
        let begun = objects.write_back(file, |offset, bytes, claim| {
            flights.push(Flight { file, offset: offset as usize, bytes: bytes.to_vec(), claim });
        });
        begun.expect("nobody pins pages");
    }

    /// Ends all writes.
    pub(super) fn land(&mut self) {
        for Flight { file, offset, bytes, claim } in self.flights.drain(..) {
            let file = &mut self.files[file.0 as usize];
            file.resize(file.len().max(offset + bytes.len()), 0);
            file[offset..offset + bytes.len()].copy_from_slice(&bytes);
            claim.written();
        }
    }

    /// A file was cut, or made longer.
    pub(super) fn set_length(&mut self, file: ObjectId, length: u64) {
        // Holes are not kept.
        self.files[file.0 as usize].truncate(length as usize);
    }

    /// Now and then a file is written, unless one would see that; a write ends; clean pages go.
    pub(super) fn stir(&mut self, objects: &mut ObjectTable<SoftFrames>) {
        let file = ObjectId(self.random.below(2));
        match self.random.below(8) {
            // What was stored past the end would be zeros.
            0 | 1 if objects.length(file).is_some_and(|length| length.is_multiple_of(PAGE)) => {
                self.begin(objects, file);
            }
            2 => self.land(),
            3 | 4 => {
                objects.evict(file, PageRange { start: 0, end: u64::MAX });
            }
            _ => {}
        }
    }
}
