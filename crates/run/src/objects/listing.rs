//! What is in folders of objects, as it was a few seconds ago at most: lists of folders, and single names that were looked up.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj_linux::locks::{Rank, RankedMutex};

use crate::map_target::{EntryKind, LookUp, ObjectFolder};

/// How long a list, or what was looked up, is used.
const USED_FOR: Duration = Duration::from_secs(5);
/// Lists that are kept, and entries of all of them together. One list is kept in any case.
const MOST_LISTS: usize = 256;
const MOST_LISTED: usize = 200_000;
/// Names that were looked up and are kept.
const MOST_NAMES: usize = 4096;
/// Bytes of a name of a file.
const MOST_NAME_BYTES: usize = 255;

/// The entries of a folder by their names.
pub(super) type Listing = BTreeMap<String, EntryKind>;

/// Which map, and which path in it.
type Key = (usize, String);

/// See the module.
#[derive(Debug)]
pub(super) struct Listings {
    known: RankedMutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Of folders, by their paths.
    lists: HashMap<Key, (Instant, Arc<Listing>)>,
    /// What was looked up; `None` if there was nothing.
    names: HashMap<Key, (Instant, Option<EntryKind>)>,
}

impl Known {
    fn add_list(&mut self, key: Key, asked: Instant, list: Arc<Listing>) {
        self.lists.retain(|_, (listed, _)| listed.elapsed() < USED_FOR);
        let listed = |lists: &HashMap<Key, (Instant, Arc<Listing>)>| -> usize {
            lists.values().map(|(_, list)| list.len()).sum()
        };
        while self.lists.len() >= MOST_LISTS || listed(&self.lists) + list.len() > MOST_LISTED {
            let oldest = self.lists.iter().min_by_key(|(_, (listed, _))| *listed);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            self.lists.remove(&oldest);
        }
        self.lists.insert(key, (asked, list));
    }

    fn add_name(&mut self, key: Key, asked: Instant, kind: Option<EntryKind>) {
        if self.names.len() >= MOST_NAMES {
            self.names.retain(|_, (asked, _)| asked.elapsed() < USED_FOR);
        }
        if self.names.len() >= MOST_NAMES {
            self.names.clear();
        }
        self.names.insert(key, (asked, kind));
    }
}

impl Listings {
    pub(super) fn new() -> Self {
        Self { known: RankedMutex::new(Rank::ObjectListings, Known::default()) }
    }

    /// The list of the folder, if it need not be asked.
    fn known(&self, map: usize, path: &str) -> Option<Arc<Listing>> {
        let known = self.known.lock();
        let (listed, listing) = known.lists.get(&(map, path.to_owned()))?;
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
        self.known.lock().add_list((map, path.to_owned()), asked, Arc::clone(&listing));
        Ok(listing)
    }

    /// What `name` in the folder `within` is, if nobody need be asked. `Some(None)`: there is nothing.
    pub(super) fn known_entry(&self, map: usize, within: &str, name: &str) -> Option<Option<EntryKind>> {
        if !can_be_a_name(name) {
            return Some(None);
        }
        if let Some(list) = self.known(map, within) {
            match list.get(name) {
                // The list does not say more.
                Some(EntryKind::NameOnly) => {}
                listed => return Some(listed.cloned()),
            }
        }
        let known = self.known.lock();
        let (asked, kind) = known.names.get(&(map, path_of(within, name)))?;
        (asked.elapsed() < USED_FOR).then(|| kind.clone())
    }

