//! Errors of pagers and folders, as programs are told of them.

use std::collections::HashSet;
use std::io;

use memobj::{AccessError, ErrorKind, PageError};
use memobj_linux::locks::{Rank, RankedMutex};
use rustix::io::Errno;

use crate::options::Messages;
use crate::say::Speaker;

/// Ranges that have been told of. What fails beyond is not told.
const MOST_TOLD: usize = 1024;

/// What read(2) answers when a page cannot be supplied.
pub(super) fn of_kind(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::Stale => Errno::STALE,
        ErrorKind::Denied => Errno::ACCESS,
        ErrorKind::Timeout => Errno::TIMEDOUT,
        _ => Errno::IO,
    }
}

/// What open(2) and its relatives answer when a folder of objects refuses.
pub(super) fn of_system(error: &io::Error) -> Errno {
    if let Some(number) = error.raw_os_error() {
        return Errno::from_raw_os_error(number);
    }
    match error.kind() {
        io::ErrorKind::NotFound => Errno::NOENT,
        io::ErrorKind::PermissionDenied => Errno::ACCESS,
        io::ErrorKind::TimedOut => Errno::TIMEDOUT,
        io::ErrorKind::NotADirectory => Errno::NOTDIR,
        io::ErrorKind::IsADirectory => Errno::ISDIR,
        io::ErrorKind::StaleNetworkFileHandle => Errno::STALE,
        io::ErrorKind::OutOfMemory => Errno::NOMEM,
        _ => Errno::IO,
    }
}

/// Tells of failures, of each once.
#[derive(Debug)]
pub(super) struct Told {
    messages: Messages,
    speaker: Speaker,
    told: RankedMutex<HashSet<String>>,
}

impl Told {
    pub(super) fn new(messages: Messages) -> Self {
        let told = RankedMutex::new(Rank::ToldFailures, HashSet::new());
        Self { messages, speaker: Speaker::default(), told }
    }

    /// A read has failed; what it answers.
    pub(super) fn read_failed(&self, error: &AccessError) -> Errno {
        let errno = match error {
            AccessError::Page(page) => of_kind(page.kind()),
            _ => Errno::IO,
        };
        let text = match error {
            AccessError::Page(page) => page_text(page),
            other => other.to_string(),
        };
        self.once(format!("{text}; a read(2) of it fails"));
        errno
    }

    /// An object could not be opened, or a folder not be listed.
    pub(super) fn refused(&self, what: &str, name: &str, error: &io::Error) -> Errno {
        if error.kind() != io::ErrorKind::NotFound {
            self.once(format!("{what} {name}: {error}"));
        }
        of_system(error)
    }

    fn once(&self, text: String) {
        if self.messages == Messages::None {
            return;
        }
        let mut told = self.told.lock();
        if told.len() < MOST_TOLD && told.insert(text.clone()) {
            drop(told);
            self.speaker.say(text);
        }
    }
}

/// Names object and range, and what the pager gave as the cause.
fn page_text(error: &PageError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}
