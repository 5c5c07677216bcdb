//! `memobj torture`: processes that write are killed, and what they were promised is looked for.
//!
//! ```text
//!   rounds  (the parent)  starts a worker, kills it, ------.   what was promised: [`history`]
//!      |                                                   |
//!      |  reports, through a pipe: these are synced        v
//!      '-- worker (writes) ------> file ------------> history (checks)
//! ```
//!
//! A file belongs to one promise and one way of storing and lives through all rounds of them, so that each
//! worker goes on where another was killed.

mod history;
mod random;
mod record;
mod record_file;
mod report;
mod rounds;
mod worker;

pub(crate) use rounds::run;
pub(crate) use worker::work;
