//! What can go wrong, as data.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

mod admit;
mod as_io;
mod kind;
mod neighbour;
mod pin_holder;
mod write;

pub use admit::AdmitError;
#[cfg(any(feature = "images", feature = "spaces"))]
pub(crate) use as_io::system_may_pass;
pub(crate) use as_io::{Classified, as_io_error};
pub use kind::ErrorKind;
pub use neighbour::Neighbour;
pub use pin_holder::PinHolder;
pub use write::{WriteError, WriteStep};

/// The cause that a pager gave.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// A pager's answer when it cannot supply.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SupplyError {
    /// Why, in the closed set.
    pub kind: ErrorKind,
    /// The underlying error, if there is one.
    pub source: Option<Cause>,
    /// How long a server wants to be left alone before it is asked again. A retry waits for at least that long.
    pub retry_after: Option<Duration>,
    /// Of a sync that failed: the pager has all that it took, still, and the next sync makes it durable. Nothing is lost, and
    /// nothing is offered again.
    pub keeps_written: bool,
}

impl SupplyError {
    /// A failure of this kind, with nothing underneath.
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind, source: None, retry_after: None, keeps_written: false }
    }

    /// A failure of this kind, because of `source`.
    pub fn because(kind: ErrorKind, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..Self::new(kind) }
    }

    /// The same, of a sync after which the pager [keeps](Self::keeps_written) what it took.
    #[must_use]
    pub fn keeps_written(mut self) -> Self {
        self.keeps_written = true;
        self
    }

    /// The same, with the [pause](Self::retry_after) that a server asked for.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }
}

impl SupplyError {
    /// Of a sync: whether the pager has what it took.
    pub(crate) fn leaves_nothing_to_offer(&self) -> bool {
        self.keeps_written || self.kind == ErrorKind::Stale
    }
}

impl From<io::Error> for SupplyError {
    fn from(error: io::Error) -> Self {
        Self::because(kind_of(&error), error)
    }
}

/// The kind of failure that an error of the system is.
pub(crate) fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        // A device takes no byte behind its end.
        | io::ErrorKind::WriteZero
        | io::ErrorKind::OutOfMemory => ErrorKind::NoSpace,
        io::ErrorKind::InvalidData => ErrorKind::Integrity,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for SupplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for SupplyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

/// Why the bytes of a range of an object could not be had.
///
/// ```
/// # use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions, pagers};
/// # let cache = Cache::new(CacheOptions::default()).unwrap();
/// let broken = pagers::Faulty::failing(pagers::Zero::new(8192), 4096..8192);
/// let object = cache.object("data.bin", broken, ObjectOptions::default()).unwrap();
/// let mapping = object.map(0..8192, MapOptions::default()).unwrap();
/// let error = mapping.pin(0..8192).unwrap_err();
/// assert_eq!(error.to_string(), "supply [4096, 8192) of data.bin: input/output error");
/// assert_eq!(error.range(), 4096..8192);
/// ```
#[derive(Clone, Debug)]
pub struct PageError {
    pub(crate) object: Arc<str>,
    pub(crate) range: Range<u64>,
    pub(crate) refused: Range<u64>,
    pub(crate) kind: ErrorKind,
    pub(crate) tries: u32,
    pub(crate) source: Option<Cause>,
}

impl PageError {
    /// The name of the object.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The bytes of the object that cannot be read: the failed page's.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Of these, the first 4 KiB that the pager refused, where it could be asked in parts: this is what the
    /// message names.
    pub fn refused(&self) -> Range<u64> {
        self.refused.clone()
    }

    /// Why, in the closed set.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// How often the pager was asked; 0 if it was not.
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.refused;
        write!(f, "supply [{start}, {end}) of {}: {}", self.object, self.kind)?;
        if self.tries > 1 {
            write!(f, " after {} tries", self.tries)?;
        }
        Ok(())
    }
}

impl Error for PageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

