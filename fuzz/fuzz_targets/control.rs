//! Any bytes as what a client of `memobj serve` sends: no panic, answers in lines, and others are served.
//!
//! Run it with `cargo +nightly fuzz run control`. The same body runs without a fuzzer as
//! `MEMOBJ_FUZZ_SECONDS=600 cargo xtask test -p memobj-serve --test protocol`.
#![no_main]

#[path = "../../crates/serve/tests/protocol/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check::check_input(data);
});
