//! The other side of a control connection.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use memobj::{GuestProt, RemoteMapping};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::mappings::prot_word;
use super::words::{LONGEST_LINE, decode};

/// Events that are kept until somebody asks for them; the oldest go first.
const MOST_EVENTS: usize = 1024;
/// How often something is tried that fails when a server is replaced.
const MOST_TRIES: u32 = 100;
/// How long the server may take to offer a mapping.
const ATTACH: Duration = Duration::from_secs(30);

/// A connection to a server. One thread at a time talks; later requests of the same client may be sent by another
/// connection.
///
/// ```no_run
/// use memobj::GuestProt;
/// use memobj_serve::control::Client;
///
/// let mut client = Client::connect("/run/memobj.sock")?;
/// let object = client.request("open model ro")?.number("object")?;
/// let (mapping, number) = client.map(object, GuestProt::ReadOnly)?;
/// let mut bytes = [0; 8];
/// mapping.read_at(0, &mut bytes)?;
/// client.request(&format!("unmap {number}"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    received: Vec<u8>,
    events: VecDeque<String>,
    /// Requests that were begun, and their answers once they have come.
    begun: BTreeMap<String, Option<String>>,
    session: u64,
    last_tag: u64,
}

/// What a server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer(String);

impl Answer {
    /// What is behind the tag of an answer.
    pub(super) fn parse(words: &str) -> Result<Self, ClientError> {
        match words.split_once(' ').unwrap_or((words, "")) {
            ("ok", rest) => Ok(Self(rest.to_owned())),
            ("error", rest) => {
                let (kind, words) = rest.split_once(' ').unwrap_or((rest, ""));
                Err(ClientError::Refused { kind: kind.into(), words: words.into() })
            }
            _ => Err(ClientError::Protocol(words.to_owned())),
        }
    }

    /// The value of `key`, decoded.
    pub fn get(&self, key: &str) -> Option<String> {
        value_of(&self.0, key)
    }

    /// The number that is the value of `key`.
    ///
    /// # Errors
    ///
    /// `Protocol` if there is none.
    pub fn number(&self, key: &str) -> Result<u64, ClientError> {
        let number = self.get(key).and_then(|value| value.parse().ok());
        number.ok_or_else(|| ClientError::Protocol(format!("no number {key} in {}", self.0)))
    }

    /// The words behind `ok`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The value of `key` among `words`, decoded.
pub(super) fn value_of(words: &str, key: &str) -> Option<String> {
    let value = |word: &str| word.strip_prefix(key)?.strip_prefix('=').and_then(decode);
    words.split(' ').find_map(value)
}

/// Why a request did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The server answered with an error.
    Refused {
        /// Its kind, of those in `docs/serve-protocol.md`.
        kind: String,
        /// All words behind the kind.
        words: String,
    },
    /// The connection has failed, or has ended.
    Io(io::Error),
    /// The mapping could not be attached.
    Attach(memobj::AdmitError),
    /// The other side is no such server.
    Protocol(String),
}

impl ClientError {
    /// The kind of error that the server answered.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Refused { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// The value of `key` in the error that the server answered.
    pub fn get(&self, key: &str) -> Option<String> {
        match self {
            Self::Refused { words, .. } => value_of(words, key),
            _ => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { kind, words } => {
                let message = value_of(words, "message").unwrap_or_default();
                write!(f, "the server refused: {kind}: {message}")
            }
            Self::Io(error) => write!(f, "talk to the server: {error}"),
            Self::Attach(error) => write!(f, "attach a mapping: {error}"),
            Self::Protocol(line) => write!(f, "the server answered {line:?}"),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Attach(error) => Some(error),
            _ => None,
        }
    }
}

fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Client {
    /// Connects to the server at `path`, and waits for its greeting.
    ///
    /// # Errors
    ///
    /// `Refused`, with the kind `refused`, if this process may not be a client.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let mut tries = 1;
        loop {
            match Self::connect_once(path.as_ref()) {
                // A server that is kept can die with a connection that it has just accepted.
                Err(ClientError::Io(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof && tries < MOST_TRIES =>
                {
                    tries += 1;
                }
                connected => return connected,
            }
        }
    }

    fn connect_once(path: &Path) -> Result<Self, ClientError> {
        let socket = UnixStream::connect(path)?;
        let (received, events, begun) = (Vec::new(), VecDeque::new(), BTreeMap::new());
        let mut client = Self { socket, received, events, begun, session: 0, last_tag: 0 };
        let greeting = client.line(None)?.ok_or_else(ended)?;
        match greeting.strip_prefix("memobj 1 ") {
            Some(words) if words.starts_with("refused ") => {
                Err(ClientError::Refused { kind: "refused".into(), words: words.into() })
            }
            Some(words) => {
                client.session = Answer(words.to_owned()).number("session")?;
                Ok(client)
            }
            None => Err(ClientError::Protocol(greeting)),
        }
    }

    /// The number that the server gave this connection, as its log has it.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Sends `words`, a verb and its arguments, and waits for the answer.
    ///
    /// # Errors
    ///
    /// `Refused` is what the server answered.
    pub fn request(&mut self, words: &str) -> Result<Answer, ClientError> {
        let tag = self.send(words, None)?;
        self.answer(&tag)
    }

    /// As [`request`](Self::request), with a descriptor.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn request_with(&mut self, words: &str, descriptor: impl AsFd) -> Result<Answer, ClientError> {
        let tag = self.send(words, Some(descriptor.as_fd()))?;
        self.answer(&tag)
    }

    /// Sends a request, and gives its tag: [`answer`](Self::answer) waits for what becomes of it.
    ///
    /// # Errors
    ///
    /// Of the connection.
    pub fn begin(&mut self, words: &str) -> Result<String, ClientError> {
        let tag = self.send(words, None)?;
        self.begun.insert(tag.clone(), None);
        Ok(tag)
    }

    /// Maps all of an object that was opened, and tells the number of the mapping.
    ///
    /// # Errors
    ///
    /// What the server answered; `Attach` if that was `ok` and this side failed.
    pub fn map(&mut self, object: u64, prot: GuestProt) -> Result<(RemoteMapping, u64), ClientError> {
        let mut tries = 1;
        loop {
            match self.map_once(object, prot) {
                // The server was replaced, and this end of the pair went with it.
                Err(error) if error.kind() == Some("again") && tries < MOST_TRIES => tries += 1,
                mapped => return mapped,
            }
        }
    }

    fn map_once(&mut self, object: u64, prot: GuestProt) -> Result<(RemoteMapping, u64), ClientError> {
        let (ours, theirs) = UnixStream::pair()?;
        let tag = self.send(&format!("map {object} {}", prot_word(prot)), Some(theirs.as_fd()))?;
        // So that a refusal is the end of the pair.
        drop(theirs);
        let attached = RemoteMapping::attach(ours, ATTACH);
        let number = self.answer(&tag)?.number("mapping")?;
        Ok((attached.map_err(ClientError::Attach)?, number))
    }

    /// The next event, without `* ` in front, after at most `limit`. Ask for events by `events on` first.
    ///
    /// # Errors
    ///
    /// Of the connection.
    pub fn next_event(&mut self, limit: Duration) -> Result<Option<String>, ClientError> {
        let until = Instant::now() + limit;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.line(Some(until))? {
                None => return Ok(None),
                Some(line) => self.keep(line),
            }
        }
    }

    /// The events that have come, and come within `limit` of one another.
    pub fn events(&mut self, limit: Duration) -> impl Iterator<Item = String> + '_ {
        std::iter::from_fn(move || self.next_event(limit).ok().flatten())
    }

    /// Keeps a line that nobody waits for now.
    fn keep(&mut self, line: String) {
        let (tag, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if tag == "*" {
            if self.events.len() == MOST_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(rest.to_owned());
        } else if let Some(answer) = self.begun.get_mut(tag) {
            *answer = Some(rest.to_owned());
        }
    }

    fn send(&mut self, words: &str, descriptor: Option<BorrowedFd<'_>>) -> Result<String, ClientError> {
        self.last_tag += 1;
        let tag = self.last_tag.to_string();
        let line = format!("{tag} {words}\n");
        let mut sent = 0;
        while sent < line.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors: Vec<_> = descriptor.iter().copied().filter(|_| sent == 0).collect();
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let piece = &[IoSlice::new(&line.as_bytes()[sent..])];
            match sendmsg(&self.socket, piece, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(tag)
    }

    /// Waits for the answer to a request that was [begun](Self::begin). The answer of each can be had once.
    ///
    /// # Errors
    ///
    /// `Refused` is what the server answered.
    pub fn answer(&mut self, tag: &str) -> Result<Answer, ClientError> {
        let mut answer = self.begun.remove(tag).flatten();
        while answer.is_none() {
            let line = self.line(None)?.ok_or_else(ended)?;
            match line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                Some(words) => answer = Some(words.to_owned()),
                None => self.keep(line),
            }
        }
        Answer::parse(&answer.unwrap_or_default())
    }

    /// The next line; `None` if none came in time. The end of the connection is an error.
    fn line(&mut self, until: Option<Instant>) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]).into_owned();
                return Ok(Some(line));
            }
            if self.received.len() >= 2 * LONGEST_LINE {
                return Err(ClientError::Protocol("a line without an end".into()));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            self.socket.set_read_timeout(left)?;
            let mut piece = [0; LONGEST_LINE];
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(ended().into()),
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
