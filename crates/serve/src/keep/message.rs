//! What goes over the line between a server and its keeper: datagrams of a letter, a number, a process, text and descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The longest text of what is kept.
pub(crate) const MOST_TEXT_BYTES: usize = 64 << 10;
/// Letter, number, process.
const HEAD_BYTES: usize = 1 + 8 + 4;
const MOST_BYTES: usize = HEAD_BYTES + MOST_TEXT_BYTES + 4096;
/// The most descriptors of one message.
const DESCRIPTORS: usize = 4;

pub(super) struct Message {
    pub(super) letter: u8,
    pub(super) number: u64,
    pub(super) pid: i32,
    pub(super) text: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// Descriptors came for which there was no room in this process.
    pub(super) lost_descriptors: bool,
}

pub(super) fn send(
    line: &OwnedFd,
    (letter, number, pid): (u8, u64, i32),
    text: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if text.len() > MOST_TEXT_BYTES || descriptors.len() > DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut head = [letter; HEAD_BYTES];
    head[1..9].copy_from_slice(&number.to_le_bytes());
    head[9..].copy_from_slice(&pid.to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let parts = [IoSlice::new(&head), IoSlice::new(text)];
    loop {
        match sendmsg(line, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `None`: the other side has ended.
pub(super) fn receive(line: &OwnedFd) -> io::Result<Option<Message>> {
    let mut bytes = vec![0; MOST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = loop {
        match recvmsg(line, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            answer => break answer?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    let got = received.bytes;
    if got == 0 {
        return Ok(None);
    }
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "a message that is none of the keeper's");
    if got < HEAD_BYTES || received.flags.contains(ReturnFlags::TRUNC) {
        return Err(broken());
    }
    bytes.truncate(got);
    let text = bytes.split_off(HEAD_BYTES);
    let word = |range: std::ops::Range<usize>| bytes.get(range).unwrap_or_default().to_vec();
    Ok(Some(Message {
        letter: bytes[0],
        number: u64::from_le_bytes(word(1..9).try_into().map_err(|_| broken())?),
        pid: i32::from_le_bytes(word(9..13).try_into().map_err(|_| broken())?),
        text,
        descriptors,
        lost_descriptors: received.flags.contains(ReturnFlags::CTRUNC),
    }))
}
