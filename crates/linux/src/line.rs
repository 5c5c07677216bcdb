//! The line between the owner of an object and a guest: messages of fixed size over a Unix stream socket, some with
//! descriptors, all with deadlines.
//!
//! Nothing that comes over a line is believed: a message of the wrong size, kind or number of descriptors is an
//! error. `docs/writing.md` says what each side trusts the other with.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};

/// The first word of a message: "memobj" and the version of the messages.
const MAGIC: u64 = u64::from_le_bytes(*b"memobj\x01\0");
const WORDS: usize = 6;
const BYTES: usize = WORDS * 8;
/// The most descriptors that go with a message.
const DESCRIPTORS: usize = 2;
/// How long a guest may take to make room for a note.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// What a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Kind {
    Offer = 1,
    Answer = 2,
    Done = 3,
    Lift = 4,
    Length = 5,
}

/// What the process of a guest does with the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestAccess {
    /// It was given a file that can be loaded from only.
    Load,
    /// Likewise, and maps it so that what it stores to is a copy of its own.
    LoadAndCopy,
    /// It was given a file that can be stored to.
    Store,
}

/// What the owner offers.
#[derive(Debug)]
pub struct Offer {
    /// The file of frames.
    pub frames: OwnedFd,
    /// The owner's process.
    pub process: OwnedFd,
    /// Bytes of the object.
    pub length: u64,
    /// Bytes of addresses that a view takes.
    pub view_bytes: u64,
    /// What the guest is to do with the frames.
    pub access: GuestAccess,
}

/// What the guest answers.
#[derive(Debug)]
pub struct Answer {
    /// Its userfaultfd, or what it says is one.
    pub faults: OwnedFd,
    /// Its process.
    pub process: OwnedFd,
    /// Its address of the first byte.
    pub start: u64,
    /// What it maps, if that is not all of the object.
    pub part: Option<Part>,
}

/// A part of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its first byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What a guest is told later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// These bytes of the view trap no longer: there is no page, and the poison is to be lifted.
    Lift {
        /// The first.
        start: u64,
        /// How many.
        len: u64,
    },
    /// The object has so many bytes now.
    Length(u64),
}

/// One end of a line.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
}

struct Message {
    words: [u64; WORDS],
    descriptors: Vec<OwnedFd>,
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn remaining(deadline: Instant) -> io::Result<Timespec> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
}

impl Message {
    fn words(kind: Kind, values: [u64; WORDS - 2]) -> [u64; WORDS] {
        let [a, b, c, d] = values;
        [MAGIC, kind as u64, a, b, c, d]
    }

    fn expect(self, kind: Kind) -> io::Result<([u64; WORDS - 2], Vec<OwnedFd>)> {
        let [magic, found, a, b, c, d] = self.words;
        if magic != MAGIC || found != kind as u64 {
            return Err(broken("not the message that was expected"));
        }
        Ok(([a, b, c, d], self.descriptors))
    }
}

fn two(descriptors: Vec<OwnedFd>) -> io::Result<(OwnedFd, OwnedFd)> {
    let pair: Result<[OwnedFd; 2], _> = descriptors.try_into();
    pair.map(Into::into).map_err(|_| broken("a message without its two descriptors"))
}

