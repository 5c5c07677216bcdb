//! The record of a run: what is in it, what comes back from bytes, what bytes that are none do, what is prefetched.

mod bytes;
mod check;
mod from_history;
mod plan;
