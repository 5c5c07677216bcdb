//! What must hold of every plan, said a second time and differently: the headers are read here byte by byte, and the
//! steps are replayed for single addresses. The fuzz target uses this file, too.

use memobj_core::address::PageSize;
use memobj_core::prot::Prot;
use memobj_vm::image::{
    AddressRange, Execution, FileFacts, ImageError, ImageOptions, ImagePlan, ImageRecord, Interpret,
    MOST_NEEDED_BYTES, Model, Placement, PlanFailure, RecordKind, Step, plan_with,
};

const PAGE: u64 = 4096;
/// More records than this are not looked at one by one.
const MOST_RECORDS: usize = 40;

/// What is behind an address once all steps are done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Behind {
    Nothing,
    Reserved,
    Zero(Prot),
    File(u64, Prot),
}

/// Plans for a file as the inputs of the fuzzer describe it: three bytes of choice, eight of the file's length, its
/// first bytes.
pub fn check_input(data: &[u8]) {
    let Some((choice, rest)) = data.split_first_chunk() else { return };
    let Some((length, bytes)) = rest.split_first_chunk() else { return };
    check_any(*choice, u64::from_le_bytes(*length), bytes);
}

/// Plans for a file that begins with `bytes` and has zeros behind them up to `length_bytes`, and checks the plan.
/// The first three bytes of `choice` say with which options.
pub fn check_any(choice: [u8; 3], length_bytes: u64, bytes: &[u8]) {
    let interpret = match choice[0] % 4 {
        0 => Interpret::Flat,
        1 => Interpret::Elf(Model::Elf32),
        _ => Interpret::Elf(Model::Elf64),
    };
    let padding_bytes = match choice[1] % 8 {
        0..4 => 0,
        4 => 1,
        5 => 65536,
        6 => 1 << 62,
        _ => u64::MAX - 5000,
    };
    let room_records = choice[2].is_multiple_of(4).then_some(u32::from(choice[2] / 4));
    let execution = if choice[0] & 0x40 == 0 { Execution::Allowed } else { Execution::Forbidden };
    let options = ImageOptions { interpret, padding_bytes, room_records, page_size: PageSize::SMALL };
    let _ = check(bytes, FileFacts { length_bytes, execution }, &options);
}

/// Plans, and checks the plan and what was asked for on the way.
pub fn check(bytes: &[u8], source: FileFacts, options: &ImageOptions) -> Result<ImagePlan, ImageError> {
    let mut steps_left = 70_000;
    let read = |offset: u64, buffer: &mut [u8]| {
        steps_left -= 1;
        assert!(steps_left > 0, "the planner does not end");
        assert!(!buffer.is_empty() && buffer.len() as u64 <= MOST_NEEDED_BYTES, "{} needed", buffer.len());
        let end = offset.checked_add(buffer.len() as u64).expect("an end that fits");
        assert!(end <= source.length_bytes, "bytes up to {end} are needed of {}", source.length_bytes);
        buffer.fill(0);
        let from = bytes.get((offset as usize).min(bytes.len())..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok::<usize, ()>(buffer.len())
    };
    let plan = plan_with(source, options, read).map_err(|failure| match failure {
        PlanFailure::Image(error) => error,
        PlanFailure::Read(()) => unreachable!("reading never fails"),
    })?;
    check_records(&plan, options);
    check_steps(&plan);
    check_content(&plan, bytes, source, options);
    Ok(plan)
}

/// Records are on pages of their own, in order, and as many as the caller has room for.
fn check_records(plan: &ImagePlan, options: &ImageOptions) {
    let records = &plan.records;
    assert!(options.room_records.is_none_or(|room| records.len() <= room as usize));
    for pair in records.windows(2) {
        assert!(pair[0].pages(PAGE).end <= pair[1].address.0, "{pair:x?}");
    }
    for record in records {
        assert!(record.address.0.is_multiple_of(PAGE) && record.offset < PAGE, "{record:x?}");
        assert!(record.memory_bytes > 0 && record.offset + record.file_bytes <= record.memory_bytes);
        assert!(record.address.0.checked_add(record.memory_bytes).is_some(), "{record:x?}");
    }
    let headers = records.iter().filter(|record| record.kind == RecordKind::ElfHeader).count();
    assert!(headers <= 1);
    let padding = options.padding_bytes.next_multiple_of(PAGE);
    let is_padding = |record: &ImageRecord| {
        record.kind == RecordKind::Padding && record.memory_bytes == padding && record.prot == Prot::NONE
    };
    if padding > 0 {
        assert!(records.len() >= 3 && records.first().is_some_and(is_padding));
        assert!(records.last().is_some_and(is_padding));
        assert_eq!(records[0].pages(PAGE).end, records[1].address.0);
    }
    if let Placement::Anywhere { length_bytes, base_bytes, align_bytes } = plan.placement {
        assert!(align_bytes.is_power_of_two() && align_bytes >= PAGE);
        assert!(length_bytes.is_multiple_of(PAGE) && base_bytes == padding);
        assert_eq!(records.last().map(|last| last.pages(PAGE).end), Some(length_bytes));
        assert_eq!(records.first().map(|first| first.address.0), Some(0));
    }
}

/// Ranges are whole pages where they must be, and no step leaves what was reserved before it.
fn check_steps(plan: &ImagePlan) {
    let mut reserved: Vec<AddressRange> = Vec::new();
    for step in &plan.steps {
        let (range, whole) = match *step {
            Step::Reserve { pages } => {
                reserved.push(pages);
                (pages, true)
            }
            Step::MapFile { pages, offset, .. } => {
                assert!(offset.0.is_multiple_of(PAGE), "{step:x?}");
                offset.0.checked_add(pages.length_bytes()).expect("file offsets fit");
                (pages, true)
            }
            Step::ZeroTail { bytes, offset, .. } => {
                assert!(bytes.end.is_multiple_of(PAGE) && bytes.length_bytes() < PAGE);
                assert!(offset.0.is_multiple_of(PAGE));
                (bytes, false)
            }
            Step::ReadFile { bytes, .. } => (bytes, false),
            Step::MapZero { pages, .. } | Step::Protect { pages, .. } | Step::Release { pages } => {
                (pages, true)
            }
        };
        assert!(range.start < range.end, "{step:x?}");
        assert!(!whole || range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE), "{step:x?}");
        // The ranges are ascending, and there can be one for each of 65,534 phdrs.
        let at = reserved.partition_point(|all| all.end <= range.start);
        let inside = reserved.get(at).is_some_and(|all| all.start <= range.start && range.end <= all.end);
        assert!(inside, "{step:x?}");
    }
    let first = |step: &Step| matches!(step, Step::Reserve { .. });
    assert!(plan.steps.iter().skip_while(|step| first(step)).all(|step| !first(step)));
}

