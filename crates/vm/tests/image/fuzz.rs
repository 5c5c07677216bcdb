//! The body of the fuzz target without a fuzzer, for machines that have none: `MEMOBJ_FUZZ_SECONDS` says how long,
//! `MEMOBJ_FUZZ_SEED` from where on.

use crate::build::{ET_EXEC, ET_REL, File, RX, load};
use crate::check::{check_any, check_input};
use crate::mutate::{Random, mutated};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn mutations_for_a_while() {
    let seed = number("MEMOBJ_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let limit = Duration::from_millis(number("MEMOBJ_FUZZ_SECONDS").map_or(300, |seconds| seconds * 1000));
    println!("seed {seed}");
    let begin = Instant::now();
    let mut cases = 0_u64;
    while begin.elapsed() < limit {
        // Each case has its own seed, so that one can be repeated without those before it.
        let case = seed.wrapping_add(cases);
        let mut random = Random::new(case);
        let choice = [0; 3].map(|_: u8| random.below(256) as u8);
        let (bytes, length_bytes) = mutated(&mut random);
        let told = std::panic::catch_unwind(|| check_any(choice, length_bytes, &bytes));
        assert!(told.is_ok(), "seed {case}");
        cases += 1;
    }
    println!("{cases} cases in {} s", begin.elapsed().as_secs());
}

/// The inputs that a fuzzer begins with: tiny files that are right.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let input = |choice: [u8; 3], file: &File| {
        let length = 0x4000_u64.to_le_bytes();
        [&choice[..], &length[..], &file.bytes()[..]].concat()
    };
    let mut narrow = File::pie();
    (narrow.class, narrow.e_phoff, narrow.e_phentsize) = (1, 52, 32);
    let copied = File::new(ET_EXEC, &[load(RX, 0x123, 0x40_0010, 0x1000, 0x1800)]);
    vec![
        ("shared", input([2, 0, 1], &File::pie())),
        ("shared-padded", input([2, 5, 1], &File::pie())),
        ("fixed", input([2, 0, 1], &File::fixed())),
        ("fixed-few-records", input([2, 4, 4], &File::fixed())),
        ("fixed-noexec", input([0x42, 0, 1], &File::fixed())),
        ("object", input([2, 0, 1], &File::new(ET_REL, &[]))),
        ("narrow", input([1, 0, 1], &narrow)),
        ("copied", input([2, 0, 1], &copied)),
        ("flat", input([0, 4, 1], &File::new(ET_REL, &[]))),
    ]
}

/// `MEMOBJ_WRITE_CORPUS=1` writes the files; they are nothing else than what is made here.
#[test]
fn the_corpus_is_what_is_made_here() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/image_plan");
    let is_written = std::env::var_os("MEMOBJ_WRITE_CORPUS").is_some();
    for (name, input) in seeds() {
        check_input(&input);
        if is_written {
            std::fs::write(folder.join(name), &input).expect("the folder is there");
        }
        let file = std::fs::read(folder.join(name)).expect("MEMOBJ_WRITE_CORPUS=1 writes it");
        assert!(file == input, "{name}: MEMOBJ_WRITE_CORPUS=1 writes it anew");
    }
}
