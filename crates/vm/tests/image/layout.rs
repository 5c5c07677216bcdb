//! What is planned for files that are right.

use crate::build::{ET_CORE, ET_DYN, ET_EXEC, ET_REL, File, PT_SUNWBSS, R, RW, RX, load};
use crate::check::check;
use memobj_core::address::{ObjectOffset, VirtAddr};
use memobj_core::prot::Prot;
use memobj_vm::image::{
    AddressRange, Execution, FileFacts, ImageOptions, ImagePlan, ImageRecord, Interpret, Placement,
    RecordKind, Step, plan_with,
};

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

fn plan_padded(file: &File, padding_bytes: u64) -> ImagePlan {
    let bytes = file.bytes();
    let source = FileFacts { length_bytes: 0x10_0000, execution: Execution::Allowed };
    check(&bytes, source, &ImageOptions { padding_bytes, ..Default::default() }).expect("a plan")
}

fn plan(file: &File) -> ImagePlan {
    plan_padded(file, 0)
}

fn pages(start: u64, end: u64) -> AddressRange {
    AddressRange { start, end }
}

/// `address memory_bytes file_bytes offset prot kind`, one line each.
fn lines(records: &[ImageRecord]) -> Vec<String> {
    let line = |r: &ImageRecord| {
        let (address, memory, file, offset) = (r.address.0, r.memory_bytes, r.file_bytes, r.offset);
        format!("{address:x} {memory:x} {file:x} {offset:x} {} {:?}", r.prot, r.kind)
    };
    records.iter().map(line).collect()
}

#[test]
fn a_program_has_a_record_for_each_loaded_phdr() {
    let expected = [
        "0 628 628 0 r-- ElfHeader",
        "1000 175 175 0 r-x Plain",
        "2000 f4 f4 0 r-- Plain",
        "3000 3038 248 de8 rw- Plain",
    ];
    let plan = plan(&File::pie());
    assert_eq!(lines(&plan.records), expected);
    let placement = Placement::Anywhere { length_bytes: 0x7000, base_bytes: 0, align_bytes: 4096 };
    assert_eq!(plan.placement, placement);
    let steps = [
        Step::Reserve { pages: pages(0, 0x7000) },
        Step::MapFile { pages: pages(0, 0x1000), offset: ObjectOffset(0), prot: Prot::READ },
        Step::MapFile {
            pages: pages(0x1000, 0x2000),
            offset: ObjectOffset(0x1000),
            prot: Prot::READ | Prot::EXECUTE,
        },
        Step::MapFile { pages: pages(0x2000, 0x3000), offset: ObjectOffset(0x2000), prot: Prot::READ },
        Step::MapFile { pages: pages(0x3000, 0x5000), offset: ObjectOffset(0x2000), prot: READ_WRITE },
        Step::ZeroTail { bytes: pages(0x4030, 0x5000), offset: ObjectOffset(0x3000), prot: READ_WRITE },
        Step::MapZero { pages: pages(0x5000, 0x7000), prot: READ_WRITE },
    ];
    assert_eq!(plan.steps, steps);
    let placed = plan.records_at(VirtAddr(0x7f00_0000_0000));
    assert_eq!(placed[3].address, VirtAddr(0x7f00_0000_3000));
}

#[test]
fn an_executable_is_planned_at_its_addresses() {
    let expected = [
        "400000 628 628 0 r-- ElfHeader",
        "401000 175 175 0 r-x Plain",
        "402000 f4 f4 0 r-- Plain",
        "403000 3038 248 de8 rw- Plain",
    ];
    let plan = plan(&File::fixed());
    assert_eq!(
        (lines(&plan.records), plan.placement),
        (expected.map(String::from).to_vec(), Placement::Fixed)
    );
    let reserved = plan.steps.iter().take_while(|step| matches!(step, Step::Reserve { .. }));
    assert_eq!(reserved.count(), 4);
    assert_eq!(plan.steps[0], Step::Reserve { pages: pages(0x40_0000, 0x40_1000) });
    assert_eq!(plan.records_at(VirtAddr(0x1000)), plan.records);
}

#[test]
fn padding_adjoins_the_first_and_the_last_page() {
    let padded = plan_padded(&File::pie(), 1);
    assert_eq!(lines(&padded.records)[0], "0 1000 0 0 --- Padding");
    assert_eq!(lines(&padded.records)[1], "1000 628 628 0 r-- ElfHeader");
    assert_eq!(lines(&padded.records)[5], "8000 1000 0 0 --- Padding");
    let placement = Placement::Anywhere { length_bytes: 0x9000, base_bytes: 0x1000, align_bytes: 4096 };
    assert_eq!(padded.placement, placement);
    let padded = plan_padded(&File::fixed(), 0x1_0000);
    assert_eq!(lines(&padded.records)[0], "3f0000 10000 0 0 --- Padding");
    assert_eq!(lines(&padded.records)[5], "407000 10000 0 0 --- Padding");
    assert_eq!(padded.steps[0], Step::Reserve { pages: pages(0x3f_0000, 0x40_0000) });
}

#[test]
fn the_largest_alignment_counts() {
    for (asked, align) in
        [(0, 4096), (1, 4096), (0x20_0000, 0x20_0000), (0x3000, 0x4000), (u64::MAX, 1 << 63)]
    {
        let mut file = File::pie();
        file.phdrs[1].p_align = asked;
        let Placement::Anywhere { align_bytes, .. } = plan(&file).placement else { panic!("anywhere") };
        assert_eq!(align_bytes, align, "{asked:x}");
    }
}

