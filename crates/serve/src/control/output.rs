//! What a client is to read: answers, and events, of which some may be lost. Both are bounded.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use memobj_linux::eventfd::EventFd;

use super::borrow::Handed;
use super::locked;
use super::queue::Queue;
use super::record::{Record, Ticket};

/// Queued answers beyond which no more requests of the client are read.
const FULL_BYTES: usize = 64 << 10;

/// The lines that wait to be sent to one client.
#[derive(Debug)]
pub(super) struct Output {
    inside: Mutex<Inside>,
    /// Of a session that is kept: where it is noted that a request is answered.
    record: Option<Arc<Record>>,
    /// Wakes the thread that sends.
    wake: EventFd,
    most_event_bytes: usize,
}

#[derive(Debug)]
struct Inside {
    /// Answers, and events that are sent next.
    queue: Queue,
    /// Where the last answer of the queue ends, counted as the queue counts; zero if none waits.
    last_answer_end: u64,
    events: VecDeque<String>,
    event_bytes: usize,
    /// Events that were dropped since the last line that said so.
    lost: u64,
    /// The system refused memory for an answer: the client cannot be served any more.
    is_broken: bool,
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
        Self::over(Queue::in_memory(), None, most_event_bytes)
    }

    /// That of a session that is kept, whose `queue` is in a file.
    pub(super) fn kept(queue: Queue, record: &Arc<Record>, most_event_bytes: usize) -> io::Result<Self> {
        Self::over(queue, Some(Arc::clone(record)), most_event_bytes)
    }

    fn over(queue: Queue, record: Option<Arc<Record>>, most_event_bytes: usize) -> io::Result<Self> {
        // What a server before has left counts as answers.
        let inside = Inside {
            last_answer_end: queue.end(),
            queue,
            events: VecDeque::new(),
            event_bytes: 0,
            lost: 0,
            is_broken: false,
        };
        Ok(Self { inside: Mutex::new(inside), record, wake: EventFd::new()?, most_event_bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        locked(&self.inside)
    }

    /// Queues an answer, to a request that has a ticket if the session is kept.
    pub(super) fn answer(&self, line: &str, ticket: Option<Ticket>) {
        self.queue(line, ticket, None);
    }

    /// Queues an answer with which a descriptor goes. The session is [not kept](Self::end_keeping).
    pub(super) fn answer_with(&self, line: &str, ticket: Option<Ticket>, handed: Handed) {
        self.queue(line, ticket, Some(handed));
    }

    fn queue(&self, line: &str, ticket: Option<Ticket>, handed: Option<Handed>) {
        let mut inside = self.lock();
        let noted = self.record.as_ref().zip(ticket);
        if let Some((record, ticket)) = noted {
            // First, so that the next server can tell by the length of the queue whether the line is in it.
            record.answers(ticket, inside.queue.end() + line.len() as u64);
        }
        match inside.queue.push(line, handed) {
            Ok(()) => inside.last_answer_end = inside.queue.end(),
            Err(_) => inside.is_broken = true,
        }
        // Under the lock: the queue cannot be emptied meanwhile.
        if let Some((record, ticket)) = noted {
            record.answered(ticket);
        }
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

    /// Calls `act` with the file of the queue, if it is in one.
    pub(super) fn with_file(&self, act: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<()> {
        self.lock().queue.descriptor().map_or(Ok(()), act)
    }

    /// From now on what is to be sent is known to this process only. `forget` is called before, unless it is so already.
    pub(super) fn end_keeping(&self, forget: impl FnOnce()) -> io::Result<()> {
        let mut inside = self.lock();
        if inside.queue.descriptor().is_none() {
            return Ok(());
        }
        forget();
        let before = inside.queue.end();
        inside.queue.move_to_memory()?;
        inside.last_answer_end = inside.last_answer_end.saturating_sub(before - inside.queue.end());
        Ok(())
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
        self.lock().queue.len() >= FULL_BYTES
    }

    /// Whether answers wait.
    pub(super) fn owes_answers(&self) -> bool {
        let inside = self.lock();
        let sent = inside.queue.end() - inside.queue.len() as u64;
        inside.last_answer_end > sent
    }

    /// Whether anything waits.
    pub(super) fn has_rest(&self) -> bool {
        self.lock().has_rest()
    }

    /// Sends what `socket` takes now.
    pub(super) fn send(&self, socket: impl AsFd) -> io::Result<Sent> {
        let mut inside = self.lock();
        let mut progress = false;
        loop {
            progress |= inside.queue.send(&socket)? > 0;
            if inside.queue.len() > 0 {
                return Ok(Sent { progress, rest: true });
            }
            if inside.is_broken {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            inside.last_answer_end = 0;
            // Answers overtake events.
            let Some(event) = inside.take_event() else { return Ok(Sent { progress, rest: false }) };
            inside.queue.push(&event, None)?;
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Inside {
    fn has_rest(&self) -> bool {
        self.queue.len() > 0 || !self.events.is_empty() || self.lost > 0
    }

    fn take_event(&mut self) -> Option<String> {
        if let Some(event) = self.events.pop_front() {
            self.event_bytes -= event.len();
            return Some(event);
        }
        let lost = std::mem::take(&mut self.lost);
        (lost > 0).then(|| format!("* lost count={lost}\n"))
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
        output.answer("1 ok\n", None);
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
        ours.set_nonblocking(true).unwrap();
        let line = format!("{}\n", "x".repeat(1000));
        for _ in 0..1000 {
            output.answer(&line, None);
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

    #[test]
    fn an_answer_is_noted_with_its_request() {
        let record = Arc::new(Record::new(1).unwrap());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut theirs, b"1 stats\n2 stats\n").unwrap();
        let take = || {
            let index = record.incoming().unwrap();
            record.receive(index, 0, 8, &ours).unwrap();
            record.take_incoming(index)
        };
        let (first, _second) = (take(), take());
        let output = Output::kept(Queue::in_file().unwrap(), &record, 0).unwrap();
        output.answer("1 ok\n", Some(first));
        let file = record.as_fd().try_clone_to_owned().unwrap();
        let (_, again, _) = Record::open(file, output.lock().queue.end()).unwrap();
        assert_eq!(again.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), [b"2 stats"]);
    }
}