/// What is behind the first and last bytes of each part of each record is what the headers say.
fn check_content(plan: &ImagePlan, bytes: &[u8], source: FileFacts, options: &ImageOptions) {
    let Interpret::Elf(model) = options.interpret else {
        return check_whole(plan, source, RecordKind::Plain);
    };
    let header = Fields { bytes, wide: model == Model::Elf64 };
    match header.u16(16) {
        1 | 4 => return check_whole(plan, source, RecordKind::ElfHeader),
        kind => assert!(matches!(kind, 2 | 3)),
    }
    let is_shared = header.u16(16) == 3;
    assert_eq!(is_shared, matches!(plan.placement, Placement::Anywhere { .. }));
    let phdrs = header.loadables();
    let records = plan.records.iter().filter(|record| record.kind != RecordKind::Padding);
    assert_eq!(phdrs.len(), records.clone().count());
    let base = match plan.placement {
        Placement::Anywhere { base_bytes, .. } => base_bytes,
        Placement::Fixed => 0,
    };
    let mut header_wanted = true;
    for (index, (phdr, record)) in phdrs.iter().zip(records).enumerate() {
        let is_header = header_wanted && phdr.filesz != 0;
        header_wanted = header_wanted && !is_header;
        assert_eq!(record.kind == RecordKind::ElfHeader, is_header);
        let before = if is_header && is_shared { phdr.offset } else { 0 };
        assert_eq!(record.address.0 + record.offset, base + phdr.vaddr - before);
        assert_eq!(record.memory_bytes - record.offset, phdr.memsz + before);
        assert_eq!(record.file_bytes, phdr.filesz + before);
        if index < MOST_RECORDS && plan.steps.len() < 1000 {
            check_bytes(plan, record, phdr, base + phdr.vaddr);
        }
    }
}

