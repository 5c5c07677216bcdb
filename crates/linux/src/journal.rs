//! What a client has sent, in a memory file that outlives the process that received it.
//!
//! ```text
//!   file    [ words, 512 of them | text 0, 4 KiB | text 1 | ... ]
//! ```
//!
//! Bytes are received into a text, which is all zeros before: the kernel takes them off the socket and stores them there in
//! one call. So a process that is killed leaves them in one place or in the other, and whoever has the file finds how many came:
//! up to the first zero. Who sends zeros deceives himself only.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use crate::region::{Purpose, Region, SMALL};
use crate::zeroed_table::KeptTables;

/// Texts of a journal.
pub const TEXTS: usize = 16;
/// Bytes of a text.
pub const TEXT_BYTES: usize = SMALL;
/// Words beside the texts.
pub const WORDS: usize = SMALL / 8;
/// Descriptors that are received with one piece; the kernel closes further ones.
const DESCRIPTORS: usize = 4;
const FILE_BYTES: usize = SMALL + TEXTS * TEXT_BYTES;

/// See the module.
#[derive(Debug)]
pub struct Journal {
    region: Region,
    file: Arc<KeptTables>,
    /// Held by who reads or changes a text.
    texts: [Mutex<()>; TEXTS],
}

/// What was received.
#[derive(Debug)]
pub struct Received {
    /// How many bytes; none is the end of the connection.
    pub bytes: usize,
    /// What came along.
    pub descriptors: Vec<OwnedFd>,
    /// More came along than can be received.
    pub lost_descriptors: bool,
}

impl Journal {
    /// An empty one. Its texts take memory once they are used.
    pub fn new() -> io::Result<Self> {
        Self::map(KeptTables::new(FILE_BYTES as u64)?)
    }

    /// The one that another process has made. InvalidData: it is none.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        Self::map(KeptTables::open(file, FILE_BYTES as u64)?)
    }

    fn map(file: KeptTables) -> io::Result<Self> {
        let region = Region::new(FILE_BYTES, Purpose::Data)?;
        // SAFETY: the region is new; nobody holds references into it.
        unsafe { region.map_data(&file, 0)? };
        Ok(Self { region, file: Arc::new(file), texts: Default::default() })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS, "word {index} of {WORDS}");
        // SAFETY: the word lies in the mapping, which is page aligned, lives as long as `self`, and cannot be cut off (the
        // file is sealed). Words are accessed as atomics only.
        unsafe { AtomicU64::from_ptr(self.region.pointer(8 * index).cast()) }
    }

    /// Word `index`.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    pub fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    /// Sets word `index`, after all that was done before.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    pub fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }

    fn lock(&self, text: usize) -> MutexGuard<'_, ()> {
        self.texts[text].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of `text`; the caller holds its lock as long as it uses them.
    ///
    /// # Safety
    ///
    /// The lock of the text is held, and no other call of this is in use.
    #[allow(clippy::mut_from_ref)]
    unsafe fn bytes(&self, text: usize) -> &mut [u8] {
        // SAFETY: the text lies in the mapping, behind the words. Other processes that have the file do not map it while
        // this one lives; of this one, the lock keeps everybody else out.
        unsafe { std::slice::from_raw_parts_mut(self.region.pointer(SMALL + text * TEXT_BYTES), TEXT_BYTES) }
    }

    /// Receives at most `most` bytes behind the first `used` of `text`. Does not block.
    ///
    /// # Panics
    ///
    /// If there is no such text, or it has not so many bytes.
    pub fn receive(&self, text: usize, used: usize, most: usize, socket: impl AsFd) -> io::Result<Received> {
        let _lock = self.lock(text);
        // SAFETY: the lock is held until this returns.
        let bytes = unsafe { self.bytes(text) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let part = &mut [IoSliceMut::new(&mut bytes[used..used + most])];
        let received = recvmsg(socket, part, &mut control, flags)?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                descriptors.extend(more);
            }
        }
        let lost_descriptors = received.flags.contains(ReturnFlags::CTRUNC);
        Ok(Received { bytes: received.bytes, descriptors, lost_descriptors })
    }

    /// What `text` has before its first zero.
    ///
    /// # Panics
    ///
    /// If there is no such text.
    pub fn text(&self, text: usize) -> Vec<u8> {
        let _lock = self.lock(text);
        // SAFETY: the lock is held until this returns.
        let bytes = unsafe { self.bytes(text) };
        bytes.iter().copied().take_while(|byte| *byte != 0).collect()
    }

    /// Makes `text` zeros again.
    ///
    /// # Panics
    ///
    /// If there is no such text.
    pub fn clear(&self, text: usize) {
        let _lock = self.lock(text);
        // SAFETY: the lock is held until this returns.
        unsafe { self.bytes(text) }.fill(0);
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_was_received_is_found_by_the_next_process() {
        let journal = Journal::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"1 open x\n2 quit\n").unwrap();
        assert_eq!(journal.receive(3, 0, 5, &ours).unwrap().bytes, 5);
        assert_eq!(journal.receive(3, 5, 4, &ours).unwrap().bytes, 4);
        journal.set(511, 9);
        let file = journal.as_fd().try_clone_to_owned().unwrap();
        drop(journal);
        let journal = Journal::open(file).unwrap();
        assert_eq!((journal.text(3), journal.text(2), journal.get(511)), (b"1 open x\n".to_vec(), vec![], 9));
        journal.clear(3);
        assert_eq!(journal.receive(3, 0, TEXT_BYTES, &ours).unwrap().bytes, 7);
        assert_eq!(journal.text(3), b"2 quit\n");
        assert_eq!(journal.receive(2, 0, 1, &ours).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(journal.receive(2, 0, 1, &ours).unwrap().bytes, 0);
    }
}
