//! What a session has, in a file that outlives the server: so that the next one goes on as if nothing had been.
//!
//! ```text
//!   request   Free --> Incoming --> Taken --> Done --> Free        its text is in the journal
//!             bytes are received    |         its answer is queued
//!                                   taken over: begun again, unless its answer was queued
//!   object    number, item of the keeper, what the client may do, the request that opened it
//! ```
//!
//! A request that is begun again finds what it had done before by its number: so it is done once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use memobj_linux::journal::{Journal, Received, TEXTS, WORDS};

use super::locked;

/// Requests of one session that can be under way.
pub(super) const MOST_REQUESTS: usize = TEXTS;
/// Objects that a session can have.
pub(super) const MOST_OBJECTS: usize = 64;

const NUMBER: usize = 0;
const LAST_OBJECT: usize = 1;
const LAST_MAPPING: usize = 2;
const WANTS_EVENTS: usize = 3;
const HAS_QUIT: usize = 4;
const LAST_REQUEST: usize = 5;
const OBJECTS: usize = 64;
const REQUESTS: usize = OBJECTS + 4 * MOST_OBJECTS;
const _: () = assert!(REQUESTS + REQUEST_WORDS * MOST_REQUESTS <= WORDS);
/// State, number, end of the answer, deaths.
const REQUEST_WORDS: usize = 4;

const FREE: u64 = 0;
const INCOMING: u64 = 1;
const TAKEN: u64 = 2;
const DONE: u64 = 3;

/// A request in the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket {
    index: usize,
    /// By which the request is known: later ones have higher numbers.
    pub(super) number: u64,
    /// A server before has begun it.
    pub(super) is_again: bool,
    /// So many servers have ended while they were at it.
    pub(super) deaths: u64,
}

/// An object in the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ObjectRecord {
    pub(super) number: u64,
    /// Of the keeper.
    pub(super) item: u64,
    pub(super) may_write: bool,
    /// The request that opened it.
    pub(super) request: u64,
}

/// A request that a server before has taken, and its line.
pub(super) type Again = (Ticket, Vec<u8>);

/// A text that has not come to its end, and its bytes.
pub(super) type Incoming = (usize, Vec<u8>);

/// See the module.
#[derive(Debug)]
pub(super) struct Record {
    journal: Journal,
    /// Whether each text is in use.
    used: Mutex<[bool; MOST_REQUESTS]>,
}

impl Record {
    /// That of a new session.
    pub(super) fn new(session: u64) -> io::Result<Self> {
        let journal = Journal::new()?;
        journal.set(NUMBER, session);
        Ok(Self { journal, used: Mutex::default() })
    }

    /// What a server before has left; `queued` bytes of answers were queued by it. Says which requests are to be begun again,
    /// with their lines, in order; and the one that has not come to its end.
    pub(super) fn open(file: OwnedFd, queued: u64) -> io::Result<(Self, Vec<Again>, Option<Incoming>)> {
        let record = Self { journal: Journal::open(file)?, used: Mutex::default() };
        let (mut again, mut incoming) = (Vec::new(), None);
        for index in 0..MOST_REQUESTS {
            let [state, number, answer_end, deaths] =
                [0, 1, 2, 3].map(|word| record.request_word(index, word));
            let text = record.journal.text(index);
            let is_whole = text.ends_with(b"\n");
            match state {
                TAKEN if answer_end != 0 && answer_end <= queued => record.free(index),
                TAKEN | INCOMING if is_whole => {
                    let number = if state == TAKEN { number } else { record.next_request() };
                    let deaths = if state == TAKEN { deaths + 1 } else { 0 };
                    let ticket = record.take(index, number, deaths);
                    let ticket = Ticket { is_again: true, ..ticket };
                    again.push((ticket, text[..text.len() - 1].to_vec()));
                }
                INCOMING if !text.is_empty() => {
                    record.used()[index] = true;
                    incoming = Some((index, text));
                }
                FREE if text.is_empty() => {}
                _ => record.free(index),
            }
        }
        again.sort_by_key(|(ticket, _)| ticket.number);
        Ok((record, again, incoming))
    }

