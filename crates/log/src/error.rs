//! What can go wrong, one closed set for each operation.

use core::fmt;

use memobj_core::address::PageIndex;

/// Which storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The log.
    Log,
    /// The object's file.
    Data,
}

/// What was asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// `read_at`
    Read,
    /// `write_at`
    Write,
    /// `sync`
    Sync,
    /// `length`
    Length,
    /// `set_length`
    SetLength,
    /// `reserve`
    Reserve,
    /// `zero`
    Zero,
}

/// An operation of a storage that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure<E> {
    /// Which storage.
    pub place: Place,
    /// Which operation.
    pub action: Action,
    /// What the storage said.
    pub error: E,
}

/// Why a page could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadError<E> {
    /// The storage failed.
    Storage(Failure<E>),
    /// The log does not hold the image that was written: it was damaged, or lost by a failed sync.
    Lost {
        /// The page.
        page: PageIndex,
    },
}

/// Why nothing was appended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AppendError<E> {
    /// There was no room, or none could be made certain of. Nothing is written, no page counts as appended, and
    /// the log goes on.
    Refused(Failure<E>),
    /// The page that the new end cuts could not be read. As for `Refused`, the log goes on.
    Unread(ReadError<E>),
    /// The log would pass 2^32 blocks. The log goes on; a checkpoint makes room.
    Full,
    /// A write, or the sync of new room, failed before any commit mark. Nothing is committed, now or after a crash; of the pages of this
    /// call none needs to count as appended. The log needs repair.
    Failed(Failure<E>),
    /// The write or the sync of the commit mark failed. A crash now shows the object with this commit or without
    /// it; after `repair` it is certainly without. The log needs repair.
    Unknown(Failure<E>),
    /// An earlier failure has not been repaired. Nothing changed.
    NeedsRepair,
    /// A commit is in flight. Nothing changed.
    Busy,
}

/// Why a checkpoint cannot begin or finish.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CheckpointError<E> {
    /// A storage failed; nothing is lost, call again.
    Refused(Failure<E>),
    /// Uncommitted images cannot be carried over: an image is lost. `abandon`, or go on without checkpoints.
    Unread(ReadError<E>),
    /// The log would pass 2^32 blocks while uncommitted images are carried over.
    Full,
    /// A write or sync of the log failed. The log needs repair.
    Failed(Failure<E>),
    /// An earlier failure has not been repaired.
    NeedsRepair,
    /// A commit is in flight, or another checkpoint is running.
    Busy,
    /// The plan is none of a running checkpoint of this log.
    NotRunning,
}

/// Why a step of a checkpoint failed. The step, or what must be repeated with it, is done by the next call.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StepError<E> {
    /// A storage failed. After a failed sync the plan begins again.
    Storage(Failure<E>),
    /// The log does not hold a committed image that was written.
    Lost {
        /// The page.
        page: PageIndex,
    },
}

/// Why a log was not repaired. It still needs repair, and `repair` may be called again.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RepairError<E> {
    /// A storage failed.
    Storage(Failure<E>),
    /// An image is lost. If it was spilled and never committed, `abandon` lets the next repair go on without.
    Lost {
        /// The page.
        page: PageIndex,
    },
    /// The log would pass 2^32 blocks.
    Full,
    /// A checkpoint is running: cancel it first. Or a commit is in flight.
    Busy,
}

/// Why a log could not be opened. Neither storage was changed, unless it says otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OpenError<E> {
    /// A storage failed. Parts of committed pages may be in place already; opening again starts over.
    Storage(Failure<E>),
    /// Neither header is valid: no log, or one whose creation did not end, in which nothing was committed.
    NotALog,
    /// The log was written by another version.
    Version {
        /// The version found.
        found: u32,
    },
    /// The log belongs to another object.
    OtherObject {
        /// The identity found.
        found: [u8; 16],
    },
    /// The object has a length that it never had while this log was written.
    OtherLength {
        /// The length found, in bytes.
        found: u64,
        /// The length at the last checkpoint, in bytes.
        expected: u64,
    },
}

