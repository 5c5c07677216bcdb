//! Frames that a server lends: `memobj run --via`.
//!
//! The supervisor keeps the file still, by its own lease or watch, as for frames of its own. The server has the cache, the
//! budget, and the reads. A page that is missing is asked for there; nobody waits for it here.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use memobj_linux::fault_loop::{Awaited, Listener, Listeners};
use memobj_linux::locks::{Rank, RankedMutex};
use memobj_serve::control::{Borrowed, Borrower, ClientError, Connecting, LoanFailure, LoanKind};

use crate::frames::{FrameSource, MappingKind, Resolved};

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Via {
    borrower: Borrower,
    socket: PathBuf,
    is_told: AtomicBool,
}

impl Via {
    pub(crate) fn new(path: &Path, connecting: Connecting) -> Result<Self, ClientError> {
        let (borrower, socket) = (connecting.finish()?, path.to_owned());
        Ok(Self { borrower, socket, is_told: AtomicBool::new(false) })
    }

    /// Borrows the frames of a file that is open for reading, and held still.
    pub(crate) fn borrow(
        &self,
        file: impl AsFd,
        mapping_kind: MappingKind,
    ) -> Result<BorrowedFrames, ClientError> {
        let kind = match mapping_kind {
            MappingKind::Private => LoanKind::Private,
            MappingKind::Shared => LoanKind::Shared,
        };
        let borrowed = self.borrower.borrow(file, kind)?;
        let pages = RankedMutex::new(Rank::BorrowedPages, HashMap::new());
        Ok(BorrowedFrames { borrowed, pages })
    }

    /// Whether the caller is the first to say that the server is gone.
    pub(crate) fn tells_of_loss(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server at {}", self.socket.display())
    }
}

/// The frames of a file, from a server.
#[derive(Debug)]
pub(crate) struct BorrowedFrames {
    borrowed: Borrowed,
    /// By offset: pages that were asked for, and those that have failed, which stay so as long as the file is mapped.
    pages: RankedMutex<HashMap<u64, Arc<AskedPage>>>,
}

const WAITING: u8 = 0;
const SUPPLIED: u8 = 1;
const FAILED: u8 = 2;
const LOST: u8 = 3;

/// A page that was asked for.
#[derive(Debug, Default)]
struct AskedPage {
    state: AtomicU8,
    why: OnceLock<String>,
    listeners: Listeners,
}

impl AskedPage {
    fn answered(&self, answer: Result<(), LoanFailure>) {
        let (state, why) = match answer {
            Ok(()) => (SUPPLIED, None),
            Err(LoanFailure::Lost(why)) => (LOST, Some(why)),
            Err(other) => (FAILED, Some(other.to_string())),
        };
        if let Some(why) = why {
            let _ = self.why.set(why);
        }
        self.state.store(state, Ordering::Release);
        self.listeners.tell();
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    fn why(&self) -> String {
        self.why.get().cloned().unwrap_or_default()
    }
}

/// Listens to a page that was asked for.
struct Watched(Arc<AskedPage>);

impl AsRef<Listeners> for Watched {
    fn as_ref(&self) -> &Listeners {
        &self.0.listeners
    }
}

struct PageAnswer(Listener<Watched>);

impl Awaited for PageAnswer {
    fn is_over(&self) -> bool {
        self.0.0.state() != WAITING
    }
}

impl BorrowedFrames {
    /// Asks for a page that nobody has asked for, unless somebody is faster.
    fn asked(&self, offset: u64, around: &Range<u64>) -> Arc<AskedPage> {
        let new = Arc::new(AskedPage::default());
        let mut pages = self.pages.lock();
        if let Some(known) = pages.get(&offset) {
            return Arc::clone(known);
        }
        pages.insert(offset, Arc::clone(&new));
        drop(pages);
        let tell = Arc::clone(&new);
        self.borrowed.resolve(offset, around, move |answer| tell.answered(answer));
        new
    }

    fn forget(&self, offset: u64, page: &Arc<AskedPage>) {
        let mut pages = self.pages.lock();
        if pages.get(&offset).is_some_and(|known| Arc::ptr_eq(known, page)) {
            pages.remove(&offset);
        }
    }
}

impl FrameSource for BorrowedFrames {
    fn file(&self) -> BorrowedFd<'_> {
        self.borrowed.frames()
    }

    fn is_resident(&self, offset: u64) -> bool {
        self.borrowed.is_resident(offset)
    }

    fn resolve_at_once(&self, offset: u64, around: Range<u64>) -> Resolved {
        if self.is_resident(offset) {
            self.pages.lock().remove(&offset);
            return Resolved::Resident;
        }
        let page = self.asked(offset, &around);
        // From here on it is heard of.
        let listener = Listener::new(Watched(Arc::clone(&page)));
        match page.state() {
            WAITING => Resolved::Pending(Box::new(PageAnswer(listener))),
            FAILED => Resolved::Failed(page.why()),
            LOST => Resolved::Gone(page.why()),
            _ => {
                // Who touches it finds it, or asks again.
                self.forget(offset, &page);
                Resolved::Resident
            }
        }
    }

    fn prefetch(&self, ranges: &[Range<u64>]) {
        self.borrowed.prefetch(ranges);
    }

    fn give_back(&self) {
        self.borrowed.give_back_changed();
    }
}
