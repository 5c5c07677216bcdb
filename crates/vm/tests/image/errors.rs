//! Every error of the planner, and which of two comes first.

use crate::build::{ET_CORE, ET_DYN, ET_EXEC, ET_REL, File, PT_SUNWBSS, R, RW, RX, load};
use crate::check::check;
use memobj_vm::image::{
    Execution, FileFacts, ImageError, ImageOptions, ImagePlan, Interpret, Model, PlanFailure, Unsupported,
    plan_with,
};

fn source(bytes: &[u8]) -> FileFacts {
    // The files end far behind their headers.
    FileFacts { length_bytes: bytes.len() as u64 + 0x4000, execution: Execution::Allowed }
}

fn result(file: &File, options: &ImageOptions) -> Result<ImagePlan, ImageError> {
    let bytes = file.bytes();
    check(&bytes, source(&bytes), options)
}

fn refused(file: &File) -> ImageError {
    result(file, &ImageOptions::default()).expect_err("is refused")
}

fn unsupported(file: &File) -> Unsupported {
    match refused(file) {
        ImageError::Unsupported(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// A file that is wrong in many ways, each of which is mended in the order of the checks: at each stage it is the
/// first that is left that is told.
#[test]
fn the_first_failing_check_wins() {
    let mut options = ImageOptions { padding_bytes: u64::MAX, room_records: Some(0), ..Default::default() };
    let mut bytes = Vec::new();
    let mut source = FileFacts { length_bytes: 0, execution: Execution::Forbidden };
    let mut file = File::new(
        9,
        &[
            load(RX, 0, 0x1000, 0x20, 0x10),
            load(RW, 0, 0x1800, 0, u64::MAX),
            load(R, 1 << 63, 0x10_0000, 1, 1),
        ],
    );
    file.class = 1;
    file.e_phentsize = 60;
    file.e_phnum = Some(0xffff);

    let told = |bytes: &[u8], source: FileFacts, options: &ImageOptions| {
        check(bytes, source, options).expect_err("refused")
    };
    let why = |reason: Unsupported| ImageError::Unsupported(reason);
    let padding_bytes = u64::MAX;
    assert_eq!(told(&bytes, source, &options), ImageError::PaddingTooLarge { padding_bytes });
    options.padding_bytes = u64::MAX - 4095;
    let flat = ImageOptions { interpret: Interpret::Flat, ..options };
    assert_eq!(told(&bytes, source, &flat), ImageError::TooFewRecords { needed: 3, room: 0 });
    assert_eq!(told(&bytes, source, &options), ImageError::Empty);
    bytes = vec![b'x'; 63];
    source.length_bytes = 63;
    assert_eq!(told(&bytes, source, &options), why(Unsupported::TooShort { length_bytes: 63 }));
    source.length_bytes = 0x4000;
    assert_eq!(told(&bytes, source, &options), why(Unsupported::NotElf));
    bytes = file.bytes();
    bytes.resize(64, 0);
    assert_eq!(told(&bytes, source, &options), why(Unsupported::WrongModel { wanted: Model::Elf64 }));
    file.class = 2;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::FileType { value: 9 }));
    file.e_type = ET_EXEC;
    assert_eq!(told(&file.bytes(), source, &options), ImageError::NoExec);
    file.e_type = ET_CORE;
    assert_eq!(told(&file.bytes(), source, &options), ImageError::TooFewRecords { needed: 3, room: 0 });
    file.e_type = ET_DYN;
    file.e_phentsize = 55;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::PhdrSize { value: 55 }));
    file.e_phentsize = 60;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::PhdrCount { value: 0xffff }));
    file.e_phnum = None;
    file.e_phoff = 0x4000 - 100;
    assert!(matches!(told(&file.bytes(), source, &options), ImageError::TableCutOff { .. }));
    file.e_phoff = 64;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::PhdrSize { value: 60 }));
    file.e_phentsize = 64;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::FirstAddress { value: 0x1000 }));
    file.phdrs[0].p_vaddr = 0;
    file.phdrs[1].p_vaddr = 0x800;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::FileExceedsMemory { index: 0 }));
    file.phdrs[0].p_memsz = 0x20;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::Order { index: 1 }));
    file.phdrs[1].p_vaddr = 0x1800;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::Overflow { index: 1 }));
    file.phdrs[1].p_memsz = 0x100;
    assert_eq!(told(&file.bytes(), source, &options), why(Unsupported::Overflow { index: 2 }));
    file.phdrs[2].p_offset = 0;
    assert_eq!(told(&file.bytes(), source, &options), ImageError::TooFewRecords { needed: 5, room: 0 });
    options.room_records = Some(5);
    assert_eq!(told(&file.bytes(), source, &options), ImageError::NoRoom);
    options.padding_bytes = 1 << 40;
    assert_eq!(check(&file.bytes(), source, &options).map(|plan| plan.records.len()), Ok(5));
}

