//! Where the frames of a mapped file come from: the cache of this process, or a server that lends them.

use std::fmt;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use memobj::{AtOnce, LentFrames};
use memobj_linux::fault_loop::Awaited;

/// What a program wants to do with a file that it maps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum MappingKind {
    /// Stores are its own.
    Private,
    /// It wants to see the stores of others.
    Shared,
}

/// The frames of a file, for programs that map them. Calls block for no page.
pub(crate) trait FrameSource: fmt::Debug + Send + Sync {
    /// The file of frames, which can be read only: page `i` of the mapped file is its page `i` while that is resident, and a
    /// hole otherwise.
    fn file(&self) -> BorrowedFd<'_>;

    /// Whether the page at `offset` has its bytes in a frame now. It may lose it at any time.
    fn is_resident(&self, offset: u64) -> bool;

    /// Has the page at `offset` obtained, and on the way absent pages of `around`.
    fn resolve_at_once(&self, offset: u64, around: Range<u64>) -> Resolved;

    /// Asks for the pages of `ranges` in the background, in this order.
    fn prefetch(&self, ranges: &[Range<u64>]);

    /// The file is about to change. Whoever lends the frames keeps nobody from that when this returns.
    fn give_back(&self);
}

/// What became of a page that was asked for.
pub(crate) enum Resolved {
    /// It was resident at some moment during the call.
    Resident,
    /// It has failed, as this says.
    Failed(String),
    /// It is on its way: ask again when this is over.
    Pending(Box<dyn Awaited>),
    /// Who lends the frames is gone: no more pages come. Those that are resident stay.
    Gone(String),
}

impl FrameSource for LentFrames {
    fn file(&self) -> BorrowedFd<'_> {
        self.file()
    }

    fn is_resident(&self, offset: u64) -> bool {
        self.is_resident(offset)
    }

    fn resolve_at_once(&self, offset: u64, around: Range<u64>) -> Resolved {
        match self.resolve_at_once(offset, around) {
            AtOnce::Pending(pending) => Resolved::Pending(Box::new(pending)),
            AtOnce::Failed(error) => Resolved::Failed(error.to_string()),
            _ => Resolved::Resident,
        }
    }

    fn prefetch(&self, ranges: &[Range<u64>]) {
        self.prefetch(ranges);
    }

    fn give_back(&self) {}
}
