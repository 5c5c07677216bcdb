//! A process beside the server, the keeper, that keeps what the next server needs to go on when this one has died.
//!
//! ```text
//!   keeper                                   server: its child
//!   ------                                   ------
//!   starts the server ---------------------> its standard input is the line
//!   listeners, items, end of the list -----> serves them
//!   keeps <------ descriptors of an item --- before anything depends on it
//!   forgets <---------- a number ----------- it has left
//!   hears the end of the server: starts another
//! ```
//!
//! The keeper has descriptors and texts: see [`Kind`]. It calls no pager and understands none of what it keeps. While it has
//! no server, faults and requests wait: nobody reads zeros, and nobody hears of an error.

mod message;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

pub(crate) use message::MOST_TEXT_BYTES;
use message::Message;
use message::{receive, send};

/// The most items that are kept.
const MOST_KEPT: usize = 1 << 20;

const LISTENER: u8 = b'l';
const KEEPER: u8 = b'k';
const END: u8 = b'e';
const FORGET: u8 = b'f';
const READY: u8 = b'r';

/// What an item is. Each has its own numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A machine: its userfaultfd, socket, process and state.
    Machine,
    /// An object of clients: its frames, its page words, and the file of the client that passed one along; else the frames
    /// again.
    Object,
    /// A client: its socket, what it has asked for, and what it is to be sent.
    Session,
    /// A mapping of a client: its userfaultfd, its process, and the line to it.
    Mapping,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Machine, Self::Object, Self::Session, Self::Mapping];

    fn letter(self) -> u8 {
        match self {
            Self::Machine => b'm',
            Self::Object => b'o',
            Self::Session => b's',
            Self::Mapping => b'g',
        }
    }

    fn of_letter(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.letter() == letter)
    }

    fn descriptors(self) -> usize {
        match self {
            Self::Machine => 4,
            Self::Object | Self::Session | Self::Mapping => 3,
        }
    }
}

/// Something that is kept.
#[derive(Debug)]
pub struct KeptItem {
    /// What it is.
    pub kind: Kind,
    /// By which its server knows it.
    pub number: u64,
    /// Its process, if it has one.
    pub pid: i32,
    /// What its server says of it.
    pub text: Vec<u8>,
    /// As [`Kind`] says.
    pub descriptors: Vec<OwnedFd>,
}

fn item_of(kind: Kind, message: Message) -> io::Result<KeptItem> {
    let Message { number, pid, text, descriptors, .. } = message;
    if descriptors.len() != kind.descriptors() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an item without its descriptors"));
    }
    Ok(KeptItem { kind, number, pid, text, descriptors })
}

/// Where a server listens.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For machine monitors.
    pub machines: Option<UnixListener>,
    /// For clients of the control connection.
    pub clients: Option<UnixListener>,
}

impl Listeners {
    fn each(&self) -> impl Iterator<Item = (u64, &UnixListener)> {
        [(0, &self.machines), (1, &self.clients)]
            .into_iter()
            .filter_map(|(number, listener)| Some((number, listener.as_ref()?)))
    }
}

/// What a server is started with, and the line to its keeper.
#[derive(Debug)]
pub struct Kept {
    line: OwnedFd,
    keeper: Arc<OwnedFd>,
    items: Mutex<Vec<KeptItem>>,
}

impl Kept {
    /// Hears from the keeper at the other end of `line` what it keeps: the listeners, and what servers before have left.
    /// Blocks until it has said all.
    ///
    /// # Errors
    ///
    /// What the line says; InvalidData if there is no keeper at its other end.
    pub fn hear(line: OwnedFd) -> io::Result<(Self, Listeners)> {
        let (mut items, mut listeners, mut keeper) = (Vec::new(), Listeners::default(), None);
        let gone = || io::Error::new(io::ErrorKind::InvalidData, "there is no keeper");
        loop {
            let mut message = receive(&line)?.ok_or_else(gone)?;
            match (message.letter, Kind::of_letter(message.letter)) {
                (LISTENER, _) => {
                    let listener = message.descriptors.pop().map(UnixListener::from);
                    match message.number {
                        0 => listeners.machines = listener,
                        _ => listeners.clients = listener,
                    }
                }
                (KEEPER, _) => keeper = message.descriptors.pop(),
                (END, _) => break,
                (_, Some(kind)) => items.push(item_of(kind, message)?),
                _ => return Err(gone()),
            }
        }
        let keeper = Arc::new(keeper.ok_or_else(gone)?);
        Ok((Self { line, keeper, items: Mutex::new(items) }, listeners))
    }

