//! Objects under names, as programs see them. The programs are started by the example `map_objects`, which has synthetic
//! objects: `cargo test` builds it with the tests.
#![cfg(target_arch = "x86_64")]

mod command;
mod copies;
mod ends;
mod failures;
mod folders;
mod maps;
mod reads;
mod slow;
