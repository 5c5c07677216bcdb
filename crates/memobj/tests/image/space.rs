//! Images through the engine, beside those that the kernel maps from the same files.

use std::fs::File;
use std::path::Path;

use crate::build::{ET_DYN, ET_EXEC, R, RW, RX, elf, mapped};
use crate::real::some_files;
use memobj::image::{
    ImageError, ImageMapOptions, Interpret, MapImageError, MappedImage, RecordKind, Unsupported, VirtAddr,
};
use memobj::pagers::{Bytes, Faulty};
use memobj::space::{Backing, Prot, Space, SpaceImage, SpaceOptions};
use memobj::{Cache, FrameSize, FrameVisibility, MemoryObject, ObjectOptions};
use memobj_sim::fixture::{MIB, cache};
use memobj_sim::space::check_mapped;

fn lendable() -> ObjectOptions {
    ObjectOptions::new().visibility(FrameVisibility::Shared).frames(FrameSize::Small)
}

fn object_of(cache: &Cache, file: &File) -> MemoryObject {
    use std::os::fd::AsRawFd;
    cache.open_file(format!("/proc/self/fd/{}", file.as_raw_fd()), lendable()).expect("a file")
}

/// Every record of `ours` says what the kernel's image says, relative to the first, and has the same bytes to the end
/// of its last page.
fn compare(path: &Path, ours: &SpaceImage<'_>, kernel: &MappedImage) -> u64 {
    assert_eq!(ours.records().len(), kernel.records().len(), "{path:?}");
    let (base, kernel_base) = (ours.records()[0].address.0, kernel.records()[0].address.0);
    let (mut mine, mut theirs) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut compared = 0;
    for (record, other) in ours.records().iter().zip(kernel.records()) {
        let told = (record.memory_bytes, record.file_bytes, record.offset, record.prot, record.kind);
        assert_eq!(
            told,
            (other.memory_bytes, other.file_bytes, other.offset, other.prot, other.kind),
            "{path:?}"
        );
        assert_eq!(record.address.0 - base, other.address.0 - kernel_base, "{path:?}");
        if record.kind == RecordKind::Padding || record.prot == Prot::NONE {
            continue;
        }
        let pages = record.pages(4096);
        for at in (0..pages.length_bytes()).step_by(1 << 18) {
            let length = (pages.length_bytes() - at).min(1 << 18) as usize;
            ours.read_at(VirtAddr(record.address.0 + at), &mut mine[..length]).expect("bytes of the object");
            kernel.read_at(VirtAddr(other.address.0 + at), &mut theirs[..length]).expect("bytes of the file");
            assert!(mine[..length] == theirs[..length], "{path:?}: other bytes at {at:#x} of {record:?}");
            compared += length as u64;
        }
    }
    compared
}

/// A dozen of the machine's files; with `MEMOBJ_IMAGE_ALL=1` all of them.
#[test]
fn programs_and_libraries_have_the_bytes_that_the_kernel_maps() {
    let (mut files, mut bytes) = (0, 0);
    let cache = cache(MIB);
    let space = Space::new(SpaceOptions::default()).expect("a space");
    for path in some_files(12) {
        let file = File::open(&path).expect("was opened before");
        let kernel = match mapped(&file) {
            Ok(kernel) => kernel,
            Err(MapImageError::Plan(ImageError::Unsupported(Unsupported::WrongModel { .. }))) => continue,
            Err(error) => panic!("{path:?}: {error}"),
        };
        let object = cache.open_file(&path, lendable()).expect("a file");
        let ours = match space.map_image(&object, &ImageMapOptions::default()) {
            Ok(ours) => ours,
            // A program of fixed addresses, which are outside the window.
            Err(MapImageError::NoRoom { .. }) => continue,
            Err(error) => panic!("{path:?}: {error}"),
        };
        check_mapped(&space);
        bytes += compare(&path, &ours, &kernel);
        files += 1;
        drop(ours);
        assert_eq!(space.table(), [], "{path:?}");
    }
    assert!(cache.metrics().peak_frame_bytes <= MIB);
    println!("{files} files, {bytes} bytes within 1 MiB");
}

