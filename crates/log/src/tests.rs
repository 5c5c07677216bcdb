//! The log over storages in memory: what each call promises, and bytes that nobody should have written.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::format::{Entry, HeaderProblem, LogHeader, Mark, NO_CUT, RecordHeader, image_sum};
use super::*;
use memobj_core::address::{ByteRange, PageIndex};

const PAGE: usize = BLOCK_BYTES;
const IDENTITY: [u8; 16] = [7; 16];

/// A file in memory that counts and that can be told to fail.
#[derive(Clone, Debug, Default)]
struct Memory(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: RefCell<Vec<u8>>,
    /// Offsets and lengths of writes.
    writes: RefCell<Vec<(u64, usize)>>,
    syncs: Cell<u32>,
    fails: Cell<Option<Action>>,
}

impl Memory {
    fn with(bytes: &[u8]) -> Self {
        let memory = Self::default();
        memory.0.bytes.borrow_mut().extend_from_slice(bytes);
        memory
    }

    fn fail(&self, action: Option<Action>) {
        self.0.fails.set(action);
    }

    fn check(&self, action: Action) -> Result<(), &'static str> {
        if self.0.fails.get() == Some(action) { Err("told to fail") } else { Ok(()) }
    }
}

impl Storage for Memory {
    type Error = &'static str;

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        self.check(Action::Read)?;
        let bytes = self.0.bytes.borrow();
        let start = usize::try_from(offset).map_err(|_| "beyond the end")?;
        let from = bytes.get(start..).and_then(|rest| rest.get(..into.len())).ok_or("beyond the end")?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        self.check(Action::Write)?;
        self.0.writes.borrow_mut().push((offset, bytes.len()));
        let mut all = self.0.bytes.borrow_mut();
        let into = all.get_mut(offset as usize..offset as usize + bytes.len()).ok_or("beyond the end")?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), Self::Error> {
        self.0.syncs.set(self.0.syncs.get() + 1);
        self.check(Action::Sync)
    }

    fn length(&self) -> Result<u64, Self::Error> {
        Ok(self.0.bytes.borrow().len() as u64)
    }

    fn set_length(&self, length: u64) -> Result<(), Self::Error> {
        self.check(Action::SetLength)?;
        if length > 1 << 30 {
            return Err("too long");
        }
        self.0.bytes.borrow_mut().resize(length as usize, 0);
        Ok(())
    }

    fn reserve(&self, _: ByteRange) -> Result<Reserved, Self::Error> {
        self.check(Action::Reserve).map(|()| Reserved::New)
    }

    fn zero(&self, range: ByteRange) -> Result<(), Self::Error> {
        self.check(Action::Zero)?;
        self.0.bytes.borrow_mut()[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }
}

struct Fixture {
    file: Memory,
    side: Memory,
    log: CommitLog<Memory>,
}

fn fixture(length: usize) -> Fixture {
    let (file, side) = (Memory::with(&vec![1; length]), Memory::default());
    let options = Options { identity: IDENTITY, salt: 11, chunk_blocks: 256 };
    let log = CommitLog::create(side.clone(), file.clone(), options).unwrap();
    Fixture { file, side, log }
}

fn pages(indices: &[u64]) -> Vec<PageIndex> {
    indices.iter().copied().map(PageIndex).collect()
}

impl Fixture {
    fn append(&mut self, indices: &[u64], kind: Kind, byte: u8) -> Result<(), AppendError<&'static str>> {
        self.log.append(&pages(indices), kind, |_, into| into.fill(byte))
    }

    fn byte(&self, page: u64) -> u8 {
        let mut bytes = [0; PAGE];
        self.log.read_page(PageIndex(page), &mut bytes).unwrap();
        bytes[0]
    }

    fn checkpoint(&mut self) {
        let mut plan = self.log.begin_checkpoint().unwrap().unwrap();
        loop {
            while plan.step(&self.side, &self.file).unwrap() == Progress::More {}
            if self.log.finish_checkpoint(&mut plan).unwrap() == Finish::Released {
                return;
            }
        }
    }

    fn reopened(&self) -> CommitLog<Memory> {
        CommitLog::open(self.side.clone(), self.file.clone(), IDENTITY, 12).unwrap()
    }
}