/// Tags an error of the log storage.
pub(super) fn on_log<T, E>(action: Action, result: Result<T, E>) -> Result<T, Failure<E>> {
    result.map_err(|error| Failure { place: Place::Log, action, error })
}

/// Tags an error of the data storage.
pub(super) fn on_data<T, E>(action: Action, result: Result<T, E>) -> Result<T, Failure<E>> {
    result.map_err(|error| Failure { place: Place::Data, action, error })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Log => "log",
            Place::Data => "data",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Read => "read",
            Action::Write => "write",
            Action::Sync => "sync",
            Action::Length => "ask the length of",
            Action::SetLength => "set the length of",
            Action::Reserve => "reserve room in",
            Action::Zero => "zero a part of",
        })
    }
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.action, self.place, self.error)
    }
}

macro_rules! messages {
    ($name:ident { $($pattern:pat => ($($message:tt)+)),+ $(,)? }) => {
        impl<E: fmt::Display> fmt::Display for $name<E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                use $name::*;
                match self {
                    $($pattern => write!(f, $($message)+)),+
                }
            }
        }

        impl<E: fmt::Debug + fmt::Display> core::error::Error for $name<E> {}
    };
}

messages!(ReadError {
    Storage(failure) => ("{failure}"),
    Lost { page } => ("the log lost the image of page {page}"),
});
messages!(AppendError {
    Refused(failure) => ("nothing was changed: {failure}"),
    Unread(error) => ("nothing was changed: {error}"),
    Full => ("the commit log is full"),
    Failed(failure) => ("nothing was committed: {failure}"),
    Unknown(failure) => ("whether the commit is durable is unknown: {failure}"),
    NeedsRepair => ("the commit log needs repair after an earlier failure"),
    Busy => ("a commit is in flight"),
});
messages!(CheckpointError {
    Refused(failure) => ("{failure}"),
    Unread(error) => ("{error}"),
    Full => ("the commit log is full"),
    Failed(failure) => ("the commit log needs repair: {failure}"),
    NeedsRepair => ("the commit log needs repair after an earlier failure"),
    Busy => ("a commit is in flight or a checkpoint is running"),
    NotRunning => ("this checkpoint is not running"),
});
messages!(StepError {
    Storage(failure) => ("{failure}"),
    Lost { page } => ("the log lost the image of page {page}"),
});
messages!(RepairError {
    Storage(failure) => ("{failure}"),
    Lost { page } => ("the log lost the image of page {page}"),
    Full => ("the commit log is full"),
    Busy => ("a commit is in flight or a checkpoint is running"),
});
messages!(OpenError {
    Storage(failure) => ("{failure}"),
    NotALog => ("not a commit log"),
    Version { found } => ("commit log of version {found}, known is {}", super::format::VERSION),
    OtherObject { found } => ("the commit log belongs to object {:032x}", u128::from_be_bytes(*found)),
    OtherLength { found, expected } =>
        ("the object is {found} bytes long, by its commit log {expected}"),
});

impl<E> From<ReadError<E>> for AppendError<E> {
    fn from(error: ReadError<E>) -> Self {
        AppendError::Unread(error)
    }
}

impl<E> From<ReadError<E>> for StepError<E> {
    fn from(error: ReadError<E>) -> Self {
        match error {
            ReadError::Storage(failure) => StepError::Storage(failure),
            ReadError::Lost { page } => StepError::Lost { page },
        }
    }
}

impl<E> From<StepError<E>> for RepairError<E> {
    fn from(error: StepError<E>) -> Self {
        match error {
            StepError::Storage(failure) => RepairError::Storage(failure),
            StepError::Lost { page } => RepairError::Lost { page },
        }
    }
}

impl<E> From<AppendError<E>> for CheckpointError<E> {
    fn from(error: AppendError<E>) -> Self {
        match error {
            AppendError::Refused(failure) => CheckpointError::Refused(failure),
            AppendError::Unread(error) => CheckpointError::Unread(error),
            AppendError::Full => CheckpointError::Full,
            AppendError::Failed(failure) | AppendError::Unknown(failure) => CheckpointError::Failed(failure),
            AppendError::NeedsRepair => CheckpointError::NeedsRepair,
            AppendError::Busy => CheckpointError::Busy,
        }
    }
}