#[test]
fn padding_alignment_and_flat_files_are_as_the_kernels() {
    let phdrs = [
        (R, 0, 0, 0x1234, 0x1234),
        (RX, 0x2000, 0x2000, 0x1000, 0x1000),
        (RW, 0x3100, 0x3100, 0x200, 0x5000),
    ];
    let file = elf(ET_DYN, 0x20_0000, &phdrs, 0x4000);
    let cache = cache(MIB);
    let object = object_of(&cache, &file);
    let space = Space::new(SpaceOptions::default()).expect("a space");
    let padded = ImageMapOptions::new().padding_bytes(5000);
    let flat = ImageMapOptions::new().interpret(Interpret::Flat);
    for options in [ImageMapOptions::default(), padded, flat] {
        let kernel = memobj::image::map_image(&file, &options).expect("mapped");
        let ours = space.map_image(&object, &options).expect("mapped");
        compare(Path::new("made here"), &ours, &kernel);
        check_mapped(&space);
        let second = space.map_image(&object, &options).expect("beside it");
        compare(Path::new("made here, again"), &second, &kernel);
    }
    assert_eq!(space.table(), []);
    let image = space.map_image(&object, &padded).expect("mapped");
    let base = image.records()[1].address.0;
    assert!(base.is_multiple_of(0x20_0000));
    // Segments are the object's, and stores into them their own.
    let text = space.lookup(VirtAddr(base + 0x2000)).expect("mapped");
    assert!(
        matches!(text.backing, Backing::Object { .. }) && text.attributes.prot == Prot::READ | Prot::EXECUTE
    );
    space.write_at(VirtAddr(base + 0x3100), &[0xaa]).expect("writable");
    let records = image.leak();
    assert!(!space.table().is_empty());
    let pages = (records[0].pages(4096).start, records[records.len() - 1].pages(4096).end);
    space.unmap(VirtAddr(pages.0), pages.1 - pages.0).expect("mapped");
    assert_eq!(space.table(), []);
}

#[test]
fn programs_of_fixed_addresses_take_their_place_or_nothing() {
    let start = 0x2100_0000_0000;
    let phdrs = [(RX, 0, start, 0x1000, 0x1000), (RW, 0x1000, start + 0x3000, 0x800, 0x2000)];
    let file = elf(ET_EXEC, 0x1000, &phdrs, 0x2000);
    let cache = cache(MIB);
    let object = object_of(&cache, &file);
    let options = ImageMapOptions::default();
    let elsewhere = Space::new(SpaceOptions::default()).expect("a space");
    let refused = elsewhere.map_image(&object, &options).unwrap_err();
    assert!(matches!(refused, MapImageError::NoRoom { .. }), "{refused}");
    let window = SpaceOptions::new().window_bytes(MIB).window_start(VirtAddr(start));
    let space = Space::new(window).expect("the window is free");
    let image = space.map_image(&object, &options).expect("its place is free");
    assert_eq!(image.records()[1].address.0, start + 0x3000);
    let mut bytes = [1; 0x1000];
    image.read_at(VirtAddr(start + 0x3700), &mut bytes).expect("mapped");
    assert_eq!((bytes[0xff], bytes[0x100], bytes[0xfff]), (((0x17ff % 251) + 1) as u8, 0, 0));
    let before = space.table();
    let taken = space.map_image(&object, &options).unwrap_err();
    assert!(matches!(taken, MapImageError::InUse { .. }), "{taken}");
    assert_eq!(space.table(), before, "nothing of it stays");
}

#[test]
fn whatever_fails_nothing_stays_mapped() {
    let phdrs = [(R, 0, 0, 0x1000, 0x1000), (RW, 0x1000, 0x1000, 0x800, 0x2000)];
    let file = elf(ET_DYN, 0x1000, &phdrs, 0x2000);
    let mut content = vec![0; 0x2000];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).expect("bytes");
    let cache = cache(MIB);
    let space = Space::new(SpaceOptions::default()).expect("a space");
    // The page in which zeros begin has to be read; the headers cannot be; the object cannot lend.
    for (range, options) in
        [(0x1000..0x2000, lendable()), (0..1, lendable()), (0..0, ObjectOptions::default())]
    {
        let pager = Faulty::failing(Bytes::new(content.clone()), range.clone());
        let object = cache.object("broken", pager, options).expect("an object");
        let error = space.map_image(&object, &ImageMapOptions::default()).unwrap_err();
        match range.end {
            0x2000 => assert!(matches!(error, MapImageError::Map { .. }), "{error}"),
            1 => assert!(matches!(error, MapImageError::Read(_)), "{error}"),
            _ => assert!(matches!(error, MapImageError::Object(_)), "{error}"),
        }
        assert_eq!(space.table(), []);
    }
}
