//! What a monitor sends when it has connected: the list of its regions, and its userfaultfd.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::regions::{BadRegions, Regions};
use crate::keep::MOST_TEXT_BYTES as MOST_BYTES;

/// Descriptors that one message has room for; more are closed by the kernel.
const MOST_DESCRIPTORS: usize = 8;

/// What a monitor has sent.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) regions: Regions,
    /// As it was sent.
    pub(super) text: Vec<u8>,
    /// What it says is a userfaultfd.
    pub(super) faults: OwnedFd,
}

/// Receives it, until `limit` is over. The text has no end but that of the list; the descriptor comes with its first byte.
pub(super) fn receive(socket: &UnixStream, object_length: u64, limit: Duration) -> Result<Handshake, String> {
    let until = Instant::now() + limit;
    let (mut text, mut descriptors) = (Vec::new(), Vec::new());
    let regions = loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("it has not said where its memory is within {} s", limit.as_secs()));
        }
        socket.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        match part(socket, &mut text, &mut descriptors) {
            Ok(0) => return Err("it has hung up before it said where its memory is".into()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(error) => return Err(format!("receive its regions: {error}")),
        }
        match Regions::parse(&text, object_length) {
            Err(BadRegions::Incomplete) if text.len() < MOST_BYTES => {}
            Err(BadRegions::Incomplete) => {
                return Err(format!("its list of regions is longer than {MOST_BYTES} bytes"));
            }
            Err(why) => return Err(why.to_string()),
            Ok(regions) => break regions,
        }
    };
    if descriptors.len() != 1 {
        return Err(format!("it has sent {} descriptors, not one userfaultfd", descriptors.len()));
    }
    match descriptors.pop() {
        Some(faults) => Ok(Handshake { regions, text, faults }),
        None => Err("it has sent no userfaultfd".into()),
    }
}

fn part(socket: &UnixStream, text: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    // What it sends is bounded by its text, whose parts have so many at most.
    text.extend_from_slice(bytes.get(..got).unwrap_or_default());
    Ok(got)
}