/// Single addresses of one segment, replayed.
fn check_bytes(plan: &ImagePlan, record: &ImageRecord, phdr: &Loaded, vaddr: u64) {
    let prot = phdr.prot;
    assert_eq!(record.prot, prot);
    let zeros = vaddr + phdr.filesz;
    let end = vaddr + phdr.memsz;
    for at in [vaddr, zeros.saturating_sub(1), (vaddr / PAGE + 1) * PAGE - 1] {
        if phdr.filesz > 0 && vaddr <= at && at < zeros {
            assert_eq!(behind(plan, at), Behind::File(phdr.offset + (at - vaddr), prot), "{at:#x}");
        }
    }
    for at in [zeros, zeros.next_multiple_of(PAGE), end - 1] {
        if zeros <= at && at < end {
            assert_eq!(behind(plan, at), Behind::Zero(prot), "{at:#x} of {phdr:x?}");
        }
    }
    // The page is mapped to its end, and the next one is the next record's, or is not mapped.
    let edge = record.pages(PAGE).end;
    assert!(!matches!(behind(plan, edge - 1), Behind::Nothing | Behind::Reserved));
    let is_taken = plan.records.iter().any(|other| other.address.0 == edge);
    if !is_taken {
        assert_eq!(behind(plan, edge), Behind::Nothing, "{edge:#x}");
    }
}

fn check_whole(plan: &ImagePlan, source: FileFacts, kind: RecordKind) {
    let record = plan.records.iter().find(|record| record.kind != RecordKind::Padding).expect("one record");
    assert_eq!((record.kind, record.prot, record.offset), (kind, Prot::READ, 0));
    assert_eq!((record.memory_bytes, record.file_bytes), (source.length_bytes, source.length_bytes));
    let last = source.length_bytes - 1;
    assert_eq!(behind(plan, record.address.0 + last), Behind::File(last, Prot::READ));
    assert!(plan.records.iter().filter(|record| record.kind != RecordKind::Padding).count() == 1);
}

/// Replays the steps for one address.
fn behind(plan: &ImagePlan, at: u64) -> Behind {
    let mut now = Behind::Nothing;
    for step in &plan.steps {
        let holds = |range: AddressRange| range.start <= at && at < range.end;
        now = match *step {
            Step::Reserve { pages } if holds(pages) => Behind::Reserved,
            Step::MapFile { pages, offset, prot } if holds(pages) => {
                Behind::File(offset.0 + (at - pages.start), prot)
            }
            Step::ZeroTail { bytes, prot, .. } if holds(bytes) => Behind::Zero(prot),
            Step::MapZero { pages, prot } if holds(pages) => Behind::Zero(prot),
            Step::ReadFile { bytes, offset } if holds(bytes) => {
                Behind::File(offset.0 + (at - bytes.start), Prot::READ | Prot::WRITE)
            }
            Step::Protect { pages, prot } if holds(pages) => match now {
                Behind::Zero(_) => Behind::Zero(prot),
                Behind::File(offset, _) => Behind::File(offset, prot),
                other => other,
            },
            Step::Release { pages } if holds(pages) => Behind::Nothing,
            _ => now,
        };
    }
    now
}

/// A loadable phdr as the specification lays it out.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    offset: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
    prot: Prot,
}

/// Numbers of a header, zero behind its end.
struct Fields<'a> {
    bytes: &'a [u8],
    wide: bool,
}

impl Fields<'_> {
    fn number(&self, at: u64, length: u64) -> u64 {
        let byte = |index: u64| usize::try_from(index).ok().and_then(|index| self.bytes.get(index)).copied();
        (0..length).map(|index| u64::from(byte(at + index).unwrap_or(0)) << (8 * index)).sum()
    }

    fn u16(&self, at: u64) -> u64 {
        self.number(at, 2)
    }

    fn loadables(&self) -> Vec<Loaded> {
        let (table, size, count) = if self.wide {
            (self.number(32, 8), self.u16(54), self.u16(56))
        } else {
            (self.number(28, 4), self.u16(42), self.u16(44))
        };
        let phdr = |index: u64| {
            let at = table + index * size;
            // Type, then flags, offset, address, file size, memory size.
            let places = if self.wide { [4, 8, 16, 32, 40] } else { [24, 4, 8, 16, 20] };
            let word = if self.wide { 8 } else { 4 };
            let flags = self.number(at + places[0], 4);
            let [offset, vaddr, filesz, memsz] =
                [1, 2, 3, 4].map(|place| self.number(at + places[place], word));
            let bits = [(4, Prot::READ), (2, Prot::WRITE), (1, Prot::EXECUTE)];
            let prot = bits.into_iter().filter(|(bit, _)| flags & bit != 0);
            let prot = prot.fold(Prot::NONE, |all, (_, one)| all | one);
            (self.number(at, 4), Loaded { offset, vaddr, filesz, memsz, prot })
        };
        let is_loaded = |(kind, phdr): &(u64, Loaded)| matches!(kind, 1 | 0x6fff_fffa) && phdr.memsz != 0;
        (0..count).map(phdr).filter(is_loaded).map(|(_, phdr)| phdr).collect()
    }
}