    /// The keeper's process.
    pub(crate) fn keeper(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.keeper)
    }

    /// What servers before have left of one kind, once.
    pub(crate) fn take(&self, kind: Kind) -> Vec<KeptItem> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, rest) = std::mem::take(&mut *items).into_iter().partition(|item| item.kind == kind);
        *items = rest;
        taken
    }

    /// Tells the keeper that everything is served, so that others can be told.
    pub fn say_ready(&self) {
        let _ = send(&self.line, (READY, 0, 0), &[], &[]);
    }

    /// Has the keeper keep an item, in the place of the one that had its number. It has it when this returns: the line keeps
    /// the order, and what is on it, beyond the death of this process.
    pub(crate) fn keep(
        &self,
        kind: Kind,
        (number, pid): (u64, i32),
        text: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        debug_assert_eq!(descriptors.len(), kind.descriptors());
        send(&self.line, (kind.letter(), number, pid), text, descriptors)
    }

    /// Has the keeper forget an item. A keeper that is gone has forgotten it.
    pub(crate) fn forget(&self, kind: Kind, number: u64) {
        let _ = send(&self.line, (FORGET, number, 0), &[kind.letter()], &[]);
    }
}

/// What a keeper has to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Note {
    /// The server serves.
    Ready,
    /// There was no room for the descriptors of an item: when the server dies, it ends.
    NotKept(Kind, u64),
}

/// The keeper's side.
#[derive(Debug)]
pub struct Keeper {
    listeners: Listeners,
    items: BTreeMap<(Kind, u64), KeptItem>,
}

impl Keeper {
    /// Keeps `listeners`, and nothing else yet.
    pub fn new(listeners: Listeners) -> Self {
        Self { listeners, items: BTreeMap::new() }
    }

    /// How many items it keeps of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.items.keys().filter(|(of, _)| *of == kind).count()
    }

    /// Both ends of a line, that of the server first.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn line() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
    }

    /// Tells a new server at the other end of `line` what is kept, and does what it says until it has ended. Blocks so long.
    ///
    /// # Errors
    ///
    /// What the line says, and what no server says: then what is kept is kept still, for the next one.
    pub fn attend(&mut self, line: &OwnedFd, on_note: &mut dyn FnMut(Note)) -> io::Result<()> {
        let process = pidfd_open(getpid(), PidfdFlags::empty())?;
        send(line, (KEEPER, 0, 0), &[], &[process.as_fd()])?;
        for (number, listener) in self.listeners.each() {
            send(line, (LISTENER, number, 0), &[], &[listener.as_fd()])?;
        }
        for item in self.items.values() {
            let descriptors: Vec<_> = item.descriptors.iter().map(AsFd::as_fd).collect();
            send(line, (item.kind.letter(), item.number, item.pid), &item.text, &descriptors)?;
        }
        send(line, (END, 0, 0), &[], &[])?;
        while let Some(message) = receive(line)? {
            match (message.letter, Kind::of_letter(message.letter)) {
                (READY, _) => on_note(Note::Ready),
                (FORGET, _) => {
                    if let Some(kind) = message.text.first().and_then(|letter| Kind::of_letter(*letter)) {
                        self.items.remove(&(kind, message.number));
                    }
                }
                (_, Some(kind)) => self.keep(kind, message, on_note)?,
                _ => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that no server sends"));
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, kind: Kind, message: Message, on_note: &mut dyn FnMut(Note)) -> io::Result<()> {
        let number = message.number;
        if message.lost_descriptors || self.items.len() >= MOST_KEPT {
            self.items.remove(&(kind, number));
            on_note(Note::NotKept(kind, number));
            return Ok(());
        }
        self.items.insert((kind, number), item_of(kind, message)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn items_outlive_their_server() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let mut keeper = Keeper::new(Listeners { machines: None, clients: Some(listener) });
        for round in 0..3 {
            let (server, line) = Keeper::line().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (kept, listeners) = Kept::hear(server).unwrap();
                    assert!(listeners.clients.is_some() && listeners.machines.is_none());
                    let known: Vec<_> =
                        kept.take(Kind::Machine).into_iter().map(|item| (item.number, item.text)).collect();
                    let want: Vec<(u64, Vec<u8>)> =
                        if round == 0 { Vec::new() } else { vec![(2, b"second".to_vec())] };
                    assert_eq!(known, want);
                    assert_eq!(kept.take(Kind::Session).len(), usize::from(round > 0));
                    assert!(kept.take(Kind::Machine).is_empty());
                    if round == 0 {
                        let all = [descriptor(), descriptor(), descriptor(), descriptor()];
                        let all = [all[0].as_fd(), all[1].as_fd(), all[2].as_fd(), all[3].as_fd()];
                        kept.keep(Kind::Machine, (1, 10), b"one", &all).unwrap();
                        kept.keep(Kind::Machine, (2, 20), b"two", &all).unwrap();
                        kept.keep(Kind::Machine, (2, 20), b"second", &all).unwrap();
                        kept.keep(Kind::Session, (1, 30), b"", &all[..3]).unwrap();
                        kept.forget(Kind::Machine, 1);
                    }
                });
                keeper.attend(&line, &mut |_| {}).unwrap();
            });
        }
        assert_eq!((keeper.count(Kind::Machine), keeper.count(Kind::Session)), (1, 1));
    }
}
