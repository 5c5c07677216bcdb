//! Bytes that are on their way to a socket: in memory, or in a file by which the next server knows which were sent.
//!
//! The kernel moves the position of the file's description as it sends (sendfile(2)), in the same call. Whoever has a
//! duplicate of the descriptor has the same position. A line is appended whole before any of it is sent; a part of one at the
//! end was never sent, and is cut off by who opens the file.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SeekFrom, ftruncate, memfd_create, seek, sendfile};
use rustix::io::{Errno, pread, pwrite};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::borrow::Handed;

/// The most that one call sends.
const PIECE: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) enum Queue {
    Memory {
        bytes: Vec<u8>,
        at: usize,
        /// Descriptors, each with the byte at which the line begins that it goes with.
        handed: VecDeque<(usize, Handed)>,
    },
    File {
        file: OwnedFd,
        /// The position of the file, and its length.
        at: u64,
        end: u64,
    },
}

impl Queue {
    pub(super) const fn in_memory() -> Self {
        Self::Memory { bytes: Vec::new(), at: 0, handed: VecDeque::new() }
    }

    pub(super) fn in_file() -> io::Result<Self> {
        Ok(Self::File { file: memfd_create(c"memobj:answers", MemfdFlags::CLOEXEC)?, at: 0, end: 0 })
    }

    /// The file of a server before.
    pub(super) fn open(file: OwnedFd) -> io::Result<Self> {
        let length = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        let at = seek(&file, SeekFrom::Current(0))?;
        let mut end = length;
        while end > at && !ends_with_line(&file, end)? {
            end -= 1;
        }
        let mut queue = Self::File { file, at, end };
        if at >= end {
            queue.empty()?;
        } else if let Self::File { file, .. } = &queue {
            ftruncate(file, end)?;
        }
        Ok(queue)
    }

    /// What waits is known to this process only from now on.
    pub(super) fn move_to_memory(&mut self) -> io::Result<()> {
        let Self::File { file, at, end } = self else { return Ok(()) };
        let mut bytes = vec![0; (*end - *at) as usize];
        let mut done = 0;
        while done < bytes.len() {
            match pread(&*file, &mut bytes[done..], *at + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        *self = Self::Memory { bytes, at: 0, handed: VecDeque::new() };
        Ok(())
    }

    /// The descriptor of the file, if it is in one.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Memory { .. } => None,
            Self::File { file, .. } => Some(file.as_fd()),
        }
    }

    /// One past the last byte, counted from a time at which it was empty.
    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Memory { bytes, .. } => bytes.len() as u64,
            Self::File { end, .. } => *end,
        }
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Memory { bytes, at, .. } => bytes.len() - at,
            Self::File { at, end, .. } => (end - at) as usize,
        }
    }

    /// Adds whole lines, and what goes with the first byte, which takes a queue in memory. On error none was added.
    pub(super) fn push(&mut self, lines: &str, descriptor: Option<Handed>) -> io::Result<()> {
        match self {
            Self::Memory { bytes, handed, .. } => {
                handed.extend(descriptor.map(|descriptor| (bytes.len(), descriptor)));
                bytes.extend_from_slice(lines.as_bytes());
            }
            Self::File { .. } if descriptor.is_some() => return Err(io::ErrorKind::Unsupported.into()),
            Self::File { file, end, .. } => {
                let mut done = 0;
                while done < lines.len() {
                    match pwrite(&*file, &lines.as_bytes()[done..], *end + done as u64) {
                        Ok(count) => done += count,
                        Err(Errno::INTR) => {}
                        Err(error) => {
                            let _ = ftruncate(&*file, *end);
                            return Err(error.into());
                        }
                    }
                }
                *end += lines.len() as u64;
            }
        }
        Ok(())
    }

    /// Sends what `socket`, which does not block, takes now; how many bytes.
    pub(super) fn send(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut sent = 0;
        while self.len() > 0 {
            let most = self.len().min(PIECE);
            let count = match self {
                Self::Memory { bytes, at, handed } => send_some(socket.as_fd(), bytes, (*at, most), handed),
                Self::File { file, .. } => sendfile(socket.as_fd(), &*file, None, most),
            };
            match count {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    sent += count;
                    self.advance(count);
                }
                Err(Errno::AGAIN) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.empty()?;
        Ok(sent)
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Memory { at, .. } => *at += count,
            Self::File { at, .. } => *at += count as u64,
        }
    }

    /// Gives its memory back. All was sent. A process that dies between both steps leaves a position behind the end.
    fn empty(&mut self) -> io::Result<()> {
        match self {
            Self::Memory { bytes, at, .. } => {
                bytes.clear();
                bytes.shrink_to(4096);
                *at = 0;
            }
            Self::File { file, at, end } => {
                if *at > 0 || *end > 0 {
                    ftruncate(&*file, 0)?;
                    seek(&*file, SeekFrom::Start(0))?;
                }
                (*at, *end) = (0, 0);
            }
        }
        Ok(())
    }
}

/// Sends bytes up to the next descriptor; if it goes with the first of them, that, too.
fn send_some(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    (at, most): (usize, usize),
    handed: &mut VecDeque<(usize, Handed)>,
) -> Result<usize, Errno> {
    let is_due = handed.front().is_some_and(|(start, _)| *start == at);
    let next = handed.get(usize::from(is_due)).map_or(usize::MAX, |(start, _)| *start);
    let bytes = &bytes[at..(at + most).min(next)];
    let descriptors: Vec<_> =
        handed.front().iter().filter(|_| is_due).map(|(_, handed)| handed.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if is_due {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    if is_due {
        handed.pop_front();
    }
    Ok(sent)
}

fn ends_with_line(file: &OwnedFd, end: u64) -> io::Result<bool> {
    let mut last = [0];
    Ok(pread(file, &mut last, end - 1)? == 1 && last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn left(queue: &Queue) -> Queue {
        Queue::open(queue.descriptor().unwrap().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn the_next_server_sends_what_was_not_sent() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut queue = Queue::in_file().unwrap();
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..1000 {
            queue.push(&line, None).unwrap();
        }
        let sent = queue.send(&ours).unwrap();
        assert!(sent > 0 && queue.len() == 1_000_000 - sent);
        // A line that was being written.
        if let Queue::File { file, end, .. } = &queue {
            pwrite(file, b"half a li", *end).unwrap();
        }
        let mut next = left(&queue);
        assert_eq!((next.len(), next.end()), (1_000_000 - sent, 1_000_000));
        drop(queue);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            theirs.read_to_string(&mut text).unwrap();
            text
        });
        while next.len() > 0 {
            next.send(&ours).unwrap();
            std::thread::yield_now();
        }
        drop(ours);
        assert_eq!(reader.join().unwrap(), line.repeat(1000));
        assert_eq!((next.end(), left(&next).len()), (0, 0));
    }

    #[test]
    fn a_death_while_it_is_emptied_leaves_nothing() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut queue = Queue::in_file().unwrap();
        queue.push("1 ok\n", None).unwrap();
        if let Queue::File { file, .. } = &queue {
            sendfile(&ours, file, None, 5).unwrap();
            assert_eq!(left(&queue).len(), 0, "all was sent");
            seek(file, SeekFrom::Start(5)).unwrap();
            ftruncate(file, 0).unwrap();
        }
        let mut next = left(&queue);
        assert_eq!((next.len(), next.end()), (0, 0));
        next.push("2 ok\n", None).unwrap();
        assert_eq!(left(&next).len(), 5);
    }
}
