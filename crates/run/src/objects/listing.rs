//! What is in folders of objects, as it was a few seconds ago at most.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj_linux::locks::{Rank, RankedMutex};

use crate::map_target::{EntryKind, ObjectFolder};

/// How long a list is used.
const USED_FOR: Duration = Duration::from_secs(5);
/// Lists that are kept.
const MOST_LISTS: usize = 256;
/// Bytes of a name of a file.
const MOST_NAME_BYTES: usize = 255;

/// The entries of a folder by their names.
pub(super) type Listing = BTreeMap<String, EntryKind>;

/// Which map, and which folder in it.
type Key = (usize, String);

/// See the module.
#[derive(Debug)]
pub(super) struct Listings {
    known: RankedMutex<HashMap<Key, (Instant, Arc<Listing>)>>,
}

impl Listings {
    pub(super) fn new() -> Self {
        Self { known: RankedMutex::new(Rank::ObjectListings, HashMap::new()) }
    }

    /// The list of the folder, if it need not be asked.
    pub(super) fn known(&self, map: usize, path: &str) -> Option<Arc<Listing>> {
        let known = self.known.lock();
        let (listed, listing) = known.get(&(map, path.to_owned()))?;
        (listed.elapsed() < USED_FOR).then(|| Arc::clone(listing))
    }

    /// The list of the folder. Blocks as long as `folder` does, if it has to be asked.
    pub(super) fn of(
        &self,
        map: usize,
        folder: &Arc<dyn ObjectFolder>,
        path: &str,
    ) -> io::Result<Arc<Listing>> {
        if let Some(known) = self.known(map, path) {
            return Ok(known);
        }
        // Counted from here, so that the list is not older than it says.
        let asked = Instant::now();
        let entries = catch_unwind(AssertUnwindSafe(|| folder.entries(path)))
            .unwrap_or_else(|_| Err(io::Error::other("it has panicked")))?;
        let valid = entries.into_iter().filter(|entry| can_be_a_name(&entry.name));
        let listing = Arc::new(valid.map(|entry| (entry.name, entry.kind)).collect::<Listing>());
        let mut known = self.known.lock();
        if known.len() >= MOST_LISTS {
            known.retain(|_, (listed, _)| listed.elapsed() < USED_FOR);
        }
        if known.len() < MOST_LISTS {
            known.insert((map, path.to_owned()), (asked, Arc::clone(&listing)));
        }
        Ok(listing)
    }

    /// Some list turned out to be old.
    pub(super) fn forget_all(&self) {
        let known = std::mem::take(&mut *self.known.lock());
        drop(known);
    }
}

fn can_be_a_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= MOST_NAME_BYTES
        && !name.contains(['/', '\0'])
}
