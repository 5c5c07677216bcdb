//! Images of fixed addresses in ranges that were kept for them.

use crate::build::{ET_EXEC, R, RW, elf, mapped, maps};
use memobj::image::{ImageMapOptions, MapImageError, Reservation, VirtAddr, map_image};

const AT: u64 = 0x3234_5000_0000;
const LENGTH: u64 = 0x10_0000;

/// The protection of what is mapped at `address`.
fn protection(address: u64) -> Option<String> {
    maps().into_iter().find_map(|line| {
        let mut fields = line.split(' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap_or(0));
        (start <= address && address < end).then(|| fields.next().unwrap_or("").to_string())
    })
}

fn program(at: u64) -> std::fs::File {
    elf(ET_EXEC, 4096, &[(R, 0, at, 0x400, 0x400), (RW, 0x1000, at + 0x5000, 0x10, 0x10)], 0x4000)
}

/// One test, because all of it is about the same addresses.
#[test]
fn reservations_are_replaced_and_put_back() {
    let reservation = Reservation::new(VirtAddr(AT), LENGTH).expect("free");
    assert!(Reservation::new(VirtAddr(AT + 4096), 4096).is_err(), "twice");
    assert_eq!(protection(AT).as_deref(), Some("---p"));

    // Both segments in one reservation; the hole between them stays reserved.
    let image = mapped(&program(AT)).expect("in the reservation");
    assert_eq!(protection(AT).as_deref(), Some("r--p"));
    assert_eq!(protection(AT + 0x5000).as_deref(), Some("rw-p"));
    assert_eq!(protection(AT + 0x1000).as_deref(), Some("---p"));
    assert!(
        matches!(mapped(&program(AT + 0x5000)), Err(MapImageError::InUse { .. })),
        "another image is there"
    );
    let other = mapped(&program(AT + 0x1000)).expect("between the first's segments");
    drop((image, other));
    assert_eq!(protection(AT + 0x5000).as_deref(), Some("---p"), "put back");

    // A segment across the end of the reservation; padding before its beginning, which is free.
    assert!(matches!(mapped(&program(AT + LENGTH - 0x5000 - 4096)), Ok(image) if image.records().len() == 2));
    let across = elf(ET_EXEC, 4096, &[(R, 0, AT + LENGTH - 4096, 0x400, 0x1800)], 0x4000);
    assert!(matches!(mapped(&across), Err(MapImageError::InUse { .. })));
    let padded = ImageMapOptions::new().padding_bytes(4096);
    drop(map_image(&program(AT), &padded).expect("the padding before is free"));
    assert_eq!((protection(AT - 4096), protection(AT).as_deref()), (None, Some("---p")));

    // What fails half-way is put back, too.
    let short = elf(ET_EXEC, 4096, &[(RW, 0x1_0000, AT, 0x1010, 0x3000)], 0x4000);
    assert!(matches!(mapped(&short), Err(MapImageError::FileEnds { .. })));
    assert_eq!(protection(AT).as_deref(), Some("---p"));

    // The image outlives the reservation, and takes it along.
    let mut image = mapped(&program(AT)).expect("in the reservation");
    image.unmap_segment(1).expect("put back");
    assert_eq!(protection(AT + 0x5000).as_deref(), Some("---p"));
    drop(reservation);
    let mut magic = [0; 4];
    image.read_at(VirtAddr(AT), &mut magic).expect("still there");
    assert_eq!(&magic, b"\x7fELF");
    drop(image);
    assert_eq!((protection(AT), protection(AT + 0x5000)), (None, None));
}