    fn used(&self) -> MutexGuard<'_, [bool; MOST_REQUESTS]> {
        locked(&self.used)
    }

    fn request_word(&self, index: usize, word: usize) -> u64 {
        self.journal.get(REQUESTS + REQUEST_WORDS * index + word)
    }

    fn set_request_word(&self, index: usize, word: usize, value: u64) {
        self.journal.set(REQUESTS + REQUEST_WORDS * index + word, value);
    }

    fn next_request(&self) -> u64 {
        let number = self.journal.get(LAST_REQUEST) + 1;
        self.journal.set(LAST_REQUEST, number);
        number
    }

    /// A text for what comes next; `None` while all are in use.
    pub(super) fn incoming(&self) -> Option<usize> {
        let mut used = self.used();
        let index = used.iter().position(|used| !used)?;
        used[index] = true;
        self.set_request_word(index, 0, INCOMING);
        Some(index)
    }

    /// Receives at most `most` bytes behind the first `used` of the text of [`incoming`](Self::incoming).
    pub(super) fn receive(
        &self,
        index: usize,
        used: usize,
        most: usize,
        socket: impl AsFd,
    ) -> io::Result<Received> {
        self.journal.receive(index, used, most, socket)
    }

    /// The request whose text has come to its end.
    pub(super) fn take_incoming(&self, index: usize) -> Ticket {
        let number = self.next_request();
        self.take(index, number, 0)
    }

    fn take(&self, index: usize, number: u64, deaths: u64) -> Ticket {
        self.used()[index] = true;
        self.set_request_word(index, 3, deaths);
        self.set_request_word(index, 1, number);
        self.set_request_word(index, 2, 0);
        self.set_request_word(index, 0, TAKEN);
        Ticket { index, number, is_again: false, deaths }
    }

    /// The answer is about to be queued, up to byte `end` of what is queued.
    pub(super) fn answers(&self, ticket: Ticket, end: u64) {
        self.set_request_word(ticket.index, 2, end);
    }

    /// The answer is queued.
    pub(super) fn answered(&self, ticket: Ticket) {
        self.free(ticket.index);
    }

    fn free(&self, index: usize) {
        self.set_request_word(index, 0, DONE);
        self.journal.clear(index);
        self.set_request_word(index, 2, 0);
        self.set_request_word(index, 0, FREE);
        self.used()[index] = false;
    }

    /// Whether a whole request has come, ever.
    pub(super) fn has_requests(&self) -> bool {
        self.journal.get(LAST_REQUEST) > 0
    }

    pub(super) fn wants_events(&self) -> bool {
        self.journal.get(WANTS_EVENTS) != 0
    }

    pub(super) fn set_wants_events(&self, wants: bool) {
        self.journal.set(WANTS_EVENTS, wants.into());
    }

    pub(super) fn has_quit(&self) -> bool {
        self.journal.get(HAS_QUIT) != 0
    }

    pub(super) fn set_has_quit(&self) {
        self.journal.set(HAS_QUIT, 1);
    }

    pub(super) fn last_object(&self) -> u64 {
        self.journal.get(LAST_OBJECT)
    }

    pub(super) fn last_mapping(&self) -> u64 {
        self.journal.get(LAST_MAPPING)
    }

    pub(super) fn set_last_mapping(&self, number: u64) {
        self.journal.set(LAST_MAPPING, number);
    }

    fn object_at(&self, index: usize) -> Option<ObjectRecord> {
        let word = |word| self.journal.get(OBJECTS + 4 * index + word);
        let number = word(0);
        let may_write = word(2) != 0;
        (number != 0).then(|| ObjectRecord { number, item: word(1), may_write, request: word(3) })
    }

    /// The objects.
    pub(super) fn objects(&self) -> impl Iterator<Item = ObjectRecord> + '_ {
        (0..MOST_OBJECTS).filter_map(|index| self.object_at(index))
    }

    /// One more object. `false`: there are too many.
    pub(super) fn add_object(&self, object: ObjectRecord) -> bool {
        let free = (0..MOST_OBJECTS).find(|index| self.object_at(*index).is_none());
        let Some(index) = free else { return false };
        self.journal.set(LAST_OBJECT, object.number);
        let values = [object.item, object.may_write.into(), object.request];
        for (word, value) in values.into_iter().enumerate() {
            self.journal.set(OBJECTS + 4 * index + 1 + word, value);
        }
        // The last: with it there is an object.
        self.journal.set(OBJECTS + 4 * index, object.number);
        true
    }

    /// One object less.
    pub(super) fn remove_object(&self, number: u64) {
        let is_it = |index: &usize| self.object_at(*index).is_some_and(|object| object.number == number);
        if let Some(index) = (0..MOST_OBJECTS).find(is_it) {
            self.journal.set(OBJECTS + 4 * index, 0);
        }
    }
}

