//! `memobj-bench run`: what programs take under `memobj run`, beside the same programs without it.
//!
//! ```text
//!   run        measures program after program, ways in turns
//!   plan       the programs             runner    ways to run one: natively, under the command
//!   warm       one more way: under a supervisor that has run programs before
//!   report     table, bars, JSON        watchdog  ends what hangs
//! ```

pub mod options;
mod plan;
mod report;
pub mod run;
mod runner;
#[cfg(feature = "ours")]
pub mod warm;
mod watchdog;

#[cfg(test)]
mod tests;
