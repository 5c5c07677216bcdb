//! What cannot be mapped, and that nothing is left of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use crate::build::{ET_DYN, ET_EXEC, R, RW, elf, file, mapped, maps};
use memobj::image::{ImageError, ImageMapOptions, Interpret, MapImageError, Unsupported, map_image};

#[test]
fn descriptors_are_checked_before_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, b"").expect("a file");
    let write_only = OpenOptions::new().write(true).open(&path).expect("opened");
    assert!(matches!(mapped(&write_only), Err(MapImageError::NotReadable)));
    const O_PATH: i32 = 0o10_000_000;
    let by_name = OpenOptions::new().read(true).custom_flags(O_PATH).open(&path).expect("opened");
    assert!(matches!(mapped(&by_name), Err(MapImageError::NotOpen)));
    let flat = ImageMapOptions::new().interpret(Interpret::Flat);
    for options in [flat, ImageMapOptions::default()] {
        for name in [folder.path(), "/dev/null".as_ref(), "/dev/zero".as_ref()] {
            let told = map_image(&File::open(name).expect("opened"), &options);
            assert!(matches!(told, Err(MapImageError::NotMappable)), "{name:?}: {told:?}");
        }
        let told = map_image(&File::open(&path).expect("opened"), &options);
        assert!(matches!(told, Err(MapImageError::Plan(ImageError::Empty))), "{told:?}");
    }
    let told = mapped(&file(&[b'#'; 100]));
    assert!(
        matches!(told, Err(MapImageError::Plan(ImageError::Unsupported(Unsupported::NotElf)))),
        "{told:?}"
    );
}

/// A file that ends where a page must be made of its bytes and zeros: mmap(2) would trap on the store.
#[test]
fn what_fails_half_way_leaves_nothing() {
    let at = 0x2234_5000_0000;
    for address in [0, at] {
        let e_type = if address == 0 { ET_DYN } else { ET_EXEC };
        let phdrs = [(R, 0, address, 0x400, 0x400), (RW, 0x1_0000, address + 0x1000, 0x1010, 0x3000)];
        let short = elf(e_type, 4096, &phdrs, 0x4000);
        let before = maps().len();
        let error = mapped(&short).expect_err("cut off");
        let MapImageError::FileEnds { range } = error else { panic!("{error}") };
        assert_eq!(range.length_bytes(), 0xff0);
        // Other tests of this process map, too; but nobody else at these addresses.
        if address != 0 {
            assert!(!maps().iter().any(|line| line.starts_with("22345")), "{before}");
        }
        let phdrs = [(R, 0, address, 0x400, 0x400), (RW, 0x1_0001, address + 0x1000, 0x10, 0x10)];
        assert!(matches!(mapped(&elf(e_type, 4096, &phdrs, 0x4000)), Err(MapImageError::FileEnds { .. })));
    }
    assert!(!maps().iter().any(|line| line.starts_with("22345")));
}

#[test]
fn what_has_no_room_is_refused() {
    let wide = elf(ET_DYN, 4096, &[(R, 0, 0, 0x400, 0x400), (RW, 0, 1 << 60, 0, 0x1000)], 0x4000);
    assert!(matches!(mapped(&wide), Err(MapImageError::NoRoom { .. })));
    let aligned = elf(ET_DYN, u64::MAX, &[(R, 0, 0, 0x400, 0x400)], 0x4000);
    assert!(matches!(mapped(&aligned), Err(MapImageError::NoRoom { .. })));
    let high = elf(ET_EXEC, 4096, &[(R, 0, 1 << 60, 0x400, 0x400)], 0x4000);
    assert!(matches!(mapped(&high), Err(MapImageError::NoRoom { .. })));
}

/// A lock of another process counts, one's own does not.
#[test]
fn a_locked_file_is_refused() {
    let program = elf(ET_DYN, 4096, &[(R, 0, 0, 0x400, 0x400)], 0x4000);
    let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::fcntl_lock(&program, lock).expect("a lock");
    mapped(&program).expect("one's own lock");
    let ended = memobj_linux::testing::fork(20, || match mapped(&program) {
        Err(MapImageError::Locked) => 0,
        _ => 1,
    });
    assert_eq!(ended.expect("a child"), memobj_linux::testing::Ended::Exited(0));
}