#[test]
fn what_is_not_elf_of_this_model_is_refused_interpreted_and_taken_flat() {
    let flat = ImageOptions { interpret: Interpret::Flat, ..Default::default() };
    let text = [b'#'; 100];
    assert_eq!(check(&text, source(&text), &ImageOptions::default()), Err(Unsupported::NotElf.into()));
    assert_eq!(check(&text, source(&text), &flat).map(|plan| plan.records.len()), Ok(1));
    let mut bytes = File::pie().bytes();
    bytes[5] = 2;
    assert_eq!(check(&bytes, source(&bytes), &ImageOptions::default()), Err(Unsupported::ByteOrder.into()));
    bytes[5] = 1;
    bytes[6] = 0;
    assert_eq!(check(&bytes, source(&bytes), &ImageOptions::default()), Err(Unsupported::Version.into()));
    bytes[6] = 1;
    bytes[4] = 3;
    let wrong = Unsupported::WrongModel { wanted: Model::Elf64 };
    assert_eq!(check(&bytes, source(&bytes), &ImageOptions::default()), Err(wrong.into()));
}

#[test]
fn tables_that_cannot_be_are_refused() {
    for (size, reason) in [(0, 0), (55, 55), (60, 60), (57, 57)] {
        let mut file = File::pie();
        file.e_phentsize = size;
        assert_eq!(unsupported(&file), Unsupported::PhdrSize { value: reason });
    }
    for count in [0, 0xffff] {
        let mut file = File::pie();
        file.e_phnum = Some(count);
        assert_eq!(unsupported(&file), Unsupported::PhdrCount { value: count });
    }
    for table in [0x4000 + 100, u64::MAX - 63, u64::MAX - 224] {
        let mut file = File::pie();
        file.e_phoff = table;
        let bytes = file.bytes();
        let source = FileFacts { length_bytes: 0x4000, execution: Execution::Allowed };
        let error = check(&bytes[..64], source, &ImageOptions::default()).expect_err("cut off");
        assert!(matches!(error, ImageError::TableCutOff { range } if range.start == table), "{error:?}");
    }
    // More phdrs than the file says there are bytes is no news; a file that shrinks while it is planned is.
    let bytes = File::pie().bytes();
    let shrinks = plan_with(source(&bytes), &ImageOptions::default(), |offset, buffer| {
        buffer.copy_from_slice(&bytes[offset as usize..offset as usize + buffer.len()]);
        Ok::<_, ()>(if offset == 0 { buffer.len() } else { buffer.len() - 1 })
    });
    assert!(matches!(shrinks, Err(PlanFailure::Image(ImageError::TableCutOff { .. }))), "{shrinks:?}");
    let vanishes = plan_with(source(&bytes), &ImageOptions::default(), |_, _| Ok::<_, ()>(0));
    assert_eq!(vanishes, Err(PlanFailure::Image(Unsupported::TooShort { length_bytes: 0 }.into())));
    let fails = plan_with(source(&bytes), &ImageOptions::default(), |_, _| Err("broken"));
    assert_eq!(fails, Err(PlanFailure::Read("broken")));
}

#[test]
fn phdrs_that_cannot_be_are_refused() {
    let mut file = File::pie();
    file.phdrs.swap(1, 2);
    assert_eq!(unsupported(&file), Unsupported::Order { index: 2 });
    let mut file = File::pie();
    file.phdrs[1].p_vaddr = 0x627;
    assert_eq!(unsupported(&file), Unsupported::Order { index: 1 });
    // The same page, but no byte in common.
    file.phdrs[1].p_vaddr = 0xff0;
    assert_eq!(unsupported(&file), Unsupported::Order { index: 1 });
    let mut file = File::pie();
    file.phdrs[3].p_filesz = file.phdrs[3].p_memsz + 1;
    assert_eq!(unsupported(&file), Unsupported::FileExceedsMemory { index: 3 });
    for (p_vaddr, p_memsz) in
        [(0x3de8, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX), (u64::MAX - 4095, 4000)]
    {
        let mut file = File::pie();
        file.phdrs[3] = load(RW, 0, p_vaddr, 0, p_memsz);
        assert_eq!(unsupported(&file), Unsupported::Overflow { index: 3 }, "{p_vaddr:x} {p_memsz:x}");
    }
    let mut file = File::pie();
    file.phdrs[3].p_offset = u64::MAX - 5;
    assert_eq!(unsupported(&file), Unsupported::Overflow { index: 3 });
    let mut file = File::pie();
    file.phdrs.iter_mut().for_each(|phdr| phdr.p_memsz = 0);
    assert_eq!(unsupported(&file), Unsupported::NothingToLoad);
    file.e_type = ET_EXEC;
    file.phdrs.iter_mut().for_each(|phdr| phdr.p_type = 7);
    assert_eq!(unsupported(&file), Unsupported::NothingToLoad);
}

