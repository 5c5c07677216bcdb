//! What a client sends: lines, and descriptors that come along.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use super::refusal::Refusal;
use super::words::LONGEST_LINE;

/// Descriptors that are received with one piece; the kernel closes further ones.
const DESCRIPTORS: usize = 4;

/// Lines that were received, and the descriptor of the next request that takes one.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// More came than a request takes; they are closed.
    too_many: bool,
    /// The client has hung up its side.
    pub(super) has_ended: bool,
}

/// A line that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong;

impl Input {
    /// The next line, without its end. `None`: it is not there yet.
    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            if self.bytes.len() >= LONGEST_LINE {
                return Err(TooLong);
            }
            if self.bytes.is_empty() {
                // Of requests that took none.
                self.descriptors.clear();
                self.too_many = false;
            }
            return Ok(None);
        };
        if end >= LONGEST_LINE {
            return Err(TooLong);
        }
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        line.pop();
        Ok(Some(line))
    }

    /// Whether a whole line waits.
    pub(super) fn has_line(&self) -> bool {
        self.bytes.contains(&b'\n')
    }

    /// The descriptor that came with a request.
    pub(super) fn take_descriptor(&mut self) -> Result<OwnedFd, Refusal> {
        let descriptor = self.descriptors.pop();
        if std::mem::take(&mut self.too_many) {
            return Err(Refusal::descriptor("more than one descriptor came along; all are closed"));
        }
        descriptor.ok_or_else(|| Refusal::descriptor("no descriptor came along"))
    }

    /// Receives what is there. Does not block. An error is the end of the connection.
    pub(super) fn receive(&mut self, socket: impl AsFd) -> io::Result<()> {
        let mut piece = [0; LONGEST_LINE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(socket, &mut [IoSliceMut::new(&mut piece)], &mut control, flags);
        let received = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > 1 || received.flags.contains(ReturnFlags::CTRUNC) {
            self.descriptors.clear();
            self.too_many = true;
        }
        self.has_ended = received.bytes == 0;
        self.bytes.extend_from_slice(&piece[..received.bytes]);
        Ok(())
    }
}
