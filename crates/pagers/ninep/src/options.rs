//! How a file of a server is opened.

use std::ops::RangeInclusive;
use std::time::Duration;

use memobj::EngineClock;

use crate::dialect::Dialect;
use crate::message::OVERHEAD_BYTES;

/// How it is made sure that all bytes are of the version that was opened.
///
/// A version is the qid, the length and the time of the last change (and the data version, of servers that have one): the
/// version number of a qid alone is 0 in all servers we know. A change is not seen if it keeps the length and falls into
/// the same tick of the server's clock as the change before: some milliseconds in 9P2000.L, a second in 9P2000 and 9P2000.u.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum VersionCheck {
    /// Bytes are handed out after an answer about the version that the server was asked for once it had supplied them.
    /// Costs a round trip for each batch of answers.
    Strict,
    /// The version is compared when the connection was made anew, and at most once a second while reading.
    #[default]
    Mtime,
    /// Only the length is compared, when the connection was made anew. For servers whose qids or times change at a
    /// restart, and files that nobody changes.
    None,
}

/// Options of [`NinePager::open`](crate::NinePager::open). What the URL says goes before.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NineOptions {
    pub(crate) version: VersionCheck,
    pub(crate) dialect: Option<Dialect>,
    pub(crate) msize_bytes: u32,
    pub(crate) depth: usize,
    pub(crate) block_bytes: u64,
    pub(crate) is_writable: bool,
    pub(crate) user: Option<String>,
    pub(crate) tree: String,
    pub(crate) silence: Duration,
    pub(crate) silence_told: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) clock: Option<EngineClock>,
}

/// What may be asked for as the largest message.
pub(crate) const MSIZE_BYTES: RangeInclusive<u32> = 8192..=(1 << 20) + OVERHEAD_BYTES;
const DEPTH: RangeInclusive<usize> = 16..=64;
const BLOCK_BYTES: u64 = 256 << 10;

impl Default for NineOptions {
    fn default() -> Self {
        Self {
            version: VersionCheck::default(),
            dialect: None,
            msize_bytes: *MSIZE_BYTES.end(),
            depth: 32,
            block_bytes: BLOCK_BYTES,
            is_writable: false,
            user: None,
            tree: String::new(),
            silence: Duration::from_secs(10),
            silence_told: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            clock: None,
        }
    }
}

impl NineOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How versions are checked; [`VersionCheck::Mtime`] by default.
    #[must_use]
    pub fn version(mut self, check: VersionCheck) -> Self {
        self.version = check;
        self
    }

    /// Only this dialect; by default the best that the server has.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = Some(dialect);
        self
    }

    /// The largest message that the server is offered, in bytes: 8 KiB to 1 MiB and 24 bytes, which is the default. The
    /// server may choose less.
    #[must_use]
    pub fn msize_bytes(mut self, bytes: u32) -> Self {
        self.msize_bytes = bytes.clamp(*MSIZE_BYTES.start(), *MSIZE_BYTES.end());
        self
    }

    /// The most requests at the server at once, 16 to 64; 32 by default.
    #[must_use]
    pub fn depth(mut self, requests: usize) -> Self {
        self.depth = requests.clamp(*DEPTH.start(), *DEPTH.end());
        self
    }

    /// The block of the object, see [`Description::block_bytes`](memobj::pagers::Description::block_bytes); 256 KiB by default.
    #[must_use]
    pub fn block_bytes(mut self, bytes: u64) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Opens the file for reading and writing.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.is_writable = true;
        self
    }

    /// Who attaches: a name, or the number of a user (for 9P2000.u and 9P2000.L). By default the user of this process.
    #[must_use]
    pub fn uname(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// The file tree of the server; empty by default, which is its only or main one.
    #[must_use]
    pub fn aname(mut self, name: impl Into<String>) -> Self {
        self.tree = name.into();
        self
    }

    /// How long a server may answer nothing while requests are with it, until the connection is given up and made anew; 10 s
    /// by default. At half of it the server is asked for the file's attributes: a server that answers these while it works
    /// on slow requests is not silent.
    #[must_use]
    pub fn silence(mut self, limit: Duration) -> Self {
        self.silence = limit.max(Duration::from_millis(10));
        self
    }

    /// After which silence the [events](memobj::Event::ServerSilent) tell of it; 1 s by default.
    #[must_use]
    pub fn silence_told(mut self, after: Duration) -> Self {
        self.silence_told = after;
        self
    }

    /// How long each step of making a connection may take, by the system's clock; 5 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit.max(Duration::from_millis(1));
        self
    }

    /// The clock by which silence, pauses and the second between two checks of the version are measured; the system's by
    /// default. For tests.
    #[must_use]
    pub fn clock(mut self, clock: EngineClock) -> Self {
        self.clock = Some(clock);
        self
    }
}
