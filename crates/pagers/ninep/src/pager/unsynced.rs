//! Writes that the server answered and was not asked to make durable yet.

use std::ops::Range;

use memobj::{ErrorKind, SupplyError};

use crate::ranges::Ranges;

/// Which bytes a server that restarts may have lost.
///
/// ```text
///   Rwrite ------> unsynced -- Tfsync --> syncing -- Rfsync --> durable
///                      |                     |
///                      +-- connection lost --+--> doubtful -- the next sync fails --> told: the engine offers again
///                                                     |        what it has, and reports the rest as lost
///                                                     +------- written again --> unsynced
/// ```
///
/// Doubtful bytes are not supplied: the server might have the old ones. The sets may hold more than was written (see
/// [`Ranges`]), which only doubts too much.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    unsynced: Ranges,
    syncing: Ranges,
    doubtful: Ranges,
}

impl Unsynced {
    /// The server took the bytes of `range`.
    pub(super) fn wrote(&mut self, range: Range<u64>) {
        self.doubtful.remove(&range);
        self.unsynced.add(range);
    }

    /// The server is asked to make durable what it took.
    pub(super) fn sync_sent(&mut self) {
        self.syncing.take_from(&mut self.unsynced);
    }

    /// The server has done so, or has said that it could not: then the engine is told.
    pub(super) fn sync_answered(&mut self) {
        self.syncing = Ranges::default();
    }

    /// Whether the server may lose anything.
    pub(super) fn is_empty(&self) -> bool {
        self.unsynced.is_empty() && self.syncing.is_empty()
    }

    /// The connection is lost; the server may have restarted.
    pub(super) fn connection_lost(&mut self) {
        self.doubtful.take_from(&mut self.unsynced);
        self.doubtful.take_from(&mut self.syncing);
    }

    /// Whether bytes of `range` may not be supplied.
    pub(super) fn refuse(&self, range: &Range<u64>) -> Result<(), SupplyError> {
        if self.doubtful.overlaps(range) { Err(lost()) } else { Ok(()) }
    }

    /// Whether a sync has to fail. It tells so once.
    pub(super) fn refuse_sync(&mut self) -> Result<(), SupplyError> {
        if self.doubtful.is_empty() {
            return Ok(());
        }
        self.doubtful = Ranges::default();
        Err(lost())
    }
}

fn lost() -> SupplyError {
    let why = "the connection to the server was lost, and the server, if it restarted, with it writes that were not synced";
    SupplyError::because(ErrorKind::Io, std::io::Error::other(why))
}
