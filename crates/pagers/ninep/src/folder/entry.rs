//! What is in a folder, as servers tell it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::attributes::{Attributes, FileKind, Qid};
use crate::options::VersionCheck;
use crate::version::Version;
use crate::wire::{Decoder, Malformed};

/// Bytes of a name of a file.
const MOST_NAME_BYTES: usize = 255;
/// Types of entries as Linux has them: unknown, folder, regular file.
const UNKNOWN_TYPE: u8 = 0;
const FOLDER_TYPE: u8 = 4;
const FILE_TYPE: u8 = 8;

/// An entry of a [`NineFolder`](crate::NineFolder).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NineEntry {
    /// One component of a path.
    pub name: String,
    /// What it is.
    pub kind: NineEntryKind,
}

/// What a [`NineEntry`] is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NineEntryKind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Bytes.
        length: u64,
        /// Its last change.
        modified: SystemTime,
        /// The version that it is now, by the name that a pager of it has; `None` if it has none.
        version: Option<Arc<str>>,
    },
    /// A regular file in a list of 9P2000.L, which says no more: ask for its [entry](crate::NineFolder::entry).
    NameOnly,
}

/// Entries, how many names there were, and where the next ones begin.
pub(crate) type Read = (Vec<NineEntry>, usize, u64);

pub(crate) fn can_be_a_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= MOST_NAME_BYTES
        && !name.contains(['/', '\0'])
}

fn name_of(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    can_be_a_name(name).then(|| name.to_owned())
}

/// What a file with these attributes is; `None`: nothing that is seen.
pub(super) fn kind_of(attributes: &Attributes, check: VersionCheck) -> Option<NineEntryKind> {
    match attributes.kind {
        FileKind::Folder => Some(NineEntryKind::Folder),
        FileKind::Other => None,
        FileKind::File => {
            let nanoseconds = u32::try_from(attributes.mtime_nanoseconds).unwrap_or(0).min(999_999_999);
            let since = Duration::new(attributes.mtime_seconds, nanoseconds);
            Some(NineEntryKind::File {
                length: attributes.length,
                modified: SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH),
                version: Version::new(check, *attributes).name(SystemTime::now()).map(Into::into),
            })
        }
    }
}

/// The entries of Rreaddir: qid, offset of the next one, type, name.
pub(crate) fn read_entries(offset: u64, bytes: &[u8]) -> Result<Read, Malformed> {
    let (mut entries, mut names, mut next) = (Vec::new(), 0, offset);
    let mut from = Decoder::new(bytes);
    while !from.rest().is_empty() {
        let qid = Qid::decode(&mut from)?;
        next = from.u64()?;
        let kind = match (from.u8()?, qid.kind_alone()) {
            (FOLDER_TYPE, _) | (UNKNOWN_TYPE, FileKind::Folder) => Some(NineEntryKind::Folder),
            (FILE_TYPE, _) | (UNKNOWN_TYPE, FileKind::File) => Some(NineEntryKind::NameOnly),
            _ => None,
        };
        let name = from.string()?;
        names += 1;
        entries.extend(kind.zip(name_of(name)).map(|(kind, name)| NineEntry { name, kind }));
    }
    Ok((entries, names, next))
}

/// The stat records of a folder that is read, as 9P2000 has it: read(5). Each answer has whole ones.
pub(crate) fn read_records(offset: u64, bytes: &[u8], check: VersionCheck) -> Result<Read, Malformed> {
    let (mut entries, mut names) = (Vec::new(), 0);
    let mut from = Decoder::new(bytes);
    while !from.rest().is_empty() {
        let (attributes, name) = Attributes::decode_record(&mut from)?;
        names += 1;
        let kind = kind_of(&attributes, check);
        entries.extend(kind.zip(name_of(name)).map(|(kind, name)| NineEntry { name, kind }));
    }
    let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let next = offset.checked_add(count).ok_or(Malformed("a folder is too long"))?;
    Ok((entries, names, next))
}