/// Why there is no cache.
#[derive(Debug)]
#[non_exhaustive]
pub enum CacheError {
    /// Fewer frames than one instruction may need at once.
    BudgetTooSmall {
        /// What was asked for, in bytes.
        budget_bytes: u64,
        /// The least that works, in bytes.
        minimum_bytes: u64,
    },
    /// More than the machine, or the memory cgroup, has.
    BudgetExceedsMemory {
        /// What was asked for, in bytes.
        budget_bytes: u64,
        /// What there is, in bytes.
        memory_bytes: u64,
    },
    /// The system refused something that the cache needs.
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BudgetTooSmall { budget_bytes, minimum_bytes } => {
                write!(f, "a budget of {budget_bytes} bytes is too small: the least is {minimum_bytes} bytes")
            }
            Self::BudgetExceedsMemory { budget_bytes, memory_bytes } => {
                write!(f, "a budget of {budget_bytes} bytes exceeds the {memory_bytes} bytes of memory")
            }
            Self::System { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl Error for CacheError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why an object could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The file system refused.
    File {
        /// The path as given.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a regular file or block device.
    NotAFile {
        /// The path as given.
        path: std::path::PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The file has other bytes than as many as it says: one of /proc or /sys, for example. What is mapped needs a
    /// length; whoever wants the bytes reads them to their end.
    LengthUntold {
        /// The path as given.
        path: std::path::PathBuf,
    },
    /// A commit log lies beside the file and belongs to a stranger.
    /// [`File::open_beside`](crate::pagers::File::open_beside) reads the file all the same.
    ForeignLog {
        /// The path of the log.
        path: std::path::PathBuf,
    },
    /// Somebody else has the file open for writing.
    Locked {
        /// The path as given.
        path: std::path::PathBuf,
    },
    /// The commit log beside the file, which may hold what the file lacks, cannot be used.
    Log {
        /// The path of the log.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object cannot be written, or not as asked for.
    NotWritable {
        /// The object.
        object: String,
        /// What is in the way.
        why: &'static str,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "open {}: {}", path.display(), describe(source)),
            Self::Locked { path } => {
                write!(f, "open {}: it is open for writing elsewhere", path.display())
            }
            Self::LengthUntold { path } => {
                write!(
                    f,
                    "open {}: the file does not report its length, so it cannot be mapped",
                    path.display()
                )
            }
            Self::ForeignLog { path } => {
                write!(f, "commit log {}: it belongs to another user", path.display())
            }
            Self::Log { path, source } => {
                write!(f, "commit log {}: {}", path.display(), describe(source))?;
                match source.kind() {
                    io::ErrorKind::InvalidData => {
                        f.write_str(" (if the file was replaced on purpose, remove its log)")
                    }
                    _ => Ok(()),
                }
            }
            Self::NotWritable { object, why } => write!(f, "open {object} for writing: {why}"),
            Self::NotAFile { path, what } => {
                write!(
                    f,
                    "open {}: {what} cannot be mapped, only regular files and block devices",
                    path.display()
                )
            }
        }
    }
}

/// The text of an error of the system, without its number.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Log { source, .. } => Some(source),
            Self::NotAFile { .. }
            | Self::LengthUntold { .. }
            | Self::ForeignLog { .. }
            | Self::Locked { .. }
            | Self::NotWritable { .. } => None,
        }
    }
}

