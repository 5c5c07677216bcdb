//! What a client is to read: answers, and events, of which some may be lost. Both are bounded.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard};

use memobj_linux::eventfd::EventFd;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::borrow::Handed;
use super::locked;

/// Queued answers beyond which no more requests of the client are read.
const FULL_BYTES: usize = 64 << 10;

/// The lines that wait to be sent to one client.
#[derive(Debug)]
pub(super) struct Output {
    inside: Mutex<Inside>,
    /// Wakes the thread that sends.
    wake: EventFd,
    most_event_bytes: usize,
}

#[derive(Debug, Default)]
struct Inside {
    answers: VecDeque<(String, Option<Handed>)>,
    answer_bytes: usize,
    events: VecDeque<String>,
    event_bytes: usize,
    /// Events that were dropped since the last line that said so.
    lost: u64,
    /// The line that is being sent, and how much of it was.
    current: Option<(String, usize, IsAnswer)>,
    /// What goes with its first byte.
    handed: Option<Handed>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum IsAnswer {
    Yes,
    No,
}

/// What one attempt to send did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    /// Some bytes were taken.
    pub(super) progress: bool,
    /// Lines are left.
    pub(super) rest: bool,
}

impl Output {
    /// `most_event_bytes` of events may wait.
    pub(super) fn new(most_event_bytes: usize) -> io::Result<Self> {
        Ok(Self { inside: Mutex::default(), wake: EventFd::new()?, most_event_bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        locked(&self.inside)
    }

    /// Queues an answer.
    pub(super) fn answer(&self, line: String) {
        self.queue(line, None);
    }

    /// Queues an answer with which a descriptor goes.
    pub(super) fn answer_with(&self, line: String, handed: Handed) {
        self.queue(line, Some(handed));
    }

    fn queue(&self, line: String, handed: Option<Handed>) {
        let mut inside = self.lock();
        inside.answer_bytes += line.len();
        inside.answers.push_back((line, handed));
        drop(inside);
        self.wake.notify();
    }

    /// Queues an event. `false`: it was dropped, since the client has not read what waits.
    pub(super) fn event(&self, line: String) -> bool {
        let mut inside = self.lock();
        // Until the client was told that some are lost, all further ones are: they stay in order.
        let fits = inside.lost == 0 && inside.event_bytes + line.len() <= self.most_event_bytes;
        if fits {
            inside.event_bytes += line.len();
            inside.events.push_back(line);
        } else {
            inside.lost += 1;
        }
        drop(inside);
        self.wake.notify();
        fits
    }

    /// Wakes the thread that sends.
    pub(super) fn wake(&self) {
        self.wake.notify();
    }

    /// Call before looking at what it was woken for.
    pub(super) fn clear(&self) {
        self.wake.clear();
    }

    /// Whether so much waits that no more requests are to be read.
    pub(super) fn is_full(&self) -> bool {
        self.lock().answer_bytes >= FULL_BYTES
    }

    /// Whether answers wait.
    pub(super) fn owes_answers(&self) -> bool {
        let inside = self.lock();
        let is_answer = matches!(inside.current, Some((_, _, IsAnswer::Yes)));
        is_answer || !inside.answers.is_empty()
    }

    /// Whether anything waits.
    pub(super) fn has_rest(&self) -> bool {
        self.lock().has_rest()
    }

    /// Sends what `socket` takes now.
    pub(super) fn send(&self, socket: impl AsFd) -> io::Result<Sent> {
        let mut inside = self.lock();
        let mut progress = false;
        while let Some((line, at, is_answer)) = inside.take_next() {
            match send(socket.as_fd(), &line.as_bytes()[at..], inside.handed.as_ref()) {
                Ok(count) => {
                    progress = true;
                    inside.handed = None;
                    if at + count < line.len() {
                        inside.current = Some((line, at + count, is_answer));
                    }
                }
                Err(error) => {
                    inside.current = Some((line, at, is_answer));
                    match error {
                        rustix::io::Errno::AGAIN => return Ok(Sent { progress, rest: true }),
                        rustix::io::Errno::INTR => {}
                        error => return Err(error.into()),
                    }
                }
            }
        }
        Ok(Sent { progress, rest: false })
    }
}

/// Sends what the socket takes now, and the descriptor with its first byte.
fn send(socket: BorrowedFd<'_>, bytes: &[u8], handed: Option<&Handed>) -> Result<usize, rustix::io::Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let descriptors: Vec<_> = handed.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Inside {
    fn has_rest(&self) -> bool {
        self.current.is_some() || !self.answers.is_empty() || !self.events.is_empty() || self.lost > 0
    }

    /// The line that is sent next, and from where on. Answers overtake events.
    fn take_next(&mut self) -> Option<(String, usize, IsAnswer)> {
        if let Some(current) = self.current.take() {
            return Some(current);
        }
        if let Some((answer, handed)) = self.answers.pop_front() {
            self.answer_bytes -= answer.len();
            self.handed = handed;
            return Some((answer, 0, IsAnswer::Yes));
        }
        if let Some(event) = self.events.pop_front() {
            self.event_bytes -= event.len();
            return Some((event, 0, IsAnswer::No));
        }
        let lost = std::mem::take(&mut self.lost);
        (lost > 0).then(|| (format!("* lost count={lost}\n"), 0, IsAnswer::No))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn events_are_lost_in_order_and_counted() {
        let output = Output::new(10).unwrap();
        assert!(output.event("* one\n".into()));
        assert!(!output.event("* two\n".into()));
        // It would fit, but would come before the line that says that one is missing.
        assert!(!output.event("* 3\n".into()));
        output.answer("1 ok\n".into());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(output.send(&ours).unwrap(), Sent { progress: true, rest: false });
        assert!(output.event("* 4\n".into()));
        output.send(&ours).unwrap();
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "1 ok\n* one\n* lost count=2\n* 4\n");
    }

    #[test]
    fn a_socket_that_takes_no_more_keeps_the_rest() {
        let output = Output::new(0).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let line = format!("{}\n", "x".repeat(1000));
        for _ in 0..1000 {
            output.answer(line.clone());
        }
        assert!(output.is_full() && output.owes_answers());
        assert!(output.send(&ours).unwrap().rest);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            theirs.read_to_string(&mut text).unwrap();
            text
        });
        while output.send(&ours).unwrap().rest {
            std::thread::yield_now();
        }
        drop(ours);
        assert_eq!(reader.join().unwrap(), line.repeat(1000));
    }
}
