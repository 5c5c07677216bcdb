//! What the files of a machine are on: their pager. Between orders it writes pages back and takes clean ones, which nobody
//! may notice.

use super::machine::{Machine, file_bytes};
use super::{SoftFrames, SoftMmu};
use crate::random::Random;
use memobj_core::address::{PageIndex, PageRange};
use memobj_core::pages::WriteClaim;
use memobj_vm::fault::{Attached, Block, Memory, ObjectTable, Stop, VerbError};
use memobj_vm::space::ObjectId;

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

/// How the machine does what takes pages of files.
impl Machine {
    /// Does `act` until nothing has to be supplied or written for it any more.
    pub(super) fn until_supplied<T>(
        &mut self,
        mut act: impl FnMut(&mut Self) -> Result<T, VerbError>,
    ) -> Result<T, VerbError> {
        loop {
            let done = act(self);
            self.settle();
            match done {
                Err(VerbError::Stop(Stop::Need(file, page))) => {
                    self.disk.supply(&mut self.objects, file, page)
                }
                Err(VerbError::Stop(Stop::Busy(..))) => self.disk.land(),
                done => return done,
            }
        }
    }

    /// As `until_supplied`, of a copy, which goes on where it was stopped. Says how far it came.
    pub(super) fn transfer(
        &mut self,
        process: usize,
        mut act: impl FnMut(&mut Attached<'_, SoftFrames, SoftMmu>, usize) -> (usize, Option<Stop>),
    ) -> usize {
        let mut done = 0;
        let _ = self.until_supplied(|machine| {
            let (count, stop) = machine.with(process, |space| act(space, done));
            done += count;
            stop.map_or(Ok(()), |stop| Err(VerbError::Stop(stop)))
        });
        done
    }

    pub(super) fn of_file<T>(
        &mut self,
        mut act: impl FnMut(&mut ObjectTable<SoftFrames>) -> Result<T, Stop>,
    ) -> T {
        let done = self.until_supplied(|machine| act(&mut machine.objects).map_err(VerbError::Stop));
        done.expect("memory is plenty")
    }

    /// Verbs that populate pass over what has to be supplied, where the kernel waits for it. So all is brought in before.
    pub(super) fn bring_files_in(&mut self) {
        for which in 0..2 {
            let length = self.objects.length(ObjectId(which)).unwrap_or(0).min(64 * PAGE);
            self.of_file(|objects| objects.read_at(ObjectId(which), 0, &mut vec![0; length as usize]));
        }
    }
}
