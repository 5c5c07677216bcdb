//! No header makes the planner panic, or plan what the headers do not say.

use crate::build::{File, Phdr};
use crate::check::{check, check_any};
use crate::mutate::{Random, mutated};
use memobj_vm::image::{Execution, FileFacts, ImageOptions};
use proptest::prelude::*;

/// Any phdr whose numbers are near those of a small file, so that many are right.
fn phdr() -> impl Strategy<Value = Phdr> {
    let near = || prop_oneof![8 => 0_u64..0x9000, 1 => Just(u64::MAX - 4095), 1 => any::<u64>()];
    (0_u32..8, 0_u32..8, near(), near(), near(), near(), near()).prop_map(
        |(p_type, p_flags, p_offset, p_vaddr, p_filesz, more, p_align)| Phdr {
            p_type: p_type.min(1),
            p_flags,
            p_offset,
            p_vaddr,
            p_filesz,
            p_memsz: p_filesz.saturating_add(more),
            p_align,
        },
    )
}

/// Flags, gap before it, offset, bytes of the file, zeros behind them, logarithm of the alignment.
type Parts = (u32, u64, u64, u64, u64, u32);

/// Phdrs in order on pages of their own: all of these are right.
fn ordered() -> impl Strategy<Value = Vec<Phdr>> {
    let one = (0_u32..8, 0_u64..0x3000, 0_u64..0x2000, 0_u64..0x3000, 0_u64..0x3000, 0_u32..20);
    prop::collection::vec(one, 1..12).prop_map(|parts| {
        let mut free_from = 0_u64;
        let place = |(index, (p_flags, gap, p_offset, p_filesz, more, align)): (usize, Parts)| {
            let (gap, p_offset) = if index == 0 { (0, 0) } else { (gap, p_offset) };
            let p_vaddr = free_from + gap;
            let p_memsz = (p_filesz + more).max(1);
            free_from = (p_vaddr + p_memsz).next_multiple_of(4096);
            // The first has the header.
            let p_filesz = if index == 0 { p_memsz } else { p_filesz };
            Phdr { p_type: 1, p_flags, p_offset, p_vaddr, p_filesz, p_memsz, p_align: 1 << align }
        };
        parts.into_iter().enumerate().map(place).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_phdrs_are_planned_as_they_say_or_refused(
        phdrs in prop::collection::vec(phdr(), 0..6),
        e_type in 1_u16..5,
        choice in any::<[u8; 3]>(),
    ) {
        check_any(choice, 0x10_0000, &File::new(e_type, &phdrs).bytes());
    }

    #[test]
    fn phdrs_in_order_are_planned(phdrs in ordered(), e_type in 2_u16..4, padding_bytes in 0_u64..0x5000) {
        let mut file = File::new(e_type, &phdrs);
        if e_type == 2 {
            file.phdrs.iter_mut().for_each(|phdr| phdr.p_vaddr += 0x40_0000);
        }
        let source = FileFacts { length_bytes: 0x10_0000, execution: Execution::Allowed };
        let options = ImageOptions { padding_bytes, ..Default::default() };
        let plan = check(&file.bytes(), source, &options);
        prop_assert!(plan.is_ok(), "{:?}", plan);
    }

    #[test]
    fn any_bytes_are_planned_or_refused(choice in any::<[u8; 3]>(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_any(choice, bytes.len() as u64, &bytes);
    }

    #[test]
    fn files_that_are_nearly_right_are_planned_as_they_say_or_refused(seed in any::<u64>(), choice in any::<[u8; 3]>()) {
        let (bytes, length_bytes) = mutated(&mut Random::new(seed));
        check_any(choice, length_bytes, &bytes);
    }
}
