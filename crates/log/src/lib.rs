//! A redo log beside a file: all changes of an object since its last commit become durable together or not at all.
//!
//! ```text
//!   writable object          CommitLog                         log storage           data storage
//!
//!   no room for a page ----> append(Spill) ------------------> record, not synced
//!   commit() --------------> append(Commit) -- reserve ------> room                   room in place
//!                                           -- one write ----> record with the mark
//!                                           -- one sync -----> durable
//!   page missing ----------> read_page <---------------------- newest image   or <--- page in place
//!   discard() -------------> abandon
//!   now and then ----------> begin_checkpoint, steps -------------------------------> sorted, large writes; sync
//!                            finish_checkpoint --------------> header: space free again
//! ```
//!
//! Nothing is ever written in place before the commit it belongs to is durable. The log has two segments, used in
//! turn: while one is copied in place, commits go to the other. `docs/commit-log.md` describes the bytes.
//!
//! # States
//!
//! A log is *sound*, has a *commit in flight* (between [`CommitLog::begin_commit`] and
//! [`CommitLog::finish_commit`]), or *needs repair*. It needs repair after any write or sync of the log storage
//! failed: what was not synced by then may be lost, whatever later syncs say. Such a log can be read, with every
//! image verified, and accepts nothing until [`CommitLog::repair`] returned Ok or it was opened anew.
//!
//! # Locks
//!
//! The host keeps the log behind one lock: shared for `&self`, exclusive for `&mut self`. Slow input and output
//! can be done with the lock released: [`CommitInFlight::write`] and [`Checkpoint::step`] take the storages and
//! not the log. Appends, `truncate`, `abandon` and commits in flight of one log are one at a time; they answer
//! [`AppendError::Busy`] otherwise. A commit may run at once with checkpoint steps.
//!
//! # Memory
//!
//! 16 bytes for each page with an image in the log, with the tree around them about 24; 16 more for each page
//! of a running checkpoint; one buffer as large as the largest record appended so far (at most 253 blocks), and
//! one of 1 MiB for a running checkpoint. Recovery needs the same, however long the log is.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod allocated_space;
mod append;
mod buffer;
mod checkpoint;
mod content;
mod error;
mod format;
mod layout;
mod log;
mod prepare;
mod recover;
mod repair;
mod storage;
#[cfg(test)]
mod tests;

pub use append::CommitInFlight;
pub use checkpoint::{Checkpoint, Finish, Progress};
pub use content::{Image, Location};
pub use error::{
    Action, AppendError, CheckpointError, Failure, OpenError, Place, ReadError, RepairError, StepError,
};
pub use format::{BLOCK_BYTES, RECORD_PAGES, VERSION};
pub use log::{CommitLog, Kind, Options};
pub use storage::{Reserved, Storage};
