//! Random histories that meet each other's mappings often.

use super::History;
use super::machine::WINDOW_START;
use memobj_linux::oracle::{Detail, Order};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const PAGE: u64 = 4096;
/// The last page of all addresses.
const LAST_PAGE: u64 = 0_u64.wrapping_sub(PAGE);
/// Pages near the start of the window where most happens.
const BUSY: u64 = 12;

/// Histories of at most `most` orders.
pub fn histories(most: usize) -> impl Strategy<Value = History> {
    // A stack keeps 256 pages below it free, so for one that grows the window has to be long.
    let pages = prop_oneof![9 => Just(32_u64), 1 => Just(400)];
    pages.prop_flat_map(move |pages| {
        let step = (prop_oneof![3 => Just(0_u32), 1 => Just(1)], order(pages));
        vec(step, 1..most).prop_map(move |orders| History { pages, orders })
    })
}

/// Histories of one process that spaces of this process can carry out, too: of mapping, protection, moves, advice, and
/// private stores. Shared segments are of a file that was opened for reading, nobody writes to files, nothing is locked.
pub fn space_histories(most: usize) -> impl Strategy<Value = History> {
    histories(most).prop_map(|history| {
        let orders = history.orders.into_iter().map(|(_, order)| (0, for_spaces(order))).collect();
        History { pages: history.pages, orders }
    })
}

/// `order` if spaces of this process have it, else one that they have.
fn for_spaces(order: Order) -> Order {
    const ANONYMOUS: u32 = 0x20;
    // Of what mmap(2) can be told: places, populating, and what has no meaning.
    const KEPT: u32 = 0x10 | 0x10_0000 | 0x40 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x800 | 0x20_0000;
    const ADVICE: [i32; 11] = [4, 0, 1, 2, 3, 8, 9, 20, 21, 24, 99];
    let near = |offset: u64, byte| Order::Store { address: WINDOW_START + offset % (BUSY * PAGE), byte };
    match order {
        Order::Mmap { address, length, prot, flags, file, offset } => {
            let is_shared = flags & ANONYMOUS == 0 && matches!(flags & 0xf, 1 | 3);
            let sharing = if is_shared { 1 } else { 2 | flags & ANONYMOUS };
            let file = match file {
                0.. if is_shared => 1,
                2 => 0,
                other => other,
            };
            Order::Mmap { address, length, prot, flags: flags & KEPT | sharing, file, offset }
        }
        Order::Mprotect { address, length, prot } => Order::Mprotect { address, length, prot: prot & 7 },
        Order::Madvise { advice, .. } if ADVICE.contains(&advice) => order,
        Order::Madvise { address, length, .. } => Order::Madvise { address, length, advice: 4 },
        Order::Mlock { address, .. } | Order::Munlock { address, .. } => Order::Store { address, byte: 77 },
        Order::Msync { address, .. } | Order::CopyIn { address, .. } | Order::CopyOut { address, .. } => {
            Order::Load { address }
        }
        Order::Pwrite { offset, byte, .. } => near(offset, byte),
        Order::Pread { offset, .. }
        | Order::Truncate { length: offset, .. }
        | Order::Punch { offset, .. } => near(offset, 99),
        Order::Fork | Order::Exit => Order::Digest,
        Order::Table { .. } => Order::Table { detail: Detail::Lines },
        Order::Munmap { .. }
        | Order::Mremap { .. }
        | Order::Load { .. }
        | Order::Store { .. }
        | Order::Execute { .. }
        | Order::Digest => order,
    }
}

/// A page, and how many from there on, at least one; the last page of the window stays out, for what is rounded up.
fn range(pages: u64) -> impl Strategy<Value = (u64, u64)> {
    let start = prop_oneof![8 => 0..BUSY, 1 => pages - 12..pages - 2];
    (start, 1..8_u64).prop_map(move |(start, count)| (start, count.min(pages - 1 - start)))
}

fn at(page: u64) -> u64 {
    WINDOW_START + page * PAGE
}

/// Lengths are mostly whole pages; else they are rounded up, or are such that nothing can be done.
fn length(pages: u64, kind: u8) -> u64 {
    match kind {
        0 => 0,
        1 => u64::MAX,
        2 => LAST_PAGE,
        3..7 => pages * PAGE - u64::from(kind) * 500,
        _ => pages * PAGE,
    }
}

fn address(pages: u64) -> impl Strategy<Value = u64> {
    (range(pages), prop_oneof![Just(0), Just(PAGE - 1), 0..PAGE])
        .prop_map(|((page, _), byte)| at(page) + byte)
}

fn prot() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => select(vec![3_u32, 3, 3, 1, 1, 0, 7, 5, 2, 4]),
        1 => select(vec![0x83_u32, 8 | 1, 0x100_0001, 0x300_0001]),
    ]
}

