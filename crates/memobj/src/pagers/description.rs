//! What a pager says of itself.

use std::fmt;
use std::sync::Arc;

use super::File;

/// The block of a pager that names none: a page.
const PAGE: u64 = 4096;
/// The depth of a pager that names none.
const DEPTH: usize = 64;
/// The largest block that the engine asks for.
const LARGEST_BLOCK: u64 = 16 << 20;

/// What a pager declares about itself and its object, once, when the object is made.
///
/// ```
/// use memobj::pagers::Description;
///
/// let store = Description::new(10 << 30).block_bytes(1 << 20).depth(64).version("etag-17").immutable();
/// assert_eq!((store.length(), store.depth_limit()), (10 << 30, 64));
/// ```
#[derive(Clone)]
pub struct Description {
    length: u64,
    version: Option<Arc<str>>,
    block_bytes: u64,
    depth: usize,
    is_writable: bool,
    is_immutable: bool,
    blocks: bool,
    local: Option<Local>,
}

/// Bytes that this process or this machine has, so that the engine need not ask for them.
#[derive(Clone)]
pub(crate) enum Local {
    /// All are zero.
    Zeros,
    /// They are in memory.
    Memory(Arc<[u8]>),
    /// They are in a file of this machine, which the engine reads and writes through its own rings.
    File(File),
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Description")
            .field("length", &self.length)
            .field("version", &self.version)
            .field("block_bytes", &self.block_bytes)
            .field("depth", &self.depth)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => f.write_str("Zeros"),
            Self::Memory(bytes) => write!(f, "Memory({} bytes)", bytes.len()),
            Self::File(_) => f.write_str("File"),
        }
    }
}

impl Description {
    /// An object of `length` bytes that is read only. Its pager names no block, and works on 64
    /// requests at once.
    pub fn new(length: u64) -> Self {
        Self {
            length,
            version: None,
            block_bytes: PAGE,
            depth: DEPTH,
            is_writable: false,
            is_immutable: false,
            blocks: false,
            local: None,
        }
    }

    /// Names the version of the object that the pager supplies: an ETag, a generation. See [`MemoryObject::version`](crate::MemoryObject::version).
    #[must_use]
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The block that the pager likes to be asked for. The engine rounds it up to a power of two of at least 4 KiB and at most
    /// 16 MiB, and supplies the absent pages of a whole block when one of them is wanted. A block is no more than an
    /// eighth of the cache's budget.
    #[must_use]
    pub fn block_bytes(mut self, bytes: u64) -> Self {
        self.block_bytes = bytes.clamp(PAGE, LARGEST_BLOCK).next_power_of_two();
        self
    }

    /// The most requests that the pager works on at once; at least one. Further ones wait in the engine.
    #[must_use]
    pub fn depth(mut self, requests: usize) -> Self {
        self.depth = requests.max(1);
        self
    }

    /// The pager takes writes.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.is_writable = true;
        self
    }

    /// No byte of the object ever changes, whatever becomes of it elsewhere. Then the object is its own copy for copy
    /// segments of a space. The engine relies on it.
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.is_immutable = true;
        self
    }

    /// The pager blocks in its calls: each call occupies a worker of the cache.
    pub(super) fn blocking(mut self) -> Self {
        self.blocks = true;
        self
    }

    pub(super) fn local(mut self, local: Local) -> Self {
        self.local = Some(local);
        self
    }

    /// Bytes of the object.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The version that was [named](Self::version).
    pub fn version_name(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// See [`block_bytes`](Self::block_bytes).
    pub fn block(&self) -> u64 {
        self.block_bytes
    }

    /// See [`depth`](Self::depth).
    pub fn depth_limit(&self) -> usize {
        self.depth
    }

    /// See [`writable`](Self::writable).
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// See [`immutable`](Self::immutable).
    pub fn is_immutable(&self) -> bool {
        self.is_immutable
    }

    /// Whether a block of less than `bytes` was named.
    pub(crate) fn names_block_below(&self, bytes: u64) -> bool {
        self.block_bytes > PAGE && self.block_bytes < bytes
    }

    pub(crate) fn is_blocking(&self) -> bool {
        self.blocks
    }

    pub(crate) fn take_local(&mut self) -> Option<Local> {
        self.local.take()
    }
}