/// Departure from illumos: it would map byte 0 of the file where `p_vaddr` bytes belong.
#[test]
fn a_shared_object_has_a_place_for_its_header() {
    let mut file = File::pie();
    file.phdrs[0] = load(R, 0x1000, 0, 0x10, 0x10);
    assert_eq!(unsupported(&file), Unsupported::HeaderPlace { address: 0, offset: 0x1000 });
    file.phdrs[0] = load(R, 0x200, 0x200, 0x10, 0x10);
    let plan = result(&file, &ImageOptions::default()).expect("there is a place");
    let first = plan.records[0];
    assert_eq!((first.address.0, first.offset, first.file_bytes, first.memory_bytes), (0, 0, 0x210, 0x210));
    // The same of an executable is as the phdr says, with what shares its pages.
    file.e_type = ET_EXEC;
    let plan = result(&file, &ImageOptions::default()).expect("as it is");
    let first = plan.records[0];
    assert_eq!(
        (first.address.0, first.offset, first.file_bytes, first.memory_bytes),
        (0, 0x200, 0x10, 0x210)
    );
}

#[test]
fn room_is_counted_with_the_padding() {
    for (e_type, needed) in [(ET_DYN, 4), (ET_EXEC, 4), (ET_REL, 1), (ET_CORE, 1)] {
        for (padding_bytes, needed) in [(0, needed), (1, needed + 2)] {
            let mut file = File::fixed();
            file.e_type = e_type;
            if e_type == ET_DYN {
                file = File::pie();
            }
            let options =
                |room| ImageOptions { padding_bytes, room_records: Some(room), ..Default::default() };
            let room = needed - 1;
            let error = result(&file, &options(room)).expect_err("too few");
            assert_eq!(error, ImageError::TooFewRecords { needed, room });
            let plan = result(&file, &options(needed)).expect("enough");
            assert_eq!(plan.records.len(), needed as usize);
        }
    }
}

#[test]
fn noexec_refuses_executables_of_fixed_addresses_only() {
    for (e_type, is_refused) in [(ET_DYN, false), (ET_EXEC, true), (ET_REL, false), (ET_CORE, false)] {
        let mut file = File::pie();
        file.e_type = e_type;
        let bytes = file.bytes();
        let source = FileFacts { execution: Execution::Forbidden, ..source(&bytes) };
        let told = check(&bytes, source, &ImageOptions::default());
        assert_eq!(told == Err(ImageError::NoExec), is_refused, "{e_type}: {told:?}");
    }
}

#[test]
fn padding_that_does_not_fit_is_refused() {
    let padded = |padding_bytes| ImageOptions { padding_bytes, ..Default::default() };
    let large = ImageError::PaddingTooLarge { padding_bytes: u64::MAX - 4094 };
    assert_eq!(result(&File::pie(), &padded(u64::MAX - 4094)), Err(large));
    for padding_bytes in [u64::MAX - 4095, 1 << 63] {
        assert_eq!(result(&File::pie(), &padded(padding_bytes)), Err(ImageError::NoRoom));
        assert_eq!(result(&File::fixed(), &padded(padding_bytes)), Err(ImageError::NoRoom));
        let flat = ImageOptions { interpret: Interpret::Flat, ..padded(padding_bytes) };
        assert_eq!(result(&File::pie(), &flat), Err(ImageError::NoRoom));
    }
    // An executable at 4 MiB has no more than that before it.
    assert!(result(&File::fixed(), &padded(0x40_0000)).is_ok());
    assert_eq!(result(&File::fixed(), &padded(0x40_0001)), Err(ImageError::NoRoom));
}

#[test]
fn addresses_of_32_bits_end_there() {
    let options = ImageOptions { interpret: Interpret::Elf(Model::Elf32), ..Default::default() };
    let mut file =
        File::new(ET_EXEC, &[load(RX, 0, 0x0804_8000, 0x800, 0x800), load(RW, 0, 0xffff_e000, 0, 0x2000)]);
    (file.class, file.e_phoff, file.e_phentsize) = (1, 52, 32);
    assert_eq!(result(&file, &options).map(|plan| plan.records.len()), Ok(2));
    file.phdrs[1].p_memsz = 0x2001;
    assert_eq!(result(&file, &options), Err(Unsupported::Overflow { index: 1 }.into()));
    file.phdrs[1].p_type = PT_SUNWBSS;
    file.e_phentsize = 34;
    assert_eq!(result(&file, &options), Err(Unsupported::PhdrSize { value: 34 }.into()));
    file.e_phentsize = 36;
    file.phdrs[1].p_memsz = 0x1fff;
    assert_eq!(result(&file, &options).map(|plan| plan.records.len()), Ok(2));
}