    /// What `name` in the folder `within` is, if anything. Blocks as long as `folder` does, if it has to be asked.
    pub(super) fn entry(
        &self,
        map: usize,
        folder: &Arc<dyn ObjectFolder>,
        (within, name): (&str, &str),
    ) -> io::Result<Option<EntryKind>> {
        if let Some(known) = self.known_entry(map, within, name) {
            return Ok(known);
        }
        let asked = Instant::now();
        let path = path_of(within, name);
        let answer = catch_unwind(AssertUnwindSafe(|| folder.look_up(&path)))
            .unwrap_or_else(|_| Err(io::Error::other("it has panicked")));
        let kind = match answer {
            Ok(LookUp::ByList) => return Ok(self.of(map, folder, within)?.get(name).cloned()),
            Ok(LookUp::Found(EntryKind::NameOnly)) => {
                return Err(io::Error::other("its folder does not say how long it is"));
            }
            Ok(LookUp::Found(kind)) => Some(kind),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.known.lock().add_name((map, path), asked, kind.clone());
        Ok(kind)
    }

    /// Something that is known turned out to be old.
    pub(super) fn forget_all(&self) {
        let known = std::mem::take(&mut *self.known.lock());
        drop(known);
    }
}

/// The path of `name` in the folder `within`.
pub(super) fn path_of(within: &str, name: &str) -> String {
    if within.is_empty() { name.to_owned() } else { format!("{within}/{name}") }
}

/// Whether a file can have this name.
pub(super) fn can_be_a_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= MOST_NAME_BYTES
        && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;

    use super::*;
    use crate::map_target::{Entry, OpenedObject};

    /// Counts what it is asked.
    #[derive(Default)]
    struct Counting {
        lists: AtomicUsize,
        looked_up: AtomicUsize,
        looks_up: bool,
    }

    fn object() -> EntryKind {
        EntryKind::Object { length: 1, modified: SystemTime::UNIX_EPOCH, version: None }
    }

    impl ObjectFolder for Counting {
        fn name(&self) -> String {
            "counting:".into()
        }

        fn entries(&self, _: &str) -> io::Result<Vec<Entry>> {
            self.lists.fetch_add(1, Ordering::SeqCst);
            let only_named = Entry { name: "b".into(), kind: EntryKind::NameOnly };
            let names = ["a", "../x", "", ".", &"n".repeat(256)];
            let objects = names.into_iter().map(|name| Entry { name: name.into(), kind: object() });
            Ok(objects.chain(self.looks_up.then_some(only_named)).collect())
        }

        fn look_up(&self, path: &str) -> io::Result<LookUp> {
            if !self.looks_up {
                return Ok(LookUp::ByList);
            }
            self.looked_up.fetch_add(1, Ordering::SeqCst);
            match path {
                "f/a" | "f/b" => Ok(LookUp::Found(object())),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }

        fn open(&self, _: &str) -> io::Result<OpenedObject> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Looks the names up, and returns how often the folder was asked for lists and for names.
    fn asked(looks_up: bool, listed_first: bool) -> (usize, usize) {
        let counting = Arc::new(Counting { looks_up, ..Counting::default() });
        let folder: Arc<dyn ObjectFolder> = Arc::clone(&counting) as _;
        let listings = Listings::new();
        if listed_first {
            assert_eq!(listings.of(0, &folder, "f").unwrap().len(), 1 + usize::from(looks_up));
        }
        for _ in 0..2 {
            assert_eq!(listings.entry(0, &folder, ("f", "a")).unwrap(), Some(object()));
            assert_eq!(listings.entry(0, &folder, ("f", "none")).unwrap(), None);
            assert_eq!(listings.entry(0, &folder, ("f", "..")).unwrap(), None);
            if looks_up {
                assert_eq!(listings.entry(0, &folder, ("f", "b")).unwrap(), Some(object()));
            }
        }
        (counting.lists.load(Ordering::SeqCst), counting.looked_up.load(Ordering::SeqCst))
    }

    #[test]
    fn a_name_is_looked_up_once_unless_a_list_has_it() {
        assert_eq!(asked(true, false), (0, 3));
        assert_eq!(asked(true, true), (1, 1));
        assert_eq!(asked(false, false), (1, 0));
        assert_eq!(asked(false, true), (1, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut known = Known::default();
        let list = |count: usize| Arc::new((0..count).map(|name| (name.to_string(), object())).collect());
        for number in 0..10 {
            known.add_list((number, String::new()), Instant::now(), list(MOST_LISTED / 4));
            assert!(known.lists.len() <= 4 && known.lists.contains_key(&(number, String::new())));
        }
        known.add_list((99, String::new()), Instant::now(), list(MOST_LISTED + 1));
        assert_eq!(known.lists.len(), 1);
        for number in 0..3 * MOST_NAMES {
            known.add_name((number, String::new()), Instant::now(), None);
            assert!(known.names.len() <= MOST_NAMES && known.names.contains_key(&(number, String::new())));
        }
    }
}
