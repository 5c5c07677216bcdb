//! `memobj-bench run`: what programs take under `memobj run`, beside the same programs without it.
//!
//! ```text
//!   run        measures program after program, ways in turns
//!   plan       the programs             runner    ways to run one: natively, under the command
//!   report     table, bars, JSON        watchdog  ends what hangs
//! ```

pub mod options;
mod plan;
mod report;
pub mod run;
mod runner;
mod watchdog;

#[cfg(test)]
mod tests;
