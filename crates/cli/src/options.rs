//! What the user chose about budget, frames, access and failure, in the command's own words.

use std::num::NonZeroU16;

use clap::{Args, ValueEnum};

use crate::inject::FaultPlan;
use crate::retry::Retry;
use crate::servers::ServerArguments;

/// The size of the frames that hold pages.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Frames {
    /// 4 KiB: exact budgets, scattered access
    #[value(name = "4k")]
    Small,
    /// 2 MiB: long sequential reads
    #[value(name = "2m")]
    Large,
    /// 2 MiB where the file and the budget are large enough and the machine can
    Auto,
}

/// How the command gets at the bytes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum AccessMethod {
    /// Plain loads; every page is supplied when it is first loaded from
    Touch,
    /// Whole ranges are resolved first and cannot be evicted while in use
    Pin,
    /// Copies out of the mapping, as read(2) would
    Copy,
}

/// Who resolves a fault.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Delivery {
    /// A thread of the cache
    Reader,
    /// The thread that faulted
    Inthread,
    /// The cache's default on this machine
    Auto,
}

/// What to do about a commit log that belongs to a stranger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ForeignLog {
    /// The file is not read.
    Refuse,
    /// The file is read as if there were none.
    Ignore,
}

/// Everything the engine is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) budget_bytes: u64,
    pub(crate) frames: Frames,
    pub(crate) threads: NonZeroU16,
    pub(crate) access: AccessMethod,
    pub(crate) delivery: Delivery,
    pub(crate) faults: FaultPlan,
    pub(crate) retry: Retry,
    pub(crate) foreign_log: ForeignLog,
    pub(crate) servers: ServerArguments,
}

impl Settings {
    /// Those of a command that reads one piece after the other by pins, within `budget_bytes`.
    pub(crate) fn sequential(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            frames: Frames::Auto,
            threads: NonZeroU16::MIN,
            access: AccessMethod::Pin,
            delivery: Delivery::Auto,
            faults: FaultPlan::default(),
            retry: Retry::Never,
            foreign_log: ForeignLog::Refuse,
            servers: ServerArguments::default(),
        }
    }
}

/// What the commands that read share.
#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    /// Read a file beside which lies a commit log of another user, without that log. Who makes such a log where
    /// anybody may make files keeps the file from being read otherwise
    #[arg(long)]
    ignore_foreign_log: bool,
}

impl LogArguments {
    /// What the engine is told.
    pub(crate) fn foreign_log(&self) -> ForeignLog {
        if self.ignore_foreign_log { ForeignLog::Ignore } else { ForeignLog::Refuse }
    }
}

/// How statistics are printed.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum StatsFormat {
    /// One JSON object on one line
    Json,
}
