//! Flags there and back.

extern crate std;

use super::super::{
    Backing, Growth, MapRequest, ObjectId, ObjectKind, ObjectView, Place, SegmentContent, Sharing,
};
use super::*;
use memobj_core::address::{ObjectOffset, VirtAddr};
use memobj_core::prot::Prot;

const VIEW: ObjectView =
    ObjectView { id: ObjectId(3), opened: Prot::READ, kind: ObjectKind::Plain, largest: i64::MAX as u64 };

fn back(numbers: &Numbers, request: &MapRequest) -> Option<(u32, u32)> {
    let object = match request.source {
        SegmentContent::Object { view, offset } => {
            Backing::Object { id: view.id, offset: ObjectOffset(offset) }
        }
        _ => Backing::Anonymous,
    };
    let taken =
        Taken { sharing: request.sharing.ok()?, object, place: request.place, growth: request.growth };
    Some((numbers.prot_bits(request.prot), numbers.flags(taken)?))
}

#[test]
fn flags_come_back_as_they_went() {
    let objects = [None, Some(VIEW)];
    let places =
        [Place::Anywhere, Place::Low, Place::Fixed(VirtAddr(4096)), Place::FixedFree(VirtAddr(4096))];
    let mut translated = 0;
    for (index, numbers) in [linux::NUMBERS, hurd::NUMBERS, solaris::NUMBERS].iter().enumerate() {
        for (object, place) in objects.iter().flat_map(|object| places.map(|place| (*object, place))) {
            for sharing in [Sharing::Shared, Sharing::Private, Sharing::Copy] {
                let backing = match object {
                    Some(view) => Backing::Object { id: view.id, offset: ObjectOffset(0) },
                    None => Backing::Anonymous,
                };
                if place == places[3] && numbers.fixed_free == 0 {
                    continue;
                }
                let taken = Taken { sharing, object: backing, place, growth: Growth::Fixed };
                let Some(flags) = numbers.flags(taken) else { continue };
                let address = if place.is_fixed() { 4096 } else { 0 };
                let prot = numbers.prot_bits(Prot::READ | Prot::EXECUTE);
                let at = ((address, 4096), (object, 0), ObjectId(9));
                let request = match index {
                    0 => {
                        let (length, offset, memory) = (4096, 0, ObjectId(9));
                        let call = linux::Mmap { address, length, prot, flags, object, offset, memory };
                        linux::mmap(&call).unwrap().0
                    }
                    1 => hurd::mmap(at.0, prot, flags, at.1, at.2).unwrap(),
                    _ => solaris::mmap(at.0, prot, flags, at.1, at.2).unwrap(),
                };
                assert_eq!(request.place, place);
                assert_eq!(back(numbers, &request), Some((prot, flags)), "{taken:?}");
                translated += 1;
            }
        }
    }
    assert_eq!(translated, 16 + 24 + 12);
}

#[test]
fn no_two_systems_agree_on_what_a_number_means() {
    assert_eq!(linux::NUMBERS.prot(1), Prot::READ);
    assert_eq!(hurd::NUMBERS.prot(1), Prot::EXECUTE);
    let request = hurd::mmap((0, 4096), 4, 0, (Some(VIEW), 0), ObjectId(9)).unwrap();
    assert_eq!(request.sharing, Ok(Sharing::Private));
    let unaligned_hint = hurd::mmap((1, 4096), 4, 2, (None, 0), ObjectId(9));
    assert_eq!(unaligned_hint, Err(Errno::EINVAL));
    let exclusive_only = hurd::mmap((4096, 4096), 4, 0x4002, (None, 0), ObjectId(9));
    assert_eq!(exclusive_only, Err(Errno::EINVAL));
    let anonymous_file = solaris::mmap((0, 4096), 1, 0x102, (Some(VIEW), 0), ObjectId(9));
    assert_eq!(anonymous_file, Err(Errno::EINVAL));
    assert_eq!(Errno::EOVERFLOW.solaris(), 79);
}

#[test]
fn advice_and_remaps_come_back_as_they_went() {
    for (number, advice) in linux::ADVICE {
        assert_eq!(linux::madvise(number), Ok(advice));
        let back = linux::madvise_number(advice).unwrap();
        assert_eq!(linux::madvise(back), Ok(advice));
    }
    for flags in 0..16 {
        match linux::mremap(flags, 4096) {
            Ok(to) => assert_eq!(linux::mremap_bits(to).0, flags),
            Err(errno) => assert_eq!(errno, Errno::EINVAL),
        }
    }
}
