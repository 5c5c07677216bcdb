//! The planner of ELF images on any bytes: no panic, no overflow, no plan but what the headers say.
//!
//! Run it with `cargo +nightly fuzz run image_plan`. What is checked is what the tests of the planner check; the same
//! body runs without a fuzzer as `MEMOBJ_FUZZ_SECONDS=600 cargo xtask test -p memobj-core --test image fuzz`.
#![no_main]

#[path = "../../crates/vm/tests/image/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check_input(data));