/// Why a range of an object could not be mapped.
#[derive(Debug)]
#[non_exhaustive]
pub enum MapError {
    /// The range is reversed or ends past the object.
    OutOfRange {
        /// The range asked for.
        range: Range<u64>,
        /// Bytes of the object.
        length: u64,
    },
    /// The object has private frames and is mapped with the other way of fault delivery already.
    OtherDelivery {
        /// The object.
        object: Arc<str>,
    },
    /// Too many objects are mapped in this process.
    TooManyObjects {
        /// The most there can be.
        limit: usize,
    },
    /// The kernel gives this process no userfaultfd; `memobj doctor` tells what to do.
    NoUserfaultfd {
        /// Why.
        source: io::Error,
    },
    /// Something else is mapped at the address asked for.
    AddressTaken {
        /// The addresses that the object needs.
        range: Range<usize>,
        /// Who has some of them.
        by: Neighbour,
    },
    /// The address asked for is none at which the object can be.
    BadAddress {
        /// The address.
        address: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The object is mapped at another address than asked for, and has one for all its mappings.
    MappedElsewhere {
        /// The object.
        object: Arc<str>,
        /// The address asked for.
        wanted: usize,
        /// Where the same bytes are mapped.
        address: usize,
    },
    /// What was asked for does not go together.
    Unsupported {
        /// What does not.
        why: &'static str,
    },
    /// The system refused something.
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The cache belongs to another process: this one was forked from it.
    Detached,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { range, length } => {
                write!(f, "map [{}, {}): the object has {length} bytes", range.start, range.end)
            }
            Self::OtherDelivery { object } => write!(
                f,
                "map {object}: it is mapped with another fault delivery already; an object with shared frames can have \
                 both"
            ),
            Self::TooManyObjects { limit } => write!(f, "more than {limit} objects are mapped"),
            Self::AddressTaken { range: Range { start, end }, by } => {
                write!(f, "map at [{start:#x}, {end:#x}): {by} is there")
            }
            Self::BadAddress { address, why } => write!(f, "map at {address:#x}: {why}"),
            Self::MappedElsewhere { object, wanted, address } => {
                write!(f, "map {object} at {wanted:#x}: it is mapped at {address:#x}")
            }
            Self::NoUserfaultfd { source } => {
                write!(f, "no userfaultfd for this process ({source}); run `memobj doctor`")
            }
            Self::Unsupported { why } => f.write_str(why),
            Self::System { what, source } => write!(f, "{what}: {source}"),
            Self::Detached => write!(f, "the cache belongs to the process that this one was forked from"),
        }
    }
}

impl Error for MapError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoUserfaultfd { source } | Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why bytes of a mapping could not be handed out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AccessError {
    /// The range is reversed or ends past the mapping.
    OutOfRange {
        /// The range asked for, in the mapping.
        range: Range<u64>,
        /// Bytes of the mapping.
        length: u64,
    },
    /// A page could not be supplied.
    Page(PageError),
    /// The pins would hold more of the budget than pins may.
    PinsExceedBudget {
        /// Bytes asked for.
        wanted_bytes: u64,
        /// Bytes that pins may hold at once.
        limit_bytes: u64,
    },
    /// A page carries the most pins that it can.
    TooManyPins,
    /// The mapping can only be pinned and copied: it has no address to touch.
    PinOnly,
    /// The object is read only.
    ReadOnly,
    /// Pins held a page for as long as a call may wait: [`ObjectOptions::pin_timeout`](crate::ObjectOptions::pin_timeout).
    Pinned {
        /// The page's bytes in the object.
        range: Range<u64>,
        /// Whose pins.
        by: PinHolder,
    },
    /// Another transaction had a page for as long as a call may wait:
    /// [`ObjectOptions::pin_timeout`](crate::ObjectOptions::pin_timeout).
    Conflict {
        /// The page's bytes in the object.
        range: Range<u64>,
        /// Whose transaction: of the thread that wrote to it last.
        by: PinHolder,
    },
    /// The transaction that has a page waits for a page of the one that asks, perhaps by way of others. Neither can go on
    /// before one is rolled back.
    Deadlock {
        /// The page's bytes in the object.
        range: Range<u64>,
    },
    /// Open transactions and pins for writing would hold more of the budget than they may.
    TransactionsExceedBudget {
        /// Bytes of pages asked for.
        wanted_bytes: u64,
        /// Bytes that they may hold at once.
        limit_bytes: u64,
    },
    /// Bytes cannot be written now.
    Write(WriteError),
    /// The bytes cannot be a value of this type.
    Layout {
        /// The range asked for, in the mapping.
        range: Range<u64>,
        /// The type.
        name: &'static str,
        /// What the bytes are not.
        wanted: &'static str,
    },
    /// Something else in this process uses the object in a way that excludes this one: pins for writing exclude
    /// [`shared_words`](crate::Mapping::shared_words), and the other way round.
    InUse,
    /// The cache belongs to another process: this one was forked from it.
    Detached,
}

