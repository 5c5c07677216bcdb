//! `memobj run` from outside: what programs print, how they end, and what they see in memory, beside native runs of the
//! same programs.
#![cfg(target_arch = "x86_64")]

mod budget;
mod build;
mod coherence;
mod endings;
mod ends;
mod failures;
mod idle;
mod jobs;
mod kernel_pages;
mod limits;
mod memory;
mod mounts;
mod names;
mod ordinary;
mod places;
mod processes;
mod programs;
mod secrets;
mod sharing;
mod test_folder;
mod via;
mod writers;
