//! What is in memory once a file is mapped.

use crate::build::{ET_DYN, ET_EXEC, R, RW, RX, elf, file, mapped, maps};
use memobj::image::{ImageMapOptions, Interpret, MapImageError, Prot, RecordKind, VirtAddr, map_image};

/// Addresses that nothing has by itself: low, and above the first page that may be mapped.
const FIXED: u64 = 0x1234_5000_0000;

fn bytes(image: &memobj::image::MappedImage, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    image.read_at(VirtAddr(address), &mut bytes).expect("mapped and readable");
    bytes
}

fn pattern(offset: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| ((offset + i) % 251 + 1) as u8).collect()
}

/// The line of `/proc/self/maps` that holds `address`.
fn line_of(address: u64) -> Option<String> {
    maps().into_iter().find(|line| {
        let mut ends = line.split([' ', '-']).map(|hex| u64::from_str_radix(hex, 16).unwrap_or(0));
        let (start, end) = (ends.next().unwrap_or(0), ends.next().unwrap_or(0));
        start <= address && address < end
    })
}

#[test]
fn bytes_zeros_holes_and_protections_are_as_planned() {
    let phdrs = [
        (R, 0, 0, 0x400, 0x400),
        (RX, 0x1000, 0x1000, 0x800, 0x2900),
        (RW, 0x2123, 0x10_0123, 0x1000, 0x3000),
    ];
    let image = mapped(&elf(ET_DYN, 0x20_0000, &phdrs, 0x4000)).expect("an image");
    let base = image.records()[0].address.0;
    assert!(base.is_multiple_of(0x20_0000));
    assert_eq!(bytes(&image, base, 4), b"\x7fELF");
    assert_eq!(bytes(&image, base + 0x1000, 0x800), pattern(0x1000, 0x800));
    // Zeros in a segment that nobody may write: the end of a page of the file, and pages behind it.
    assert_eq!(bytes(&image, base + 0x1800, 0x2100), vec![0; 0x2100]);
    assert_eq!(bytes(&image, base + 0x10_0123, 0x1000), pattern(0x2123, 0x1000));
    assert_eq!(bytes(&image, base + 0x10_1123, 0x2000), vec![0; 0x2000]);
    let record = image.records()[2];
    assert_eq!((record.offset, record.memory_bytes, record.file_bytes), (0x123, 0x3123, 0x1000));
    for (at, prot) in
        [(0, "r--p"), (0x1000, "r-xp"), (0x2000, "r-xp"), (0x10_0000, "rw-p"), (0x10_3000, "rw-p")]
    {
        let line = line_of(base + at).expect("mapped");
        assert_eq!(line.split(' ').nth(1), Some(prot), "{line}");
    }
    assert_eq!(line_of(base + 0x4000), None, "the hole");
    assert_eq!(line_of(base + 0x10_4000).filter(|line| line.contains("deleted")), None);
    drop(image);
    assert_eq!(line_of(base + 0x1000).filter(|line| line.contains("deleted")), None);
}

#[test]
fn bytes_that_do_not_lie_alike_are_copied() {
    let image =
        mapped(&elf(ET_EXEC, 4096, &[(RX, 0x123, FIXED + 0x10, 0x1800, 0x2000)], 0x4000)).expect("an image");
    assert_eq!(bytes(&image, FIXED + 0x10, 0x1800), pattern(0x123, 0x1800));
    assert_eq!(bytes(&image, FIXED + 0x1810, 0x800), vec![0; 0x800]);
    assert_eq!(bytes(&image, FIXED, 0x10), vec![0; 0x10]);
    assert!(line_of(FIXED).is_some_and(|line| line.contains(" r-xp ")));
}

#[test]
fn padding_is_there_and_nobody_may_access_it() {
    let options = ImageMapOptions::new().padding_bytes(1);
    let phdrs = [(RX, 0, 0, 0x400, 0x400), (RW, 0x1000, 0x1000, 0x10, 0x10)];
    let image = map_image(&elf(ET_DYN, 0x20_0000, &phdrs, 0x4000), &options).expect("an image");
    let records = image.records();
    assert_eq!(records.len(), 4);
    assert!(records[1].address.0.is_multiple_of(0x20_0000));
    assert_eq!((records[0].address.0 + 4096, records[0].kind), (records[1].address.0, RecordKind::Padding));
    for record in [records[0], records[3]] {
        assert!(line_of(record.address.0).is_some_and(|line| line.contains(" ---p ")));
        let error = image.read_at(record.address, &mut [0]).expect_err("nobody may read");
        assert_eq!(error.raw_os_error(), Some(14));
    }
}

#[test]
fn flat_files_and_objects_are_whole_and_read_only() {
    let flat = ImageMapOptions::new().interpret(Interpret::Flat);
    let image = map_image(&file(b"some text"), &flat).expect("an image");
    let record = image.records()[0];
    assert_eq!((record.memory_bytes, record.prot, record.kind), (9, Prot::READ, RecordKind::Plain));
    assert_eq!(bytes(&image, record.address.0, 9), b"some text");
    let image = mapped(&elf(1, 4096, &[], 0x1234)).expect("an image");
    let record = image.records()[0];
    assert_eq!((record.memory_bytes, record.kind), (0x1234, RecordKind::ElfHeader));
}

#[test]
fn a_segment_can_be_unmapped_and_the_rest_leaked() {
    let phdrs = [(R, 0, 0, 0x400, 0x400), (RW, 0x1000, 0x1000, 0x800, 0x2900), (R, 0x3000, 0x8000, 8, 8)];
    let mut image = mapped(&elf(ET_DYN, 4096, &phdrs, 0x4000)).expect("an image");
    let base = image.records()[0].address.0;
    image.unmap_segment(1).expect("both of its mappings go");
    assert!(image.unmap_segment(2).is_err());
    assert_eq!(image.records().len(), 2);
    let here =
        |at: u64| line_of(base + at).is_some_and(|line| line.contains("deleted") || line.ends_with(" 0 "));
    assert!(!here(0x1000) && !here(0x2000) && !here(0x3000) && here(0) && here(0x8000));
    let records = image.leak();
    assert_eq!(records[1].address.0, base + 0x8000);
    assert!(here(0) && here(0x8000));
}

#[test]
fn fixed_addresses_are_taken_once() {
    let at = FIXED + 0x10_0000_0000;
    let phdrs = [(R, 0, at, 0x400, 0x400), (RW, 0x1000, at + 0x5000, 0x10, 0x10)];
    let program = elf(ET_EXEC, 4096, &phdrs, 0x4000);
    let image = mapped(&program).expect("free");
    assert_eq!(image.records()[1].address, VirtAddr(at + 0x5000));
    let MapImageError::InUse { range } = mapped(&program).expect_err("taken") else { panic!("in use") };
    assert_eq!(range.start, at);
    drop(image);
    // The second segment is in the way of another program: nothing of that is left.
    let other = elf(ET_EXEC, 4096, &[(R, 0, at + 0x5000, 0x400, 0x400)], 0x4000);
    let other = mapped(&other).expect("free again");
    assert!(matches!(mapped(&program), Err(MapImageError::InUse { range }) if range.start == at + 0x5000));
    assert_eq!(line_of(at), None);
    drop(other);
    mapped(&program).expect("free again");
}