fn map(pages: u64) -> impl Strategy<Value = Order> {
    let kinds = select(vec![0x22_u32, 0x22, 0x21, 1, 1, 2, 2, 3, 0, 0x20, 0x23, 4]);
    let place = select(vec![0x10_u32, 0x10, 0x10, 0x10, 0x10_0000, 0, 0, 0x40]);
    let rest = prop_oneof![
        12 => Just(0_u32),
        4 => select(vec![0x100_u32, 0x2000, 0x8000, 0x1_8000, 0x4000, 0x2_0000, 0x800, 0x20_0000, 0xa000]),
    ];
    let file = prop_oneof![20 => 0..4_i32, 1 => Just(-1)];
    let offset = prop_oneof![
        12 => (0..8_u64).prop_map(|page| page * PAGE),
        1 => select(vec![1_u64, LAST_PAGE, 1 << 40, 0x7fff_ffff_ffff_f000]),
    ];
    let strange = prop_oneof![
        20 => Just(None),
        1 => select(vec![Some(0_u64), Some(1), Some(LAST_PAGE)]),
    ];
    (range(pages), 0..60_u8, prot(), (kinds, place, rest), file, offset, strange).prop_map(
        |((page, count), kind, prot, (kinds, place, rest), file, offset, strange)| {
            let byte = if kind == 50 { 77 } else { 0 };
            let address = strange.unwrap_or(at(page) + byte);
            let length = if kind == 51 { 1 << 47 } else { length(count, kind) };
            Order::Mmap { address, length, prot, flags: kinds | place | rest, file, offset }
        },
    )
}

fn remap(pages: u64) -> impl Strategy<Value = Order> {
    let flags = select(vec![0_u32, 1, 1, 1, 3, 3, 5, 5, 7, 7, 2, 4, 8]);
    let fixed_same = any::<bool>();
    (range(pages), 1..10_u64, range(pages), flags, 0..40_u8, fixed_same).prop_map(
        move |((page, old), new, (to, _), flags, kind, same)| {
            let new = if same { old } else { new };
            let to = match kind {
                20 => 0,
                21 => at(to) + 1,
                22 => LAST_PAGE,
                _ => at(to.min(pages - new.min(pages))),
            };
            let old = if kind == 23 { 0 } else { length(old, kind.max(3)) };
            let new = match kind {
                24 => 0,
                25 => 1 << 47,
                26 => u64::MAX,
                _ => new * PAGE,
            };
            let address = if kind == 27 { at(page) + 8 } else { at(page) };
            Order::Mremap { address, old, new, flags, to }
        },
    )
}

/// Verbs on a range.
fn verb(pages: u64) -> impl Strategy<Value = Order> {
    let advice = prop_oneof![
        6 => select(vec![4, 4, 22, 23, 23, 102, 102, 103, 9, 10, 18, 18]),
        4 => select(vec![10, 11, 18, 19, 0, 1, 2, 3, 8, 16, 17, 20, 21, 24]),
        1 => Just(99),
    ];
    let flags = select(vec![4, 4, 1, 2, 6, 0, 5, 8]);
    (0..14_u8, range(pages), 0..40_u8, prot(), advice, flags).prop_map(
        |(verb, (page, count), kind, prot, advice, flags)| {
            let (address, length) = (at(page), length(count, kind));
            let address = if kind == 39 { address + 5 } else { address };
            match verb {
                0..3 => Order::Munmap { address, length },
                3..7 => Order::Mprotect { address, length, prot },
                7..11 => Order::Madvise { address, length, advice },
                // Rounding down and up must not leave the window.
                11 => Order::Mlock {
                    address: at(page),
                    length,
                    flags: u32::from(kind % 7 == 0) + u32::from(kind == 38) * 2,
                },
                12 => Order::Munlock { address: at(page), length },
                _ => Order::Msync { address, length, flags },
            }
        },
    )
}

fn file_order() -> impl Strategy<Value = Order> {
    let (file, offset) = (0..4_i32, 0..7 * PAGE);
    (0..8_u8, file, offset, 1..2 * PAGE, any::<u8>()).prop_map(
        |(kind, file, offset, length, byte)| match kind {
            0..3 => {
                Order::Pwrite { file, offset, length: if kind == 0 { length } else { length % 64 + 1 }, byte }
            }
            3 => Order::Pread { file, offset, length },
            4 => Order::Truncate { file, length: offset / PAGE * PAGE },
            5 | 6 => Order::Truncate { file, length: offset },
            _ => Order::Punch { file, offset, length },
        },
    )
}

fn order(pages: u64) -> impl Strategy<Value = Order> {
    prop_oneof![
        8 => map(pages),
        9 => verb(pages),
        3 => remap(pages),
        7 => file_order(),
        8 => (address(pages), any::<u8>()).prop_map(|(address, byte)| Order::Store { address, byte }),
        3 => address(pages).prop_map(|address| Order::Load { address }),
        1 => address(pages).prop_map(|address| Order::Execute { address }),
        1 => (range(pages), 1..3000_u64).prop_map(|((page, _), length)| Order::CopyOut { address: at(page) + 2000, length }),
        1 => (range(pages), 1..3000_u64, any::<u8>()).prop_map(|((page, _), length, byte)| {
            Order::CopyIn { address: at(page) + 2000, length, byte }
        }),
        1 => Just(Order::Digest),
        2 => Just(Order::Table { detail: Detail::Lines }),
        1 => Just(Order::Table { detail: Detail::Flags }),
        2 => prop_oneof![3 => Just(Order::Fork), 1 => Just(Order::Exit)],
    ]
}