impl AccessError {
    /// The bytes of the object, if a page failed; else the empty range.
    pub fn range(&self) -> Range<u64> {
        match self {
            Self::Page(error) => error.range(),
            Self::Write(error) => error.range(),
            Self::OutOfRange { range, .. }
            | Self::Pinned { range, .. }
            | Self::Layout { range, .. }
            | Self::Conflict { range, .. }
            | Self::Deadlock { range } => range.clone(),
            _ => 0..0,
        }
    }

    /// The page's error, if a page failed.
    pub fn page_error(&self) -> Option<&PageError> {
        match self {
            Self::Page(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { range, length } => {
                write!(f, "access [{}, {}): the mapping has {length} bytes", range.start, range.end)
            }
            Self::Page(error) => error.fmt(f),
            Self::PinsExceedBudget { wanted_bytes, limit_bytes } => {
                write!(
                    f,
                    "pin of {wanted_bytes} bytes: pins may hold {limit_bytes} bytes of the budget at once"
                )
            }
            Self::TooManyPins => write!(f, "the page has the maximum number of pins"),
            Self::PinOnly => {
                write!(f, "the mapping has no address to touch: it can be pinned and copied only")
            }
            Self::ReadOnly => write!(f, "the object is read only"),
            Self::Pinned { range, by } => {
                let Range { start, end } = range;
                match by {
                    PinHolder::ThisThread => write!(f, "[{start}, {end}) is pinned by this thread itself"),
                    PinHolder::Others => {
                        write!(f, "[{start}, {end}) is pinned by others, and the wait timed out")
                    }
                }
            }
            Self::Conflict { range, by } => {
                let Range { start, end } = range;
                match by {
                    PinHolder::ThisThread => {
                        write!(f, "[{start}, {end}) belongs to another open transaction of this thread")
                    }
                    PinHolder::Others => {
                        write!(
                            f,
                            "[{start}, {end}) belongs to a transaction of others, which did not end in time"
                        )
                    }
                }
            }
            Self::Deadlock { range } => {
                let Range { start, end } = range;
                write!(f, "[{start}, {end}) belongs to a transaction that waits for this one")
            }
            Self::TransactionsExceedBudget { wanted_bytes, limit_bytes } => {
                write!(
                    f,
                    "transaction: {wanted_bytes} bytes more are too much, open transactions and pins for writing may \
                     hold {limit_bytes} bytes of the budget at once"
                )
            }
            Self::Write(error) => error.fmt(f),
            Self::Layout { range: Range { start, end }, name, wanted } => {
                write!(f, "[{start}, {end}) is no {name}: its bytes are not {wanted}")
            }
            Self::InUse => write!(f, "pins for writing and shared words of one object exclude each other"),
            Self::Detached => write!(f, "the cache belongs to the process that this one was forked from"),
        }
    }
}

impl Error for AccessError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Page(error) => error.source(),
            Self::Write(error) => error.source(),
            _ => None,
        }
    }
}

impl From<WriteError> for AccessError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<PageError> for AccessError {
    fn from(error: PageError) -> Self {
        Self::Page(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_disk_a_quota_and_a_size_limit_answer_is_no_space() {
        const ENOSPC: i32 = 28;
        const EFBIG: i32 = 27;
        const EDQUOT: i32 = 122;
        const EIO: i32 = 5;
        let kinds = [ENOSPC, EFBIG, EDQUOT, EIO].map(|number| kind_of(&io::Error::from_raw_os_error(number)));
        assert_eq!(kinds, [ErrorKind::NoSpace, ErrorKind::NoSpace, ErrorKind::NoSpace, ErrorKind::Io]);
        assert_eq!(kind_of(&io::ErrorKind::WriteZero.into()), ErrorKind::NoSpace);
    }
}