#[test]
fn a_commit_of_16_pages_is_one_write_and_one_sync() {
    let mut fixture = fixture(64 * PAGE);
    let length = 64 * PAGE as u64;
    let indices: Vec<u64> = (0..32).step_by(2).collect();
    fixture.append(&indices, Kind::Commit { length }, 2).unwrap();
    fixture.side.0.writes.borrow_mut().clear();
    let syncs = (fixture.side.0.syncs.get(), fixture.file.0.syncs.get());
    fixture.append(&indices, Kind::Commit { length }, 3).unwrap();
    assert_eq!(*fixture.side.0.writes.borrow(), [(19 * PAGE as u64, 17 * PAGE)]);
    assert_eq!((fixture.side.0.syncs.get(), fixture.file.0.syncs.get()), (syncs.0 + 1, syncs.1));
    assert!(fixture.file.0.writes.borrow().is_empty(), "nothing is written in place");
    assert_eq!((fixture.byte(2), fixture.byte(3)), (3, 1));
}

#[test]
fn checkpoints_merge_neighbours_and_reuse_space() {
    let mut fixture = fixture(200 * PAGE);
    let length = 200 * PAGE as u64;
    for round in 0..6 {
        for first in [0, 64, 32, 96] {
            let indices: Vec<u64> = (first..first + 32).collect();
            fixture.append(&indices, Kind::Commit { length }, round).unwrap();
        }
        fixture.file.0.writes.borrow_mut().clear();
        fixture.checkpoint();
        // In the order of the log, whose neighbours go together.
        let pieces = [0, 64, 32, 96].map(|first| (first * PAGE as u64, 32 * PAGE));
        assert_eq!(*fixture.file.0.writes.borrow(), pieces);
        assert_eq!((fixture.byte(5), fixture.log.logged_pages()), (round, (0, 0)));
    }
    assert!(fixture.side.length().unwrap() <= 514 * PAGE as u64, "two segments of one chunk each");
}

#[test]
fn spilled_images_survive_a_checkpoint_and_abandon_drops_them() {
    let mut fixture = fixture(8 * PAGE);
    let length = 8 * PAGE as u64;
    fixture.append(&[1], Kind::Commit { length }, 2).unwrap();
    fixture.append(&[1, 2, 9], Kind::Spill, 3).unwrap();
    fixture.checkpoint();
    assert_eq!((fixture.byte(1), fixture.byte(2), fixture.byte(9)), (3, 3, 3));
    assert!(fixture.log.abandon());
    assert_eq!((fixture.byte(1), fixture.byte(2), fixture.byte(9)), (2, 1, 0));
    fixture.append(&[3], Kind::Commit { length }, 4).unwrap();
    let log = fixture.reopened();
    fixture.log = log;
    assert_eq!((fixture.byte(1), fixture.byte(2), fixture.byte(3)), (2, 1, 4));
}

#[test]
fn a_shrunk_object_is_zero_where_it_grows_again() {
    let mut fixture = fixture(8 * PAGE);
    fixture.append(&[5, 6], Kind::Spill, 2).unwrap();
    fixture.log.truncate(2 * PAGE as u64 + 100).unwrap();
    fixture.append(&[6], Kind::Spill, 3).unwrap();
    fixture.append(&[], Kind::Commit { length: 8 * PAGE as u64 }, 0).unwrap();
    let mut tail = [9; PAGE];
    for _ in 0..2 {
        fixture.log.read_page(PageIndex(2), &mut tail).unwrap();
        assert_eq!((tail[99], tail[100], tail[PAGE - 1]), (1, 0, 0));
        assert_eq!((fixture.byte(3), fixture.byte(5), fixture.byte(6)), (0, 0, 3));
        fixture.log = fixture.reopened();
    }
    assert_eq!(fixture.file.0.bytes.borrow()[5 * PAGE..6 * PAGE], [0; PAGE]);
}

/// A page spilled after a truncation, committed in the next segment, and put in place: the commit's cut is still in
/// the chain when the page is not.
#[test]
fn a_cut_does_not_take_pages_that_are_in_place_already() {
    let mut fixture = fixture(5 * PAGE);
    let length = 8 * PAGE as u64;
    fixture.log.truncate(3 * PAGE as u64).unwrap();
    fixture.append(&[5], Kind::Spill, 2).unwrap();
    let mut plan = fixture.log.begin_checkpoint().unwrap().unwrap();
    fixture.append(&[7], Kind::Commit { length }, 3).unwrap();
    loop {
        while plan.step(&fixture.side, &fixture.file).unwrap() == Progress::More {}
        if fixture.log.finish_checkpoint(&mut plan).unwrap() == Finish::Released {
            break;
        }
    }
    fixture.log = fixture.reopened();
    let bytes = [2, 3, 4, 5, 6, 7].map(|page| fixture.byte(page));
    assert_eq!(bytes, [1, 0, 0, 2, 0, 3]);
}

