//! Gets the fids of a client again on a new connection.

use std::io::Write;
use std::time::{Duration, Instant};

use super::fids::{Dead, Fid};
use super::state::OWN_TAG;
use crate::attributes::Qid;
use crate::dialect::Dialect;
use crate::exchange;
use crate::frames::Frames;
use crate::message;
use crate::message::{HEADER_BYTES, MOST_NAMES, NO_FID, NO_TAG, OVERHEAD_BYTES, kind};
use crate::open_error::Cause;
use crate::server_error::ServerError;
use crate::stream::Stream;
use crate::wire::{Decoder, Encoder};

/// ESTALE, EIO.
const STALE: u32 = 116;
const FAILED: u32 = 5;

/// Why a connection is of no use.
#[derive(Debug)]
pub(super) enum RestoreError {
    /// It failed: another one may do.
    Connection(String),
    /// The server is not what it was: the client cannot go on.
    Server(String),
}

/// A new connection on which requests are made one by one.
pub(super) struct Restore<'a> {
    pub(super) stream: &'a Stream,
    pub(super) frames: &'a mut Frames,
    pub(super) dialect: Dialect,
    pub(super) msize_bytes: u32,
    pub(super) limit: Duration,
    pub(super) compares_qids: bool,
}

type Asked<R> = Result<Result<R, Dead>, RestoreError>;

