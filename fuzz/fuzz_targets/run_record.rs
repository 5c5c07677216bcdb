//! Any bytes as the record of a run: no panic, nothing large for little, one form, and a plan that keeps its promises.
//!
//! Run it with `cargo +nightly fuzz run run_record`. What is checked is what the tests of records check; the same body
//! runs without a fuzzer as `MEMOBJ_FUZZ_SECONDS=600 cargo xtask test -p memobj-run --test record mutations`.
#![no_main]

#[path = "../../crates/run/tests/record/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check::check_input(data);
});