#[test]
fn no_room_is_an_error_before_anything_is_written() {
    for place in [Place::Log, Place::Data] {
        let mut fixture = fixture(4 * PAGE);
        let storage = if place == Place::Log { &fixture.side } else { &fixture.file };
        storage.fail(Some(Action::Reserve));
        fixture.side.0.writes.borrow_mut().clear();
        let refused = fixture.append(&[1], Kind::Commit { length: 4 * PAGE as u64 }, 5);
        let failure = Failure { place, action: Action::Reserve, error: "told to fail" };
        assert_eq!(refused, Err(AppendError::Refused(failure)));
        assert!(fixture.side.0.writes.borrow().is_empty());
        fixture.side.fail(None);
        fixture.file.fail(None);
        fixture.append(&[1], Kind::Commit { length: 4 * PAGE as u64 }, 5).unwrap();
        assert_eq!(fixture.byte(1), 5);
    }
}

#[test]
fn a_failed_sync_stops_the_log_until_it_is_repaired() {
    let mut fixture = fixture(4 * PAGE);
    let length = 4 * PAGE as u64;
    fixture.append(&[0], Kind::Commit { length }, 2).unwrap();
    fixture.append(&[2], Kind::Spill, 3).unwrap();
    fixture.side.fail(Some(Action::Sync));
    let unknown = fixture.append(&[1], Kind::Commit { length }, 4);
    assert!(matches!(unknown, Err(AppendError::Unknown(_))), "{unknown:?}");
    assert!(matches!(fixture.log.repair(), Err(RepairError::Storage(_))));
    fixture.side.fail(None);
    let refused = fixture.append(&[1], Kind::Commit { length }, 4);
    assert_eq!(refused, Err(AppendError::NeedsRepair));
    assert!(matches!(fixture.log.begin_checkpoint(), Err(CheckpointError::NeedsRepair)));
    assert_eq!((fixture.byte(0), fixture.byte(1), fixture.byte(2)), (2, 1, 3));
    fixture.log.repair().unwrap();
    assert_eq!((fixture.byte(0), fixture.byte(1), fixture.byte(2)), (2, 1, 3));
    fixture.append(&[3], Kind::Commit { length }, 5).unwrap();
    fixture.log = fixture.reopened();
    let bytes = [0, 1, 2, 3].map(|page| fixture.byte(page));
    assert_eq!(bytes, [2, 1, 3, 5], "the failed commit is gone, the spilled page is not");
}

#[test]
fn an_image_that_was_lost_is_an_error_and_not_wrong_bytes() {
    let mut fixture = fixture(4 * PAGE);
    fixture.append(&[2], Kind::Spill, 3).unwrap();
    let Location::Log(image) = fixture.log.locate(PageIndex(2)) else { panic!("page 2 is in the log") };
    fixture.side.0.bytes.borrow_mut()[image.offset() as usize + 9] ^= 1;
    let lost = fixture.log.read_page(PageIndex(2), &mut [0; PAGE]);
    assert_eq!(lost, Err(ReadError::Lost { page: PageIndex(2) }));
}

#[test]
fn logs_of_others_are_not_applied() {
    let mut fixture = fixture(4 * PAGE);
    fixture.append(&[0], Kind::Commit { length: 4 * PAGE as u64 }, 2).unwrap();
    let open = |identity| CommitLog::open(fixture.side.clone(), fixture.file.clone(), identity, 1);
    assert_eq!(open([8; 16]).err(), Some(OpenError::OtherObject { found: IDENTITY }));
    fixture.file.set_length(5 * PAGE as u64).unwrap();
    let expected = OpenError::OtherLength { found: 5 * PAGE as u64, expected: 4 * PAGE as u64 };
    assert_eq!(open(IDENTITY).err(), Some(expected));
    fixture.side.0.bytes.borrow_mut()[PAGE + 8] = 2;
    assert_eq!(open(IDENTITY).err(), Some(OpenError::Version { found: 2 }));
    fixture.side.0.bytes.borrow_mut()[..2 * PAGE].fill(0);
    assert_eq!(open(IDENTITY).err(), Some(OpenError::NotALog));
    assert!(fixture.file.0.writes.borrow().is_empty());
}

#[test]
fn large_commits_are_several_records_and_one_sync_beside_that_of_new_room() {
    let mut fixture = fixture(0);
    let indices: Vec<u64> = (0..600).collect();
    let syncs = fixture.side.0.syncs.get();
    fixture.append(&indices, Kind::Commit { length: 600 * PAGE as u64 - 1 }, 2).unwrap();
    assert_eq!(fixture.side.0.syncs.get(), syncs + 2);
    fixture.log = fixture.reopened();
    assert_eq!((fixture.byte(0), fixture.byte(599), fixture.log.logged_pages()), (2, 2, (0, 0)));
    assert_eq!(fixture.file.length().unwrap(), 600 * PAGE as u64 - 1);
}