impl Line {
    /// One end of a line, over a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket: socket.into() }
    }

    /// Makes an offer; waits for room until `deadline`.
    pub fn offer(&self, offer: &Offer, deadline: Instant) -> io::Result<()> {
        let access = match offer.access {
            GuestAccess::Load => 0,
            GuestAccess::Store => 1,
            GuestAccess::LoadAndCopy => 2,
        };
        let values = [offer.length, offer.view_bytes, access, 0];
        let descriptors = [offer.frames.as_fd(), offer.process.as_fd()];
        self.send(Message::words(Kind::Offer, values), &descriptors, deadline)
    }

    /// Waits for an offer.
    pub fn receive_offer(&self, deadline: Instant) -> io::Result<Offer> {
        let ([length, view_bytes, access, _], descriptors) = self.receive(deadline)?.expect(Kind::Offer)?;
        let access = match access {
            0 => GuestAccess::Load,
            1 => GuestAccess::Store,
            2 => GuestAccess::LoadAndCopy,
            _ => return Err(broken("an offer of no known kind")),
        };
        let (frames, process) = two(descriptors)?;
        Ok(Offer { frames, process, length, view_bytes, access })
    }

    /// Answers an offer.
    pub fn answer(&self, answer: &Answer, deadline: Instant) -> io::Result<()> {
        let descriptors = [answer.faults.as_fd(), answer.process.as_fd()];
        let Part { offset, length } = answer.part.unwrap_or(Part { offset: 0, length: 0 });
        self.send(Message::words(Kind::Answer, [answer.start, offset, length, 0]), &descriptors, deadline)
    }

    /// Waits for an answer.
    pub fn receive_answer(&self, deadline: Instant) -> io::Result<Answer> {
        let ([start, offset, length, _], descriptors) = self.receive(deadline)?.expect(Kind::Answer)?;
        let (faults, process) = two(descriptors)?;
        // No length is all of it.
        let part = (length != 0).then_some(Part { offset, length });
        Ok(Answer { faults, process, start, part })
    }

    /// Tells the guest that its view is one.
    pub fn finish(&self, deadline: Instant) -> io::Result<()> {
        self.send(Message::words(Kind::Done, [0; 4]), &[], deadline)
    }

    /// Waits until this side's view is one.
    pub fn receive_finish(&self, deadline: Instant) -> io::Result<()> {
        self.receive(deadline)?.expect(Kind::Done).map(|_| ())
    }

    /// Tells the guest something. Waits for room for some time; an error is the end of the line.
    pub fn tell(&self, note: Note) -> io::Result<()> {
        self.tell_until(note, Instant::now() + PATIENCE)
    }

    /// As [`tell`](Self::tell); waits for room until `deadline`.
    pub fn tell_until(&self, note: Note, deadline: Instant) -> io::Result<()> {
        let words = match note {
            Note::Lift { start, len } => Message::words(Kind::Lift, [start, len, 0, 0]),
            Note::Length(length) => Message::words(Kind::Length, [length, 0, 0, 0]),
        };
        self.send(words, &[], deadline)
    }

    /// Waits for the next note while `process` lives. `None` is the end of the line, or of that process.
    pub fn next_note(&self, process: &OwnedFd) -> io::Result<Option<Note>> {
        loop {
            let mut entries = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(process, PollFlags::IN)];
            match poll(&mut entries, None) {
                Ok(_) if !entries[0].revents().is_empty() => break,
                Ok(_) if !entries[1].revents().is_empty() => return Ok(None),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = match self.receive(Instant::now() + PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            received => received?,
        };
        let [magic, kind, a, b, ..] = message.words;
        match kind {
            _ if magic != MAGIC => Err(broken("not a note")),
            kind if kind == Kind::Lift as u64 => Ok(Some(Note::Lift { start: a, len: b })),
            kind if kind == Kind::Length as u64 => Ok(Some(Note::Length(a))),
            _ => Err(broken("a note of no known kind")),
        }
    }

    /// Whether one of the ends has shut the line. Does not block.
    pub fn is_shut(&self) -> bool {
        let mut entries = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut entries, Some(&at_once)).is_ok() && entries[0].revents().intersects(ended)
    }

    /// Shuts the line: both ends hear of it. Never blocks; safe in a signal handler.
    pub fn break_off(&self) {
        // It fails for a line that is shut already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    fn send(&self, words: [u64; WORDS], descriptors: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut sent = 0;
        while sent < BYTES {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // Descriptors go with the first byte.
            if sent == 0 && !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(&bytes[sent..])], &mut control, flags) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive(&self, deadline: Instant) -> io::Result<Message> {
        let mut bytes = [0; BYTES];
        let mut descriptors = Vec::new();
        let mut got = 0;
        while got < BYTES {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let part = &mut [IoSliceMut::new(&mut bytes[got..])];
            match recvmsg(&self.socket, part, &mut control, flags) {
                Ok(message) if message.bytes == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(message) => got += message.bytes,
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for rights in control.drain() {
                if let RecvAncillaryMessage::ScmRights(more) = rights {
                    descriptors.extend(more);
                }
            }
        }
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Ok(Message { words, descriptors })
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> io::Result<()> {
        let left = remaining(deadline)?;
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