#[test]
fn holes_are_given_back() {
    let file = File::new(ET_DYN, &[load(R, 0, 0, 0x628, 0x628), load(RX, 0x1000, 0x20_0000, 0x175, 0x175)]);
    let plan = plan(&file);
    assert_eq!(plan.steps.last(), Some(&Step::Release { pages: pages(0x1000, 0x20_0000) }));
    assert_eq!(plan.steps[0], Step::Reserve { pages: pages(0, 0x20_1000) });
}

#[test]
fn objects_and_flat_files_are_mapped_whole() {
    let source = FileFacts { length_bytes: 0x1234, execution: Execution::Allowed };
    let flat = ImageOptions { interpret: Interpret::Flat, ..Default::default() };
    for (e_type, options, kind) in [
        (ET_REL, ImageOptions::default(), RecordKind::ElfHeader),
        (ET_CORE, ImageOptions::default(), RecordKind::ElfHeader),
        (ET_DYN, flat, RecordKind::Plain),
    ] {
        let plan = check(&File::new(e_type, &[]).bytes(), source, &options).expect("a plan");
        let (placed, step) = (plan.records[0], plan.steps[1]);
        assert_eq!((plan.records.len(), plan.steps.len(), placed.kind), (1, 2, kind));
        assert_eq!((placed.memory_bytes, placed.file_bytes, placed.prot), (0x1234, 0x1234, Prot::READ));
        assert_eq!(
            step,
            Step::MapFile { pages: pages(0, 0x2000), offset: ObjectOffset(0), prot: Prot::READ }
        );
        let padded =
            check(&File::new(e_type, &[]).bytes(), source, &ImageOptions { padding_bytes: 5000, ..options });
        assert_eq!(
            padded.map(|plan| lines(&plan.records)[2].clone()),
            Ok("4000 2000 0 0 --- Padding".to_string())
        );
    }
}

/// A phdr that nobody may write is zero-filled as well, and one without file bytes gets every page that it touches.
#[test]
fn zeros_are_zeros_whatever_the_protection() {
    let mut sun = load(R, 0, 0x3ff0, 0, 0x20);
    sun.p_type = PT_SUNWBSS;
    let file = File::new(ET_DYN, &[load(RX, 0, 0, 0x628, 0x1628), sun]);
    let plan = plan(&file);
    let expected = [
        Step::MapFile { pages: pages(0, 0x1000), offset: ObjectOffset(0), prot: Prot::READ | Prot::EXECUTE },
        Step::ZeroTail {
            bytes: pages(0x628, 0x1000),
            offset: ObjectOffset(0),
            prot: Prot::READ | Prot::EXECUTE,
        },
        Step::MapZero { pages: pages(0x1000, 0x2000), prot: Prot::READ | Prot::EXECUTE },
        Step::MapZero { pages: pages(0x3000, 0x5000), prot: Prot::READ },
    ];
    assert_eq!(plan.steps[1..5], expected);
    assert_eq!(lines(&plan.records)[1], "3000 1010 0 ff0 r-- Plain");
}

#[test]
fn the_header_is_in_the_first_phdr_with_file_bytes() {
    let mut file = File::new(
        ET_EXEC,
        &[load(RW, 0, 0x1000, 0, 0x10), load(R, 0, 0x2000, 0x10, 0x10), load(R, 0, 0x3000, 1, 1)],
    );
    let kinds = |plan: ImagePlan| plan.records.iter().map(|record| record.kind).collect::<Vec<_>>();
    assert_eq!(kinds(plan(&file)), [RecordKind::Plain, RecordKind::ElfHeader, RecordKind::Plain]);
    file.phdrs.iter_mut().for_each(|phdr| phdr.p_filesz = 0);
    assert_eq!(kinds(plan(&file)), [RecordKind::Plain; 3]);
}

#[test]
fn bytes_that_do_not_lie_alike_are_copied() {
    let file = File::new(ET_EXEC, &[load(RX, 0x123, 0x40_0010, 0x1000, 0x1800)]);
    let plan = plan(&file);
    let expected = [
        Step::MapZero { pages: pages(0x40_0000, 0x40_2000), prot: READ_WRITE },
        Step::ReadFile { bytes: pages(0x40_0010, 0x40_1010), offset: ObjectOffset(0x123) },
        Step::Protect { pages: pages(0x40_0000, 0x40_2000), prot: Prot::READ | Prot::EXECUTE },
    ];
    assert_eq!(plan.steps[1..], expected);
}

/// 65,534 phdrs in a table that is spread as far as it can be: none needs more than one phdr at a time.
#[test]
fn the_largest_table_is_read_in_pieces() {
    let length_bytes = 64 + 65_534 * 65_528;
    let mut file = File::pie();
    file.e_phnum = Some(65_534);
    let source = FileFacts { length_bytes, execution: Execution::Allowed };
    let many =
        check(&file.bytes(), source, &ImageOptions::default()).expect("the rest of the table is zeros");
    assert_eq!(many.records.len(), 4);
    file.phdrs.truncate(1);
    file.e_phentsize = 65_528;
    let far = check(&file.bytes(), source, &ImageOptions::default()).expect("the rest of the table is zeros");
    assert_eq!(far.records.len(), 1);
    // 3.6 MB of 4 GB are needed.
    let mut needed_bytes = 0;
    let counted = plan_with(source, &ImageOptions::default(), |offset, buffer| {
        needed_bytes += buffer.len();
        let bytes = file.bytes();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        buffer[count..].fill(0);
        Ok::<_, ()>(buffer.len())
    });
    assert_eq!((counted, needed_bytes), (Ok(far), 64 + 65_534 * 56));
}