fn record(entries: Vec<Entry>) -> RecordHeader {
    RecordHeader {
        salt: 3,
        sequence: 4,
        mark: Mark::Commit { length: 1 << 40 },
        abandons: true,
        pending_cut: 5,
        committed_cut: NO_CUT,
        entries,
    }
}

#[test]
fn headers_decode_to_what_was_encoded() {
    let mut block = [0; PAGE];
    let whole = record((0..RECORD_PAGES as u64).map(|page| Entry { page, sum: page ^ 99 }).collect());
    whole.encode(&mut block);
    assert_eq!(RecordHeader::decode(&block, 3, 4), Some(whole));
    assert_eq!(RecordHeader::decode(&block, 2, 4), None);
    assert_eq!(RecordHeader::decode(&block, 3, 5), None);
    record(vec![Entry { page: 1 << 28, sum: 0 }]).encode(&mut block);
    assert_eq!(RecordHeader::decode(&block, 3, 4), None, "a page beyond the length of the commit");
    record(vec![Entry { page: 2, sum: 0 }, Entry { page: 2, sum: 0 }]).encode(&mut block);
    assert_eq!(RecordHeader::decode(&block, 3, 4), None, "a page twice");
    assert_eq!(LogHeader::decode(&block), Err(HeaderProblem::Invalid));
}

/// A log with two commits and a spill, as bytes.
fn sample() -> Vec<u8> {
    let mut fixture = fixture(3 * PAGE + 5);
    let length = 6 * PAGE as u64;
    fixture.append(&[0, 2], Kind::Commit { length }, 2).unwrap();
    fixture.append(&[1], Kind::Spill, 3).unwrap();
    fixture.append(&[5], Kind::Commit { length }, 4).unwrap();
    let bytes = fixture.side.0.bytes.borrow();
    bytes[..16 * PAGE].to_vec()
}

/// Opening must answer; whatever it makes of the object is as long as it can be.
fn open_hostile(bytes: &[u8]) {
    let file = Memory::with(&vec![1; 3 * PAGE + 5]);
    let opened = CommitLog::open(Memory::with(bytes), file, IDENTITY, 1);
    if let Ok(log) = opened {
        assert!(log.committed_length() <= 1 << 30);
        log.read_page(PageIndex(1), &mut [0; PAGE]).unwrap();
    }
}

/// Gives a damaged header and a damaged first record right checksums again, so that what they say is looked at.
fn forge(bytes: &mut [u8]) {
    let put = |bytes: &mut [u8], at: usize, sum: u64| bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    let sum = image_sum(&bytes[PAGE..PAGE + 88]);
    put(bytes, PAGE + 88, sum);
    let head = 2 * PAGE;
    let count = u32::from_le_bytes(bytes[head + 28..head + 32].try_into().unwrap()) as usize;
    let end = (64 + count.min(RECORD_PAGES) * 16).min(PAGE);
    put(bytes, head + 56, 0);
    let salt = u64::from_le_bytes(bytes[head + 8..head + 16].try_into().unwrap());
    let sum = twox_hash::XxHash3_64::oneshot_with_seed(salt, &bytes[head..head + end]);
    put(bytes, head + 56, sum);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3 * PAGE)) {
        open_hostile(&bytes);
        let _ = LogHeader::decode(&bytes);
        let _ = RecordHeader::decode(&bytes, 3, 4);
    }

    #[test]
    fn damaged_logs_are_decoded_or_refused(
        damage in proptest::collection::vec((0..16 * PAGE, any::<u8>()), 1..20),
        cut in 0..=16 * PAGE,
    ) {
        let mut bytes = sample();
        damage.iter().for_each(|&(at, byte)| bytes[at] = byte);
        open_hostile(&bytes);
        open_hostile(&bytes[..cut]);
    }

    #[test]
    fn forged_headers_are_decoded_or_refused(
        damage in proptest::collection::vec((prop_oneof![PAGE..PAGE + 88, 2 * PAGE..2 * PAGE + 100], any::<u8>()), 1..6),
    ) {
        let mut bytes = sample();
        damage.iter().for_each(|&(at, byte)| bytes[at] = byte);
        forge(&mut bytes);
        open_hostile(&bytes);
    }
}
