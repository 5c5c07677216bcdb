//! `memobj run` from outside: what programs print, how they end, and what they see in memory, beside native runs of the
//! same programs.
#![cfg(target_arch = "x86_64")]

mod build;
mod coherence;
mod ends;
mod failures;
mod jobs;
mod memory;
mod names;
mod ordinary;
mod places;
mod processes;
mod programs;
mod room;
mod sharing;
