//! What is in a folder.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes of a name of a file.
const MOST_NAME_BYTES: usize = 255;

/// An entry of an [`ObjectStoreFolder`](crate::ObjectStoreFolder).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StoreEntry {
    /// One component of a path.
    pub name: String,
    /// What it is.
    pub kind: StoreEntryKind,
}

/// What a [`StoreEntry`] is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreEntryKind {
    /// A folder.
    Folder,
    /// An object.
    Object {
        /// Bytes.
        length: u64,
        /// Its last change, in whole seconds.
        modified: SystemTime,
        /// The version that it is now, by the name that a pager of it has; `None` if the store does not tell.
        version: Option<Arc<str>>,
    },
}

impl StoreEntryKind {
    /// Whether it is an object without bytes.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Object { length: 0, .. })
    }
}

impl StoreEntry {
    /// Adds it to a list. Of an object and a folder of one name the object stays, unless it is empty.
    pub(super) fn add_to(self, list: &mut BTreeMap<String, StoreEntryKind>) {
        match list.entry(self.name) {
            Entry::Vacant(place) => drop(place.insert(self.kind)),
            Entry::Occupied(mut place) => {
                let new_counts = match (&self.kind, place.get()) {
                    (StoreEntryKind::Folder, old) => old.is_empty(),
                    (new, _) => !new.is_empty(),
                };
                if new_counts {
                    place.insert(self.kind);
                }
            }
        }
    }
}

/// Whether a file can have this name, and an object be asked for that has it.
pub(super) fn can_be_a_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= MOST_NAME_BYTES
        && !name.contains(|letter: char| letter == '/' || letter.is_ascii_control())
}

/// A time in whole seconds: `2026-12-01T04:06:08.000Z` (ISO 8601), or `Tue, 01 Dec 2026 04:06:08 GMT` (RFC 9110, 5.6.7).
pub(super) fn time(text: &str) -> Option<SystemTime> {
    iso_time(text).or_else(|| httpdate::parse_http_date(text).ok())
}

fn iso_time(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.trim().split_once('T')?;
    let clock = rest.strip_suffix('Z')?;
    let clock = clock.split_once('.').map_or(clock, |(seconds, _)| seconds);
    let numbers = |text: &str, mark: char| -> Option<[u64; 3]> {
        let numbers: Option<Vec<u64>> = text.split(mark).map(|part| part.parse().ok()).collect();
        numbers?.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(clock, ':')?);
    let is_one = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_one || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, with years that begin in March.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    (year * 365 + leap_days + (153 * month + 2) / 5 + day - 1).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(time("1970-01-01T00:00:00Z"), at(0));
        assert_eq!(time("2026-12-01T04:06:08.123Z"), at(1_796_097_968));
        assert_eq!(time("Tue, 01 Dec 2026 04:06:08 GMT"), at(1_796_097_968));
        assert_eq!(time("2000-02-29T23:59:59.000Z"), at(951_868_799));
        for wrong in ["", "2026-12-01", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "9-T:Z"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_object_wins_over_a_folder_of_its_name_unless_it_is_empty() {
        let object =
            |length| StoreEntryKind::Object { length, modified: SystemTime::UNIX_EPOCH, version: None };
        let first = |kinds: [StoreEntryKind; 2]| {
            let mut list = BTreeMap::new();
            kinds.into_iter().for_each(|kind| StoreEntry { name: "a".into(), kind }.add_to(&mut list));
            list.remove("a").unwrap()
        };
        for (length, is_folder) in [(0, true), (1, false)] {
            for kinds in [[object(length), StoreEntryKind::Folder], [StoreEntryKind::Folder, object(length)]]
            {
                assert_eq!(first(kinds) == StoreEntryKind::Folder, is_folder, "{length}");
            }
        }
    }

    #[test]
    fn names_that_no_file_has_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0", "a\nb", "\u{7f}", &"x".repeat(256)] {
            assert!(!can_be_a_name(name), "{name:?}");
        }
        for name in ["...", " a ", "%2F", "a+b", "\u{e9}", &"x".repeat(255)] {
            assert!(can_be_a_name(name), "{name:?}");
        }
    }
}
