//! A process beside the server, the keeper, that keeps what the next server needs to go on when this one has died.
//!
//! ```text
//!   keeper                                   server: its child
//!   ------                                   ------
//!   starts the server ---------------------> its standard input is the line
//!   listener, machines, end of the list ---> serves them
//!   keeps <---- descriptors of a machine --- before its first event is read
//!   forgets <---------- a number ----------- it has left
//!   hears the end of the server: starts another
//! ```
//!
//! The keeper has descriptors: userfaultfd, socket, process and state of each machine, and the listener, where monitors wait
//! meanwhile. It calls no pager and understands none of what it keeps. While it has no server, faults sleep: no machine
//! reads zeros, and none hears of an error.
//!
//! A message is one datagram of the line: a letter, a number, a process, text; with descriptors.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, PoisonError};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The longest text of a machine.
pub(crate) const MOST_TEXT_BYTES: usize = 64 << 10;
/// Letter, number, process.
const HEAD_BYTES: usize = 1 + 8 + 4;
const MOST_BYTES: usize = HEAD_BYTES + MOST_TEXT_BYTES + 4096;
/// Descriptors of a machine.
const DESCRIPTORS: usize = 4;
/// The most machines that are kept.
const MOST_KEPT: usize = 4096;

const LISTENER: u8 = b'l';
const MACHINE: u8 = b'm';
const END: u8 = b'e';
const FORGET: u8 = b'f';
const READY: u8 = b'r';

/// A machine, as it is kept.
#[derive(Debug)]
pub struct KeptMachine {
    /// By which its server knows it.
    pub number: u64,
    /// Its process.
    pub pid: i32,
    /// What it has said of its regions.
    pub text: Vec<u8>,
    /// Its userfaultfd, socket, process and state.
    pub descriptors: [OwnedFd; DESCRIPTORS],
}

struct Message {
    letter: u8,
    number: u64,
    pid: i32,
    text: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

fn send(
    line: &OwnedFd,
    (letter, number, pid): (u8, u64, i32),
    text: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
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
fn receive(line: &OwnedFd) -> io::Result<Option<Message>> {
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
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(received) => Some(received.collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
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
    }))
}

fn machine_of(message: Message) -> io::Result<KeptMachine> {
    let Message { number, pid, text, descriptors, .. } = message;
    let strange = |_| io::Error::new(io::ErrorKind::InvalidData, "a machine without its descriptors");
    Ok(KeptMachine { number, pid, text, descriptors: descriptors.try_into().map_err(strange)? })
}

/// What a server is started with, and the line to its keeper.
#[derive(Debug)]
pub struct Kept {
    line: OwnedFd,
    machines: Mutex<Vec<KeptMachine>>,
}

impl Kept {
    /// Hears from the keeper at the other end of `line` what it keeps: the listener, and machines of servers before. Blocks
    /// until it has said all.
    ///
    /// # Errors
    ///
    /// What the line says; InvalidData if there is no keeper at its other end.
    pub fn hear(line: OwnedFd) -> io::Result<(Self, UnixListener)> {
        let (mut machines, mut listener) = (Vec::new(), None);
        let gone = || io::Error::new(io::ErrorKind::InvalidData, "there is no keeper");
        loop {
            let mut message = receive(&line)?.ok_or_else(gone)?;
            match message.letter {
                LISTENER => listener = message.descriptors.pop(),
                MACHINE => machines.push(machine_of(message)?),
                END => break,
                _ => return Err(gone()),
            }
        }
        let listener = listener.ok_or_else(gone)?;
        Ok((Self { line, machines: Mutex::new(machines) }, listener.into()))
    }

    /// Machines of servers before, once.
    pub(crate) fn take_machines(&self) -> Vec<KeptMachine> {
        std::mem::take(&mut *self.machines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the keeper that machines are served.
    pub(crate) fn say_ready(&self) {
        let _ = send(&self.line, (READY, 0, 0), &[], &[]);
    }

    /// Has the keeper keep a machine. It has it when this returns: the line keeps the order, and what is on it, beyond the
    /// death of this process.
    pub(crate) fn keep(
        &self,
        number: u64,
        pid: i32,
        text: &[u8],
        descriptors: &[BorrowedFd<'_>; DESCRIPTORS],
    ) -> io::Result<()> {
        send(&self.line, (MACHINE, number, pid), text, descriptors)
    }

    /// Has the keeper forget a machine. A keeper that is gone has forgotten it.
    pub(crate) fn forget(&self, number: u64) {
        let _ = send(&self.line, (FORGET, number, 0), &[], &[]);
    }
}

/// The keeper's side.
#[derive(Debug)]
pub struct Keeper {
    listener: UnixListener,
    machines: BTreeMap<u64, KeptMachine>,
}

impl Keeper {
    /// Keeps `listener`, and no machine yet.
    pub fn new(listener: UnixListener) -> Self {
        Self { listener, machines: BTreeMap::new() }
    }

    /// How many machines it keeps.
    pub fn machines(&self) -> usize {
        self.machines.len()
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
    /// Calls `on_ready` when the server says that it serves.
    ///
    /// # Errors
    ///
    /// What the line says, and what no server says: then what is kept is kept still, for the next one.
    pub fn attend(&mut self, line: &OwnedFd, on_ready: &mut dyn FnMut()) -> io::Result<()> {
        send(line, (LISTENER, 0, 0), &[], &[self.listener.as_fd()])?;
        for machine in self.machines.values() {
            let descriptors: Vec<_> = machine.descriptors.iter().map(AsFd::as_fd).collect();
            send(line, (MACHINE, machine.number, machine.pid), &machine.text, &descriptors)?;
        }
        send(line, (END, 0, 0), &[], &[])?;
        while let Some(message) = receive(line)? {
            match message.letter {
                MACHINE if self.machines.len() < MOST_KEPT => {
                    let machine = machine_of(message)?;
                    self.machines.insert(machine.number, machine);
                }
                READY => on_ready(),
                FORGET => drop(self.machines.remove(&message.number)),
                _ => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that no server sends"));
                }
            }
        }
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
    fn machines_outlive_their_server() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(UnixListener::bind(folder.path().join("socket")).unwrap());
        for round in 0..3 {
            let (server, line) = Keeper::line().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (kept, _listener) = Kept::hear(server).unwrap();
                    let known: Vec<_> = kept
                        .take_machines()
                        .iter()
                        .map(|machine| (machine.number, machine.text.clone()))
                        .collect();
                    let want: Vec<(u64, Vec<u8>)> = match round {
                        0 => Vec::new(),
                        _ => vec![(2, b"two".to_vec())],
                    };
                    assert_eq!(known, want);
                    if round == 0 {
                        let all = [descriptor(), descriptor(), descriptor(), descriptor()];
                        let all = [all[0].as_fd(), all[1].as_fd(), all[2].as_fd(), all[3].as_fd()];
                        kept.keep(1, 10, b"one", &all).unwrap();
                        kept.keep(2, 20, b"two", &all).unwrap();
                        kept.forget(1);
                    }
                });
                keeper.attend(&line, &mut || {}).unwrap();
            });
        }
        assert_eq!(keeper.machines(), 1);
    }
}
