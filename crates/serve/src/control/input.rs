//! What a client sends: lines, and descriptors that come along.
//!
//! Of a session that is kept, bytes are received into the text of a request in its record, up to the end of a line: a look
//! (MSG_PEEK) says where that is.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use super::record::{Incoming, Record, Ticket};
use super::refusal::Refusal;
use super::words::LONGEST_LINE;

/// Descriptors that are received with one piece; the kernel closes further ones.
const DESCRIPTORS: usize = 4;

/// Lines that were received, and the descriptor of the next request that takes one.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Of a session that is kept.
    record: Option<Arc<Record>>,
    /// The text in the record that `bytes` are in, too.
    text: Option<usize>,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// More came than a request takes; they are closed.
    too_many: bool,
    /// The client has hung up its side.
    pub(super) has_ended: bool,
}

/// A line without its end, and its place in the record, if there is one.
pub(super) type Line = (Vec<u8>, Option<Ticket>);

/// A line that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong;

impl Input {
    /// That of a session that is kept; `incoming` is a text that has not come to its end.
    pub(super) fn kept(record: &Arc<Record>, incoming: Option<Incoming>) -> Self {
        let (text, bytes) = incoming.map_or((None, Vec::new()), |(text, bytes)| (Some(text), bytes));
        Self { record: Some(Arc::clone(record)), text, bytes, ..Self::default() }
    }

    /// The next line. `None`: it is not there yet.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, TooLong> {
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
        let text = self.text.take();
        let ticket = self.record.as_ref().zip(text).map(|(record, text)| record.take_incoming(text));
        Ok(Some((line, ticket)))
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
        if let Some(record) = self.record.clone() {
            return match self.receive_into(&record, socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                received => received,
            };
        }
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
        self.check_descriptors(received.flags.contains(ReturnFlags::CTRUNC));
        self.has_ended = received.bytes == 0;
        self.bytes.extend_from_slice(&piece[..received.bytes]);
        Ok(())
    }

    fn check_descriptors(&mut self, lost: bool) {
        if self.descriptors.len() > 1 || lost {
            self.descriptors.clear();
            self.too_many = true;
        }
    }

    /// Whether the record has no place for what comes next: not before a request is answered.
    pub(super) fn is_full(&mut self) -> bool {
        let Some(record) = self.record.as_ref().filter(|_| self.text.is_none()) else { return false };
        self.text = record.incoming();
        self.text.is_none()
    }

    /// Receives up to the end of a line, at most; there is a text for it.
    fn receive_into(&mut self, record: &Record, socket: impl AsFd) -> io::Result<()> {
        let Some(text) = self.text else { return Ok(()) };
        let used = self.bytes.len();
        let mut piece = [0; LONGEST_LINE];
        let room = LONGEST_LINE - used.min(LONGEST_LINE);
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let (there, _) = rustix::net::recv(&socket, &mut piece[..room], flags)?;
        if there == 0 {
            self.has_ended = true;
            return Ok(());
        }
        let line_end = piece[..there].iter().position(|byte| *byte == b'\n');
        let received = record.receive(text, used, line_end.map_or(there, |end| end + 1), &socket)?;
        self.descriptors.extend(received.descriptors);
        self.check_descriptors(received.lost_descriptors);
        self.bytes.extend_from_slice(&piece[..received.bytes]);
        Ok(())
    }
}
