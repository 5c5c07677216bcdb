//! What the kernel is answered.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::wire::{AnswerHeader, FolderEntry};

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// The request has none.
    Nothing,
    Failed(Errno),
    Bytes(Vec<u8>),
}

/// As READDIR has it where only a lookup knows the number.
const UNKNOWN_INODE: u64 = 0xffff_ffff;

impl Answer {
    /// Done, with nothing to say.
    pub(super) fn done() -> Self {
        Self::Bytes(Vec::new())
    }

    /// This structure.
    pub(super) fn of(value: &(impl IntoBytes + zerocopy::Immutable)) -> Self {
        Self::Bytes(value.as_bytes().to_vec())
    }

    /// The entries of a folder from `first` on, as many as there is room for.
    pub(super) fn entries(names: &[(Vec<u8>, u32)], first: u64, room: u32) -> Self {
        let mut bytes = Vec::new();
        let skipped = usize::try_from(first).unwrap_or(usize::MAX);
        for (at, (name, mode)) in names.iter().enumerate().skip(skipped) {
            let head = FolderEntry {
                inode: UNKNOWN_INODE,
                next: at as u64 + 1,
                name_length: u32::try_from(name.len()).unwrap_or(0),
                kind: mode >> 12,
            };
            let end = (bytes.len() + size_of::<FolderEntry>() + name.len()).next_multiple_of(8);
            if end > room as usize {
                break;
            }
            bytes.extend(head.as_bytes());
            bytes.extend(name);
            bytes.resize(end, 0);
        }
        Self::Bytes(bytes)
    }

    /// Writes the answer to the request `unique`. Whoever asked may have given up, and the file system may be gone: nobody
    /// needs the answer then.
    pub(super) fn send(self, device: &OwnedFd, unique: u64) {
        let (error, body) = match self {
            Self::Nothing => return,
            Self::Failed(errno) => (-errno.raw_os_error(), Vec::new()),
            Self::Bytes(body) => (0, body),
        };
        let length = u32::try_from(size_of::<AnswerHeader>() + body.len()).unwrap_or(0);
        let header = AnswerHeader { length, error, unique };
        let _ = rustix::io::writev(device, &[IoSlice::new(header.as_bytes()), IoSlice::new(&body)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_on_where_the_last_ones_ended() {
        let names: Vec<_> =
            (0..100).map(|number| (format!("name-{number}").into_bytes(), 0o100_444)).collect();
        let (mut next, mut count) = (0, 0);
        loop {
            let Answer::Bytes(bytes) = Answer::entries(&names, next, 200) else { panic!("no bytes") };
            assert!(bytes.len() <= 200 && bytes.len() % 8 == 0);
            if bytes.is_empty() {
                break;
            }
            let mut at = 0;
            while at < bytes.len() {
                next = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().expect("eight bytes"));
                let length = u32::from_le_bytes(bytes[at + 16..at + 20].try_into().expect("four")) as usize;
                assert_eq!(&bytes[at + 24..at + 24 + length], format!("name-{count}").as_bytes());
                at += (24 + length).next_multiple_of(8);
                count += 1;
            }
        }
        assert_eq!(count, 100);
    }
}