impl AsFd for Record {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.journal.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    type Lines = Vec<(u64, Vec<u8>)>;

    fn left(record: &Record, queued: u64) -> (Record, Lines, Option<Vec<u8>>) {
        let file = record.as_fd().try_clone_to_owned().unwrap();
        let (record, again, incoming) = Record::open(file, queued).unwrap();
        let again = again.into_iter().map(|(ticket, line)| {
            assert!(ticket.is_again);
            (ticket.number, line)
        });
        (record, again.collect(), incoming.map(|(_, text)| text))
    }

    #[test]
    fn requests_are_begun_again_unless_their_answer_was_queued() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let record = Record::new(7).unwrap();
        let lines: [&[u8]; 5] = [b"a\n", b"bb\n", b"ccc\n", b"dddd\n", b"ha"];
        for line in lines {
            theirs.write_all(line).unwrap();
        }
        let mut tickets = Vec::new();
        for line in lines {
            let index = record.incoming().unwrap();
            assert_eq!(record.receive(index, 0, line.len(), &ours).unwrap().bytes, line.len());
            if line.ends_with(b"\n") && !line.starts_with(b"d") {
                tickets.push(record.take_incoming(index));
            }
        }
        record.answers(tickets[1], 100);
        record.answers(tickets[2], 200);
        let (next, again, incoming) = left(&record, 150);
        let expected = vec![(1, b"a".to_vec()), (3, b"ccc".to_vec()), (4, b"dddd".to_vec())];
        assert_eq!((again, incoming), (expected, Some(b"ha".to_vec())));
        assert_eq!(next.journal.get(NUMBER), 7);
        // What was queued is free again, and its text is all zeros.
        assert!(next.journal.text(tickets[1].index).is_empty());
        assert_eq!((0..MOST_REQUESTS).map_while(|_| next.incoming()).count(), MOST_REQUESTS - 4);
    }

    #[test]
    fn objects_are_found_by_the_next_server() {
        let record = Record::new(1).unwrap();
        let object = |number| ObjectRecord { number, item: 5, may_write: number == 2, request: 9 };
        (1..=MOST_OBJECTS as u64).for_each(|number| assert!(record.add_object(object(number))));
        assert!(!record.add_object(object(1000)));
        record.remove_object(3);
        assert!(record.add_object(object(1000)));
        let (next, ..) = left(&record, 0);
        let numbers: Vec<u64> = next.objects().map(|object| object.number).collect();
        assert!(!numbers.contains(&3) && numbers.contains(&1000) && numbers.len() == MOST_OBJECTS);
        assert_eq!(
            (next.objects().find(|object| object.number == 2), next.last_object()),
            (Some(object(2)), 1000)
        );
    }
}