impl Restore<'_> {
    /// Sends `out`, and takes the body of the answer; or what the server refuses with.
    fn ask<R>(&mut self, out: &[u8], tag: u16, take: impl FnOnce(Decoder<'_>) -> Option<R>) -> Asked<R> {
        let failed = |cause: &dyn std::fmt::Display| RestoreError::Connection(cause.to_string());
        (&mut &*self.stream).write_all(out).map_err(|error| failed(&error))?;
        let until = Instant::now() + self.limit;
        let bytes = exchange::next(self.frames, self.stream, until).map_err(|cause| match cause {
            Cause::Connection(error) => failed(&error),
            Cause::Answer(what) => failed(&what),
            Cause::IsFolder | Cause::TooMany(_) => failed(&"an answer that does not fit"),
            Cause::Server(error) => failed(&error),
        })?;
        let mut from = Decoder::new(bytes);
        let wrong = || failed(&"an unexpected answer");
        let header = from.u32().and_then(|_| Ok((from.u8()?, from.u16()?)));
        let (answer, its_tag) = header.map_err(|_| wrong())?;
        let request = out.get(4).copied().unwrap_or_default();
        let error = match answer {
            _ if its_tag != tag => return Err(wrong()),
            kind::RLERROR => ServerError::decode_number(from),
            kind::RERROR => ServerError::decode_words(from, self.dialect),
            _ if answer == request.wrapping_add(1) => return take(from).map(Ok).ok_or_else(wrong),
            _ => return Err(wrong()),
        };
        let error = error.map_err(|_| wrong())?;
        Ok(Err(Dead::new(error.number().unwrap_or(FAILED), error.to_string())))
    }

    /// Agrees on the same version and size of messages as before.
    pub(super) fn version(&mut self, version: &[u8]) -> Result<(), RestoreError> {
        let mut out = Vec::new();
        Encoder::new(&mut out, kind::TVERSION, NO_TAG).u32(self.msize_bytes).string(version).end();
        let agreed =
            self.ask(&out, NO_TAG, |mut from| Some((from.u32().ok()?, from.string().ok()?.to_vec())))?;
        let (msize_bytes, name) = agreed.map_err(|error| RestoreError::Server(error.words))?;
        if name != version || msize_bytes != self.msize_bytes {
            let (was, name) = (String::from_utf8_lossy(version), String::from_utf8_lossy(&name));
            let most = self.msize_bytes;
            let what = format!(
                "the server spoke {was} with messages of {most} bytes, now {name} with {msize_bytes}"
            );
            return Err(RestoreError::Server(what));
        }
        Ok(())
    }

    /// Gets `fid` as the number `number`: attach, walk, open, and read a folder up to where it was read. `Ok` with why if
    /// it cannot be got.
    pub(super) fn fid(&mut self, number: u32, fid: &Fid) -> Asked<()> {
        if let Some(dead) = fid.dead.clone() {
            return Ok(Err(dead));
        }
        if let Some(once) = fid.once {
            return Ok(Err(Dead::new(FAILED, format!("the server was away: {once}"))));
        }
        let qid = match self.attach_and_walk(number, fid)? {
            Ok(qid) => qid,
            Err(dead) => return Ok(Err(dead)),
        };
        if self.compares_qids && (qid.path, qid.is_folder()) != (fid.qid.path, fid.qid.is_folder()) {
            self.clunk(number)?;
            return Ok(Err(Dead::new(STALE, "the server was away, and has another file there now")));
        }
        let opened = self.open(number, fid)?;
        let read = match opened {
            Ok(()) if fid.read_up_to > 0 => self.read_up_to(number, fid.read_up_to)?,
            opened => opened,
        };
        if read.is_err() {
            self.clunk(number)?;
        }
        Ok(read)
    }

    fn attach_and_walk(&mut self, number: u32, fid: &Fid) -> Asked<Qid> {
        let mut out = Vec::new();
        let message = Encoder::new(&mut out, kind::TATTACH, OWN_TAG).u32(number).u32(NO_FID);
        message.bytes(&fid.path.0).end();
        let mut qid = match self.ask(&out, OWN_TAG, |mut from| Qid::decode(&mut from).ok())? {
            Ok(qid) => qid,
            Err(dead) => return Ok(Err(dead)),
        };
        for names in fid.path.1.chunks(MOST_NAMES) {
            out.clear();
            message::walk(&mut out, OWN_TAG, (number, number), names);
            let walked = self.ask(&out, OWN_TAG, |mut from| {
                let count = usize::from(from.u16().ok()?);
                let mut last = None;
                for _ in 0..count.min(MOST_NAMES) {
                    last = Some(Qid::decode(&mut from).ok()?);
                }
                Some(last.filter(|_| count == names.len()))
            })?;
            qid = match walked {
                Ok(Some(last)) => last,
                Ok(None) => {
                    self.clunk(number)?;
                    return Ok(Err(Dead::new(STALE, "the server was away, and the file is gone")));
                }
                Err(dead) => {
                    self.clunk(number)?;
                    return Ok(Err(dead));
                }
            };
        }
        Ok(Ok(qid))
    }

    fn open(&mut self, number: u32, fid: &Fid) -> Asked<()> {
        let Some(opened) = fid.opened else { return Ok(Ok(())) };
        let mut out = Vec::new();
        if opened.by_linux {
            Encoder::new(&mut out, kind::TLOPEN, OWN_TAG).u32(number).u32(opened.mode).end();
        } else {
            let mode = u8::try_from(opened.mode).unwrap_or(0);
            Encoder::new(&mut out, kind::TOPEN, OWN_TAG).u32(number).u8(mode).end();
        }
        self.ask(&out, OWN_TAG, |_| Some(()))
    }

    /// Reads a folder from its start, as it can only be read on from where it was read.
    fn read_up_to(&mut self, number: u32, end: u64) -> Asked<()> {
        let most = u64::from(self.msize_bytes.saturating_sub(OVERHEAD_BYTES));
        let mut at = 0;
        while at < end {
            let mut out = Vec::new();
            let count = u32::try_from((end - at).min(most)).unwrap_or(u32::MAX);
            message::read(&mut out, OWN_TAG, number, at, count);
            match self.ask(&out, OWN_TAG, |mut from| from.u32().ok())? {
                Ok(read) if read > 0 && read <= count => at += u64::from(read),
                Ok(_) => return Ok(Err(Dead::new(STALE, "the server was away, and the folder has changed"))),
                Err(dead) => return Ok(Err(dead)),
            }
        }
        Ok(Ok(()))
    }

    fn clunk(&mut self, number: u32) -> Result<(), RestoreError> {
        let mut out = Vec::with_capacity(usize::try_from(HEADER_BYTES).unwrap_or(0) + 4);
        Encoder::new(&mut out, kind::TCLUNK, OWN_TAG).u32(number).end();
        self.ask(&out, OWN_TAG, |_| Some(())).map(drop)
    }
}
